"""Which output of a network is meant by each class of some data: told by the classes' names.

Labels number the classes of their own data. A network, or a run, knows classes of its own; `match_classes`
says how the ones become the others, or refuses, and `fit_classes` gives the data with those labels.
Names are compared exactly, without the space around them. Names that only number the classes ("0", "1", ...,
"class 7", "007") are placeholders: they say where a class stands, and not what it is.
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

LISTED = 12  # names in a message


class ClassNamesError(DataError):
    """The classes of the data are not those that a network or a run knows."""


@dataclasses.dataclass(frozen=True)
class Match:
    """How the classes of some data lie among those of a network."""

    outputs: tuple[int, ...]  # of the network, one a class of the data
    class_names: tuple[str, ...]  # of all outputs; real ones where either side has them
    note: str  # a line for the user; "" where all names are equal


def placeholders(count: int) -> tuple[str, ...]:
    """The names of `count` classes that have none: "0", "1", ..."""
    return tuple(map(str, range(count)))


def _numbers(names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers that `names` are, if these are 0 to N - 1 in any order."""
    found = [re.fullmatch(r"(?:class|label)?[ _-]*(\d+)", name, re.IGNORECASE) for name in names]
    numbers = tuple(int(match[1]) for match in found if match)
    return numbers if sorted(numbers) == list(range(len(names))) else None


def _compared(names: Iterable[str]) -> tuple[str, ...]:
    """The form of `names` in which equal ones are the same class."""
    # Macintosh file systems take accented letters apart.
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
    """How classes named `found` lie among those named `known`.

    The same names in another order are matched by name. Placeholders on either side are taken as positions.

    Args:
      known: the classes of the outputs.
      found: the classes of the data.
      owner, data: what messages call them.
      subset: whether the data may lack some of the known classes.
      accept: compare no names where the numbers of classes are equal: class k is output k.

    Raises:
      ClassNamesError: other classes.
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
            "class names: not compared (--accept_class_names), labels are taken as positions among the "
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
            f"If label k means class k of {owner} all the same, pass --accept_class_names."
            if equal
            else "--accept_class_names, which takes labels by position, needs equal numbers."
        )
    )


def _by_position(known: tuple[str, ...], found: tuple[str, ...], owner: str, data: str) -> Match | None:
    """The match where one side has placeholders."""
    ours, theirs = _compared(known), _compared(found)
    numbers = _numbers(theirs)
    if numbers is not None and not set(ours) & set(theirs):
        named = _pairs(found, [known[number] for number in numbers])
        note = f"{data} has placeholders; they are taken as positions among the classes of {owner}: {named}"
        return Match(numbers, known, f"class names: {note}")
    if ours == placeholders(len(known)):
        as_text = "" if sorted(theirs, key=_by_number) == list(theirs) else ", as text and not as numbers"
        note = f"{owner} has placeholders; folders are taken in order{as_text}: {_pairs(found, known)}"
        return Match(tuple(range(len(known))), found, f"class names: {note}")
    return None


def _difference(known: tuple[str, ...], found: tuple[str, ...], owner: str, data: str) -> str:
    """The first of the differences."""
    ours, theirs = _compared(known), _compared(found)
    there, here = set(ours), set(theirs)
    strangers = [k for k, name in enumerate(theirs) if name not in there]
    if strangers:
        k = strangers[0]
        instead = f", whose class {k} is {known[k]!r}" if k < len(known) else ""
        lower = {name.casefold(): known[i] for i, name in enumerate(ours)}
        near = difflib.get_close_matches(theirs[k].casefold(), lower, n=1, cutoff=0.8)
        hint = f" (did you mean {lower[near[0]]!r}?)" if near else ""
        more = f"; so are {len(strangers) - 1} more" if strangers[1:] else ""
        return f"{found[k]!r}, class {k} of {data}, is unknown to {owner}{instead}{hint}{more}"
    for whose, names in ((data, theirs), (owner, ours)):
        for name, count in Counter(names).items():
            if count > 1:
                return f"{name!r} names {count} classes of {whose}, so names do not tell which is meant"
    k = next(k for k, name in enumerate(ours) if name not in here)
    return f"{known[k]!r}, class {k} of {owner}, is missing from {data}"


class _Relabelled:
    """The examples of `source` with labels that number a network's outputs."""

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
    """`source` with labels, and names of classes, for the outputs whose classes are `known`.

    Args:
      source: its labels number its own classes.
      known: see `match_classes`, as for the arguments that follow.
      tell: called with a line, unless all names are equal.

    Raises:
      ClassNamesError: other classes.
    """
    match = match_classes(known, source.class_names, owner=owner, data=data, subset=subset, accept=accept)
    if match.note:
        tell(match.note)
    in_place = match.outputs == tuple(range(len(known)))
    if task_of(source) == "regression":
        if not in_place:
            raise ClassNamesError(
                f"{data} has the channels {', '.join(source.class_names)}, {owner} has {', '.join(known)}: "
                "the targets of regression need the same channels in the same order."
            )
        return source
    unchanged = in_place and match.class_names == tuple(source.class_names)
    return source if unchanged else _Relabelled(source, match)
