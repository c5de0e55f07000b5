"""Original state dicts entry by entry, strictly: one table converts to this package and exports back.

An `Entry` says where one tensor of the original lives here and how its axes are ordered there. Buffers
that are constants here (blur filters, counters, temperatures) are entries too: they are checked on the
way in, and made again on the way out, for programs that load strictly.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
from flax import traverse_util

from aliasfree_jax.checkpoint import named_leaves
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.blurring import binomial_taps

Options = Mapping[str, Any]
ModuleEntries = Callable[[str, str], "Iterator[Entry]"]
"""Entries of a module, from its key there and its path here."""
Pool = Callable[[str, str, int], "Iterator[Entry]"]
"""Entries of a sampler, from its key there, its path here and the number of channels."""
Candidates = Iterator[tuple[str, dict[str, Any]]]
"""Names of networks of an original, and options that they may have."""
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Order of the axes of one kind of tensor, both ways."""

    here: Callable[[np.ndarray], np.ndarray]
    there: Callable[[np.ndarray], np.ndarray]


VECTOR = Layout(lambda value: value, lambda value: value)
CONV = Layout(lambda value: value.transpose(2, 3, 1, 0), lambda value: value.transpose(3, 2, 0, 1))
# Of a transposed convolution: (input, output, rows, columns) there.
TRANSPOSED = Layout(lambda value: value.transpose(2, 3, 0, 1), lambda value: value.transpose(2, 3, 0, 1))
DEPTHWISE = Layout(
    lambda value: value[:, 0].transpose(1, 2, 0), lambda value: value.transpose(2, 0, 1)[:, None]
)
DENSE = Layout(lambda value: value.T, lambda value: value.T)
# A linear layer as a convolution of one pixel.
POINTWISE = Layout(lambda value: np.squeeze(value, (2, 3)).T, lambda value: value.T[:, :, None, None])


