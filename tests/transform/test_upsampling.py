"""Decoders: transposed convolutions, copies, depth to space and resizes, transformed, checked and refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from aliasfree_jax import check, layers, ops, shift_invariant
from aliasfree_jax.layers.upsampling import BilinearUpsample
from aliasfree_jax.transform import TransformError

NUMBERS = ("NHWC", "HWIO", "NHWC")
RNG = np.random.default_rng(0)
KERNELS = {size: RNG.standard_normal((size, size, 4, 4)) / (2 * size) for size in (1, 2, 3, 4)}
MIXED = RNG.standard_normal((3, 3, 8, 4)) / 6
TO_BLOCKS = RNG.standard_normal((4, 16)) / 2
IMAGES = jax.ShapeDtypeStruct((2, 8, 12, 4), jnp.float32)
EXACT = 1e-11  # rounding of float64 through a few layers is 1e-14


def conv(x, size=3, stride=1):
    kernel = jnp.asarray(KERNELS[size], x.dtype)
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=NUMBERS)


def transposed(x, size=2, stride=2, padding="SAME"):
    kernel = jnp.asarray(KERNELS[size], x.dtype)
    return lax.conv_transpose(x, kernel, (stride, stride), padding, dimension_numbers=NUMBERS)


def resized(x, method, factor=2):
    n, h, w, c = x.shape
    return jax.image.resize(x, (n, factor * h, factor * w, c), method)


def depth_to_space(x):
    n, h, w, _ = x.shape
    blocks = (x @ jnp.asarray(TO_BLOCKS, x.dtype)).reshape(n, h, w, 2, 2, 4)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, 4)


def broadcast(x):
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


UPSAMPLINGS = {
    "a transposed convolution, 2 x 2": transposed,
    "a transposed convolution, 3 x 3": lambda x: transposed(x, 3),
    "a transposed convolution, 4 x 4": lambda x: transposed(x, 4),
    "a transposed convolution, cropped": lambda x: transposed(x, 3, padding="VALID")[:, :-1, :-1],
    "zeros between": lambda x: conv(
        lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *2 * [(0, 1, 1)], (0, 0, 0)])
    ),
    "repeat": lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 2, 2),
    "repeat, columns first": lambda x: jnp.repeat(jnp.repeat(x, 2, 2), 2, 1),
    "broadcast": broadcast,
    "depth to space": depth_to_space,
    "nearest": lambda x: resized(x, "nearest"),
    "bilinear": lambda x: resized(x, "bilinear"),
    "bilinear, rows before columns": lambda x: jax.image.resize(
        jax.image.resize(x, (*x.shape[:1], 2 * x.shape[1], *x.shape[2:]), "linear"),
        (*x.shape[:1], 2 * x.shape[1], 2 * x.shape[2], x.shape[3]),
        "linear",
    ),
    "bilinear, of this package": lambda x: BilinearUpsample(align_corners=False).apply({}, x),
    "cubic": lambda x: resized(x, "cubic"),
    "bilinear, image by image": jax.vmap(lambda x: resized(x[None], "bilinear")[0]),
    "bilinear of [H, W, C] under vmap": jax.vmap(
        lambda x: jax.image.resize(x, (2 * x.shape[0], 2 * x.shape[1], x.shape[2]), "bilinear")
    ),
    "in jit and remat": jax.jit(jax.checkpoint(transposed)),
}


def unet(x, up):
    skip = jax.nn.gelu(conv(x))
    coarse = jax.nn.gelu(conv(jax.nn.gelu(conv(skip, 3, 2))))
    joined = jnp.concatenate([up(coarse), skip], -1)
    return lax.conv_general_dilated(
        joined, jnp.asarray(MIXED, x.dtype), (1, 1), "SAME", dimension_numbers=NUMBERS
    )


def error(f, images, shift):
    """The difference between f(shift x) and shift f(x), relative to the largest value."""
    whole = all(float(s).is_integer() for s in shift)
    if whole:
        by = tuple(map(int, shift))

        def move(x):
            return jnp.roll(x, by, (1, 2))

    else:
        images = ops.resample.remove_nyquist(images)

        def move(x):
            return ops.fractional_shift(x, shift)

    y = jax.jit(f)(jnp.concatenate([images, move(images)]))  # one program for both
    still, moved = move(y[: len(images)]), y[len(images) :]
    return float(abs(moved - still).max() / abs(still).max())


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_unets_become_equivariant(name, draw, x64):
    images = draw(2, *IMAGES.shape[1:]).astype(jnp.float64)

    def f(x):
        return unet(x, UPSAMPLINGS[name])

    assert error(f, images, (1, 3)) > 1e-2
    assert error(shift_invariant(f), images, (1, 3)) < EXACT
    ideal = shift_invariant(f, sampler="ideal", activations="polynomial")
    assert error(ideal, images, (0.5, 1 / 3)) < EXACT


def by_four(x):
    """Samples by 2 twice and upsamples by 4 once, as in DeepLab."""
    return conv(x) + resized(conv(jax.nn.gelu(conv(x, 3, 2)), 3, 2), "bilinear", 4)


def patches(x):
    """Samples by 4 once and upsamples by 2 twice."""
    return transposed(jax.nn.gelu(transposed(conv(x, 4, 4)))) + x


def own_sampler(x):
    """A sampler of this package, with an upsampling that does not know its phase."""
    return x + transposed(ops.polyphase_downsample(conv(x))[0])


def pooled(x):
    """A max pool, and depth to space."""
    x = conv(x)
    return depth_to_space(lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")) * x


@pytest.mark.parametrize("f", [by_four, patches, own_sampler, pooled])
def test_other_ways_down_and_up(f, draw, x64):
    images = draw(2, 8, 12, 4).astype(jnp.float64)
    assert error(f, images, (1, 3)) > 1e-2
    assert error(shift_invariant(f), images, (1, 3)) < EXACT


def channels_first(f):
    return lambda x: f(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def pixel_shuffle(x):
    """A pixel shuffle of [N, C, H, W], as in PyTorch."""
    kernel = jnp.asarray(np.tile(KERNELS[3], 4), x.dtype)
    y = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW"))
    n, _, h, w = y.shape
    y = jax.nn.relu(y).reshape(n, 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, 4, 2 * h, 2 * w) * x


def stacked(x):
    coarse = jax.nn.relu(conv(x, 3, 2))
    columns = jnp.stack([coarse, 2 * coarse], 3).reshape(2, 4, 12, 4)
    return jnp.stack([columns, -columns], 2).reshape(2, 8, 12, 4) * x


def in_turns(x):
    return lax.scan(lambda x, _: (jnp.tanh(transposed(jnp.tanh(conv(x, 3, 2)))), None), x, None, length=2)[0]


def rows_alone(x):
    kernel = jnp.asarray(KERNELS[3], x.dtype)
    coarse = lax.conv_general_dilated(x, kernel, (2, 1), "SAME", dimension_numbers=NUMBERS)
    return jnp.repeat(jax.nn.relu(coarse), 2, 1) * x


LAYOUTS = {
    "pixel shuffle": (pixel_shuffle, (2, 4, 8, 12), (2, 3)),
    "channels first": (channels_first(lambda x: unet(x, transposed)), (2, 4, 8, 12), (2, 3)),
    "a single image": (lambda x: unet(x[None], lambda y: resized(y, "linear"))[0], (8, 12, 4), (0, 1)),
    "stacked": (stacked, (2, 8, 12, 4), (1, 2)),
    "in a loop": (in_turns, (2, 8, 12, 4), (1, 2)),
    "rows alone": (rows_alone, (2, 8, 12, 4), (1, 2)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name, draw, x64):
    f, shape, axes = LAYOUTS[name]
    images, transformed = draw(*shape).astype(jnp.float64), shift_invariant(f, spatial_axes=axes)

    def error_of(f):
        still, moved = jnp.roll(f(images), (1, 3), axes), f(jnp.roll(images, (1, 3), axes))
        return float(abs(moved - still).max() / abs(still).max())

    assert error_of(jax.jit(f)) > 1e-2
    assert error_of(jax.jit(transformed)) < EXACT


def flax_circular(size):
    """Flax's circular transposed convolution. It wraps values if windows are larger than the stride."""
    layer = nn.ConvTranspose(4, (size, size), (2, 2), padding="CIRCULAR", use_bias=False)
    return lambda x: layer.apply({"params": {"kernel": jnp.asarray(KERNELS[size], x.dtype)}}, x)


