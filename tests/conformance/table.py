"""Every exported layer and a network of each family, as small as possible: the cases of all checks."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax import layers
from aliasfree_jax.layers import Factory
from aliasfree_jax.models import create_model

BATCH = 4  # can be divided over four devices, and into pieces of one image


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A module, made by its public name.

    Attributes:
      name: name of the layer or network.
      options: options of the constructor.
      other: options that make a different module.
      given: shape of one image's input.
      gives: shape of one image's output.
      rank: required rank of inputs. None: any rank.
      smallest: smallest side (or length) of inputs, if there is a limit.
      weight: 1 for networks that only slow tests compile, 2 for those that only slow tests trace, 0 for
        others.
      traced: never compiled, because another network of its family and each of its layers are.
      label: distinguishes cases of the same layer.
    """

    name: str
    options: Mapping[str, Any]
    other: Mapping[str, Any]
    given: tuple[int, ...]
    gives: tuple[int, ...]
    rank: int | None = 4
    smallest: int = 1
    weight: int = 0
    traced: bool = False
    label: str = ""

    @property
    def network(self) -> bool:
        """Whether the case is a network."""
        return not hasattr(layers, self.name)

    def make(self, **changes: Any) -> nn.Module:
        """Makes a new module, with these options changed."""
        options = {**self.options, **changes}
        return create_model(self.name, **options) if self.network else getattr(layers, self.name)(**options)


def row(name: str, options: Any = None, other: Any = None, gives: Any = (8, 8, 4), **more: Any) -> Case:
    """A layer's case. The default input is an 8 x 8 map with 4 channels."""
    return Case(name, options or {}, other or {}, more.pop("given", (8, 8, 4)), gives, **more)


def sampler(name: str, options: Any = None, other: Any = None, **more: Any) -> Case:
    """The case of a layer that halves the map."""
    return row(name, options, other or {"strides": 4}, (4, 4, 4), smallest=2, **more)


def sequence(name: str, options: Any = None, other: Any = None, gives: Any = (4, 4), **more: Any) -> Case:
    """The case of a one-dimensional layer."""
    return row(name, options, other or {"strides": 4}, gives, given=(8, 4), rank=3, **more)


