"""Networks that score polyphase components, for learnable polyphase sampling (LPS).

All networks map components `[N, K, h, w, C]` to logits `[N, K]`. The components share the weights, so
permuting the components permutes the logits. The equivariance of LPS depends on this.
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
    """Base class: width and convolutions of the networks below."""

    padding: Padding = "CIRCULAR"
    width_ratio: float = 1.0

    def _hidden(self, components: jax.Array) -> int:
        return max(1, round(components.shape[-1] * self.width_ratio))

    def _conv(self, features: int, fan_in: int, name: str, use_bias: bool = True) -> Conv:
        init = fan_in_uniform(fan_in * 9)
        how: dict[str, Any] = {"kernel_init": init, "bias_init": init, **self.numerics}
        return Conv(features, 3, padding=self.padding, use_bias=use_bias, **how, name=name)

    def _mean_conv(self, features: int, size: int, fan_in: int, name: str) -> MeanConv:
        """The last convolution of a network, joined with the mean that follows it."""
        init = fan_in_uniform(fan_in * size**2)
        return MeanConv(features, size, self.padding, init, init, **self.numerics, name=name)


def _flat(components: jax.Array) -> jax.Array:
    if components.ndim != 5 or not jnp.issubdtype(components.dtype, jnp.floating):
        got = f"{components.dtype}{list(components.shape)}"
        raise ShapeError(f"expected floating-point components [N, K, h, w, C], got {got}.")
    n, k, *rest = components.shape
    return components.reshape(n * k, *rest)


def _mean(y: jax.Array) -> jax.Array:
    """Averages `[N K, h, w, F]` over positions: `[N K, F]`."""
    return jnp.mean(y.astype(accurate_dtype(y.dtype)), axis=(1, 2))


def _by_image(means: jax.Array, components: jax.Array) -> jax.Array:
    """Reshapes `[N K, ...]` to `[N, K, ...]`."""
    return means.reshape(*components.shape[:2], *means.shape[1:])


class ConvLogits(_ComponentNetwork):
    """Scores components with two 3 x 3 convolutions and the mean over channels and positions.

    Attributes:
      skip: whether to add the components to the output of the second convolution (LPSLogitLayersSkip). It
        needs `width_ratio=1`.
      padding: padding of the convolutions.
      width_ratio: hidden channels as a multiple of C.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001), section 3 (LPSLogitLayers in its code).
    """

    skip: bool = False

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, K, h, w, C]` to `[N, K]`.

        Raises:
          ConfigError: `skip` with another number of hidden channels than C.
          ShapeError: the components are not floating-point `[N, K, h, w, C]`.
        """
        x, channels, hidden = _flat(components), components.shape[-1], self._hidden(components)
        if self.skip and hidden != channels:
            raise ConfigError(f"logits with skip=True need width_ratio=1, got {self.width_ratio}.")
        y = jax.nn.relu(self._conv(hidden, channels, "conv1")(x))
        means = self._mean_conv(hidden, 3, hidden, "conv2")(y)
        return _by_image((means + _mean(x) if self.skip else means).mean(axis=-1), components)


class AttentionLogits(_ComponentNetwork):
    """Scores components with self-attention among the components.

    Attributes:
      batch_norm: whether each branch has a batch norm (`SAInner_bn`).
      padding: padding of the convolutions.
      width_ratio: hidden channels as a multiple of C.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001), section 3 (SAInner in its code).
    """

    batch_norm: bool = False

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, K, h, w, C]` to `[N, K]`.

        Raises:
          ShapeError: the components are not floating-point `[N, K, h, w, C]`.
        """

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
    """Scores components with message passing on the complete graph of the components.

    Attributes:
      padding: padding of the convolutions.
      width_ratio: hidden channels as a multiple of C.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001), section 3 (GraphLogitLayers in its code).
    """

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, K, h, w, C]` to `[N, K]`.

        Raises:
          ShapeError: the components are not floating-point `[N, K, h, w, C]`.
        """
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
    """Scores components with a linear map of their mean over positions.

    The fields `padding` and `width_ratio` have no effect.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001), section 3 (ComponentPerceptron in its code).
    """

    @nn.compact
    def __call__(self, components: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, K, h, w, C]` to `[N, K]`.

        Raises:
          ShapeError: the components are not floating-point `[N, K, h, w, C]`.
        """
        perceptron = self._mean_conv(1, 1, components.shape[-1], "perceptron")
        return _by_image(perceptron(_flat(components))[:, 0], components)
