"""Matches the classes of data with the outputs of a network, by the names of the classes.

Labels are numbers of the data's classes. A network, or a run, has its own list of classes. `match_classes`
finds the output for each class of the data, or refuses. `fit_classes` returns the data with labels that are
numbers of outputs. Names are compared exactly, after removing surrounding spaces. Names that are only numbers
("0", "1", ..., "class 7", "007") are placeholders: they give the position of a class, not its meaning.
"""

import dataclasses
import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aliasfree_jax.data.masks import mask_of
from aliasfree_jax.data.sources import IGNORED, Example, Source, task_of
from aliasfree_jax.errors import DataError, listed

LISTED = 12  # at most so many names in a message


class ClassNamesError(DataError):
    """The classes of the data differ from those of a network or a run."""


@dataclasses.dataclass(frozen=True)
class Match:
    """The position of the data's classes among those of a network.

    Attributes:
      outputs: the network's output for each class of the data.
      class_names: names of all outputs; real names if either side has them.
      note: a line for the user; "" if all names are equal.
    """

    outputs: tuple[int, ...]
    class_names: tuple[str, ...]
    note: str


def placeholders(count: int) -> tuple[str, ...]:
    """Names for `count` classes without names: "0", "1", ..."""
    return tuple(map(str, range(count)))