SCALED = {"in_scale": 2.0, "train_scale": True}
STEM = {
    **{
        "features": 4,
        "kernel_size": 4,
        "strides": 2,
        "sampler": layers.IdealDownsample,
        "padding": "CIRCULAR",
    },
    **{"activation": Factory(layers.LowpassPolynomial, cutoff=0.5), "residual": True},
}
PATCHES = {"width": 4, "sampler": layers.IdealDownsample, "norm": layers.BatchNorm, "patch_size": 2}
GATED_PATCHES = {**PATCHES, "activation": Factory(layers.LowpassGate, cutoff=0.5)}
BANDLIMITED = {**PATCHES, "activation": layers.BandlimitedGate}
COMPONENTS = {"given": (4, 4, 4, 4), "gives": (4,), "rank": 5}
# Layers appear several times if their options select different code, not only different numbers.
LAYERS = [
    sampler("Subsample"),
    sampler("BlurPool", None, {"kernel_size": 5}),
    sampler("IdealDownsample", None, {"any_size": True}),
    sampler("AdaptiveBlurPool", {"groups": 2}, {"groups": 4}),
    sampler("NormPreserving", None, {"inner": layers.IdealDownsample}),
    sampler("AdaptivePolyphase", None, {"criterion": "l1"}),
    sampler("AdaptivePolyphase", {"inner": layers.BlurPool, "select_on": "raw"}, label="blurred"),
    sampler("LearnedPolyphase", None, {"logits": layers.LinearLogits}),
    row("ConvLogits", None, {"width_ratio": 2.0}, **COMPONENTS),
    row("AttentionLogits", None, {"width_ratio": 2.0}, **COMPONENTS),
    row("GraphLogits", None, {"width_ratio": 2.0}, **COMPONENTS),
    row("LinearLogits", None, {"padding": "ZERO"}, **COMPONENTS),
    sampler("MaxBlurPool", None, {"sampler": Factory(layers.BlurPool, kernel_size=5)}),
    sampler("MaxBlurPool", {"padding": "CIRCULAR", "sampler": layers.AdaptivePolyphase}, label="adaptive"),
    sampler("MaxBlurPool", {"sampler": layers.Subsample}, label="plain"),
    row("PolyphaseUpsample", None, {"gain": 1.0}, (16, 16, 4)),
    row("IdealUpsample", None, {"strides": 3}, (16, 16, 4)),
    row("ZeroUpsample", {"inner": layers.BlurPool}, {"strides": 3}, (16, 16, 4)),
    row("BilinearUpsample", None, {"align_corners": False}, (16, 16, 4)),
    row("UpsampledConv", {"features": 3}, {"features": 4}, (16, 16, 3)),
    row(
        "UpsampledConv",
        {"features": 3, "upsampler": layers.IdealUpsample},
        {"upsampler": layers.PolyphaseUpsample},
        (16, 16, 3),
        label="ideal",
    ),
    sequence("BlurPool1D", None, {"kernel_size": 5}, smallest=2),
    sequence("IdealDownsample1D", smallest=2),
    sequence("IdealUpsample1D", gives=(16, 4)),
    sequence("AdaptivePolyphase1D", None, {"criterion": "l1"}, smallest=2),
    sequence("PolyphaseUpsample1D", gives=(16, 4)),
    row("Polynomial", SCALED, {"initial": (0.0, 1.0)}, rank=None),
    row("UpPolynomial", SCALED, {"in_scale": 3.0}),
    row("LowpassPolynomial", SCALED, {"cutoff": 0.5}),
    row("Gate", SCALED, {"in_scale": 3.0}, (8, 8, 2), rank=None),
    row("UpGate", SCALED, {"in_scale": 3.0}, (8, 8, 2)),
    row("UpSelfGate", SCALED, {"in_scale": 3.0}),
    row("LowpassGate", SCALED, {"cutoff": 0.5}, (8, 8, 2)),
    row("BandlimitedGate", SCALED, {"cutoff": 0.5}, (8, 8, 2)),
    row("Conv", {"features": 3, "kernel_size": 3}, {"use_bias": False}, (8, 8, 3)),
    row(
        "Conv",
        {"features": 4, "kernel_size": 3, "strides": 2, "padding": "SAME"},
        {"strides": 4},
        (4, 4, 4),
        label="strided",
    ),
    row("StandardisedConv", {"features": 3, "kernel_size": 3}, {"use_bias": False}, (8, 8, 3)),
    row("DepthwiseConv", {"kernel_size": 3}, {"padding": "ZERO"}),
    sampler("SampledConv", {"features": 4, "kernel_size": 3}, {"sampler": layers.IdealDownsample}),
    row("UpGelu", None, {"dtype": jnp.bfloat16}),
    row("CrossCovarianceAttention", {"num_heads": 2}, {"num_heads": 4}),
    sampler("PatchStem", GATED_PATCHES, {"width": 8}),
    sampler("ActivatedPatchStem", {**PATCHES, "activation": layers.UpGelu}, {"width": 8}),
    sampler("ActivatedPatchStem", BANDLIMITED, {"width": 8}, label="gated"),
    sampler("FirstActivatedPatchStem", GATED_PATCHES, {"width": 8}),
    row(
        "LocalPatchInteraction", {"activation": layers.UpGate, "norm": layers.BatchNorm}, {"padding": "ZERO"}
    ),
    row("FourierPositions", None, {"frequencies": 16}),
    row("Mlp", {"hidden": 8, "activation": layers.UpPolynomial}, {"hidden": 16}),
    row("Mlp", {"hidden": 8, "activation": layers.UpGate}, {"hidden": 16}, label="gated"),
    sampler("ActivatedStem", STEM, {"residual": False}),
    row("DropPath", {"rate": 0.5}, {"rate": 0.4}, rank=None),
    row("ChannelNorm", None, {"epsilon": 1e-3}, rank=None),
    row("SpatialNorm", None, {"epsilon": 1e-3}),
    row("PositionNorm", None, {"epsilon": 1e-3}),
    row("BatchNorm", None, {"group": 2}),
    row("BoundedBatchNorm", None, {"group": 2}),
    row("InstanceNorm", None, {"dtype": jnp.bfloat16}),
    row("GroupNorm", {"num_groups": 2}, {"num_groups": 1}),
]


def network(name: str, options: Any, side: int, **more: Any) -> Case:
    """The case of a network with a square image of 3 channels."""
    smallest, gives = more.pop("smallest", 4), more.pop("gives", (3,))
    other = {"padding": "REPLICATE"}
    options = {"num_classes": 3, **options}
    return Case(name, options, other, (side, side, 3), gives, smallest=smallest, **more)


