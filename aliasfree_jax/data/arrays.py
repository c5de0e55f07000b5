"""A source of images and labels that are in memory already."""

from collections.abc import Sequence

import numpy as np

from aliasfree_jax.data.sources import IGNORED, Example, channel_names
from aliasfree_jax.errors import DataError

# Ideal resampling overshoots the original range slightly. Values 0..255 stored as floats exceed it by far.
FLOAT_RANGE = (-1.0, 2.0)
TASK_OF_LABELS = {1: "classification", 3: "segmentation", 4: "regression"}  # by number of dimensions


class ArraySource:
    """Images and labels in memory. The shape of the labels decides the task.

    Args:
      images: `[N, H, W, C]`, uint8, or floating point in [0, 1].
      labels: for classification, integers `[N]`, each an index into `class_names`. For segmentation, integers
        `[N, H, W]`, where 255 is ignored. For regression, target images `[N, H, W, K]` with the dtypes and
        range of `images`.
      class_names: by default "0", "1", ... up to the largest label; for target images the colours.
      name: name of the source in messages.

    Raises:
      DataError: an argument has a wrong shape, dtype or range.
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
                raise DataError(
                    f"class_names has {len(names)} names, but the targets have {self._labels.shape[-1]} "
                    "channels: give one name for each channel, or omit class_names."
                )
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
            f"expected {len(images)} integer labels, one for each image, got "
            f"{labels.dtype}{list(labels.shape)}. Masks must be integers [{len(images)}, {height}, {width}], "
            f"target images [{len(images)}, {height}, {width}, channels]."
        )


def _check_classes(labels: np.ndarray, names: Sequence[str] | None, task: str) -> Sequence[str]:
    """The names of the classes; `DataError` if they do not fit the `labels`."""
    counted = labels[labels != IGNORED] if task == "segmentation" else labels
    low, high = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
    if names is None:
        names = [str(label) for label in range(high + 1)]
    if low < 0 or high >= len(names):
        raise DataError(
            f"labels must lie in 0..{len(names) - 1} ({len(names)} class names), got {low}..{high}."
            + (f" The label {IGNORED} marks ignored pixels." if task == "segmentation" else "")
        )
    return names


def _check_images(images: np.ndarray) -> np.ndarray:
    """Checks `images` `[N, H, W, C]` with N > 0, and converts floating point to float32."""
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
            f"floating-point images must be in [0, 1], got {low:.4g}..{high:.4g}: "
            "divide by 255, or pass them as uint8."
        )
    return images.astype(np.float32, copy=False)
