"""Attention over the positions of a map, in time linear in their number.

Cross-covariance attention compares channels, not positions. It contracts over all positions, so it commutes
with every circular shift, also by fractions of a sample. Class attention has a softmax over positions, so
only shifts by whole samples leave it unchanged.

Both accept a class token `[N, 1, 1, C]` beside the map. The token has no position and stays outside the map,
so that the rows and columns of the map remain axes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.layer import Initializer, Layer, accurate_dtype, normal
from aliasfree_jax.ops.shapes import check_images


class Attention(Layer):
    """Base class of attention layers.

    Attributes:
      num_heads: number of heads. It must divide the channels.
      kernel_init: initializer of the linear layers.
    """

    num_heads: int
    kernel_init: Initializer = normal(0.02)

    @nn.nowrap
    def linear(self, features: int, name: str) -> nn.Dense:
        """Builds a linear layer. Call it in the module's compact method."""
        return nn.Dense(features, kernel_init=self.kernel_init, **self.numerics, name=name)

    @nn.nowrap
    def heads(self, x: jax.Array) -> jax.Array:
        """Merges the positions and splits the channels: `[N, H, W, C]` to `[N, H W, heads, C / heads]`.

        Raises:
          ConfigError: the number of heads does not divide the channels.
        """
        count, h, w, channels = x.shape
        if self.num_heads < 1 or channels % self.num_heads:
            raise ConfigError(
                f"num_heads = {self.num_heads} does not divide {channels} channels: every head needs the "
                "same number of channels."
            )
        return x.reshape(count, h * w, self.num_heads, channels // self.num_heads)


class CrossCovarianceAttention(Attention):
    """Cross-covariance attention: every head mixes its channels by their correlations over the positions.

    Queries and keys have norm 1 over the positions. The softmax of their products, times a learned factor
    per head, is a matrix over channels. It multiplies the values. The layer commutes with every circular
    shift, also by fractions of a sample.

    Attributes:
      num_heads: number of heads. It must divide the channels.
      kernel_init: initializer of the linear layers.

    Source: El-Nouby et al. 2021 (arXiv 2106.09681), section 3.2.
    """

    @nn.compact
    def __call__(self, x: jax.Array, token: jax.Array | None = None) -> Any:
        """`[N, H, W, C]` to `[N, H, W, C]`.

        With a `token` `[N, 1, 1, C]`, which counts as one more position, it returns the map and the token.

        Raises:
          ConfigError: the number of heads does not divide the channels.
          ShapeError: `x` is not floating-point `[N, H, W, C]`.
        """
        check_images(x)
        x, channels = self.cast(x), x.shape[-1]
        qkv, project = self.linear(3 * channels, "qkv"), self.linear(channels, "project")
        temperature = self.param("temperature", nn.initializers.ones, (self.num_heads,), self.param_dtype)
        parts = [x] if token is None else [x, token.astype(x.dtype)]
        split = [[self.heads(third) for third in jnp.split(qkv(part), 3, axis=-1)] for part in parts]
        weights = self._weights([(query, key) for query, key, _ in split], temperature)

        def mixed(part: jax.Array, values: jax.Array) -> jax.Array:
            y = jnp.einsum("nhde,nthe->nthd", weights.astype(x.dtype), values, precision=self.precision)
            projected: jax.Array = project(y.reshape(part.shape))
            return projected

        results = [mixed(part, values) for part, (_, _, values) in zip(parts, split, strict=True)]
        return results[0] if token is None else tuple(results)

    def _weights(self, pairs: list[tuple[jax.Array, jax.Array]], temperature: jax.Array) -> jax.Array:
        """The matrices over channels `[N, heads, d, d]` of queries and keys `[N, T, heads, d]`."""
        accurate = accurate_dtype(pairs[0][0].dtype)

        def length(vectors: list[jax.Array]) -> jax.Array:
            squares = [jnp.sum(jnp.square(vector.astype(accurate)), axis=1) for vector in vectors]
            return jnp.sqrt(jnp.maximum(sum(squares[1:], squares[0]), 1e-24))

        how: dict[str, Any] = {"precision": self.precision, "preferred_element_type": accurate}
        products = [jnp.einsum("nthd,nthe->nhde", query, key, **how) for query, key in pairs]
        queries, keys = (length(list(vectors)) for vectors in zip(*pairs, strict=True))
        # One after the other: in float32, the product of two tiny lengths has no finite gradient.
        cosines = sum(products[1:], products[0]) / queries[..., :, None] / keys[..., None, :]
        return jax.nn.softmax(temperature.astype(accurate)[:, None, None] * cosines, axis=-1)


class ClassAttention(Attention):
    """Class attention: a token collects values from a map and itself. The map stays.

    Attributes:
      num_heads: number of heads. It must divide the channels.
      kernel_init: initializer of the linear layers.

    Source: Touvron et al. 2021 (arXiv 2103.17239), section 3, as in XCiT.
    """

    @nn.compact
    def __call__(self, x: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the map `[N, H, W, C]` unchanged and the new token `[N, 1, 1, C]`.

        Raises:
          ConfigError: the number of heads does not divide the channels.
          ShapeError: `x` is not floating-point `[N, H, W, C]`.
        """
        check_images(x)
        x, channels = self.cast(x), x.shape[-1]
        token = token.astype(x.dtype)
        accurate = accurate_dtype(x.dtype)
        query, key, value = (self.linear(channels, name) for name in ("query", "key", "value"))
        asked = self.heads(query(token))[:, 0] * (channels // self.num_heads) ** -0.5
        how: dict[str, Any] = {"precision": self.precision, "preferred_element_type": accurate}
        scores, values = [], []
        for part in (token, x):
            keys = self.heads(key(part))
            scores.append(jnp.einsum("nhd,nthd->nth", asked, keys, **how))
            values.append(self.heads(value(part)))
        # A softmax over the token and all positions.
        largest = jax.lax.stop_gradient(jnp.maximum(scores[0][:, 0], jnp.max(scores[1], axis=1)))
        powers = [jnp.exp(score - largest[:, None]) for score in scores]
        total = powers[0][:, 0] + jnp.sum(powers[1], axis=1)
        sums = [
            jnp.einsum("nth,nthd->nhd", power, each.astype(accurate), **how)
            for power, each in zip(powers, values, strict=True)
        ]
        mean = ((sums[0] + sums[1]) / total[..., None]).astype(x.dtype)
        return x, self.linear(channels, "project")(mean.reshape(token.shape))
