"""Networks of this package by name, with a warning where an exact sampler alone does not make them exact."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import listed
from aliasfree_jax.layers.adaptive import ComponentSampler
from aliasfree_jax.layers.sampling import IdealDownsample
from aliasfree_jax.models import registry
from aliasfree_jax.models.parts import KIND_OF_OPTION
from aliasfree_jax.transform.checking import Findings, check

# Options that decide what shifts do to a network: its parts, its padding, where it samples.
_OF_SHIFTS = {*KIND_OF_OPTION, "padding", "sampled_padding", "pool_padding", "last_rate_padding"}
_OF_SHIFTS |= {"pool_only", "strided"}
_EXACT = (ComponentSampler, IdealDownsample)
_SIDE = 4  # of the map behind the last sampler: whatever it is, shapes alone are computed
_SHOWN = 3  # kinds of findings, and modules of each


def create_model(name: str, **options: Any) -> nn.Module:
    """Builds a network, and warns if an exact sampler is asked for where something else breaks invariance.

    Args:
      name: one of `list_models()`.
      **options: overrides, all JSON-able: see `models.create_model`.

    Returns:
      A Linen module: `variables = module.init(key, images)`, then
      `logits = module.apply(variables, images, train=False)`, with float images [N, H, W, C].

    Raises:
      ConfigError: unknown name, option or part; the message shows the near ones.
    """
    module: Any = registry.create_model(name, **options)
    if left := what_is_left(name, module, options):
        warnings.warn(left, stacklevel=2)
    return module


def what_is_left(name: str, module: Any, options: Mapping[str, Any]) -> str:
    """What breaks invariance to whole pixels in a network with an exact sampler, in words; "" if nothing.

    A network without an option that decides what shifts do is what its name promises, and is not looked into.
    Sides that its total stride does not divide are another matter, of which the samplers warn.

    Args:
      name: of the network.
      options: that it was made with.
    """
    if not options.keys() & _OF_SHIFTS:
        return ""
    side = module.total_stride * max(_SIDE, -(-module.smallest_side // module.total_stride))
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    found = Findings()
    # Layers of somebody's own may fail on such images, or for want of random numbers: of no concern to a
    # warning. Their errors come where the network is run.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # samplers warn of odd maps, which the findings name
        if isinstance(module.sampler(strides=2, parent=None), _EXACT):
            variables = jax.eval_shape(module.init, jax.random.key(0), images)
            found = check(lambda v, x: _in_short(module.apply(v, x), side), variables, images, argnums=1)
    return _told(name, found) if found else ""


def _in_short(result: jax.Array, side: int) -> jax.Array:
    """The mean of a map of features, which may move in steps; other results as they are."""
    return result.mean((1, 2)) if result.ndim == 4 and result.shape[1] < side else result


def _told(name: str, found: Findings) -> str:
    modules: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        modules.setdefault((finding.reason, finding.remedy), []).append(finding.within or finding.where)
    kinds = [
        f"  {listed(list(dict.fromkeys(within)), _SHOWN)}: {reason}. {remedy}."
        for (reason, remedy), within in modules.items()
    ]
    more = [f"  and {len(kinds) - _SHOWN} more"] if len(kinds) > _SHOWN else []
    return "\n".join(
        [
            f"{name} with these options is not invariant to shifts by whole pixels, though its sampler is "
            "exact. What is left:",
            *(kinds[:_SHOWN] + more),
            "aliasfree_jax.check(module.apply, variables, images, argnums=1) shows all of it. These need no "
            "options to be exact: resnet50_aps, convnext_aps_tiny, convnext_afc_tiny and others.",
        ]
    )