def flattened_map(side: int) -> Layout:
    """A linear layer after a flattened map of `side` x `side`: (channel, row, column) there."""

    def here(value: np.ndarray) -> np.ndarray:
        return value.reshape(len(value), -1, side, side).transpose(2, 3, 1, 0).reshape(-1, len(value))

    def there(value: np.ndarray) -> np.ndarray:
        features = value.shape[1]
        return value.reshape(side, side, -1, features).transpose(3, 2, 0, 1).reshape(features, -1)

    return Layout(here, there)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of the original.

    Attributes:
      key: in the original's state dict.
      path: here, such as "params/stem/conv/kernel"; "" for a constant.
      layout: of the tensor.
      constant: the value of a constant; conversion refuses another one, unless `free`.
      free: a constant that may have any value, or be missing (counters, temperatures).
    """

    key: str
    path: str = ""
    layout: Layout = VECTOR
    constant: np.ndarray | None = None
    free: bool = False


def blur_filter(key: str, channels: int, size: int) -> Entry:
    """The buffer of a BlurPool: (channels, 1, size, size), float32; ones for size 1."""
    taps = binomial_taps(size)
    outer = np.outer(taps, taps).astype(np.float32)
    return Entry(key, constant=np.broadcast_to(outer, (channels, 1, size, size)))


def blur_pool(size: int) -> Pool:
    """Entries of samplers whose only tensor is their blur filter."""

    def pool(key: str, path: str, channels: int) -> Iterator[Entry]:
        yield blur_filter(f"{key}.filt", channels, size)

    return pool


def no_entries(key: str, path: str, channels: int = 0) -> Iterator[Entry]:
    """A module without tensors."""
    return iter(())


def affine(key: str, path: str) -> Iterator[Entry]:
    """Weight and bias of a norm."""
    yield Entry(f"{key}.weight", f"params/{path}/scale")
    yield Entry(f"{key}.bias", f"params/{path}/bias")


def batch_norm(key: str, path: str) -> Iterator[Entry]:
    """The five tensors of a BatchNorm2d, for `layers.normalization.BatchNorm` at `path`."""
    yield from affine(key, f"{path}/norm")
    for theirs, ours in (("running_mean", "mean"), ("running_var", "var")):
        yield Entry(f"{key}.{theirs}", f"batch_stats/{path}/norm/{ours}")
    yield Entry(f"{key}.num_batches_tracked", constant=np.zeros((), np.int64), free=True)


def linear(key: str, path: str, layout: Layout = DENSE) -> Iterator[Entry]:
    """Weight and bias of a linear layer or, with another layout, of a convolution."""
    yield Entry(f"{key}.weight", f"params/{path}/kernel", layout)
    yield Entry(f"{key}.bias", f"params/{path}/bias")


@dataclasses.dataclass(frozen=True)
class CodeBase:
    """An original: its networks, by its own names and options.

    Attributes:
      source: how it is called.
      translate: name and options of `create_model` for one of its networks; ConversionError for a network,
        option or value that it does not have.
      entries: the state dict of a network, made of what `translate` gives, without masks of ideal filters.
      candidates: from a network's description (`description`) to what may be the same network there; the way
        there, `translate`, decides whether one is.
      filters: the option that states blur filters, or that there are none; "" without filters.
      no_filters: the option that states that there are none, where it is another.
      classes, channels: the options that state how many classes there are, and channels of the images; ""
        where these are always 3.
      task: of a network by its name, as a `ModelCard` has it.
    """

    source: str
    translate: Callable[[str, Options], tuple[str, dict[str, Any]]]
    entries: Callable[[Any, str, Options], Iterator[Entry]]
    candidates: Callable[[Mapping[str, Any]], Candidates]
    filters: str = ""
    no_filters: str = ""
    classes: str = "num_classes"
    channels: str = ""
    task: Callable[[str], str] = lambda model: "classification"

    def table(self, model: str, options: Options) -> list[Entry]:
        """The state dict of a network."""
        name, ours = self.translate(model, options)
        return list(self.entries(create_model(name, **ours), model, options))


def united(source: str, families: Mapping[str, CodeBase], **fields: str) -> CodeBase:
    """One code base of several families of networks: each by a pattern of their names, "vgg*" say."""

    def family(model: str) -> CodeBase:
        found = next((base for pattern, base in families.items() if fnmatchcase(model, pattern)), None)
        if found is None:
            raise ConversionError(unknown(f"network of {source}", model, families))
        return found

    def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
        return family(model).translate(model, options)

    def entries(network: Any, model: str, options: Options) -> Iterator[Entry]:
        return family(model).entries(network, model, options)

    def candidates(network: Mapping[str, Any]) -> Candidates:
        for base in families.values():
            yield from base.candidates(network)

    def task(model: str) -> str:
        return family(model).task(model)

    return CodeBase(source, translate, entries, candidates, task=task, **fields)


def chosen(what: str, name: str, table: Mapping[str, T]) -> T:
    """What `name` stands for; ConversionError if the `table` lacks it."""
    if name not in table:
        raise ConversionError(unknown(what, name, table))
    return table[name]


def check_options(what: str, options: Options, legal: Collection[str]) -> None:
    """Raises ConversionError for the first option that is not `legal`."""
    for option in options:
        if option not in legal:
            raise ConversionError(unknown(f"option of {what}", option, legal))


def listing(title: str, lines: Sequence[str]) -> str:
    """A paragraph of a report: the first 20 lines, or nothing if there are none."""
    shown = "".join(f"\n    {line}" for line in lines[:20])
    more = f"\n    ... and {len(lines) - 20} more" if len(lines) > 20 else ""
    return f"\n  {title}:{shown}{more}" if lines else ""


_NO_WEIGHTS = "biucOSU"  # kinds of numpy: integers are quantised weights, whose scale is stored elsewhere


def convert(state_dict: Mapping[str, np.ndarray], entries: Iterable[Entry], target: Any) -> Any:
    """Fills the structure of `target` from `state_dict`.

    Args:
      state_dict: the original's arrays, by its keys; constants may be missing.
      entries: the original's table.
      target: nested dictionary of shapes, from `checkpoint.abstract_variables`.

    Returns:
      The same nesting with float32 arrays (float64 stays).

    Raises:
      ConversionError: keys left over or missing, shapes that differ, constants of another value, weights that
        are no floating-point numbers.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in named_leaves(target).items()}
    left, filled = dict(state_dict), {}
    missing, wrong = [], []
    for entry in entries:
        value = left.pop(entry.key, None)
        if entry.constant is not None:
            if value is not None and not entry.free and not _equal(value, entry.constant):
                shape = list(entry.constant.shape)
                wrong.append(f"{entry.key} {list(value.shape)}: not the constant {shape} of this network")
        elif value is None:
            missing.append(f"{entry.key} (for {entry.path})")
        elif (dtype := np.asarray(value).dtype).kind in _NO_WEIGHTS:
            wrong.append(f"{entry.key} {list(np.shape(value))}: {dtype}, expected floating-point numbers")
            shapes.pop(entry.path, None)
        else:
            filled[entry.path] = moved = _moved(entry, np.asarray(value))
            expected = shapes.pop(entry.path, None)
            if expected is None:
                wrong.append(f"{entry.key} {list(value.shape)}: the network has no {entry.path}")
            elif moved.shape != expected:
                wrong.append(f"{entry.key} gives {list(moved.shape)}, {entry.path} has {list(expected)}")
    report = (
        listing("source keys without a place", [f"{k} {list(np.shape(v))}" for k, v in left.items()])
        + listing("source keys that are missing", missing)
        + listing("parameters without a source", [] if missing else list(shapes))
        + listing("shapes or values that differ", wrong)
    )
    if report:
        raise ConversionError(
            f"these weights do not fit this network:{report}\n"
            "  Check the model name and its options (depths, widths, filter size, stem, activation, padding, "
            "number of classes)."
        )
    return traverse_util.unflatten_dict(filled, sep="/")


def _equal(value: np.ndarray, constant: np.ndarray) -> bool:
    # Half-precision files hold the filters too, exactly: their values are dyadic.
    return value.shape == constant.shape and bool((np.asarray(value, np.float32) == constant).all())


def _moved(entry: Entry, value: np.ndarray) -> np.ndarray:
    try:
        value = entry.layout.here(value)
    except (ValueError, IndexError):
        pass  # a shape the layout cannot have: reported with the other shapes that differ
    return np.ascontiguousarray(value, np.float64 if value.dtype == np.float64 else np.float32)


def export(variables: Any, entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The original's state dict, constants included, with the values of `variables`.

    Raises:
      ConversionError: variables that are not those of the table's network.
    """
    flat = named_leaves(variables)
    paths = {entry.path for entry in entries if entry.constant is None}
    report = listing("parameters without a place there", sorted(set(flat) - paths)) + listing(
        "parameters missing here", sorted(paths - set(flat))
    )
    if report:
        raise ConversionError(f"these variables are not those of the network to export to:{report}")
    return {
        entry.key: np.array(entry.constant)
        if entry.constant is not None
        else np.ascontiguousarray(entry.layout.there(np.asarray(flat[entry.path])))
        for entry in entries
    }
