"""Fixtures that tests of transformed functions share."""

import pytest


@pytest.fixture
def k(draw):
    """Kernels: [3, 3, 3, 4, 4]."""
    return draw(3, 3, 3, 4, 4) / 6
