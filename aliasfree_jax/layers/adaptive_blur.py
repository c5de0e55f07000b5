"""The content-adaptive sampler DDAC: a learned low-pass filter for each position, then sampling."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import kaiming_normal_fan_out
from aliasfree_jax.layers.layer import accurate_dtype
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampling import FilteredSampler
from aliasfree_jax.ops.blurring import adaptive_blur
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.shapes import Pair, pair


class AdaptiveBlurPool(FilteredSampler):
    """DDAC (Zou et al. 2020, arXiv 2008.09604) as learnable_polyphase_sampling has it.

    A convolution, batch norm and softmax give each position one filter a group of channels. The softmax
    runs over all groups together, as in the original: each group's weights then sum to about 1 / groups.

    Attributes:
      kernel_size: of the filters, odd.
      groups: of channels that share a filter; must divide the channels.
    """

    kernel_size: Pair = 3
    groups: int = 8
    padding: Padding = "CIRCULAR"

    @nn.compact
    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The filtered map at full size; `train` uses and updates the batch statistics."""
        rows, columns = pair(self.kernel_size, "kernel_size")
        conv = Conv(
            self.groups * rows * columns,
            (rows, columns),
            padding=self.padding,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            **self.numerics,
            name="conv",
        )
        logits = BatchNorm(**self.numerics, name="norm")(conv(x), train=train)
        weights = jax.nn.softmax(logits.astype(accurate_dtype(x.dtype)), axis=-1).astype(x.dtype)
        return adaptive_blur(x, weights.reshape(*x.shape[:3], self.groups, rows, columns), self.padding)
