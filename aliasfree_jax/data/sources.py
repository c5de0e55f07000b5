"""Sources of labelled images with random access: the one interface that the input pipeline reads.

A source returns encoded files or arrays. The threads or processes of the pipeline decode and augment them
later. A source must therefore be picklable, and several threads must be able to read it at once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aliasfree_jax.errors import ConfigError, DataError, unknown

# Data sets name the evaluation split differently: imagenet2012 has "validation", cifar10 only "test".
_VAL_NAMES = ("val", "validation", "test")


def split_names(split: str) -> tuple[str, ...]:
    """The names that `split` may have in a data set, in order of preference."""
    return _VAL_NAMES if split == "val" else (split,)


def split_of(split: str, known: Collection[str], place: object) -> str:
    """The name that `split` has in a data set.

    Args:
      split: the requested split.
      known: the splits of the data set.
      place: the data set, for the message.

    Raises:
      DataError: the data set has no such split.
    """
    for name in split_names(split):
        if name in known:
            return name
    raise DataError(unknown(f"split of {place}", split, known))


IGNORED = 255  # label of ignored pixels: borders of objects in Pascal VOC, pixels outside the image


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image.

    Attributes:
      image: an encoded file, or uint8 `[H, W, C]`, or floating point `[H, W, C]` in [0, 1].
      label: a class; or a class for every pixel, as integers `[H, W]` or an encoded image of class numbers;
        or the target image of a regression, in the same forms as `image`.
      name: says in messages where the image came from.
      label_name: says in messages where a label that is an image came from; "" if it has no separate place.
    """

    image: bytes | np.ndarray
    label: int | bytes | np.ndarray
    name: str
    label_name: str = ""


class Source(Protocol):
    """Labelled images with random access by index.

    A source that knows the classes of all images without reading them should also have `labels`, int `[N]`.
    `limit` and `hold_out` then select class by class. A source for another task than classification must have
    `task`, a name of `config.TASKS` (see `task_of`).

    Attributes:
      class_names: the names of the classes; for regression, the names of the target's channels.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> Example:
        """The example at `index`, 0 <= index < len.

        Raises:
          DataError: the example cannot be read.
        """


def task_of(source: Source) -> str:
    """The task of a source: a name of `config.TASKS`."""
    return getattr(source, "task", "classification")


def channel_names(count: int) -> tuple[str, ...]:
    """Names for the channels of target images, used as the `class_names` of a `Source`."""
    known = {1: ("grey",), 3: ("red", "green", "blue")}
    return known.get(count) or tuple(map(str, range(count)))


class Subset:
    """The examples of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices
        self.class_names, self.task = source.class_names, task_of(source)
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
    """Splits `count` over classes of the given `sizes` `[K]` as evenly as they allow. Returns int `[K]`."""
    quotas = np.zeros_like(sizes)
    while (left := count - int(quotas.sum())) > 0:
        unfilled = np.flatnonzero(quotas < sizes)
        if share := left // len(unfilled):
            quotas[unfilled] += np.minimum(share, sizes[unfilled] - quotas[unfilled])
        else:  # fewer left than classes: one each for evenly spread classes
            quotas[unfilled[np.arange(left) * len(unfilled) // left]] += 1
    return quotas


def limit(source: Source, count: int) -> Source:
    """Selects `count` examples of `source`: always the same ones, in the order of `source`.

    The selection is spread evenly over the source. If the source knows its labels, the selection goes class
    by class: the classes then differ by at most one example, unless a class has too few.

    Args:
      source: the source to select from.
      count: number of examples. 0, or more than there are, selects all.

    Raises:
      ConfigError: `count` is negative.
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
    """Selects `quotas[k]` positions of each class k, in their order in the source."""
    chosen = [_spread(of_class, quota) for of_class, quota in zip(members, quotas, strict=True)]
    return np.sort(np.concatenate(chosen))


def proportional_quotas(sizes: np.ndarray, share: float) -> np.ndarray:
    """Rounds `share * sizes` to integers `[K]`; each is off by less than one.

    The total is as close as possible to `share` of the total size. Every class gets at least one and keeps at
    least one, even if the total changes by that. An empty class, or a class of one, gets none.
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
    """Divides `source` into the remaining examples and a held-out `share`: the same division every time.

    The held-out examples are spread evenly over the source. If the source knows its labels, the division goes
    class by class: the share is exact to within one example, at least one example of each class is held out,
    and at least one remains. Both results keep the order of `source`.

    Args:
      source: needs at least two examples, and at least two of each class that occurs.
      share: between 0 and 1, both excluded.

    Returns:
      The remaining examples, then the held-out examples.

    Raises:
      DataError: there are too few examples.
    """
    labels = getattr(source, "labels", None)
    members = [np.arange(len(source))] if labels is None else _members(source, labels)
    single = [k for k, of_class in enumerate(members) if len(of_class) == 1]
    if single:
        names = [repr(source.class_names[k]) for k in single[:5]] + ["..."] * (len(single) > 5)
        raise DataError(
            f"data.validation = {share:g} holds out images of every class, so every class needs at least two "
            f"training images. These classes have only one: {', '.join(names)}. Add images, remove the "
            "class, raise data.train_limit, or set data.validation = 0."
        )
    held = _spread_in_each(members, proportional_quotas(np.asarray([len(m) for m in members]), share))
    left = np.setdiff1d(np.arange(len(source)), held, assume_unique=True)
    return Subset(source, left), Subset(source, held)
