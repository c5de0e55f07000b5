"""Random-access sources of labelled images, the one interface that the input pipeline reads.

A source hands out encoded bytes or arrays; decoding and augmentation happen later, in the pipeline's
threads or processes. A source must therefore be picklable and safe to read from several threads.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aliasfree_jax.errors import ConfigError, DataError, unknown

# Ideal resampling overshoots the range of the original a little; 0..255 stored as floats is far beyond.
FLOAT_RANGE = (-1.0, 2.0)

# The labelled held-out split goes by several names: imagenet2012 has "validation", cifar10 only "test".
_VAL_NAMES = ("val", "validation", "test")


def split_names(split: str) -> tuple[str, ...]:
    """The names that a split may have in a data set; the first one there is meant."""
    return _VAL_NAMES if split == "val" else (split,)


def split_of(split: str, known: Collection[str], place: object) -> str:
    """The name that a split has among the `known` ones of a `place`; `DataError` if it has none."""
    for name in split_names(split):
        if name in known:
            return name
    raise DataError(unknown(f"split of {place}", split, known))


IGNORED = 255  # label of pixels that count nowhere: borders of objects in Pascal VOC, and what lies outside


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image: an encoded file, or uint8 [H, W, C], or float [H, W, C] in [0, 1].

    The label is a class; or of each pixel, integers [H, W] or an encoded image of indices; or the image that
    a regression is to give, as the image itself is given.
    """

    image: bytes | np.ndarray
    label: int | bytes | np.ndarray
    name: str  # for messages: says where the image came from


class Source(Protocol):
    """Labelled images by position.

    A source that knows all labels without reading its images should also have `labels`, int [N]:
    `limit` and `hold_out` then go class by class.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> Example:
        """The example at `index`, 0 <= index < len; raises `DataError` if it cannot be read."""


class ArraySource:
    """Images and labels that are in memory already.

    Args:
      images: [N, H, W, C], uint8, or floating point in [0, 1].
      labels: integers [N], each a position in `class_names`.
      class_names: by default "0", "1", ... up to the largest label.
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
        self._images, self.labels = _check_images(np.asarray(images)), np.asarray(labels)
        if self.labels.shape != self._images.shape[:1] or not np.issubdtype(self.labels.dtype, np.integer):
            raise DataError(
                f"expected {len(self._images)} integer labels, one an image, "
                f"got {self.labels.dtype}{list(self.labels.shape)}."
            )
        if class_names is None:
            class_names = [str(label) for label in range(int(self.labels.max()) + 1)]
        self.class_names = tuple(class_names)
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise DataError(
                f"labels must lie in 0..{len(self.class_names) - 1} ({len(self.class_names)} class names), "
                f"got {self.labels.min()}..{self.labels.max()}."
            )
        self._name = name

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`."""
        return Example(self._images[index], int(self.labels[index]), f"{self._name}[{index}]")


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


class Subset:
    """The examples of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices
        self.class_names = source.class_names
        labels = getattr(source, "labels", None)
        if labels is not None:
            self.labels = np.asarray(labels)[indices]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        """The example at `index` of the subset."""
        return self._source[int(self._indices[index])]


def balanced_quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """Splits `count` over classes of the given `sizes` [K] as evenly as they allow; int [K]."""
    quotas = np.zeros_like(sizes)
    while (left := count - int(quotas.sum())) > 0:
        unfilled = np.flatnonzero(quotas < sizes)
        if share := left // len(unfilled):
            quotas[unfilled] += np.minimum(share, sizes[unfilled] - quotas[unfilled])
        else:  # fewer left than classes: one each for evenly spread classes
            quotas[unfilled[np.arange(left) * len(unfilled) // left]] += 1
    return quotas


def limit(source: Source, count: int) -> Source:
    """`count` examples of `source`, the same ones every time; 0, or more than there are, is all of them.

    Evenly spread over the source, class by class where the source knows its labels: the classes then
    differ by one example at most, unless one has too few. Order as in `source`.

    Raises:
      ConfigError: negative count.
    """
    if count < 0:
        raise ConfigError(f"data.train_limit and data.eval_limit must be 0 (all) or positive, got {count}.")
    if count == 0 or count >= len(source):
        return source
    labels = getattr(source, "labels", None)
    if labels is None:
        return Subset(source, _spread(np.arange(len(source)), count))
    members = _members(source, labels)
    quotas = balanced_quotas(np.asarray([len(m) for m in members]), count)
    return Subset(source, _spread_in_each(members, quotas))


def _members(source: Source, labels: np.ndarray) -> list[np.ndarray]:
    """The positions of the examples of each class."""
    ends = np.cumsum(np.bincount(labels, minlength=len(source.class_names)))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def _spread(positions: np.ndarray, count: int) -> np.ndarray:
    """`count` of `positions`, evenly spread."""
    return positions[np.arange(count) * len(positions) // max(1, count)]


def _spread_in_each(members: Sequence[np.ndarray], quotas: np.ndarray) -> np.ndarray:
    """So many of the positions of each class, in their order in the source."""
    chosen = [_spread(of_class, quota) for of_class, quota in zip(members, quotas, strict=True)]
    return np.sort(np.concatenate(chosen))


def proportional_quotas(sizes: np.ndarray, share: float) -> np.ndarray:
    """`share` of each of `sizes` [K], off by less than one; int [K], in total as near to the share of all.

    At least one of each and at most all but one, even if the total differs then; of an empty class none.
    """
    exact = share * sizes
    most = np.maximum(sizes - 1, 0)
    quotas = np.clip(np.floor(exact).astype(int), np.minimum(1, most), most)
    missing = max(0, round(share * int(sizes.sum())) - int(quotas.sum()))
    raisable = np.flatnonzero((quotas < exact) & (quotas < most))
    first = raisable[np.argsort((quotas - exact)[raisable], kind="stable")]  # largest remainders
    quotas[first[:missing]] += 1
    return quotas


def hold_out(source: Source, share: float) -> tuple[Source, Source]:
    """Divides `source` into what is left and a `share` of it that is held out, the same every time.

    Evenly spread over the source, class by class where the source knows its labels: of each class the share
    is held out to within one example, at least one, and at least one is left. Order as in `source`.

    Args:
      source: at least two examples, and of each class that it has.
      share: more than 0, less than 1.

    Raises:
      DataError: too few examples.
    """
    labels = getattr(source, "labels", None)
    members = [np.arange(len(source))] if labels is None else _members(source, labels)
    single = [k for k, of_class in enumerate(members) if len(of_class) == 1]
    if single:
        names = [repr(source.class_names[k]) for k in single[:5]] + ["..."] * (len(single) > 5)
        raise DataError(
            f"data.validation = {share:g} holds out images of every class, so each needs two or more in the "
            f"training split; only one has {', '.join(names)}. Add images, leave the class out, use more of "
            "the images (data.train_limit), or set data.validation = 0."
        )
    held = _spread_in_each(members, proportional_quotas(np.asarray([len(m) for m in members]), share))
    left = np.setdiff1d(np.arange(len(source)), held, assume_unique=True)
    return Subset(source, left), Subset(source, held)
