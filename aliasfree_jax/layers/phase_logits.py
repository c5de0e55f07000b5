"""Networks that score polyphase components, for learnable polyphase sampling (LPS).

All map components [N, K, h, w, C] to logits [N, K] by weights that the components share, so that
permuting the components permutes the logits: what the equivariance of LPS rests on. `width_ratio`
sets the hidden channels as a multiple of C.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers.convolution import Conv, MeanConv
from aliasfree_jax.layers.layer import Layer, accurate_dtype, fan_in_uniform
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.ops.padding import Padding


class _ComponentNetwork(Layer):
    """What the networks below share: their width, and convolutions of all components at once."""

    padding: Padding = "CIRCULAR"
    width_ratio: float = 1.0

    def _hidden(self, components: jax.Array) -> int:
        return max(1, round(components.shape[-1] * self.width_ratio))

    def _conv(self, features: int, fan_in: int, name: str, use_bias: bool = True) -> Conv:
        init = fan_in_uniform(fan_in * 9)
        how: dict[str, Any] = {"kernel_init": init, "bias_init": init, **self.numerics}
        return Conv(features, 3, padding=self.padding, use_bias=use_bias, **how, name=name)

    def _mean_conv(self, features: int, size: int, fan_in: int, name: str) -> MeanConv:
        """A convolution that ends a network: the mean follows it, so the convolution is not needed."""
        init = fan_in_uniform(fan_in * size**2)
        return MeanConv(features, size, self.padding, init, init, **self.numerics, name=name)


def _flat(components: jax.Array) -> jax.Array:
    if components.ndim != 5 or not jnp.issubdtype(components.dtype, jnp.floating):
        got = f"{components.dtype}{list(components.shape)}"
        raise ShapeError(f"expected floating-point components [N, K, h, w, C], got {got}.")
    n, k, *rest = components.shape
    return components.reshape(n * k, *rest)


def _mean(y: jax.Array) -> jax.Array:
    """[N K, h, w, F] averaged over positions, [N K, F]."""
    return jnp.mean(y.astype(accurate_dtype(y.dtype)), axis=(1, 2))


def _by_image(means: jax.Array, components: jax.Array) -> jax.Array:
    """[N K, ...] as [N, K, ...]."""
    return means.reshape(*components.shape[:2], *means.shape[1:])


class ConvLogits(_ComponentNetwork):
    """Two 3 x 3 convolutions, then the mean over channels and positions (LPSLogitLayers).

    `skip` adds the components to the second one's output (LPSLogitLayersSkip).
    """

    skip: bool = False

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, K, h, w, C] to [N, K]."""
        x, channels, hidden = _flat(components), components.shape[-1], self._hidden(components)
        if self.skip and hidden != channels:
            raise ConfigError(f"logits with skip=True need width_ratio=1, got {self.width_ratio}.")
        y = jax.nn.relu(self._conv(hidden, channels, "conv1")(x))
        means = self._mean_conv(hidden, 3, hidden, "conv2")(y)
        return _by_image((means + _mean(x) if self.skip else means).mean(axis=-1), components)


class AttentionLogits(_ComponentNetwork):
    """Self-attention among the components (SAInner; with `batch_norm` SAInner_bn)."""

    batch_norm: bool = False

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, K, h, w, C] to [N, K]."""

        def branch(name: str) -> jax.Array:
            hidden, channels = self._hidden(components), components.shape[-1]
            first = self._conv(hidden, channels, f"{name}_conv1", use_bias=not self.batch_norm)
            y = jax.nn.relu(first(_flat(components)))
            if self.batch_norm:
                y = BatchNorm(**self.numerics, name=f"{name}_norm")(y, train=train)
            return _by_image(self._mean_conv(hidden, 3, hidden, f"{name}_conv2")(y), components)

        queries, keys, values = branch("phi"), branch("psi"), branch("beta").mean(axis=-1)
        scores = jnp.einsum("nkf,nlf->nkl", queries, keys, precision="highest")
        return jnp.einsum("nkl,nl->nk", jax.nn.softmax(scores, axis=-1), values, precision="highest")


class GraphLogits(_ComponentNetwork):
    """Message passing on the full graph of the components (GraphLogitLayers)."""

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, K, h, w, C] to [N, K]."""
        hidden, count = self._hidden(components), components.shape[1]
        first = self._conv(hidden, components.shape[-1], "input_conv")(_flat(components))
        nodes = _by_image(_mean(jax.nn.relu(first)), components)  # [N, K, hidden]

        def dense(y: jax.Array, features: int, name: str) -> jax.Array:
            init = fan_in_uniform(y.shape[-1])
            how: dict[str, Any] = {"kernel_init": init, "bias_init": init, "param_dtype": self.param_dtype}
            return nn.Dense(features, **how, precision="highest", name=name)(y)

        pairs = (*nodes.shape[:2], count, hidden)  # [N, receiver, sender, hidden]
        senders = jnp.broadcast_to(nodes[:, None], pairs)
        receivers = jnp.broadcast_to(nodes[:, :, None], pairs)
        edges = jax.nn.relu(dense(jnp.concatenate([senders, receivers], axis=-1), hidden, "edge1"))
        messages = jax.nn.relu(dense(edges, hidden, "edge2")).mean(axis=2)
        return dense(jax.nn.relu(dense(messages, hidden, "out1")), 1, "out2")[..., 0]


class LinearLogits(_ComponentNetwork):
    """A linear score of the mean component (ComponentPerceptron)."""

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, K, h, w, C] to [N, K]."""
        perceptron = self._mean_conv(1, 1, components.shape[-1], "perceptron")
        return _by_image(perceptron(_flat(components))[:, 0], components)
