"""Networks from five other libraries, with random weights, whose logits differ between images.

Freshly initialised networks are useless here: the logits of a fresh Haiku ResNet are exactly 0, and its batch
statistics come from no image. So parameters are random (compiling an initialisation takes ten times as long),
and batch statistics come from one training pass.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flaxmodels
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

CLASSES = 10
TRAINING_IMAGES = 8


class Foreign(NamedTuple):
    """A network in evaluation. `f(variables, images)` returns its logits."""

    name: str
    f: Callable[[Any, jax.Array], jax.Array]
    variables: Any
    images: jax.Array
    spatial_axes: tuple[int, int] = (1, 2)


@functools.cache
def foreign(name: str) -> Foreign:
    """Builds a network of `FOREIGN`, once per process, with two images."""
    network = FOREIGN[name](name)
    logits = np.asarray(jax.jit(network.f)(network.variables, network.images))
    assert np.isfinite(logits).all(), f"{name}: logits are not finite"
    apart = np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[0])
    assert apart >= 0.01, f"{name}: the logits of two images differ by {apart:.2%} only"
    return network


def drawn(seed: int, count: int, side: int) -> jax.Array:
    """Normal random images [count, side, side, 3]."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal((count, side, side, 3)), jnp.float32)


def filled(shapes: Any, output_axis: int = -1) -> Any:
    """Random arrays: kernels that keep the norm of maps, scales near 1, other vectors near 0."""
    random = np.random.default_rng(0)

    def array(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        draws = random.standard_normal(leaf.shape, np.float32)
        if leaf.size > max(leaf.shape):
            return jnp.asarray(draws * (2 * leaf.shape[output_axis] / leaf.size) ** 0.5)
        return jnp.asarray(0.1 * draws + any(key in jax.tree_util.keystr(path) for key in ("scale", "var")))

    return jax.tree_util.tree_map_with_path(array, shapes)


def haiku(network: Callable[[], Callable[..., jax.Array]], name: str, *, side: int = 64) -> Foreign:
    """The Haiku network made by `network`, called with (images, is_training)."""
    module = hk.without_apply_rng(hk.transform_with_state(lambda x, training: network()(x, training)))

    def f(variables: Any, images: jax.Array) -> jax.Array:
        return module.apply(*variables, images, False)[0]

    def trained(parameters: Any, images: jax.Array) -> Any:
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state_shapes)
        return module.apply(parameters, state, images, True)[1]

    images = drawn(0, 2, side)
    initial = functools.partial(module.init, x=images, training=True)
    shapes, state_shapes = jax.eval_shape(initial, jax.random.key(0))
    parameters = filled(shapes)
    return Foreign(
        name, f, (parameters, jax.jit(trained)(parameters, drawn(1, TRAINING_IMAGES, side))), images
    )


def haiku_residual(activation: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """A residual network without a max pool, because a max pool does not commute with fractional shifts."""

    def normalized(x: jax.Array, training: bool) -> jax.Array:
        return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, training)

    def network(x: jax.Array, training: bool) -> jax.Array:
        x = activation(normalized(hk.Conv2D(8, 3, with_bias=False)(x), training))
        for channels in (16, 24):
            shortcut = hk.Conv2D(channels, 1, stride=2, with_bias=False)(x)
            y = activation(normalized(hk.Conv2D(channels, 3, stride=2, with_bias=False)(x), training))
            y = normalized(hk.Conv2D(channels, 3, with_bias=False)(y), training)
            x = activation(shortcut + y)
        return hk.Linear(CLASSES)(x.mean((1, 2)))

    return network


def linen_resnet(name: str) -> Foreign:
    """flaxmodels' ResNet-18."""
    module, images = flaxmodels.ResNet18("logits", None, num_classes=CLASSES), drawn(0, 2, 64)

    def trained(variables: Any, images: jax.Array) -> Any:
        return module.apply(variables, images, train=True, mutable=["batch_stats"])[1]

    def f(variables: Any, images: jax.Array) -> jax.Array:
        return module.apply(variables, images, train=False)

    variables = filled(jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), images))
    variables |= jax.jit(trained)(variables, drawn(1, TRAINING_IMAGES, 64))
    return Foreign(name, f, variables, images)


def linen_vgg(name: str) -> Foreign:
    """flaxmodels' VGG-16. A mean over positions replaces the linear layers, which flatten the map."""
    module, images = flaxmodels.VGG16("logits", None, include_head=False), drawn(0, 2, 32)

    def f(variables: Any, images: jax.Array) -> jax.Array:
        return module.apply(variables, images, train=False).mean((1, 2))

    shapes = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), images)
    return Foreign(name, f, filled(shapes), images)