def _numbers(names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers in `names`, if they are 0 to N - 1 in any order; else None."""
    found = [re.fullmatch(r"(?:class|label)?[ _-]*(\d+)", name, re.IGNORECASE) for name in names]
    numbers = tuple(int(match[1]) for match in found if match)
    return numbers if sorted(numbers) == list(range(len(names))) else None


def _compared(names: Iterable[str]) -> tuple[str, ...]:
    """`names` in a form that is equal for the same class."""
    # Macintosh file systems store accented letters in decomposed form.
    trimmed = tuple(unicodedata.normalize("NFC", str(name).strip()) for name in names)
    numbers = _numbers(trimmed)
    return trimmed if numbers is None else tuple(map(str, numbers))


def _by_number(name: str) -> list[str | int]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def _pairs(found: Sequence[str], known: Sequence[str]) -> str:
    return listed([f"{theirs} = {ours}" for theirs, ours in zip(found, known, strict=True)], LISTED)


def match_classes(
    known: Sequence[str],
    found: Sequence[str],
    *,
    owner: str = "the network",
    data: str = "the data",
    subset: bool = False,
    accept: bool = False,
) -> Match:
    """Finds the position of each class in `found` among the `known` classes.

    Equal names in another order are matched by name. Placeholders on either side are taken as positions.

    Args:
      known: the classes of the network's outputs.
      found: the classes of the data.
      owner: name of the network or run in messages.
      data: name of the data in messages.
      subset: whether the data may lack some of the known classes.
      accept: if both sides have equally many classes, compare no names: class k is output k.

    Raises:
      ClassNamesError: the classes differ.
    """
    known, found = tuple(map(str, known)), tuple(map(str, found))
    ours, theirs = _compared(known), _compared(found)
    equal, times = len(known) == len(found), Counter(ours)
    if ours == theirs:
        return Match(tuple(range(len(known))), known, "")
    if accept and equal:
        return Match(
            tuple(range(len(known))),
            found if _numbers(theirs) is None else known,
            "class names: not compared (--accept_class_names). Labels are taken as positions among the "
            f"classes of {owner}: {_pairs(found, known)}",
        )
    once = {name: k for k, name in enumerate(ours) if times[name] == 1}
    if set(theirs) <= once.keys() and len(set(theirs)) == len(theirs) and (equal or subset):
        kind = "the classes" if equal else f"only {len(found)} of the {len(known)} classes"
        order = " in another order" if equal else ""
        return Match(
            tuple(once[name] for name in theirs),
            known,
            f"class names: {data} has {kind} of {owner}{order}; labels are matched by name: "
            f"{listed(found, LISTED)}",
        )
    if equal and (match := _by_position(known, found, owner, data)):
        return match
    raise ClassNamesError(
        f"{data} has {len(found)} classes, {owner} has {len(known)}, and they differ: "
        f"{_difference(known, found, owner, data)}. "
        + (
            f"If label k nevertheless means class k of {owner}, pass --accept_class_names."
            if equal
            else "--accept_class_names takes labels by position, so it needs equally many classes."
        )
    )


def _by_position(known: tuple[str, ...], found: tuple[str, ...], owner: str, data: str) -> Match | None:
    """The match if one side has placeholders; else None."""
    ours, theirs = _compared(known), _compared(found)
    numbers = _numbers(theirs)
    if numbers is not None and not set(ours) & set(theirs):
        named = _pairs(found, [known[number] for number in numbers])
        note = f"{data} has placeholders; they are taken as positions among the classes of {owner}: {named}"
        return Match(numbers, known, f"class names: {note}")
    if ours == placeholders(len(known)):
        as_text = "" if sorted(theirs, key=_by_number) == list(theirs) else " (as text, not as numbers)"
        note = f"{owner} has placeholders; folders are taken in order{as_text}: {_pairs(found, known)}"
        return Match(tuple(range(len(known))), found, f"class names: {note}")
    return None


def _difference(known: tuple[str, ...], found: tuple[str, ...], owner: str, data: str) -> str:
    """Describes the first difference."""
    ours, theirs = _compared(known), _compared(found)
    there, here = set(ours), set(theirs)
    strangers = [k for k, name in enumerate(theirs) if name not in there]
    if strangers:
        k = strangers[0]
        instead = f", whose class {k} is {known[k]!r}" if k < len(known) else ""
        lower = {name.casefold(): known[i] for i, name in enumerate(ours)}
        near = difflib.get_close_matches(theirs[k].casefold(), lower, n=1, cutoff=0.8)
        hint = f" (did you mean {lower[near[0]]!r}?)" if near else ""
        more = f"; {len(strangers) - 1} more classes are unknown too" if strangers[1:] else ""
        return f"{found[k]!r}, class {k} of {data}, is unknown to {owner}{instead}{hint}{more}"
    for whose, names in ((data, theirs), (owner, ours)):
        for name, count in Counter(names).items():
            if count > 1:
                return f"{name!r} names {count} classes of {whose}, so the name is ambiguous"
    k = next(k for k, name in enumerate(ours) if name not in here)
    return f"{known[k]!r}, class {k} of {owner}, is missing from {data}"


class _Relabelled:
    """The examples of `source`, with labels that are numbers of a network's outputs."""

    def __init__(self, source: Source, match: Match):
        self._source, self._outputs = source, np.asarray(match.outputs)
        self.class_names, self.task = match.class_names, task_of(source)
        labels = getattr(source, "labels", None)
        if labels is not None:
            self.labels = self._outputs[np.asarray(labels)]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`."""
        example = self._source[index]
        if self.task == "segmentation":
            mask = mask_of(example, len(self._outputs))
            outputs = np.append(self._outputs, IGNORED)
            return dataclasses.replace(example, label=outputs[np.minimum(mask, len(self._outputs))])
        if not isinstance(example.label, int | np.integer) or not 0 <= example.label < len(self._outputs):
            raise DataError(
                f"{example.name} has the label {example.label!r}; expected 0 to {len(self._outputs) - 1}."
            )
        return dataclasses.replace(example, label=int(self._outputs[example.label]))


def fit_classes(
    source: Source,
    known: Sequence[str],
    *,
    tell: Callable[[str], None],
    owner: str = "the network",
    data: str = "the data",
    subset: bool = False,
    accept: bool = False,
) -> Source:
    """Returns `source` with the labels and class names of a network's outputs.

    Args:
      source: its labels are numbers of its own classes.
      known: see `match_classes`.
      tell: called with a note, unless all names are equal.
      owner: see `match_classes`.
      data: see `match_classes`.
      subset: see `match_classes`.
      accept: see `match_classes`.

    Raises:
      ClassNamesError: the classes differ.
    """
    match = match_classes(known, source.class_names, owner=owner, data=data, subset=subset, accept=accept)
    if match.note:
        tell(match.note)
    in_place = match.outputs == tuple(range(len(known)))
    if task_of(source) == "regression":
        if not in_place:
            raise ClassNamesError(
                f"{data} has the channels {', '.join(source.class_names)}, {owner} has {', '.join(known)}. "
                "Regression needs the same channels in the same order."
            )
        return source
    unchanged = in_place and match.class_names == tuple(source.class_names)
    return source if unchanged else _Relabelled(source, match)
