"""Pure functions of NHWC arrays: the mathematics of the package. They need only JAX and NumPy."""

from aliasfree_jax.ops.activation import (
    gate,
    lowpass_polynomial,
    polynomial,
    up_gate_down,
    up_polynomial_down,
)
from aliasfree_jax.ops.blurring import adaptive_blur, blur
from aliasfree_jax.ops.convolution import conv2d, mean_convolution
from aliasfree_jax.ops.depthwise import depthwise_conv
from aliasfree_jax.ops.padding import pad
from aliasfree_jax.ops.polyphase import (
    best_phase,
    component_scores,
    pad_to_multiple,
    polyphase_components,
    polyphase_downsample,
    polyphase_upsample,
    select_component,
)
from aliasfree_jax.ops.pooling import adaptive_average_pool, average_pool, max_pool
from aliasfree_jax.ops.resample import (
    ideal_downsample,
    ideal_lowpass,
    ideal_resample,
    ideal_upsample,
    remove_nyquist,
)
from aliasfree_jax.ops.sequence import (
    blur_1d,
    ideal_downsample_1d,
    ideal_lowpass_1d,
    ideal_resample_1d,
    ideal_upsample_1d,
    polyphase_downsample_1d,
    polyphase_upsample_1d,
)
from aliasfree_jax.ops.shift import bilinear_sample, fractional_shift, integer_shift

__all__ = [
    "adaptive_average_pool",
    "adaptive_blur",
    "average_pool",
    "best_phase",
    "bilinear_sample",
    "blur",
    "blur_1d",
    "component_scores",
    "conv2d",
    "depthwise_conv",
    "fractional_shift",
    "gate",
    "ideal_downsample",
    "ideal_downsample_1d",
    "ideal_lowpass",
    "ideal_lowpass_1d",
    "ideal_resample",
    "ideal_resample_1d",
    "ideal_upsample",
    "ideal_upsample_1d",
    "integer_shift",
    "lowpass_polynomial",
    "max_pool",
    "mean_convolution",
    "pad",
    "pad_to_multiple",
    "polynomial",
    "polyphase_components",
    "polyphase_downsample",
    "polyphase_downsample_1d",
    "polyphase_upsample",
    "polyphase_upsample_1d",
    "remove_nyquist",
    "select_component",
    "up_gate_down",
    "up_polynomial_down",
]