def test_circular_transposed_convolutions_of_flax_stay(draw):
    f, images = flax_circular(2), draw(2, 8, 12, 4)
    np.testing.assert_allclose(shift_invariant(f)(images), f(images), rtol=1e-5, atol=1e-6)  # float32


@pytest.mark.parametrize("up", [transposed, broadcast, depth_to_space, lambda x: resized(x, "nearest")])
def test_maps_of_one_place_are_upsampled(up, draw, x64):
    def f(x):
        return unet(x, up)

    images = draw(2, 2, 2, 4).astype(jnp.float64)
    assert error(shift_invariant(f), images, (1, 0)) < EXACT


def test_finer_maps_than_the_images_move_in_proportion(draw, x64):
    images = draw(2, 8, 12, 4).astype(jnp.float64)
    finer = shift_invariant(lambda x: depth_to_space(conv(x)))
    moved = finer(jnp.roll(images, (1, 3), (1, 2)))
    np.testing.assert_allclose(moved, jnp.roll(finer(images), (2, 6), (1, 2)), atol=EXACT)


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_away_from_the_border_they_are_what_they_were(name, draw):
    f, images = UPSAMPLINGS[name], draw(2, 12, 12, 4)
    with_zeros = shift_invariant(f, sampler="subsample")(images)
    inside = (slice(None), slice(6, -6), slice(6, -6))
    # float32 rounding: sums in another order.
    np.testing.assert_allclose(with_zeros[inside], f(images)[inside], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampler", ["polyphase", "blur", "ideal"])
def test_constants_keep_their_level(sampler):
    flat = jnp.ones((1, 8, 8, 4))
    f = shift_invariant(lambda x: resized(conv(x, 1, 2), "nearest"), sampler=sampler)
    level = (flat @ jnp.asarray(KERNELS[1][0, 0], jnp.float32))[0, 0, 0]
    np.testing.assert_allclose(f(flat)[0, 3, 3], level, rtol=1e-5)  # float32 rounding in filters


def test_gradients_pass(draw):
    images = draw(2, 8, 12, 4)
    f = jax.checkpoint(shift_invariant(lambda x: unet(x, transposed)))
    moved = jax.grad(lambda x: (f(x) ** 2).sum())(jnp.roll(images, (1, 3), (1, 2)))
    still = jax.grad(lambda x: (f(x) ** 2).sum())(images)
    # float32 rounding: sums in another order.
    np.testing.assert_allclose(moved, jnp.roll(still, (1, 3), (1, 2)), rtol=1e-4, atol=1e-4)


def in_a_loop(x):
    coarse = conv(x, 3, 2)
    return lax.map(lambda image: transposed(image[None])[0], coarse) + x


def scattered(x):
    return jnp.zeros((2, 16, 24, 4)).at[:, ::2, ::2].set(x)


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (in_a_loop, "upsamples a map that was sampled inside another loop or branch, or outside this one"),
        (lambda x: jax.image.resize(x, (2, 12, 18, 4), "bilinear"), "resize by matrices"),
        (lambda x: resized(x[:, :1, :1], "lanczos3", 8), "it uses 1 x 1 positions"),
        (lambda x: transposed(x[:, 1:]), "it uses 7 x 12 positions"),
        (lambda x: resized(conv(x)[:, :-1], "nearest"), "it uses 7 x 12 positions"),
        (lambda x: transposed(x, 3, padding="VALID"), "17 x 25 positions of a map that has 16 x 24"),
        (flax_circular(3), "it uses 48 x 72 positions of a map that has 16 x 24"),
        (lambda x: jnp.tanh(x[:1].reshape(1, 8, 48)), "flattens rows or columns"),  # a single image
        (scattered, "no rule for this operation"),
        (lambda x: transposed(conv(x[:, :7, :9], 3, 2))[:, :7, :9] + x[:, :7, :9], "positions"),
    ],
)
def test_what_cannot_stay_is_refused(f, reason):
    jax.eval_shape(f, IMAGES)  # it is a program
    with pytest.raises(TransformError) as raised:
        jax.eval_shape(shift_invariant(f), IMAGES)
    assert reason in raised.value.reason
    assert __file__ in raised.value.where


