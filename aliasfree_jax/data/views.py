"""Views of an image without randomness: pure functions of NumPy arrays `[H, W, C]`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aliasfree_jax.data.decode import Resize, resize

# From this side on, the originals evaluate whole images, squeezed into a square, instead of centre crops.
WARPED_FROM = 384


def resize_shorter(image: np.ndarray, size: int, crop_ratio: float, resize: Resize = resize) -> np.ndarray:
    """Resizes the shorter side to int(size / crop_ratio); the longer side is truncated, as in torchvision.

    An image of `size` x `size` counts as prepared and is returned unchanged, whatever the ratio.
    torchvision's Resize would enlarge it. An image one pixel larger is enlarged, here too.
    """
    if image.shape[:2] == (size, size):
        return image
    short = int(size / crop_ratio)
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, short, int(short * width / height))
    return resize(image, int(short * height / width), short)


def center_view(image: np.ndarray, size: int, crop_ratio: float, resize: Resize = resize) -> np.ndarray:
    """`resize_shorter`, then torchvision's centre crop: `[size, size, C]`. Prepared images are unchanged."""
    if image.shape[:2] == (size, size):
        return image
    image = resize_shorter(image, size, crop_ratio, resize)
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def evaluation_view(
    image: np.ndarray, size: int, crop_ratio: float, kind: str = "auto", resize: Resize = resize
) -> np.ndarray:
    """The part of `image` that is evaluated, `[size, size, C]`.

    Args:
      image: `[H, W, C]`.
      size: side of the view in pixels.
      crop_ratio: side of the centre crop divided by the resized shorter side.
      kind: "crop": the centre (`center_view`). "warp": the whole image, its aspect ratio changed. "auto":
        like the original of alias-free ConvNeXt, a crop below 384 pixels, else warped.
      resize: antialiased, see `resize`.
    """
    if is_warped(size, kind):
        return resize(image, size, size)
    return center_view(image, size, crop_ratio, resize)


def is_warped(size: int, kind: str) -> bool:
    """Whether `evaluation_view` squeezes the whole image into the square."""
    return kind == "warp" or (kind == "auto" and size >= WARPED_FROM)


def kind_of_view(kind: str, task: str) -> str:
    """`data.eval_view` for a task. For masks and target images, "auto" is the crop at every size."""
    return "crop" if kind == "auto" and task != "classification" else kind


def described(data: Mapping[str, Any], task: str = "classification") -> str:
    """Describes how `config.data` prepares an image for evaluation: "224 x 224, ratio 0.875, bicubic"."""
    size, border = data["image_size"], data["zero_pad"]
    warped = is_warped(size, kind_of_view(data["eval_view"], task))
    parts = [f"{size} x {size}", "warped" if warped else f"ratio {data['eval_crop_ratio']:g}"]
    parts += [data["interpolation"]]
    parts += [f"a border of {border} zeros"] if border else []
    parts += ["upright by EXIF"] if data["exif"] else []
    return ", ".join(parts)


def zero_pad(image: np.ndarray, pixels: int, value: float = 0) -> np.ndarray:
    """Adds a border of zeros, or of another `value`: `[H + 2 pixels, W + 2 pixels, C]`.

    In a normalised image, zeros are the mean colour. A circular shift then moves no edge to the other side,
    unless it exceeds the border.
    """
    if pixels == 0:
        return image
    return np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), constant_values=value)
