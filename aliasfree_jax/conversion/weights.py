"""Finds the weights of one network in a training checkpoint, by the names of entries and prefixes.

Training programs put weights into entries (`state_dict`, `model_ema`) and behind prefixes (`module.`,
`_orig_mod.`), nested in any order. Both are steps down the same tree. Each step chooses the averaged weights
if there are any, else the network, and notes what it leaves out.
"""

import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aliasfree_jax.conversion.torch_objects import Tensor
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.errors import ConversionError, listed
from aliasfree_jax.pickles.inert import Description, NumpyArray

SHOWN = 10  # names in an error
MAX_NODES = 1_000_000  # a dictionary that occurs in many places multiplies: an attack on the run time
# Words in the names of entries and prefixes. A name has the rank of its best word.
_AVERAGED = "ema swa averaged average avg polyak shadow teacher target momentum".split()
_NETWORK = "model module state net network weights params backbone mod student encoder core trunk".split()
_OTHER = set(
    "optimizer optimizers optim opt scheduler schedulers lr scaler loss losses criterion metric metrics "
    "discriminator callbacks loops hyper args rng grad gradients history queue prototypes decoder".split()
)
_RANKS = {word: rank for rank, word in enumerate((*_AVERAGED, *_NETWORK))}
# "core" is a prefix in LPS's own networks, so it is not a step down. LPS's DeepLabs have a backbone beside
# the other parts.
_LPS_DEEPLAB = re.compile(r"classifier\.(aspp|classifier\.0)\.convs\.")
_LPS = re.compile(r"layer2\.0\.conv[23]\.[01]\.(weight|component_selection\..*)")


@dataclass
class _Node:
    """A dictionary of a file.

    Attributes:
      tensors: Its tensors by name.
      children: Its dictionaries by name.
      names: All its names.
      unnamed: Number of tensors, if it is a list.
    """

    tensors: dict[str, object] = field(default_factory=dict)
    children: dict[str, "_Node"] = field(default_factory=dict)
    names: list[object] = field(default_factory=list)
    unnamed: int = 0

    def size(self) -> int:
        return len(self.tensors) + sum(child.size() for child in self.children.values())

    def in_lists(self) -> int:
        return self.unnamed + sum(child.in_lists() for child in self.children.values())


@dataclass(frozen=True)
class Weights:
    """The tensors of one network.

    Attributes:
      place: Where they were found, for messages.
      tensors: Tensors under the network's names.
      aside: Other places with tensors, and their numbers of tensors.
    """

    place: str
    tensors: dict[str, object]
    aside: tuple[str, ...]

    def note(self) -> str:
        """What was loaded and what was not. "" if everything was loaded."""
        return f"loaded {self.place}, did not load {', '.join(self.aside)}" if self.aside else ""


def find_weights(content: object, key: str | None = None) -> Weights:
    """Finds the weights of the network in a file.

    Args:
      content: The content of the file.
      key: The entry to search. None: the whole file.

    Raises:
      ConversionError: There are no weights, or there is no such entry.
      UndecidedError: Several entries fit equally well.
    """
    place = "its content"
    if key is not None:
        content, place = _entry(content, key), f"its entry {key!r}"
    elif not _is_group(content):
        raise ConversionError(f"it holds a {type(content).__name__}, not a dictionary of weights")
    node = _Reader().node(content)
    path: list[str] = [] if key is None else [key]
    aside: list[str] = []
    beside: list[_Node] = []
    if key is not None and _words(key) & _OTHER:  # tensors of an optimizer are not weights
        node.children.clear()
    while step := _step(node, path):
        node, name, left = step
        path.append(name)
        place = f"its entry {'.'.join(path)!r}"
        beside += left.values()
        aside += [_counted(".".join([*path[:-1], other]), found) for other, found in left.items()]
    if not node.tensors:
        empty = [f"its entry {n!r}" for n, c in node.children.items() if not c.names and not c.in_lists()]
        if not node.names or len(empty) == len(node.names):
            raise ConversionError(f"{(empty or [place])[0]} is an empty dictionary, not weights")
        raise ConversionError(
            f"{place} is not a state dict of named tensors. Its {len(node.names)} entries are "
            f"{listing(node.names)}. If another entry of the file holds the weights, name it with `key`"
        )
    aside += [
        _counted(".".join([*path, name]), child) for name, child in node.children.items() if child.size()
    ]
    tensors = node.tensors
    for other in map(_root, beside):
        tensors = _renamed(tensors, other.tensors)
        if set(tensors) < set(other.tensors):
            place += f" and {len(other.tensors) - len(tensors)} tensors from the entry beside it"
            tensors = {**other.tensors, **tensors}
    return Weights(place, tensors, tuple(aside))


def _root(node: _Node) -> _Node:
    while step := _step(node, ["beside"]):
        node = step[0]
    return node


def _renamed(tensors: dict[str, object], others: Collection[str]) -> dict[str, object]:
    """Restores the dots in names of buffers, which cannot contain dots, from the names in `others`."""
    names = {name.replace(".", ""): name for name in others if "." in name}
    found = {names[name]: tensor for name, tensor in tensors.items() if name in names}
    return found if 2 * len(found) > len(tensors) else tensors


def listing(names: Collection[object]) -> str:
    """Lists the first names, and the total number if there are more."""
    return listed([reprlib.repr(name) for name in names], SHOWN)


def _entry(content: object, key: str) -> object:
    if not isinstance(content, dict):
        raise ConversionError(f"it holds a {type(content).__name__}, not a dictionary of weights")
    if key not in content:
        raise ConversionError(
            f"it has no entry {key!r}; the entries are {listing(content)}. Without `key`, averaged weights "
            "are loaded if there are any, else the network's"
        )
    if not _is_group(content[key]):
        kind = type(content[key]).__name__
        raise ConversionError(f"its entry {key!r} is a {kind}, not a dictionary of weights")
    return content[key]