FIXED = "upsamples from fixed positions"


def test_aligned_corners_are_refused():
    """The outermost samples stay in place, so the weights differ between positions."""
    with pytest.raises(TransformError, match="weights that differ .*align_corners=False"):
        jax.eval_shape(shift_invariant(lambda x: BilinearUpsample().apply({}, x)), IMAGES)


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_upsamplings_are_found(name):
    found = check(lambda x: unet(x, UPSAMPLINGS[name]), IMAGES)
    upsampling = next(finding for finding in found if FIXED in finding.reason)
    assert upsampling.shifts == "whole pixels" and "PolyphaseUpsample" in upsampling.remedy
    assert __file__ in upsampling.where or upsampling.within == "BilinearUpsample"


def circular(x, stride=1):
    return ops.conv2d(x, jnp.asarray(KERNELS[3], x.dtype), stride, "CIRCULAR")


def autoencoder(x, down, up):
    """An autoencoder of this package's layers. `up` is called with the map and the phase."""
    coarse, phase = down.apply({}, circular(x), method="with_phase")
    return circular(up(circular(coarse), phase))


APS, IDEAL = layers.AdaptivePolyphase(2), layers.IdealDownsample(2)
STEPS = "steps of 2 x 2 pixels"
# Decoders of this package's layers, and the findings for whole-pixel shifts.
DECODERS = {
    "polyphase": (lambda x: autoencoder(x, APS, layers.PolyphaseUpsample(2).bind({})), []),
    "ideal": (lambda x: autoencoder(x, IDEAL, layers.IdealUpsample(2).bind({})), []),
    "without the phase": (
        lambda x: autoencoder(x, APS, lambda x, _: layers.PolyphaseUpsample(2).apply({}, x)),
        ["begins at a different position"],
    ),
    "ideal without the phase": (
        lambda x: autoencoder(x, APS, lambda x, _: layers.IdealUpsample(2).apply({}, x)),
        ["begins at a different position"],
    ),
    "a resize": (lambda x: autoencoder(x, APS, lambda x, _: resized(x, "linear")), [FIXED]),
    "a resize behind ideal": (lambda x: autoencoder(x, IDEAL, lambda x, _: resized(x, "linear")), [FIXED]),
    "a coarse map": (lambda x: autoencoder(x, APS, lambda x, _: x), [STEPS]),
    "a coarse map, ideal": (lambda x: autoencoder(x, IDEAL, lambda x, _: x), []),
    "a coarse map, plain": (lambda x: circular(x, 2), ["a strided convolution by 2", STEPS]),
    "a finer map": (lambda x: resized(circular(x), "linear"), []),
}


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_of_this_package(name):
    f, reasons = DECODERS[name]
    found = check(f, IMAGES)
    assert len(found) == len(reasons)
    for finding, reason in zip(found, reasons, strict=True):
        assert reason in finding.reason


def test_a_finer_map_breaks_fractions():
    (found,) = check(lambda x: resized(circular(x), "linear"), IMAGES, shifts="fractions")
    assert FIXED in found.reason and found.shifts == "fractions"
