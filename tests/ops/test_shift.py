"""Circular shifts by whole and fractional numbers of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.resample import ideal_resample, ideal_upsample
from aliasfree_jax.ops.shift import fractional_shift, integer_shift

# float64 rounding of sums of at most 33 terms of order 1, and of the angles.
EXACT = 1e-12
# The same in float32, for maps of up to 32 samples.
SINGLE = 1e-5


def band_limited(x: jax.Array) -> jax.Array:
    """Removes the Nyquist frequencies of even sides."""
    below = tuple(side - 1 + side % 2 for side in x.shape[1:3])
    return ideal_resample(ideal_resample(x, below), x.shape[1:3])


def test_integer_shift_rolls_each_image_by_its_own_pair(draw):
    x = draw(4, 5, 6, 2)
    shifts = np.array([[1, 0], [-2, 3], [0, 0], [1001, -999]])
    rolled = [np.roll(image, shift, axis=(0, 1)) for image, shift in zip(np.asarray(x), shifts, strict=True)]
    np.testing.assert_array_equal(integer_shift(x, shifts), rolled)
    np.testing.assert_array_equal(jax.jit(integer_shift)(x, jnp.asarray(shifts)), rolled)


def test_integer_shift_keeps_the_dtype(draw):
    shift = jnp.ones((1, 2), jnp.int32)
    assert integer_shift(draw(1, 4, 4, 1, dtype="bfloat16"), shift).dtype == jnp.bfloat16
    assert integer_shift(jnp.ones((1, 4, 4, 1), jnp.uint8), shift).dtype == jnp.uint8


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-7, 40)])
@pytest.mark.parametrize("size", [(8, 7), (5, 6)], ids="{0[0]}x{0[1]}".format)
def test_whole_pixels_are_a_roll(size, shift, draw, x64):
    x = draw(2, *size, 3)
    expected = jnp.roll(x, shift, axis=(1, 2))
    np.testing.assert_allclose(fractional_shift(x, tuple(map(float, shift))), expected, atol=EXACT)
    np.testing.assert_allclose(fractional_shift(x, jnp.array([shift] * 2)), expected, atol=EXACT)


def test_positive_shifts_move_down_and_right(x64):
    x = jnp.zeros((1, 6, 6, 1)).at[0, 1, 2, 0].set(1.0)
    assert float(fractional_shift(x, (2.0, 1.0))[0, 3, 3, 0]) == pytest.approx(1.0)


@pytest.mark.parametrize("shift", [(0.5, 0.5), (1 / 3, -2.7), (0.123, 7.77)])
@pytest.mark.parametrize("size", [(8, 7), (6, 9)], ids="{0[0]}x{0[1]}".format)
def test_a_shift_moves_the_band_limited_function(size, shift, x64):
    def scene(down: float, right: float) -> jax.Array:
        rows = 2 * jnp.pi * (jnp.arange(size[0]) - down) / size[0]
        columns = 2 * jnp.pi * (jnp.arange(size[1]) - right) / size[1]
        picture = jnp.cos(2 * rows + 1)[:, None] * jnp.sin(2 * columns)[None, :] + jnp.sin(rows)[:, None]
        return picture[None, :, :, None]

    np.testing.assert_allclose(fractional_shift(scene(0, 0), shift), scene(*shift), atol=EXACT)


@pytest.mark.parametrize("size", [(8, 7), (14, 12)], ids="{0[0]}x{0[1]}".format)
def test_shifts_add_for_band_limited_images(size, draw, x64):
    x = draw(1, *size, 2)
    first, second = (0.3, -1.7), (0.45, 2.2)
    both = tuple(a + b for a, b in zip(first, second, strict=True))
    smooth = band_limited(x)
    np.testing.assert_allclose(
        fractional_shift(fractional_shift(smooth, first), second), fractional_shift(smooth, both), atol=EXACT
    )
    np.testing.assert_allclose(
        fractional_shift(fractional_shift(smooth, first), (-first[0], -first[1])), smooth, atol=EXACT
    )
    # Negative control: the Nyquist frequency loses amplitude in each shift.
    raw = fractional_shift(fractional_shift(x, first), second) - fractional_shift(x, both)
    assert float(jnp.abs(raw).max()) > 1e-2


def test_the_nyquist_frequency_is_multiplied_by_a_cosine(x64):
    n, shift = 8, 0.3
    wave = jnp.broadcast_to(((-1.0) ** jnp.arange(n))[None, :, None, None], (1, n, n, 1))
    np.testing.assert_allclose(
        fractional_shift(wave, (shift, 0.0)), wave * jnp.cos(jnp.pi * shift), atol=EXACT
    )


@pytest.mark.parametrize(("up", "steps"), [(2, (1, 1)), (3, (1, -2)), (4, (7, 2))])
def test_a_shift_is_interpolate_roll_and_drop(up, steps, draw, x64):
    x = draw(1, 8, 7, 2)
    expected = jnp.roll(ideal_upsample(x, up), steps, axis=(1, 2))[:, ::up, ::up]
    np.testing.assert_allclose(fractional_shift(x, (steps[0] / up, steps[1] / up)), expected, atol=EXACT)


@pytest.mark.parametrize("size", [(8, 7), (1, 2)], ids="{0[0]}x{0[1]}".format)
def test_pairs_in_an_array_equal_pairs_of_numbers(size, draw, x64):
    x = draw(3, *size, 2)
    shifts = np.array([[0.3, -1.7], [12.5, 0.0], [-2 / 3, 5.25]])
    expected = np.stack([fractional_shift(x, tuple(pair))[i] for i, pair in enumerate(shifts.tolist())])
    np.testing.assert_allclose(fractional_shift(x, shifts), expected, atol=EXACT)
    np.testing.assert_allclose(jax.jit(fractional_shift)(x, jnp.asarray(shifts)), expected, atol=EXACT)


def test_large_shifts_cost_no_accuracy_in_float32(draw):
    x = draw(1, 32, 30, 2)
    # Shifts that float32 represents exactly and whose remainders modulo the sides are small.
    for turns in (1, 300, 20_000):
        near, far = (0.25, -1.5), (0.25 + 32 * turns, -1.5 - 30 * turns)
        expected = fractional_shift(x, near)
        np.testing.assert_allclose(fractional_shift(x, far), expected, atol=SINGLE)
        np.testing.assert_allclose(fractional_shift(x, jnp.array([far], jnp.float32)), expected, atol=SINGLE)


def test_gradients_with_respect_to_the_shift(draw, x64):
    x, weights = draw(1, 8, 7, 2), draw(1, 8, 7, 2, seed=1)

    @jax.jit
    def loss(shift: jax.Array) -> jax.Array:
        return jnp.sum(weights * fractional_shift(x, shift))

    gradient_of, step = jax.jit(jax.grad(loss)), 1e-6
    for shift in ([[0.3, -1.2]], [[0.0, 2.0]], [[0.5, 40.5]]):
        gradient = gradient_of(jnp.array(shift))[0]
        for axis, change in enumerate(step * np.eye(2)):
            numerical = (loss(shift + change) - loss(shift - change)) / (2 * step)
            # Central differences have an error of step^2, and rounding of 1e-15 / step.
            assert float(gradient[axis]) == pytest.approx(float(numerical), abs=1e-7)


def test_bfloat16_in_bfloat16_out(draw):
    x = draw(2, 8, 8, 1)
    for shift in ((0.5, 0.25), jnp.array([[0.5, 0.25]] * 2)):
        y = fractional_shift(x.astype(jnp.bfloat16), shift)
        assert y.dtype == jnp.bfloat16
        # 8 bits of mantissa.
        np.testing.assert_allclose(y.astype(jnp.float32), fractional_shift(x, shift), atol=0.06)


def test_wrong_shifts_are_named(draw):
    x = draw(3, 4, 4, 1)
    with pytest.raises(ShapeError, match=r"one \(down, right\) pair per image, \[3, 2\], got \[2, 2\]"):
        fractional_shift(x, jnp.zeros((2, 2)))
    with pytest.raises(ShapeError, match=r"one \(down, right\) pair per image, \[3, 2\], got \[2\]"):
        integer_shift(x, np.array([1, 2]))
    with pytest.raises(
        ShapeError, match="expected integer shifts, got float32: use fractional_shift for real numbers"
    ):
        integer_shift(x, jnp.zeros((3, 2)))
    with pytest.raises(ShapeError, match="got 3 numbers"):
        fractional_shift(x, (1.0, 2.0, 3.0))
    with pytest.raises(ShapeError, match="expected floating-point images"):
        fractional_shift(jnp.zeros((3, 4, 4, 1), jnp.uint8), jnp.zeros((3, 2)))
    with pytest.raises(ConfigError, match="array of shifts needs method='matmul', got 'fft'"):
        fractional_shift(x, jnp.zeros((3, 2)), method="fft")


def test_shifts_beyond_the_range_of_integers(draw):
    """The product of a shift and a frequency may exceed 2^31."""
    x = draw(1, 225, 225, 1)
    moved = fractional_shift(x, jnp.array([[2.0**26, 0.0]]))
    np.testing.assert_allclose(moved, jnp.roll(x, 2**26 % 225, 1), atol=SINGLE * 10)  # larger maps
