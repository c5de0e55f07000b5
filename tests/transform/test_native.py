"""Transformed plain networks are this package's native ones, with the same variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from aliasfree_jax import create_model
from aliasfree_jax.transform import TransformError, shift_invariant

BLUR = {"name": "blur", "kernel_size": 3}
SAMPLERS = [BLUR, "polyphase", "ideal"]
# Rounding of sums in another order, through at most 20 layers; measured 4e-7 and 1e-15.
CLOSE = {"float32": 1e-6, "float64": 1e-12}

TINY = {"num_classes": 10, "depths": (1, 1, 1), "widths": (8, 12, 16)}
STAGES4 = {"num_classes": 10, "depths": (1, 1, 1, 1), "widths": (8, 8, 12, 12)}
STEM = {"name": "image", "pool_size": 3, "pool_padding": "CIRCULAR"}
CIRCULAR = {"padding": "CIRCULAR"}
# Plain network, its options, what makes it native, side of the images, and by how many pixels the native
# one's circular 4 x 4 windows lie before the plain one's, which begin at the sample.
NETWORKS = {
    "cifar": ("resnet20_cifar", TINY, CIRCULAR, 16, 0),
    "basic": ("resnet18", STAGES4, {**CIRCULAR, "stem": STEM}, 32, 0),
    "bottleneck": ("resnet50", STAGES4, {**CIRCULAR, "stem": STEM}, 32, 0),
    "convnext": (
        "convnext_micro",
        {"num_classes": 10, "widths": (8, 16), "depths": (1, 1)},
        {**CIRCULAR, "sampled_padding": "CIRCULAR"},
        32,
        1,
    ),
}


def relative(a, b) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.fixture
def compared(randomised, draw):
    """The relative difference of the two networks' logits."""

    def difference(kind: str, sampler, batch: int) -> float:
        name, options, native_options, side, lead = NETWORKS[kind]
        plain = create_model(name, **options)
        native = create_model(name, **{**options, **native_options}, sampler=sampler)
        variables = randomised(plain, 1, side, side, 3)
        images = draw(batch, side, side, 3)
        got = jax.jit(shift_invariant(plain.apply, sampler=sampler, argnums=1))(variables, images)
        want = jax.jit(native.apply)(variables, jnp.roll(images, (-lead, -lead), (1, 2)))
        assert relative(jax.jit(plain.apply)(variables, images), want) > 1e-2  # else nothing is transformed
        return relative(got, want)

    return difference


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
def test_transformed_networks_are_the_native_ones(kind, sampler, compared):
    assert compared(kind, sampler, 7) < CLOSE["float32"]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("kind", ["bottleneck", "convnext"])
def test_in_float64(kind, sampler, compared, x64):
    assert compared(kind, sampler, 1) < CLOSE["float64"]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
def test_in_larger_batches(kind, sampler, compared):
    assert compared(kind, sampler, 64) < CLOSE["float32"]


def conv(x, kernel, stride=1, groups=1):
    """On the circle, as torch lays windows: centred on the first sample."""
    before = [(size - 1) // 2 for size in kernel.shape[:2]]
    pads = [(0, 0), *((b, size - 1 - b) for b, size in zip(before, kernel.shape[:2], strict=True)), (0, 0)]
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jnp.pad(x, pads, mode="wrap")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=numbers, feature_group_count=groups
    )


def normed(x, variables, name, activation):
    scale, stats = variables["params"][name], variables["batch_stats"][name]
    y = (x - stats["mean"]) * lax.rsqrt(stats["var"] + 1e-5) * scale["scale"] + scale["bias"]
    return activation(y)


def sampled(x, sampler):
    """Every second sample of the given sampler, at a phase of its own: there are no shortcuts here."""
    from aliasfree_jax.models.parts import resolve

    return resolve("sampler", sampler)(strides=2).apply({}, x)


def maxima(x):
    """Of 3 x 3 windows."""
    x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="wrap")
    rows = jnp.maximum(jnp.maximum(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return jnp.maximum(jnp.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
