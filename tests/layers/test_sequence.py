"""Layers for sequences, compared with the layers for maps along one axis."""

import jax
import numpy as np
import pytest

from aliasfree_jax import layers
from aliasfree_jax.errors import ShapeError

TWINS = {
    "BlurPool": {"kernel_size": 5},
    "IdealDownsample": {},
    "IdealUpsample": {},
    "AdaptivePolyphase": {"criterion": "l1"},
    "PolyphaseUpsample": {},
}


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("name", TWINS)
def test_they_are_the_layers_for_maps(name, stride, draw, x64):
    x = draw(2, 12, 3)
    options = {key: (value, 1) if key == "kernel_size" else value for key, value in TWINS[name].items()}
    wide = getattr(layers, name)(strides=(stride, 1), **options).apply({}, x[:, :, None])
    narrow = getattr(layers, f"{name}1D")(strides=stride, **TWINS[name]).apply({}, x)
    np.testing.assert_array_equal(narrow, wide[:, :, 0])


@pytest.mark.parametrize("stride", [2, 3, 4, 6])
def test_down_and_up_commute_with_every_shift(stride, draw):
    down, up = layers.AdaptivePolyphase1D(stride), layers.PolyphaseUpsample1D(stride)

    def moved(x):
        return np.concatenate([np.roll(x, shift, axis=1) for shift in range(12)])

    @jax.jit
    def there_and_back(x):
        y, phase = down.apply({}, x, method="with_phase")
        again, same = down.apply({}, x, phase, method="with_phase")
        assert len(phase) == len(same)
        return y, again, up.apply({}, y, phase)

    y, again, found = there_and_back(moved(draw(1, 12, 2)))
    np.testing.assert_array_equal(again, y)
    assert np.count_nonzero(found[0]) == 2 * 12 // stride
    np.testing.assert_array_equal(found, moved(found[:1]))


def test_other_arrays_are_refused(draw):
    for name in TWINS:
        layer = getattr(layers, f"{name}1D")()
        with pytest.raises(
            ShapeError, match=r"expected floating-point sequences \[N, L, C\], got float32\[1,"
        ):
            layer.apply({}, draw(1, 8, 8, 3))
    with pytest.raises(ShapeError, match="sampling by 4 needs sequences of at least that length"):
        layers.AdaptivePolyphase1D(4).apply({}, draw(1, 3, 2))
