"""Runs a Flax module on images and on the same images moved, and compares what goes in and out of each layer.

Both run as one batch, and every map is compared as soon as it is there, so that none is kept.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.evaluation.audit.alignment import Shift, equivariance_error, tolerance
from aliasfree_jax.ops.choices import CHOICES, choices


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was found in the arguments or the result of a call: of its first map, and the largest error.

    Attributes:
      shape: [N, h, w, C] or [N, C]; () if there is nothing to compare, and `note` says why.
      error: equivariance error; nan if not compared.
      aligned: the map is off the proportional place by pixels of the image.
    """

    shape: tuple[int, ...] = ()
    dtype: str = ""
    error: float = math.nan
    aligned: bool = False
    note: str = ""


@dataclasses.dataclass
class Call:
    """One call of one layer.

    Attributes:
      path: names of the modules that lead to it, "" for the network itself.
      module: its class.
      stride: that it says it has, 1 if none.
      entered, left: its place in the order of execution, of which both its ends take one.
      takes: the layer called just before whose result is its argument, `left` of that; None if no such.
    """

    path: str
    module: type
    stride: int
    entered: int
    left: int
    takes: int | None
    source: Seen
    result: Seen


@dataclasses.dataclass
class Recorder:
    """Intercepts the calls of modules, see `nn.intercept_methods`; `calls` has them, the inner ones first.

    Attributes:
      images: shape of the images, without the moved ones, which are the second half of the batch.
      wide: makes layers compute in float64 that would choose a type of their own.
      traced: paths of calls without values, inside a vmap, say; some of them may have values another time.
    """

    images: tuple[int, ...]
    shift: Shift
    wide: bool
    calls: list[Call] = dataclasses.field(default_factory=list)
    traced: list[str] = dataclasses.field(default_factory=list)
    _time: int = 0
    _last: tuple[Any, int] = (None, -1)  # the result of the call that ended last, and when

    def __call__(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Runs a method, and looks at its arguments and result if it is `__call__`."""
        module = context.module
        if self.wide:
            _widen(module)
        # A sampler's call is its `with_phase`, which a network may call by itself.
        if context.method_name != ("with_phase" if hasattr(module, "with_phase") else "__call__"):
            return call(*args, **kwargs)
        path = "/".join(map(str, module.path))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            self.traced.append(path)
            return call(*args, **kwargs)
        entered, self._time = self._time, self._time + 1
        leaves = jax.tree.leaves((args, kwargs))
        takes = self._last[1] if any(leaf is self._last[0] for leaf in leaves) else None
        source = self._look((args, kwargs))
        result = call(*args, **kwargs)
        left, self._time = self._time, self._time + 1
        seen = self._look(result)
        self.calls.append(Call(path, type(module), _stride(module), entered, left, takes, source, seen))
        arrays = [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array)]
        self._last = (arrays[0] if arrays else None, left)
        return result

    @property
    def unseen(self) -> list[str]:
        """Paths of layers that were called, but never with values that could be looked at."""
        return sorted({*self.traced} - {call.path for call in self.calls})

    def _look(self, values: Any) -> Seen:
        found, note = [], "no array"
        for leaf in jax.tree.leaves(values):
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
                note = self._hindrance(leaf.shape)
                if not note:
                    found.append(self._compared(leaf))
        if not found:
            return Seen(note=note)
        known = [seen for seen in found if not math.isnan(seen.error)]
        return dataclasses.replace(
            found[0],
            error=max((seen.error for seen in known), default=math.nan),
            aligned=any(seen.aligned for seen in known),
            note="" if known else "only zeros",
        )

    def _hindrance(self, shape: tuple[int, ...]) -> str:
        """Why an array is no map or vector of the images; "" if it is one."""
        if len(shape) not in (2, 4):
            return f"{len(shape)} dimensions, not [N, h, w, C] or [N, C]"
        if shape[0] != 2 * self.images[0]:
            return f"{shape[0]} rows for {2 * self.images[0]} images"
        if len(shape) == 4:
            shares = [side / full for side, full in zip(shape[1:3], self.images[1:3], strict=True)]
            if abs(shares[0] - shares[1]) >= 1 / min(self.images[1:3]):
                return f"{shape[1]} x {shape[2]} is no grid over the image"
        return ""

    def _compared(self, leaf: jax.Array) -> Seen:
        half, exact = self.images[0], tolerance(leaf.dtype)
        values = np.asarray(leaf)
        error, aligned = equivariance_error(values[:half], values[half:], self.shift, self.images, exact)
        return Seen((half, *leaf.shape[1:]), str(leaf.dtype), error, aligned)


def _widen(module: nn.Module) -> None:
    """Lets a bound module, which lives for one `apply`, compute in float64 whatever type it was given."""
    if "dtype" in getattr(module, "__dataclass_fields__", ()) and module.dtype is not None:
        object.__setattr__(module, "dtype", jnp.float64)  # modules are frozen
    if getattr(module, "precision", None) is not None:
        object.__setattr__(module, "precision", "highest")


def _stride(module: nn.Module) -> int:
    strides = getattr(module, "strides", None) or getattr(module, "stride", None)  # of foreign modules, too
    numbers = [n for n in jax.tree.leaves(strides) if isinstance(n, int)]
    return max(numbers, default=1)


def _as_it_is(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    """In place of `jax.checkpoint`, which traces even where no gradient is taken."""
    return function


@contextlib.contextmanager
def _layer_by_layer(unrolled: bool) -> Iterator[None]:
    """Layers are called with values: nothing recomputed, batches whole, and, `unrolled`, no jit and no scan.

    JAX has a switch for the last two only. Flax looks `jax.remat` up whenever it calls it.
    """
    whole = {jax.default_backend(): dataclasses.replace(choices(), working_set=None)}
    plain = mock.patch.multiple(jax, checkpoint=_as_it_is, remat=_as_it_is)
    with jax.disable_jit(unrolled), plain, mock.patch.dict(CHOICES, whole):
        yield


def record(
    module: nn.Module,
    variables: PyTree,
    images: np.ndarray,
    shift: Shift,
    arguments: Mapping[str, Any],
    *,
    dtype: Any,
) -> Recorder:
    """Runs `module` on `images` [2 N, H, W, C], the moved ones behind the others, given as `dtype`.

    In float64 all layers and variables are float64, as far as the module's code leaves that open.
    """
    n, *rest = images.shape
    wide = dtype == np.float64
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        given = jnp.asarray(images, dtype)
        if wide:
            variables = jax.tree.map(_as_float64, variables)
        for unrolled in (False, True):  # slower, every operation being a call of its own: only where it helps
            recorder = Recorder((n // 2, *rest), shift, wide)
            with _layer_by_layer(unrolled), nn.intercept_methods(recorder):
                module.apply(variables, given, **arguments)
            if not recorder.unseen:
                break
    return recorder


def _as_float64(leaf: Any) -> Any:
    return jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf
