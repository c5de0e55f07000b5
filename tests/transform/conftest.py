"""Shared fixtures for tests of transformed functions."""

import pytest


@pytest.fixture
def k(draw):
    """Three kernels, as an array [3, 3, 3, 4, 4]."""
    return draw(3, 3, 3, 4, 4) / 6
