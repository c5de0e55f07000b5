"""Dense convolution: the product over patches compared with XLA's convolution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import conv2d_ref

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.choices import CHOICES
from aliasfree_jax.ops.convolution import conv2d, patches

# float64 rounding of sums of at most 147 products of order 1 in a different order.
EXACT = 1e-13


@pytest.fixture
def patches_to(monkeypatch):
    """Sets the largest number of channels for which a convolution runs over patches."""

    def limit(channels: int) -> None:
        monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], patches_to=channels))

    return limit


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("padding", ["VALID", "CIRCULAR", "ZERO", "REFLECT"])
def test_patches_give_the_same_value_and_gradients(size, padding, draw, x64, patches_to):
    x, kernel = draw(2, 9, 11, 3), draw(size, size, 3, 5, seed=1)

    def value_and_gradients():
        y, backward = jax.vjp(lambda x, k: conv2d(x, k, 1, padding), x, kernel)
        return y, *backward(jnp.sin(y))

    patches_to(0)
    expected = value_and_gradients()
    patches_to(4)
    for ours, theirs in zip(value_and_gradients(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=100 * EXACT)  # gradients sum 198 products of sums


def test_only_narrow_maps_at_stride_1_run_over_patches(draw, patches_to):
    patches_to(4)

    def primitive(channels: int, stride: int) -> bool:
        program = jax.make_jaxpr(lambda x, k: conv2d(x, k, stride))(
            draw(1, 8, 8, channels), draw(2, 2, channels, 3)
        )
        return "conv_general_dilated" in str(program)

    assert [primitive(4, 1), primitive(5, 1), primitive(4, 2)] == [False, True, True]


def test_patches_by_definition(draw):
    x = draw(1, 5, 6, 2)
    windows = patches(x, (3, 3))
    assert windows.shape == (1, 3, 4, 18)
    np.testing.assert_array_equal(windows[0, 1, 2], x[0, 1:4, 2:5].ravel())


@pytest.mark.parametrize("padding", ["CIRCULAR", "ZERO", "REPLICATE", "REFLECT"])
@pytest.mark.parametrize("size", [1, 2, 3, (4, 5)])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
def test_dilated_convolution_by_definition(size, dilation, padding, draw, x64):
    window, steps = ((n, n) if isinstance(n, int) else n for n in (size, dilation))
    x, kernel = draw(2, 9, 11, 3), draw(*window, 3, 5, seed=1)
    y = conv2d(x, kernel, padding=padding, dilation=dilation)
    np.testing.assert_allclose(y, conv2d_ref(*map(np.asarray, (x, kernel)), steps, padding), atol=EXACT)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 4), (7, 5)])
@pytest.mark.parametrize("dilation", [2, 6, 18, 36])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_circular_dilated_convolution_goes_round_any_map(size, dilation, shape, draw, x64):
    x, kernel = draw(1, *shape, 3), draw(size, size, 3, 2, seed=1)
    y = conv2d(x, kernel, padding="CIRCULAR", dilation=dilation)
    expected = conv2d_ref(np.asarray(x), np.asarray(kernel), (dilation, dilation), "CIRCULAR")
    np.testing.assert_allclose(y, expected, atol=EXACT)
    moved = conv2d(jnp.roll(x, (1, 2), (1, 2)), kernel, padding="CIRCULAR", dilation=dilation)
    np.testing.assert_allclose(moved, jnp.roll(y, (1, 2), (1, 2)), atol=EXACT)


def test_a_dilated_window_needs_a_larger_map(draw):
    x, kernel = draw(1, 4, 4, 3), draw(3, 3, 3, 2)
    with pytest.raises(ShapeError, match="windows of 5 x 5 need a larger map than 4 x 4"):
        conv2d(x, kernel, padding="VALID", dilation=2)
    with pytest.raises(ShapeError, match=r"REFLECT padding by \(6, 6\) needs a larger map"):
        conv2d(x, kernel, padding="REFLECT", dilation=6)
