"""Decodes the image and label of an example to arrays."""

import dataclasses

import numpy as np

from aliasfree_jax.data.decode import Decoder, decode
from aliasfree_jax.data.masks import mask_of
from aliasfree_jax.data.sources import Example, Source, task_of
from aliasfree_jax.errors import DataError


def decoded(
    example: Example, decoder: Decoder = decode, task: str = "classification", classes: int = 0
) -> Example:
    """Returns `example` with arrays instead of encoded files.

    Args:
      example: from a `Source`.
      decoder: decodes images and target images.
      task: the task of the source.
      classes: number of classes of the source. The numbers in a mask are below it, or IGNORED.

    Raises:
      DataError: an image or mask cannot be decoded, or a label does not fit its image.
    """
    image, label = example.image, example.label
    if isinstance(image, bytes):
        image = decoder(image, example.name)
    if label is example.image:  # an image that is its own target
        label = image
    elif task == "segmentation":
        label = mask_of(example, classes)
    elif task == "classification" and not isinstance(label, int | np.integer):
        raise DataError(
            f"{example.name} has labels of pixels, but its source has no attribute `task`: set it to "
            "'segmentation' or 'regression'."
        )
    elif isinstance(label, bytes):
        label = decoder(label, example.label_name or f"the target of {example.name}")
    if task != "classification" and np.shape(label)[:2] != image.shape[:2]:
        raise DataError(_sizes(example, image, np.asarray(label), task))
    if image is example.image and label is example.label:
        return example
    return dataclasses.replace(example, image=image, label=label)


def _sizes(example: Example, image: np.ndarray, label: np.ndarray, task: str) -> str:
    kind = "mask" if task == "segmentation" else "target"
    height, width = image.shape[:2]
    own = " x ".join(map(str, label.shape[:2])) or "a single number"
    return (
        f"{example.label_name or f'the {kind} of {example.name}'} has {own} pixels, its image {example.name} "
        f"{height} x {width}, but a {kind} needs a value for each pixel of its image. Make the sizes equal. "
        "If the image has an EXIF orientation that turns it, see data.exif."
    )


class DecodeOnce:
    """Keeps the decoded images of `source` in memory, up to `max_bytes`. For data sets of small images."""

    def __init__(self, source: Source, decoder: Decoder = decode, max_bytes: int = 1 << 30):
        self._source, self._decoder = source, decoder
        self._seen: dict[int, Example] = {}
        self._bytes_left = max_bytes
        self.class_names, self.task = source.class_names, task_of(source)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """The decoded example at `index`."""
        if (example := self._seen.get(index)) is not None:
            return example
        stored = self._source[index]
        example = decoded(stored, self._decoder, self.task, len(self.class_names))
        if example is not stored and self._bytes_left > 0:
            self._seen[index] = example
            self._bytes_left -= np.asarray(example.image).nbytes + np.asarray(example.label).nbytes
        return example
