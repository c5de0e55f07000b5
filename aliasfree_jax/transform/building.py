"""Builds networks by name, and warns if other layers break the invariance that an exact sampler promises."""

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

# Options that decide how a network reacts to shifts.
_OF_SHIFTS = {*KIND_OF_OPTION, "padding", "sampled_padding", "pool_padding", "last_rate_padding"}
_OF_SHIFTS |= {"pool_only", "strided"}
_EXACT = (ComponentSampler, IdealDownsample)
_SIDE = 4  # side of the map after the last sampler; any will do, since only shapes are computed
_SHOWN = 3  # kinds of findings in the message, and modules per kind


def create_model(name: str, **options: Any) -> nn.Module:
    """Builds a network by name.

    Warns if the options ask for an exact sampler, but other layers break shift invariance.

    Source: this package.

    Args:
      name: One of `list_models()`.
      **options: Overrides of the network's options, as JSON values. See `models.create_model`.

    Returns:
      A Linen module. Call `variables = module.init(key, images)`, then
      `logits = module.apply(variables, images, train=False)`, with float images `[N, H, W, C]`.

    Raises:
      ConfigError: The name, an option or a part is unknown. The message lists similar names.
    """
    module: Any = registry.create_model(name, **options)
    if left := what_is_left(name, module, options):
        warnings.warn(left, stacklevel=2)
    return module


def what_is_left(name: str, module: Any, options: Mapping[str, Any]) -> str:
    """Describes what breaks invariance to whole-pixel shifts in a network with an exact sampler.

    Networks without an option that concerns shifts are not checked: they are what their name promises.
    Image sides that are no multiples of the total stride are not reported here: the samplers warn of them.

    Source: this package.

    Args:
      name: Name of the network, for the message.
      module: The network, as built by `create_model`.
      options: The options that the network was built with.

    Returns:
      A message of several lines, or "" if nothing was found.
    """
    if not options.keys() & _OF_SHIFTS:
        return ""
    side = module.total_stride * max(_SIDE, -(-module.smallest_side // module.total_stride))
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    found = Findings()
    # Custom layers may fail on these images, or need random keys. This is only a warning: such errors are
    # raised when the network is run.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the samplers' warnings are among the findings
        if isinstance(module.sampler(strides=2, parent=None), _EXACT):
            variables = jax.eval_shape(module.init, jax.random.key(0), images)
            found = check(lambda v, x: _in_short(module.apply(v, x), side), variables, images, argnums=1)
    return _told(name, found) if found else ""


def _in_short(result: jax.Array, side: int) -> jax.Array:
    """The mean of a feature map, because it may move in steps. Other results are returned unchanged."""
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
            f"{name} with these options is not invariant to shifts by whole pixels, although its sampler is "
            "exact. These operations break invariance:",
            *(kinds[:_SHOWN] + more),
            "aliasfree_jax.check(module.apply, variables, images, argnums=1) lists all of them. These "
            "networks are exact without options: resnet50_aps, convnext_aps_tiny, convnext_afc_tiny and "
            "others.",
        ]
    )
