"""Networks that score polyphase components, for learnable polyphase sampling (LPS).

All map components [N, K, h, w, C] to logits [N, K] by weights that the components share, so that
permuting the components permutes the logits: what the equivariance of LPS rests on. `width_ratio`
sets the hidden channels as a multiple of C.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import fan_in_uniform
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.numerics import Numerics, accurate_dtype
from aliasfree_jax.ops.padding import Padding


class _ComponentNetwork(nn.Module):
    """What the networks below share: their width, and convolutions of all components at once."""

    padding: Padding = "circular"
    width_ratio: float = 1.0
    numerics: Numerics = Numerics()

    def _hidden(self, components: jax.Array) -> int:
        return max(1, round(components.shape[-1] * self.width_ratio))

    def _conv(self, features: int, size: int, fan_in: int, name: str, use_bias: bool = True) -> Conv:
        init = fan_in_uniform(fan_in * size**2)
        padding = self.padding if size > 1 else "none"
        return Conv(features, size, 1, padding, init, self.numerics, init, use_bias=use_bias, name=name)


def _flat(components: jax.Array) -> jax.Array:
    return components.reshape(-1, *components.shape[2:])


def _mean(y: jax.Array, components: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """[N K, h, w, F] averaged over `axes`, as [N, K] or [N, K, F]."""
    mean = jnp.mean(y.astype(accurate_dtype(y.dtype)), axis=axes)
    return mean.reshape(*components.shape[:2], *mean.shape[1:])


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
        y = jax.nn.relu(self._conv(hidden, 3, channels, "conv1")(x))
        y = self._conv(hidden, 3, hidden, "conv2")(y)
        return _mean(x + y if self.skip else y, components, (1, 2, 3))


class AttentionLogits(_ComponentNetwork):
    """Self-attention among the components (SAInner; with `batch_norm` SAInner_bn)."""

    batch_norm: bool = False

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, K, h, w, C] to [N, K]."""

        def branch(name: str) -> jax.Array:
            hidden, channels = self._hidden(components), components.shape[-1]
            first = self._conv(hidden, 3, channels, f"{name}_conv1", use_bias=not self.batch_norm)
            y = jax.nn.relu(first(_flat(components)))
            if self.batch_norm:
                y = BatchNorm(self.numerics, name=f"{name}_norm")(y, train=train)
            return self._conv(hidden, 3, hidden, f"{name}_conv2")(y)

        queries, keys = (_mean(branch(name), components, (1, 2)) for name in ("phi", "psi"))
        values = _mean(branch("beta"), components, (1, 2, 3))
        scores = jnp.einsum("nkf,nlf->nkl", queries, keys, precision="highest")
        return jnp.einsum("nkl,nl->nk", jax.nn.softmax(scores, axis=-1), values, precision="highest")


class GraphLogits(_ComponentNetwork):
    """Message passing on the full graph of the components (GraphLogitLayers)."""

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, K, h, w, C] to [N, K]."""
        hidden, count = self._hidden(components), components.shape[1]
        first = self._conv(hidden, 3, components.shape[-1], "input_conv")(_flat(components))
        nodes = _mean(jax.nn.relu(first), components, (1, 2))  # [N, K, hidden]

        def dense(features: int, fan_in: int, name: str) -> Any:
            init = fan_in_uniform(fan_in)
            return nn.Dense(features, kernel_init=init, bias_init=init, precision="highest", name=name)

        pairs = (*nodes.shape[:2], count, hidden)  # [N, receiver, sender, hidden]
        senders = jnp.broadcast_to(nodes[:, None], pairs)
        receivers = jnp.broadcast_to(nodes[:, :, None], pairs)
        edges = jax.nn.relu(
            dense(hidden, 2 * hidden, "edge1")(jnp.concatenate([senders, receivers], axis=-1))
        )
        messages = jax.nn.relu(dense(hidden, hidden, "edge2")(edges)).mean(axis=2)
        return dense(1, hidden, "out2")(jax.nn.relu(dense(hidden, hidden, "out1")(messages)))[..., 0]


class LinearLogits(_ComponentNetwork):
    """A linear score of the mean component (ComponentPerceptron)."""

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, K, h, w, C] to [N, K]."""
        conv = self._conv(1, 1, components.shape[-1], "perceptron")
        return _mean(conv(_flat(components)), components, (1, 2, 3))
