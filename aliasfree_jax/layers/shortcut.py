"""Shortcuts of residual blocks that change the size or the channels of their map."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.block import conv_before_norm
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Layer, ModuleFactory, part
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Subsample, Temperature


class Shortcut(Layer):
    """Base class of shortcuts.

    The variables of a shortcut are stored in the block, next to those of the branch. Their names begin with
    `"shortcut_"`.

    Attributes:
      features: output channels of the branch.
      stride: stride of the branch.
      sampler: sampler of the shortcut.
      norm: norm of the network.
      conv: convolution of the network.
    """

    features: int
    stride: int
    sampler: SamplerFactory
    norm: ModuleFactory
    conv: ModuleFactory = part(Conv)

    @nn.compact
    def __call__(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """`[N, H, W, C]` to `[N, H / stride, W / stride, features]`, sampled at the branch's phase."""
        if self.stride == 1:
            return self.widened(x, 1, train)
        sampler = self.sampler(strides=self.stride, **self.numerics, name="shortcut_sampler")
        if phase is None and isinstance(sampler, Subsample):
            return self.widened(x, self.stride, train)
        x, _ = sampler.with_phase(x, phase, train=train, temperature=temperature)
        return self.widened(x, 1, train)

    def widened(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """Returns every `stride`-th sample of `x` with `features` channels.

        Call it in the module's compact method.
        """
        raise NotImplementedError


class ProjectionShortcut(Shortcut):
    """1 x 1 convolution and norm ("option B").

    Source: He et al. 2016 (arXiv 1512.03385), section 4.1.
    """

    def widened(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """See `Shortcut.widened`."""
        x = conv_before_norm(self, self.features, 1, stride, name="shortcut_conv", conv=self.conv)(x)
        norm: Any = self.norm(**self.numerics, name="shortcut_norm")
        y: jax.Array = norm(x, train=train)
        return y


class ZeroPaddedShortcut(Shortcut):
    """Adds zero channels, half before and half after those of the map ("option A"). No weights.

    An odd number of zero channels puts the extra one after the map's channels.

    Source: He et al. 2016 (arXiv 1512.03385), section 4.1.
    """

    def widened(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """See `Shortcut.widened`.

        Raises:
          ConfigError: `features` is smaller than the number of channels of the map.
        """
        added = self.features - x.shape[-1]
        if added < 0:
            raise ConfigError(
                f"a zero-padded shortcut only adds channels: it cannot reduce {x.shape[-1]} to "
                f'{self.features}. Use shortcut="projection", or widths that grow from stage to stage.'
            )
        x = self.cast(x)[:, ::stride, ::stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))
