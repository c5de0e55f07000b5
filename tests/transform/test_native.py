"""Transformed plain networks equal this package's shift-invariant networks with the same variables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from aliasfree_jax.models import create_model
from aliasfree_jax.models.parts import resolve
from aliasfree_jax.transform import TransformError, shift_invariant

BLUR = {"name": "blur", "kernel_size": 3}
SAMPLERS = [BLUR, "polyphase", "ideal"]
# Rounding of sums in another order after at most 20 layers. Measured: 4e-7 and 1e-15.
CLOSE = {"float32": 1e-6, "float64": 1e-12}

TINY = {"num_classes": 10, "depths": (1, 1, 1), "widths": (8, 12, 16)}
STAGES4 = {"num_classes": 10, "depths": (1, 1, 1, 1), "widths": (8, 8, 12, 12)}
STEM = {"name": "image", "pool_size": 3, "pool_padding": "CIRCULAR"}
CIRCULAR = {"padding": "CIRCULAR"}
# Plain network, its options, the options of the shift-invariant network, side of the images, and the offset
# in pixels between the circular 4 x 4 windows of the two networks.
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
    """Computes the relative difference of the two networks' logits."""

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
@pytest.mark.parametrize("sampler", ["polyphase", "ideal"])
@pytest.mark.parametrize("kind", ["basic", "convnext"])
def test_in_larger_batches(kind, sampler, compared):
    assert compared(kind, sampler, 64) < CLOSE["float32"]


class Twin:
    """Layers of a handwritten network with circular padding."""

    def __init__(self, variables, sampler):
        self.variables, self.sampler = variables, sampler

    def conv(self, x, *path):
        kernel = self.of("params", *path)["kernel"]
        kernel = kernel if kernel.ndim == 4 else kernel[:, :, None]
        sides = [(size // 2, size // 2) for size in kernel.shape[:2]]
        x = jnp.pad(x, [(0, 0), *sides, (0, 0)], mode="wrap")
        numbers = ("NHWC", "HWIO", "NHWC")
        groups = x.shape[-1] // kernel.shape[2]
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=numbers, feature_group_count=groups
        )

    def norm(self, x, *path):
        weights, statistics = (self.of(kind, *path)["norm"] for kind in ("params", "batch_stats"))
        y = (x - statistics["mean"]) / jnp.sqrt(statistics["var"] + 1e-5)
        return y * weights["scale"] + weights["bias"]

    def of(self, kind, *path):
        found = self.variables[kind]
        for name in path:
            found = found[name]
        return found

    def sampled(self, x, phase=None):
        return resolve("sampler", self.sampler)(strides=2).apply({}, x, phase, method="with_phase")

    def head(self, x):
        head = self.of("params", "head")
        return x.mean((1, 2)) @ head["kernel"] + head["bias"]


def of_squares(x, size, combine):
    """Combines the `size` x `size` window that begins at each position."""
    rows = functools.reduce(combine, [jnp.roll(x, -i, 1) for i in range(size)])
    return functools.reduce(combine, [jnp.roll(rows, -i, 2) for i in range(size)])


def densenet(variables, images, sampler):
    """The input of a convolution is sampled first. The concatenation follows its phase."""
    t, relu = Twin(variables, sampler), jax.nn.relu
    x, _ = t.sampled(relu(t.norm(t.conv(images, "stem_conv"), "stem_norm")))
    x = of_squares(jnp.roll(x, (1, 1), (1, 2)), 3, jnp.maximum)
    for stage in range(2):
        if stage:
            x = t.conv(relu(t.norm(x, "transition1_norm")), "transition1_conv")
            x = of_squares(x, 2, jnp.add) / 4
        name = f"stage{stage}_layer0"
        y, phase = t.sampled(relu(t.norm(x, f"{name}_norm1")))
        x, _ = t.sampled(x, phase)
        y = relu(t.norm(t.conv(y, f"{name}_conv1"), f"{name}_norm2"))
        x = jnp.concatenate([x, t.conv(y, f"{name}_conv2")], -1)
    return t.head(relu(t.norm(x, "norm")))


STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (2, 32, 1, 2))


def mobilenet(variables, images, sampler):
    t, relu6 = Twin(variables, sampler), jax.nn.relu6
    x, _ = t.sampled(relu6(t.norm(t.conv(images, "stem_conv"), "stem_norm")))
    for stage, (expansion, _, depth, stride) in enumerate(STAGES):
        for number in range(depth):
            block, y = f"stage{stage}_block{number}", x
            if expansion != 1:
                y = relu6(t.norm(t.conv(y, block, "expand"), block, "expand_norm"))
            y = relu6(t.norm(t.conv(y, block, "depthwise"), block, "depthwise_norm"))
            y = t.sampled(y)[0] if stride == 2 and not number else y
            y = t.norm(t.conv(y, block, "project"), block, "project_norm")
            x = x + y if number else y
    return t.head(relu6(t.norm(t.conv(x, "last_conv"), "last_norm")))


TWINS = {
    "densenet121": (densenet, {"depths": (1, 1), "growth": 4, "width": 8}, 32),
    "mobilenet_v2": (mobilenet, {"width_mult": 0.5}, 32),
}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("name", TWINS)
def test_networks_whose_native_forms_differ_are_those_written_by_hand(
    name, sampler, randomised, draw, monkeypatch
):
    monkeypatch.setattr("aliasfree_jax.models.mobilenet.STAGES", STAGES)
    twin, options, side = TWINS[name]
    network = create_model(name, num_classes=10, **options)
    variables, images = randomised(network, 1, side, side, 3), draw(3, side, side, 3)
    images = jnp.concatenate([images, jnp.roll(images[:1], (3, -5), (1, 2))])
    got = jax.jit(shift_invariant(network.apply, sampler=sampler, argnums=1))(variables, images)
    want = jax.jit(lambda *given: twin(*given, sampler))(variables, images)
    assert relative(got, want) < CLOSE["float32"]
    change = relative(got[3], got[0])
    assert change < 1e-5 if sampler == "polyphase" else change > 1e-5


@pytest.mark.parametrize("name", ["vgg11_bn", "alexnet"])
def test_networks_that_flatten_their_maps_are_refused(name):
    network = create_model(name, num_classes=10)
    images = jnp.zeros((1, 224, 224, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    # AlexNet's pools leave the border out, and adaptive pooling follows.
    why = (
        "a linear layer on a flattened map|flattens rows or columns|upsamples a map whose border was left out"
    )
    with pytest.raises(TransformError, match=why):
        jax.eval_shape(shift_invariant(network.apply, argnums=1), variables, images)
