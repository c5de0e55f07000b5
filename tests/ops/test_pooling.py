"""Pools, compared with definitions by loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.blurring import adaptive_blur
from aliasfree_jax.ops.pooling import adaptive_average_pool, average_pool, max_pool, windows

NUMPY_MODE = {"CIRCULAR": "wrap", "ZERO": "constant", "REPLICATE": "edge", "REFLECT": "reflect"}


@pytest.mark.parametrize(("size", "stride"), list(itertools.product((1, 2, 3), (1, 2))))
@pytest.mark.parametrize("padding", ["VALID", "SAMPLES", *NUMPY_MODE])
def test_max_pool(size, stride, padding, draw):
    x = draw(2, 7, 8, 3) - 3  # mostly negative: padded zeros would win
    before, after = (size - 1) // 2, size // 2
    amounts = ((0, 0), (before, after), (before, after), (0, 0))
    wide = np.asarray(x)
    if padding == "SAMPLES":
        wide, padding = np.pad(wide, amounts, constant_values=-np.inf), amounts[1:3]
    elif padding != "VALID":
        wide = np.pad(wide, amounts, mode=NUMPY_MODE[padding])
    windows = np.lib.stride_tricks.sliding_window_view(wide, (size, size), axis=(1, 2))
    np.testing.assert_array_equal(
        max_pool(x, size, stride, padding), windows.max(axis=(-1, -2))[:, ::stride, ::stride]
    )


def test_max_pool_is_xlas(draw):
    x = draw(2, 9, 8, 3)
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    expected = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)
    np.testing.assert_array_equal(max_pool(x, 3, 2, 1), expected)
    weights = draw(*expected.shape, seed=1)

    def ours(x):
        return jnp.sum(weights * max_pool(x, 3, 2, 1))

    def xlas(x):
        y = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)
        return jnp.sum(weights * y)

    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(xlas)(x), atol=1e-6)


@pytest.mark.parametrize(("side", "bins"), [(12, 6), (7, 6), (13, 7), (3, 7), (1, 6), (6, 6)])
def test_adaptive_average_pool(side, bins, draw):
    x = draw(2, side, side + 1, 3)
    y = adaptive_average_pool(x, (bins, 2))
    for i, j in itertools.product(range(bins), range(2)):
        rows = slice(i * side // bins, -(-(i + 1) * side // bins))
        columns = slice(j * (side + 1) // 2, -(-(j + 1) * (side + 1) // 2))
        np.testing.assert_allclose(y[:, i, j], x[:, rows, columns].mean((1, 2)), atol=1e-6)


def test_average_pool_leaves_incomplete_blocks_out(draw):
    x = draw(1, 5, 6, 2)
    np.testing.assert_allclose(average_pool(x)[0, 1, 2], x[0, 2:4, 4:6].mean((0, 1)), atol=1e-6)
    assert average_pool(x).shape == (1, 2, 3, 2)


def test_adaptive_blur_by_definition(draw):
    x, weights = draw(2, 5, 6, 4), draw(2, 5, 6, 2, 3, 3, seed=1)
    y = adaptive_blur(x, weights)
    wide = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    for i, j, c in itertools.product(range(5), range(6), range(4)):
        window = wide[:, i : i + 3, j : j + 3, c]
        np.testing.assert_allclose(y[:, i, j, c], (window * weights[:, i, j, c // 2]).sum((1, 2)), atol=1e-5)


def test_wrong_arguments_are_named(draw):
    x = draw(1, 4, 4, 3)
    with pytest.raises(ConfigError, match="unknown padding 'same'"):
        max_pool(x, 2, 1, "same")
    with pytest.raises(ShapeError, match="windows of 5 x 5 need a larger map than 4 x 4"):
        max_pool(x, 5)
    with pytest.raises(ShapeError, match="sampling by 2 x 2 needs a map of at least that size, got 1 x 4"):
        average_pool(x[:, :1])
    with pytest.raises(ShapeError, match="got a 3 x 3 filter, 3 channels and 2 groups"):
        adaptive_blur(x, draw(1, 4, 4, 2, 3, 3))


def test_windows_are_flattened_as_a_map_is(draw):
    x = draw(2, 5, 4, 3)
    found = windows(x, 3)
    assert found.shape == (2, 3, 2, 27)
    for i, j in itertools.product(range(3), range(2)):
        np.testing.assert_array_equal(found[:, i, j], x[:, i : i + 3, j : j + 3].reshape(2, 27))
    with pytest.raises(ShapeError, match="by 5 x 5 needs a map of at least that size"):
        windows(x, 5)
