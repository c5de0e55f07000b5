"""A picture of training images as the network gets them: augmented, and mixed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from aliasfree_jax.data.augment import denormalize
from aliasfree_jax.training.mixing import Mixing, mix

CONTACT_SHEET = "augmented.png"
COLUMNS, SHOWN = 8, 32
GAP = 2  # pixels between images


def write_contact_sheet(path: Path, images: np.ndarray, config: ConfigDict) -> None:
    """Writes the first images [B, H, W, C] of a batch, mixed as `config` says, as one PNG.

    The mixing is that of the recipe, with draws of its own.
    """
    mixing = Mixing.from_config(config.train.mixing)
    if mixing is not None:
        groups = min(len(images) // mixing.group, SHOWN)  # no more than the picture has room for
        whole = images[: groups * mixing.group]
        labels = jnp.zeros(len(whole), int)
        images = np.asarray(mix(jnp.asarray(whole), labels, jax.random.key(config.seed), mixing)[0])
        # One of each pair is enough, and other groups have other draws.
        images = images.reshape(-1, mixing.group, *images.shape[1:])[:, : max(1, mixing.group // 2)]
        images = images.swapaxes(0, 1).reshape(-1, *images.shape[2:])
    pixels = denormalize(images[:SHOWN], config.data.mean, config.data.std)
    count, height, width, channels = pixels.shape
    rows = -(-count // COLUMNS)
    sheet = np.full((rows * (height + GAP), COLUMNS * (width + GAP), channels), 255, np.uint8)
    for index, image in enumerate(pixels):
        top, left = (index // COLUMNS) * (height + GAP), (index % COLUMNS) * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    Image.fromarray(sheet[..., :3] if channels >= 3 else sheet[..., 0]).save(path)
