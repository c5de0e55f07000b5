"""What a residual block of another size adds to its branch: a projection, or the map with zero channels."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.block import conv_before_norm
from aliasfree_jax.layers.layer import Layer, ModuleFactory
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Subsample, Temperature


class Shortcut(Layer):
    """What shortcuts have in common: the sizes of the branch beside them, and parts of the network.

    Their variables stand in the block, beside those of the branch: their names begin with "shortcut_".
    """

    features: int
    stride: int
    sampler: SamplerFactory
    norm: ModuleFactory

    @nn.compact
    def __call__(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """[N, H, W, C] to [N, H / stride, W / stride, features], sampled at the branch's phase."""
        if self.stride == 1:
            return self.widened(x, 1, train)
        sampler = self.sampler(strides=self.stride, **self.numerics, name="shortcut_sampler")
        if phase is None and isinstance(sampler, Subsample):
            return self.widened(x, self.stride, train)
        x, _ = sampler.with_phase(x, phase, train=train, temperature=temperature)
        return self.widened(x, 1, train)

    def widened(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """Every `stride`-th sample of `x` with `features` channels; for use in the one compact method."""
        raise NotImplementedError


class ProjectionShortcut(Shortcut):
    """1 x 1 convolution and norm ("option B" of He et al. 2016, arXiv 1512.03385, section 4.1)."""

    def widened(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """See `Shortcut.widened`."""
        x = conv_before_norm(self, self.features, 1, stride, name="shortcut_conv")(x)
        norm: Any = self.norm(**self.numerics, name="shortcut_norm")
        y: jax.Array = norm(x, train=train)
        return y


class ZeroPaddedShortcut(Shortcut):
    """Zero channels, half of them before and half behind those of the map ("option A"): no weights.

    Of an odd number of zero channels the one more stands behind.
    """

    def widened(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """See `Shortcut.widened`. Raises `ConfigError` for fewer channels than the map has."""
        added = self.features - x.shape[-1]
        if added < 0:
            raise ConfigError(
                f"a zero-padded shortcut adds channels: it cannot make {self.features} of {x.shape[-1]}. "
                'Use shortcut="projection", or widths that grow from stage to stage.'
            )
        x = self.cast(x)[:, ::stride, ::stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))
