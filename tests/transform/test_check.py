"""What `check` finds in a program, against what shifts do to its results."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax import create_model, layers, ops
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.transform.checking import check

SIDE = 20
KERNEL = np.random.default_rng(3).standard_normal((3, 3, 3, 4)) / 5
FLAT = np.random.default_rng(4).standard_normal((SIDE * SIDE * 3, 2)) / 20
PLACES = np.random.default_rng(5).standard_normal((SIDE, SIDE, 3))
TAPS = np.random.default_rng(6).standard_normal((2, 2, 3, 4)) / 5


def conv(x, strides=1, padding="CIRCULAR"):
    return ops.conv2d(x, jnp.asarray(KERNEL, x.dtype), strides, padding)


def mean(x):
    return x.mean((1, 2))


def layer(module):
    """A layer with its initial parameters."""

    def call(x):
        variables = module.init(jax.random.key(0), jnp.zeros(x.shape, x.dtype))
        return module.apply(variables, x)

    return call


def norm_over_channels(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-3)


def attention(x):
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    return (jax.nn.softmax(tokens @ tokens.swapaxes(1, 2), -1) @ tokens).mean(1)


def with_coordinates(x):
    both = jnp.concatenate([x, jnp.broadcast_to(PLACES, x.shape)], -1)
    return mean(both[..., :3] * both[..., 3:])


def scanned(x):
    return jax.lax.scan(lambda y, _: (conv(y)[..., :3], None), x, length=2)[0]


def polyphase(x):
    return layers.AdaptivePolyphase(2, parent=None).apply({}, x)


def by_taps(x):
    """An ideal sampler before a convolution, as one operation that lays taps side by side."""
    sampled = ops.resample.ideal_strided_taps(x, 2, taps=2)
    return ops.conv2d(sampled, jnp.asarray(TAPS, x.dtype), 2, "VALID")


def quadratic(x):
    return ops.up_polynomial_down(x, jnp.asarray([0.1, 0.5, 0.3], x.dtype))


def lowpass_quadratic(x):
    return ops.lowpass_polynomial(x, ops.ideal_lowpass(x, 0.5), jnp.asarray([0.1, 0.5, 0.3], x.dtype))


NOTHING, WHOLE, FRACTIONS = "", "whole pixels", "fractions"

# Functions of images, and the least shifts that change their results.
CASES = {
    "mean": (lambda x: mean(conv(x)), NOTHING),
    "a strided slice": (lambda x: mean(conv(x)[:, ::2, ::2] ** 3), WHOLE),
    "a strided convolution": (lambda x: mean(conv(x, 2) ** 3), WHOLE),
    "zero padding": (lambda x: mean(conv(x, 1, "ZERO")), WHOLE),
    "mirrored padding": (lambda x: mean(conv(x, 1, "REFLECT")), WHOLE),
    "no padding": (lambda x: mean(conv(x, 1, "VALID")), WHOLE),
    "a strided max pool": (lambda x: mean(ops.max_pool(x, 2, 2)), WHOLE),
    "flax's max pool": (lambda x: mean(nn.max_pool(x, (2, 2), (2, 2))), WHOLE),
    "a max pool": (lambda x: mean(ops.max_pool(x, 2, 1, "CIRCULAR")), FRACTIONS),
    "an average pool": (lambda x: mean(nn.avg_pool(x, (2, 2), (2, 2)) ** 3), WHOLE),
    "blocks": (lambda x: mean(ops.pooling.average_pool(x, 2) ** 3), WHOLE),
    "flatten": (lambda x: x.reshape(len(x), -1) @ FLAT.astype(x.dtype), WHOLE),
    "a position embedding": (lambda x: mean((x + PLACES) ** 2), WHOLE),
    "a mask": (lambda x: mean(x * PLACES), WHOLE),
    "coordinates": (with_coordinates, WHOLE),
    "a corner": (lambda x: x[:, 0, 0], WHOLE),
    "a crop": (lambda x: mean(x[:, 2:]), WHOLE),
    "blur": (lambda x: mean(layer(layers.BlurPool(2))(x) ** 3), WHOLE),
    "a running sum": (lambda x: mean(jnp.cumsum(x, 1) ** 2), WHOLE),
    "a resized map": (lambda x: mean(jax.image.resize(x, (len(x), 9, 9, 3), "linear") ** 3), WHOLE),
    "a roll": (lambda x: mean(conv(jnp.roll(x, 3, 1)) ** 2), NOTHING),
    "a step of a loop": (lambda x: mean(scanned(x)), NOTHING),
    "polyphase": (lambda x: mean(polyphase(conv(x)) ** 2), FRACTIONS),
    "relu": (lambda x: mean(jax.nn.relu(conv(x))), FRACTIONS),
    "gelu": (lambda x: mean(jax.nn.gelu(conv(x))), FRACTIONS),
    "relu in remat": (lambda x: mean(jax.checkpoint(lambda y: jax.nn.relu(conv(y)))(x)), FRACTIONS),
    "a square": (lambda x: mean(conv(x) ** 2), NOTHING),
    "a cube": (lambda x: mean(conv(x) ** 3), FRACTIONS),
    "squares of squares": (lambda x: mean((conv(x) ** 2) ** 2), FRACTIONS),
    "a filtered square": (lambda x: mean(ops.ideal_lowpass(conv(x) ** 2, 0.5) ** 2), FRACTIONS),
    "a product": (lambda x: mean(x[..., :1] * x[..., 1:] * conv(x)[..., :2]), FRACTIONS),
    "products over places": (lambda x: jnp.einsum("nhwc,nhwd->ncd", x, conv(x)), NOTHING),
    "the largest": (lambda x: x.max((1, 2)), FRACTIONS),
    "the largest channel": (lambda x: mean(x.max(-1)), FRACTIONS),
    "sorted channels": (lambda x: mean(jnp.sort(x, -1)), FRACTIONS),
    "a norm over channels": (lambda x: mean(norm_over_channels(x)), FRACTIONS),
    "a norm over places": (lambda x: mean(layer(layers.SpatialNorm())(conv(x)) ** 2), NOTHING),
    "ideal": (lambda x: mean(ops.ideal_downsample(conv(x)) ** 2), NOTHING),
    "ideal by taps": (lambda x: mean(by_taps(x) ** 2), NOTHING),
    "ideal, uneven": (lambda x: mean(ops.ideal_downsample(x, 3) ** 2), WHOLE),
    "ideal, any size": (lambda x: mean(ops.ideal_downsample(x, 3, any_size=True) ** 2), NOTHING),
    "relu behind ideal": (lambda x: mean(jax.nn.relu(ops.ideal_downsample(x))), WHOLE),
    "polyphase behind ideal": (lambda x: mean(polyphase(ops.ideal_downsample(x)) ** 2), WHOLE),
    "a filter, then every second": (lambda x: mean(ops.ideal_lowpass(x, 0.5)[:, ::2, ::2] ** 2), NOTHING),
    "a finer grid and back": (lambda x: mean(quadratic(x) ** 2), NOTHING),
    "a square on a fine grid": (lambda x: mean(ops.ideal_upsample(x, 2) ** 3), NOTHING),
    "a low-pass quadratic": (lambda x: mean(ops.ideal_downsample(lowpass_quadratic(x)) ** 2), NOTHING),
    "a low-pass quadratic alone": (lambda x: mean(lowpass_quadratic(x) ** 2), FRACTIONS),
}


def band_limited(x):
    """Without the frequencies at half the sides, which no shift by fractions keeps."""
    return ops.resample.remove_nyquist(x)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:a map of")
def test_findings_are_what_shifts_change(name, draw, x64):
    f, least = CASES[name]
    images = band_limited(draw(2, SIDE, SIDE, 3))
    run = jax.jit(f)
    still = run(images)

    def change(*shifts):
        moved = (run(ops.fractional_shift(images, shift)) for shift in shifts)
        return max(float(abs(y - still).max() / abs(still).max()) for y in moved)

    by_whole, by_fractions = change((1.0, 0.0), (5.0, 3.0)), change((0.5, 0.0), (0.3, 2.7))
    # Rounding of float64 through some hundred sums is 1e-13; what aliases changes by far more.
    assert (by_whole > 1e-7) == (least == WHOLE) and (by_whole < 1e-11) == (least != WHOLE)
    assert (by_fractions > 1e-7) == (least != NOTHING) and (by_fractions < 1e-11) == (least == NOTHING)
    assert bool(check(f, images)) == (least == WHOLE)
    found = check(f, images, shifts="fractions")
    assert bool(found) == (least != NOTHING)
    assert {finding.shifts for finding in found} >= ({least} - {NOTHING})
    assert WHOLE not in {finding.shifts for finding in found} or least == WHOLE
