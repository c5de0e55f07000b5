"""Flax Linen layers for shift-invariant and alias-free networks: arrays in, arrays out.

Samplers, upsamplers, activations, norms and convolutions, ready to use in any Flax network:
`nn.Sequential([nn.Conv(16, (3, 3)), BlurPool(2), nn.relu])`.
"""

from aliasfree_jax.layers.activation import LowpassPolynomial, Polynomial, UpGelu, UpPolynomial
from aliasfree_jax.layers.adaptive import AdaptiveBlurPool, AdaptivePolyphase, LearnedPolyphase
from aliasfree_jax.layers.attention import CrossCovarianceAttention
from aliasfree_jax.layers.block import DropPath
from aliasfree_jax.layers.convolution import Conv, DepthwiseConv, StandardisedConv
from aliasfree_jax.layers.gates import BandlimitedGate, Gate, LowpassGate, UpGate, UpSelfGate
from aliasfree_jax.layers.layer import Factory, Layer
from aliasfree_jax.layers.mlp import Mlp
from aliasfree_jax.layers.normalization import (
    BatchNorm,
    BoundedBatchNorm,
    ChannelNorm,
    GroupNorm,
    InstanceNorm,
    PositionNorm,
    SpatialNorm,
)
from aliasfree_jax.layers.patches import (
    ActivatedPatchStem,
    FirstActivatedPatchStem,
    FourierPositions,
    LocalPatchInteraction,
    PatchStem,
)
from aliasfree_jax.layers.phase_logits import AttentionLogits, ConvLogits, GraphLogits, LinearLogits
from aliasfree_jax.layers.sampled import MaxBlurPool, SampledConv
from aliasfree_jax.layers.sampling import BlurPool, IdealDownsample, NormPreserving, Subsample
from aliasfree_jax.layers.sequence import (
    AdaptivePolyphase1D,
    BlurPool1D,
    IdealDownsample1D,
    IdealUpsample1D,
    PolyphaseUpsample1D,
)
from aliasfree_jax.layers.stems import ActivatedStem
from aliasfree_jax.layers.upsampling import (
    BilinearUpsample,
    IdealUpsample,
    PolyphaseUpsample,
    UpsampledConv,
    ZeroUpsample,
)

__all__ = [
    "ActivatedPatchStem",
    "ActivatedStem",
    "AdaptiveBlurPool",
    "AdaptivePolyphase",
    "AdaptivePolyphase1D",
    "AttentionLogits",
    "BandlimitedGate",
    "BatchNorm",
    "BilinearUpsample",
    "BlurPool",
    "BlurPool1D",
    "BoundedBatchNorm",
    "ChannelNorm",
    "Conv",
    "ConvLogits",
    "CrossCovarianceAttention",
    "DepthwiseConv",
    "DropPath",
    "Factory",
    "FirstActivatedPatchStem",
    "FourierPositions",
    "Gate",
    "GraphLogits",
    "GroupNorm",
    "IdealDownsample",
    "IdealDownsample1D",
    "IdealUpsample",
    "IdealUpsample1D",
    "InstanceNorm",
    "Layer",
    "LearnedPolyphase",
    "LinearLogits",
    "LocalPatchInteraction",
    "LowpassGate",
    "LowpassPolynomial",
    "MaxBlurPool",
    "Mlp",
    "NormPreserving",
    "PatchStem",
    "Polynomial",
    "PolyphaseUpsample",
    "PolyphaseUpsample1D",
    "PositionNorm",
    "SampledConv",
    "SpatialNorm",
    "StandardisedConv",
    "Subsample",
    "UpGate",
    "UpGelu",
    "UpPolynomial",
    "UpSelfGate",
    "UpsampledConv",
    "ZeroUpsample",
]