TWO_STAGES = {"depths": (1, 1), "widths": (4, 8)}
STEM_BY_2 = {"stem_kernel": 2, "stem_stride": 2}
XCIT = {"width": 8, "depth": 1, "num_heads": 2, "patch_size": 2}
NETWORKS = [
    network("convnext_afc_micro", TWO_STAGES | STEM_BY_2, 16),
    network("resnet20_cifar_lps", TWO_STAGES, 8, smallest=2),
    network("basic_blur", {"widths": (4, 8)}, 8, weight=1),
    network("convnext_aps_micro", TWO_STAGES | STEM_BY_2, 16, weight=1),
    *(network(f"convnext{kind}_micro", TWO_STAGES | STEM_BY_2, 16, traced=True) for kind in ("", "_afg")),
    network("xcit_afg_micro", XCIT, 8, smallest=2),
    *(network(f"xcit{kind}_micro", XCIT, 8, smallest=2, traced=True) for kind in ("", "_aps", "_aft")),
    network("resnet20_cifar_aps", TWO_STAGES, 8, smallest=2, traced=True),
    network("resnet18_afc", TWO_STAGES, 16, smallest=8, weight=1),
    network("densenet121_blur", {"depths": (1, 1), "growth": 4, "width": 4}, 16, smallest=8, weight=1),
    network("mobilenet_v2_blur", {"width_mult": 0.1}, 64, smallest=32, weight=2),
    network("vgg11_bn_blur", TWO_STAGES, 16, weight=1),
    network("alexnet_blur", {}, 96, smallest=32, weight=1),
    network("unet_micro_aps", {"widths": (4, 8)}, 8, smallest=2, gives=(8, 8, 3), traced=True),
    network("unet_micro_lps", {"widths": (4, 8)}, 8, smallest=2, gives=(8, 8, 3), weight=1),
    network("unet_micro_afc", {"widths": (4, 8)}, 8, smallest=2, gives=(8, 8, 3), weight=1),
    network(
        "deeplabv3plus_resnet20_cifar_lps",
        {
            "backbone": {"name": "resnet20_cifar_lps", **TWO_STAGES},
            **{"width": 4, "low_level_width": 4, "rates": (1, 6)},
        },
        8,
        smallest=2,
        gives=(8, 8, 3),
        weight=1,
    ),
]

CASES = LAYERS + NETWORKS
NOT_LAYERS = {"Layer", "Factory"}  # the base class and the factory of parts


def parameters(cases: list[Case], *, light: bool = False) -> list[Any]:
    """Cases for `pytest.mark.parametrize`; cases with too much weight are slow tests.

    Args:
      light: the check compiles nothing.
    """
    return [
        pytest.param(
            case,
            id=f"{case.name}-{case.label}".rstrip("-"),
            marks=pytest.mark.slow if case.weight > light else (),
        )
        for case in cases
        if light or not case.traced
    ]


def over(cases: list[Case], *, light: bool = False) -> Any:
    """Decorator that runs a check for these cases."""
    return pytest.mark.parametrize("case", parameters(cases, light=light))


def images(case: Case, batch: int = BATCH, dtype: str = "float32", seed: int = 0) -> jax.Array:
    """Returns normal random inputs."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal((batch, *case.given)), dtype)


def filled(shapes: Any) -> Any:
    """Returns random variables of these shapes: initial zero gains would hide most of a module."""
    rng = np.random.default_rng(1)

    def value(path: Any, leaf: Any) -> jax.Array:
        centre = 1.0 if path[-1].key in ("scale", "var", "in_scale", "out_scale") else 0.0
        spread = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1]))) if path[-1].key == "kernel" else 0.1
        return jnp.asarray(centre + spread * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(value, shapes)


def init_shapes(module: nn.Module, x: jax.Array) -> Any:
    """Returns shapes and dtypes of the variables."""
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)


@functools.cache
def sample(case: Case) -> tuple[nn.Module, Any, jax.Array, jax.Array]:
    """Returns module, random variables, a batch and the compiled result, computed once per case."""
    module, x = case.make(), images(case)
    variables = filled(init_shapes(module, x))
    return module, variables, x, jax.jit(module.apply)(variables, x)


def close(result: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Asserts equality up to float32 rounding of sums of some thousand products in a different order."""
    for one, other in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.all(np.isfinite(one)), "not finite"
        np.testing.assert_allclose(
            one, other, rtol=0, atol=tolerance * max(1.0, np.abs(other).max(initial=0))
        )
