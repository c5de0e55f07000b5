"""Fixtures of the conformance tests."""

import dataclasses
from collections.abc import Callable

import jax
import pytest

from aliasfree_jax.models import alexnet_vgg, mobilenet
from aliasfree_jax.ops.choices import CHOICES


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """Shrinks networks that have no option for it: one block in most stages."""
    monkeypatch.setattr(alexnet_vgg, "HIDDEN", 16)
    first, second, *others = mobilenet.STAGES
    stages = [first, second, *((*shape, 1, stride) for *shape, _, stride in others)]
    monkeypatch.setattr(mobilenet, "STAGES", tuple(stages))


@pytest.fixture
def cut(monkeypatch) -> Callable[[], None]:
    """Returns a function that makes batches run one image at a time, as on one device with little cache."""

    def one_image_at_a_time() -> None:
        monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=1))
        monkeypatch.setattr(jax, "device_count", lambda: 1)

    return one_image_at_a_time
