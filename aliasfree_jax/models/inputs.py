"""What every network checks of its images."""

import jax

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.resample import check_images


def check_input(images: jax.Array) -> None:
    """Raises `ShapeError` unless `images` is a floating-point array [N, H, W, C]; [N, C, H, W] is seen."""
    check_images(images)
    count, first, second, last = images.shape
    if first in (1, 3) and last > 4:
        raise ShapeError(
            f"expected images [N, H, W, C], got {list(images.shape)}, which looks like PyTorch's "
            f"[N, C, H, W]. Pass [{count}, {second}, {last}, {first}]: images.transpose(0, 2, 3, 1)."
        )