def equinox_network(key: jax.Array) -> eqx.nn.Sequential:
    """Convolutions, a max pool and a linear layer, for one image [C, H, W]."""
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 8, 3, padding=1, key=key),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Conv2d(8, 16, 3, stride=2, padding=1, key=key),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Conv2d(16, 16, 3, padding=1, key=key),
            eqx.nn.Lambda(lambda x: jax.nn.relu(x).mean((1, 2))),
            eqx.nn.Linear(16, CLASSES, key=key),
        ]
    )


def equinox(name: str) -> Foreign:
    """`equinox_network` for a batch [N, C, H, W], by `jax.vmap`."""
    shapes, others = eqx.partition(
        eqx.filter_eval_shape(equinox_network, jax.random.key(0)),
        lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct),
    )

    def f(variables: Any, images: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(variables, others))(images)

    images = drawn(0, 2, 32).transpose(0, 3, 1, 2)
    return Foreign(name, f, filled(shapes, output_axis=0), images, spatial_axes=(2, 3))


class NnxResidual(nnx.Module):
    """A residual network without a max pool, in `flax.nnx`."""

    def __init__(self, rngs: nnx.Rngs):
        norm = functools.partial(nnx.BatchNorm, momentum=0.0, rngs=rngs)
        self.stem, self.stem_norm = nnx.Conv(3, 8, (3, 3), rngs=rngs), norm(8)
        self.first, self.first_norm = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs), norm(16)
        self.second, self.second_norm = nnx.Conv(16, 16, (3, 3), rngs=rngs), norm(16)
        self.shortcut, self.shortcut_norm = nnx.Conv(8, 16, (1, 1), strides=2, rngs=rngs), norm(16)
        self.head = nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.gelu(self.stem_norm(self.stem(x)))
        y = nnx.gelu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        x = nnx.gelu(y + self.shortcut_norm(self.shortcut(x)))
        return self.head(x.mean((1, 2)))


def nnx_residual(name: str) -> Foreign:
    """`NnxResidual`, split into definition and state."""
    network = nnx.eval_shape(lambda: NnxResidual(nnx.Rngs(0)))
    network.train()
    definition, shapes = nnx.split(network)
    network.eval()
    in_use, _ = nnx.split(network)

    def trained(variables: Any, images: jax.Array) -> Any:
        network = nnx.merge(definition, variables)
        network(images)
        return nnx.state(network)

    def f(variables: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(in_use, variables)(images)

    state = jax.jit(trained)(filled(shapes), drawn(1, TRAINING_IMAGES, 32))
    return Foreign(name, f, state, drawn(0, 2, 32))


def plain_lax(name: str) -> Foreign:
    """A network written with `jax.lax` only."""
    kernels = {"stem": (3, 3, 3, 8), "deep": (3, 3, 8, 16), "short": (1, 1, 8, 16), "head": (16, CLASSES)}
    weights = filled({key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in kernels.items()})

    def convolved(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dimensions)

    def f(variables: Any, images: jax.Array) -> jax.Array:
        x = jax.lax.max(convolved(images, variables["stem"], 2), 0.0)
        y = jax.lax.tanh(convolved(x, variables["deep"], 2))
        x = jax.lax.max(y + convolved(x, variables["short"], 2), 0.0)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
        return x.mean((1, 2)) @ variables["head"]

    return Foreign(name, f, weights, drawn(0, 2, 32))


ACTIVATIONS = {"silu": jax.nn.silu, "relu": jax.nn.relu, "gelu": jax.nn.gelu}

FOREIGN: dict[str, Callable[[str], Foreign]] = {
    "haiku_resnet18": functools.partial(haiku, lambda: hk.nets.ResNet18(CLASSES)),
    "haiku_resnet50": functools.partial(haiku, lambda: hk.nets.ResNet50(CLASSES)),
    "haiku_mobilenet1": functools.partial(haiku, lambda: hk.nets.MobileNetV1(num_classes=CLASSES)),
    "flaxmodels_resnet18": linen_resnet,
    "flaxmodels_vgg16": linen_vgg,
    "equinox": equinox,
    "nnx_gelu": nnx_residual,
    "lax": plain_lax,
    **{
        f"haiku_{key}": functools.partial(haiku, lambda a=activation: haiku_residual(a), side=32)
        for key, activation in ACTIVATIONS.items()
    },
}
WITHOUT_MAX_POOL = ("haiku_mobilenet1", "nnx_gelu", *(f"haiku_{key}" for key in ACTIVATIONS))
