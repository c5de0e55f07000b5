"""Layer-wise learning rates: the nearer to the image, the smaller (ConvNeXt's fine-tuning recipe)."""

import re
from typing import Any

import jax
import optax

from aliasfree_jax.errors import ConfigError

LAST = 13  # depth of the final norm and the head


def depth(path: str) -> int:
    """Depth of a ConvNeXt's parameter, 0 (stem) to 13 (head), from a path such as "stage2_block4/norm/scale".

    Three blocks of the third stage share a depth; the other stages are one depth each. The numbers of the
    original for its sizes with 27 blocks there; others use fewer of them.

    Raises:
      ConfigError: of another network.
    """
    name = path.split("/")[0]
    if name in ("stem", "stem_norm"):
        return 0
    if name in ("norm", "head"):
        return LAST
    if match := re.fullmatch(r"downsample([123])(_norm)?", name):
        return (2, 3, 12)[int(match[1]) - 1]
    if match := re.fullmatch(r"stage([0-3])_block(\d+)", name):
        stage, block = int(match[1]), int(match[2])
        return (1, 2, min(3 + block // 3, 11), 12)[stage]
    raise ConfigError(
        "optimizer.layer_decay is defined for ConvNeXts of up to four stages, not for a network with "
        f"{path!r}."
    )


def scale_by_depth(decay: float) -> optax.GradientTransformation:
    """Multiplies every parameter's update by decay^(13 - depth): its learning rate and its weight decay."""

    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * decay ** (LAST - depth("/".join(str(key.key) for key in path)))

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))
