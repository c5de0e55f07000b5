"""Fixtures of the conformance tests."""

import dataclasses
from collections.abc import Callable

import jax
import pytest

from aliasfree_jax.models import alexnet_vgg, mobilenet
from aliasfree_jax.ops.choices import CHOICES


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """Networks without options for it are small too: one block in most stages."""
    monkeypatch.setattr(alexnet_vgg, "HIDDEN", 16)
    first, second, *others = mobilenet.STAGES
    stages = [first, second, *((*shape, 1, stride) for *shape, _, stride in others)]
    monkeypatch.setattr(mobilenet, "STAGES", tuple(stages))


@pytest.fixture
def cut(monkeypatch) -> Callable[[], None]:
    """Lets one image at a time fit; the suite's four devices would otherwise take the batch whole."""

    def one_image_at_a_time() -> None:
        monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=1))
        monkeypatch.setattr(jax, "device_count", lambda: 1)

    return one_image_at_a_time
