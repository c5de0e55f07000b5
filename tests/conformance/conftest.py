"""Fixtures of the conformance tests."""

import dataclasses
from collections.abc import Callable

import jax
import pytest

from aliasfree_jax.ops.choices import CHOICES


@pytest.fixture
def cut(monkeypatch) -> Callable[[], None]:
    """Lets one image at a time fit; the suite's four devices would otherwise take the batch whole."""

    def one_image_at_a_time() -> None:
        monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=1))
        monkeypatch.setattr(jax, "device_count", lambda: 1)

    return one_image_at_a_time
