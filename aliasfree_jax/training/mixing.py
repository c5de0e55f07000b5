"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) on the device, as in timm's batch mode.

The original mixes the 32 images of each GPU with each other, with one random draw for all of them. This
package does the same in groups of consecutive images. So the result does not depend on the number of devices,
and the devices need not communicate. The module also draws a contact sheet of mixed images.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from aliasfree_jax.data.augment import denormalize

CONTACT_SHEET = "augmented.png"  # in the run's directory
COLUMNS, SHOWN = 8, 32
GAP = 2  # pixels between images


@dataclass(frozen=True)
class Mixing:
    """The fields of `config.train.mixing`, with the same names and meanings."""

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5
    group: int = 32

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Mixing | None":
        """Reads `config.train.mixing`; None if it mixes nothing."""
        return cls(**config.to_dict()) if config.mixup > 0 or config.cutmix > 0 else None


def mix(
    images: jax.Array, labels: jax.Array, key: jax.Array, how: Mixing
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Blends every image with its partner: image i of a group with image i from its end.

    Args:
      images: `[B, H, W, C]`, B a multiple of `how.group`.
      labels: integers `[B]`.
      key: key of the random draws.
      how: the fields of the configuration.

    Returns:
      The images, the partners' labels `[B]`, and the share `[B]` of the image's own label in its target.
    """
    groups = len(images) // how.group

    def split(array: jax.Array) -> jax.Array:
        return array.reshape(groups, how.group, *array.shape[1:])

    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(groups))
    mixed, shares = jax.vmap(_mix_group, in_axes=(0, 0, None))(split(images), keys, how)
    partners = split(labels)[:, ::-1].reshape(labels.shape)
    return mixed.reshape(images.shape), partners, jnp.repeat(shares, how.group)


def _mix_group(images: jax.Array, key: jax.Array, how: Mixing) -> tuple[jax.Array, jax.Array]:
    """Blends `[G, H, W, C]` with the reversed group. Returns it with its share, one number."""
    whether, which, blend_key, cut_key, centre_key = jax.random.split(key, 5)
    applied = jax.random.uniform(whether) < how.probability
    share_of_cut = how.switch if how.mixup > 0 and how.cutmix > 0 else float(how.cutmix > 0)
    cuts = jax.random.uniform(which) < share_of_cut
    height, width = images.shape[1:3]
    blend = jnp.where(applied, jax.random.beta(blend_key, *(how.mixup or 1.0,) * 2), 1.0)
    cut = jnp.where(applied, jax.random.beta(cut_key, *(how.cutmix or 1.0,) * 2), 1.0)
    inside = _box(height, width, jnp.sqrt(1 - cut), centre_key)
    share = jnp.where(cuts, 1 - inside.mean(), blend)
    own = jnp.where(cuts, 1 - inside.astype(jnp.float32), blend)[None, :, :, None].astype(images.dtype)
    return own * images + (1 - own) * images[::-1], share


def _box(height: int, width: int, ratio: jax.Array, key: jax.Array) -> jax.Array:
    """Whether each pixel `[H, W]` is in a box of `ratio` of the sides around a random centre."""

    def along(side: int, key: jax.Array) -> jax.Array:
        half = jnp.floor(side * ratio).astype(jnp.int32) // 2
        centre, places = jax.random.randint(key, (), 0, side), jnp.arange(side)
        return (places >= centre - half) & (places < centre + half)

    row_key, column_key = jax.random.split(key)
    return along(height, row_key)[:, None] & along(width, column_key)[None]


def write_contact_sheet(config: ConfigDict, path: Path, images: np.ndarray) -> None:
    """Writes the first images `[B, H, W, C]` of a batch as one PNG, as the network sees them.

    They are augmented already. They are mixed by the recipe, but with other random draws than in training.
    """
    mixing = Mixing.from_config(config.train.mixing)
    if mixing is not None:
        # One of several processes may have fewer images than a group.
        mixing = replace(mixing, group=min(mixing.group, len(images)))
        groups = min(len(images) // mixing.group, SHOWN)  # the picture has no room for more
        whole = images[: groups * mixing.group]
        labels = jnp.zeros(len(whole), int)
        images = np.asarray(mix(jnp.asarray(whole), labels, jax.random.key(config.seed), mixing)[0])
        # One image of each pair is enough. Show all groups, because each has its own draws.
        images = images.reshape(-1, mixing.group, *images.shape[1:])[:, : max(1, mixing.group // 2)]
        images = images.swapaxes(0, 1).reshape(-1, *images.shape[2:])
    pixels = denormalize(images[:SHOWN], config.data.mean, config.data.std)
    count, height, width, channels = pixels.shape
    cells = np.full((-(-count // COLUMNS) * COLUMNS, height + GAP, width + GAP, channels), 255, np.uint8)
    cells[:count, :height, :width] = pixels
    rows = cells.reshape(-1, COLUMNS, *cells.shape[1:]).swapaxes(1, 2)
    sheet = rows.reshape(-1, COLUMNS * (width + GAP), channels)
    Image.fromarray(sheet[..., :3] if channels >= 3 else sheet[..., 0]).save(path)