def _is_tensor(value: object) -> bool:
    value = value.value if isinstance(value, NumpyArray) else value
    return isinstance(value, Tensor | np.ndarray)


def _is_group(value: object) -> bool:
    return isinstance(value, Mapping) or type(value) is Description


def _entries(value: object) -> Mapping[Any, object]:
    """The entries of a dictionary, or the attributes and items of a described object."""
    if type(value) is not Description:
        return value if isinstance(value, Mapping) else {}
    pairs = [pair for pair in value.items if type(pair) is tuple and len(pair) == 2 and type(pair[0]) is str]
    state = value.state if isinstance(value.state, dict) else {}
    return _module(value) or {**state, **dict(pairs)}


def _module(value: object) -> dict[Any, object] | None:
    """The parameters, buffers and modules of a described torch.nn.Module."""
    state = value.state if type(value) is Description else None
    if not isinstance(state, dict) or not isinstance(state.get("_modules"), dict):
        return None
    lost = state.get("_non_persistent_buffers_set") or ()
    found: dict[Any, object] = {}
    for part in ("_parameters", "_buffers", "_modules"):
        entries = state.get(part)
        if isinstance(entries, dict):
            found |= {k: v for k, v in entries.items() if v is not None and k not in lost}
    return found


class _Reader:
    """Makes a tree of nodes of the content of a file."""

    def __init__(self) -> None:
        self.left = MAX_NODES
        self.open: set[int] = set()

    def node(self, value: object) -> _Node:
        found = _Node()
        if id(value) in self.open:  # it contains itself
            return found
        self.open.add(id(value))
        for name, part in _entries(value).items():
            self.left -= 1
            if self.left < 0:
                raise ConversionError(f"it has more than {MAX_NODES:,} values, so it was refused")
            found.names.append(name)
            if type(name) is str and _is_tensor(part):
                found.tensors[name] = part
            elif isinstance(part, list | tuple):
                found.children[str(name)] = _Node(unnamed=sum(map(_is_tensor, part)))
            elif _is_group(part):
                child = self.node(part)
                if _module(part) is None or _module(value) is None:
                    found.children[str(name)] = child
                else:  # a module within a module: both have one state dict
                    found.tensors |= {f"{name}.{inner}": tensor for inner, tensor in child.tensors.items()}
        self.open.discard(id(value))
        return found


def _step(node: _Node, path: list[str]) -> tuple[_Node, str, dict[str, _Node]] | None:
    """The part of `node` with the network, its name, and what is left out. None if it is `node`."""
    if any(map(_LPS_DEEPLAB.match, node.tensors)):
        return None
    groups = _groups(node)
    sizes = {name: group.size() for name, group in groups.items()}
    ranks = {name: rank for name in groups if sizes[name] and (rank := _rank(name, groups[name])) is not None}
    largest = max((sizes[name] for name in ranks), default=0)
    ranks = {name: rank for name, rank in ranks.items() if 2 * sizes[name] >= largest}
    # Tensors at this level under unknown names. If they are the majority, this is the network.
    own = sum("." not in name or _is_own(name.split(".")[0], ranks) for name in node.tensors)
    if not ranks and not node.tensors:
        ranks = {name: 0 for name, size in sizes.items() if size and not _words(name) & _OTHER}
    elif own >= largest and not set(ranks) & set(node.children):
        return None
    if not ranks:
        return None
    best = sorted(ranks, key=lambda name: ranks[name])
    if len(best) > 1 and ranks[best[0]] == ranks[best[1]]:
        entries = [".".join([*path, name]) for name in best]
        if path:
            raise ConversionError(f"it has several networks: {listing(entries)}. Save only one of them")
        raise UndecidedError(f"it has several networks: {listing(entries)}.", {"key": best[0]})
    told = {n: g for n, g in groups.items() if n != best[0] and (n in ranks or _told(n, g))}
    told |= {n: _Node({n: t}) for n, t in node.tensors.items() if "." not in n}
    return groups[best[0]], best[0], told


def _told(name: str, group: _Node) -> bool:
    """Whether to mention a part that is left out. Tensors of optimizers are not mentioned."""
    if not group.size():
        return bool(group.in_lists()) and _rank(name, group) is not None
    return not _words(name) & {"optimizer", "optimizers", "optim", "opt", "scheduler", "schedulers", "scaler"}


def _is_own(first: str, ranks: Collection[str]) -> bool:
    return first not in ranks and not _words(first) & _OTHER


def _groups(node: _Node) -> dict[str, _Node]:
    """The dictionaries in `node`, and its tensors grouped by the first part of their names."""
    groups = dict(node.children)
    for name, tensor in node.tensors.items():
        first, dot, rest = name.partition(".")
        if dot:
            if first not in groups or groups[first] is node.children.get(first):
                known = groups.get(first, _Node())
                groups[first] = _Node(dict(known.tensors), known.children, known.names)
            groups[first].tensors[rest] = tensor
    return groups


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def _rank(name: str, group: _Node) -> int | None:
    """The rank of the best word in a name: averaged weights first. None if no word is in the list."""
    words = _words(name)
    if words & _OTHER or (name == "core" and any(map(_LPS.fullmatch, group.tensors))):
        return None
    return min((_RANKS[word] for word in words if word in _RANKS), default=None)


def _counted(name: str, node: _Node) -> str:
    count = node.size() or node.in_lists()
    return f"{name!r} ({count} tensor{'s' * (count != 1)}{'' if node.size() else ' without names'})"
