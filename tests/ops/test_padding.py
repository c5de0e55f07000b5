"""Padding: the four modes compared with numpy, and maps that are too small."""

import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.padding import check_padding, pad, same_padding


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("CIRCULAR", [3, 4, 1, 2, 3, 4, 1]),
        ("ZERO", [0, 0, 1, 2, 3, 4, 0]),
        ("REFLECT", [3, 2, 1, 2, 3, 4, 3]),
        ("REPLICATE", [1, 1, 1, 2, 3, 4, 4]),
    ],
)
def test_each_mode_continues_a_row_its_own_way(mode, expected):
    row = jnp.arange(1.0, 5.0)
    across = pad(row.reshape(1, 1, 4, 1), ((0, 0), (2, 1)), mode)
    down = pad(row.reshape(1, 4, 1, 1), ((2, 1), (0, 0)), mode)
    np.testing.assert_array_equal(across.ravel(), expected)
    np.testing.assert_array_equal(down.ravel(), expected)
    assert across.shape == (1, 1, 7, 1) and down.shape == (1, 7, 1, 1)


def test_rows_and_columns_take_their_own_amounts(draw):
    x = draw(2, 5, 6, 3)
    y = pad(x, ((1, 2), (3, 0)), "CIRCULAR")
    assert y.shape == (2, 8, 9, 3)
    np.testing.assert_array_equal(y[:, 1:6, 3:], x)
    np.testing.assert_array_equal(y[:, 0, 3:], x[:, -1])
    np.testing.assert_array_equal(y[:, 1:6, :3], x[:, :, -3:])


@pytest.mark.parametrize(
    ("size", "amounts"),
    [(1, (0, 0)), (2, (0, 1)), (3, (1, 1)), (4, (1, 2)), (5, (2, 2)), (6, (2, 3)), (7, (3, 3))],
)
def test_even_filters_get_the_extra_sample_behind(size, amounts):
    assert same_padding(size) == amounts


@pytest.mark.parametrize(
    ("mode", "side", "amount", "fits"),
    [
        ("CIRCULAR", 3, 3, True),
        ("CIRCULAR", 2, 3, False),
        ("REFLECT", 4, 3, True),
        ("REFLECT", 3, 3, False),
        ("ZERO", 1, 3, True),
        ("REPLICATE", 1, 3, True),
    ],
)
def test_pytorchs_rule_of_the_smallest_map(mode, side, amount, fits):
    for axis in (1, 2):
        shape = [1, 9, 9, 1]
        shape[axis] = side
        amounts = [(0, 0), (0, 0)]
        amounts[axis - 1] = (amount, amount)
        if fits:
            assert pad(jnp.zeros(shape), tuple(amounts), mode).shape[axis] == side + 2 * amount
        else:
            name = ("height", "width")[axis - 1]
            with pytest.raises(
                ShapeError, match=rf"{mode} padding by .* needs a larger map: {name} is {side}"
            ):
                pad(jnp.zeros(shape), tuple(amounts), mode)


def test_the_larger_of_two_uneven_amounts_counts():
    with pytest.raises(ShapeError, match=r"padding by \(0, 3\)"):
        pad(jnp.zeros((1, 2, 2, 1)), ((0, 3), (0, 0)), "CIRCULAR")


def test_an_unknown_mode_names_the_near_one():
    with pytest.raises(ConfigError, match="unknown padding 'CIRCULR'. Did you mean 'CIRCULAR'"):
        check_padding("CIRCULR")
    with pytest.raises(ConfigError, match="Known: CIRCULAR, REFLECT, REPLICATE, ZERO"):
        pad(jnp.zeros((1, 4, 4, 1)), ((1, 1), (1, 1)), "wrap")


@pytest.mark.parametrize("mode", ["CIRCULAR", "ZERO", "REFLECT", "REPLICATE"])
def test_bfloat16_stays(mode, draw):
    assert pad(draw(1, 4, 4, 1, dtype="bfloat16"), ((1, 1), (1, 1)), mode).dtype == jnp.bfloat16
