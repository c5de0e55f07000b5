"""Images and labels that are in memory already."""

from collections.abc import Sequence

import numpy as np

from aliasfree_jax.data.sources import IGNORED, Example, channel_names
from aliasfree_jax.errors import DataError

# Ideal resampling overshoots the range of the original a little; 0..255 stored as floats is far beyond.
FLOAT_RANGE = (-1.0, 2.0)
TASK_OF_LABELS = {1: "classification", 3: "segmentation", 4: "regression"}  # by their dimensions


class ArraySource:
    """Images and labels that are in memory already; the shape of the labels says what task they are for.

    Args:
      images: [N, H, W, C], uint8, or floating point in [0, 1].
      labels: integers [N], each a position in `class_names`; or of each pixel, integers [N, H, W], where
        255 is ignored; or target images [N, H, W, K], as the images are.
      class_names: by default "0", "1", ... up to the largest label; of target images the colours.
      name: what messages call the source.

    Raises:
      DataError: shape, dtype or range of one of the three is wrong.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | Sequence[int],
        class_names: Sequence[str] | None = None,
        *,
        name: str = "arrays",
    ):
        self._images, self._labels = _check_images(np.asarray(images)), np.asarray(labels)
        self.task = TASK_OF_LABELS.get(self._labels.ndim, "classification")
        _check_shape(self._labels, self._images, self.task)
        if self.task == "regression":
            self._labels = _check_images(self._labels)
            names = channel_names(self._labels.shape[-1]) if class_names is None else class_names
            if len(names) != self._labels.shape[-1]:
                raise DataError(f"targets of {self._labels.shape[-1]} channels have {len(names)} names.")
        else:
            names = _check_classes(self._labels, class_names, self.task)
        self.class_names = tuple(names)
        if self.task == "classification":
            self.labels = self._labels
        self._name = name

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`."""
        label = self._labels[index]
        return Example(
            self._images[index],
            int(label) if self.task == "classification" else label,
            f"{self._name}[{index}]",
        )


def _check_shape(labels: np.ndarray, images: np.ndarray, task: str) -> None:
    shape = images.shape[: {"classification": 1}.get(task, 3)]
    numbers = task == "regression" or np.issubdtype(labels.dtype, np.integer)
    if labels.shape[: len(shape)] != shape or not numbers:
        height, width = images.shape[1:3]
        raise DataError(
            f"expected {len(images)} integer labels, one an image, got {labels.dtype}{list(labels.shape)}. "
            f"Masks are integers [{len(images)}, {height}, {width}], target images "
            f"[{len(images)}, {height}, {width}, channels]."
        )


def _check_classes(labels: np.ndarray, names: Sequence[str] | None, task: str) -> Sequence[str]:
    """The names of the classes, if these are the classes of the `labels`."""
    counted = labels[labels != IGNORED] if task == "segmentation" else labels
    low, high = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
    if names is None:
        names = [str(label) for label in range(high + 1)]
    if low < 0 or high >= len(names):
        raise DataError(
            f"labels must lie in 0..{len(names) - 1} ({len(names)} class names), got {low}..{high}."
            + (f" Pixels that count nowhere have {IGNORED}." if task == "segmentation" else "")
        )
    return names


def _check_images(images: np.ndarray) -> np.ndarray:
    """`images` as uint8 or float32 [N, H, W, C] with N > 0, or a `DataError`."""
    is_float = np.issubdtype(images.dtype, np.floating)
    if images.ndim != 4 or not (is_float or images.dtype == np.uint8):
        raise DataError(
            "expected images [N, H, W, C] of uint8 or of floats in [0, 1], "
            f"got {images.dtype}{list(images.shape)}."
        )
    if 0 in images.shape:
        raise DataError(f"expected at least one image, got {images.dtype}{list(images.shape)}.")
    if not is_float:
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= FLOAT_RANGE[0] and high <= FLOAT_RANGE[1]):  # written so that NaN fails too
        raise DataError(
            f"floating-point images must lie in [0, 1], got {low:.4g}..{high:.4g}: "
            "divide by 255, or pass them as uint8."
        )
    return images.astype(np.float32, copy=False)
