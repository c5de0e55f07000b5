"""Finds the line of the user's code that an operation of a program comes from."""

import contextvars
import dataclasses
import functools
import itertools
import os
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aliasfree_jax.errors import AliasFreeError
from aliasfree_jax.ops import operation

_PACKAGE = Path(__file__).parents[1]
# Parts of this package that count as user code.
_NETWORKS = (f"{_PACKAGE / 'layers'}/", f"{_PACKAGE / 'models'}/")
_INSTALLED = tuple(
    f"{sysconfig.get_paths()[kind]}/" for kind in ("purelib", "platlib", "stdlib", "platstdlib")
)
_FRAMEWORKS = ("aliasfree_jax", "equinox", "flax", "haiku", "jax")
# Library functions that are reported by their name instead of their primitives.
_FUNCTIONS = ("jax/_src/nn/functions.py", "flax/linen/pooling.py", "aliasfree_jax/ops/")

# Primitives that are reported by the operation inside.
_CONTAINERS = (
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat2", "checkpoint"),
    *("closed_call", "core_call", "cond", "scan", "while"),
)
# Containers and calls whose operations are reported one by one.
LOOKED_INTO = (*_CONTAINERS[:-3], "jit")
_TRANSFORMED = re.compile(r"^(\w+\()+")  # jax's own scopes: vmap(block), transpose(jvp(block))

# The operations that are being evaluated, outermost first, each with its number in its program.
_WALKED: contextvars.ContextVar[tuple[tuple[int, Any], ...]] = contextvars.ContextVar("walked", default=())


@contextmanager
def walking(number: int, eqn: Any) -> Iterator[None]:
    """Marks `eqn` as the operation that is being evaluated."""
    token = _WALKED.set((*_WALKED.get(), (number, eqn)))
    try:
        yield
    finally:
        _WALKED.reset(token)


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of an operation in a program.

    Attributes:
      path: The enclosing operations, outermost first, and the operation, each with its number in its program.
    """

    path: tuple[tuple[int, Any], ...]

    @property
    def position(self) -> tuple[int, ...]:
        """The position in the program. Earlier operations have lower positions."""
        return tuple(number for number, _ in self.path)

    @property
    def primitive(self) -> str:
        """The operation's primitive."""
        return str(self.path[-1][1].primitive.name)

    @property
    def where(self) -> str:
        """File and line of the user's code."""
        return self._found[0]

    @property
    def operation(self) -> str:
        """The function of a known library that the line calls, or the primitive."""
        return self._found[1]

    @property
    def within(self) -> str:
        """The path of the module, if the library names its modules."""
        parts = "/".join(str(eqn.source_info.name_stack) for _, eqn in self.path).split("/")
        modules = (_module(part) for part in parts)
        return "/".join(module for module, _ in itertools.groupby(modules) if module)

    @functools.cached_property
    def _found(self) -> tuple[str, str]:
        # Innermost first: cached programs of library functions do not contain a line of the user.
        for is_wanted in (_is_users, _is_networks):
            name = ""
            for _, eqn in reversed(self.path):
                function, name = "", name if name and eqn.primitive.name in _CONTAINERS else _name(eqn)
                for frame in _frames(eqn):
                    if is_wanted(frame.file_name):
                        return f"{frame.file_name}:{frame.line_num}", function or name
                    if any(known in frame.file_name for known in _FUNCTIONS):
                        function = frame.function_name.rpartition(".")[2].lstrip("_")
        return "unknown line", name


def short(where: str) -> str:
    """The line, relative to the working directory or to the folder of installed packages."""
    return re.sub(r".*-packages/", "", where).removeprefix(f"{Path.cwd()}{os.sep}")


def _module(scope: str) -> str:
    """The module of a name scope: "block" for "block.method", "Class" for "package.Class"."""
    names = _TRANSFORMED.sub("", scope).rstrip(")").split(".")
    return names[-1] if names[-1][:1].isupper() else names[0]


def _frames(eqn: Any) -> Any:
    traceback = eqn.source_info.traceback
    return traceback.frames if traceback else ()


@functools.cache
def _is_users(file: str) -> bool:
    """Whether a file is the user's. Layers and networks of this package count as the user's."""
    if file.startswith((*_INSTALLED, "<frozen")) or "-packages/" in file:
        return False
    return file.startswith(_NETWORKS) or not file.startswith(f"{_PACKAGE}/")


@functools.cache
def _is_networks(file: str) -> bool:
    """Whether a file belongs to an installed package that may contain networks."""
    return "-packages/" in file and not any(f"-packages/{package}/" in file for package in _FRAMEWORKS)


def _name(eqn: Any) -> str:
    """The name of an operation: its primitive, or the function that it calls."""
    if eqn.primitive.name != "jit":
        return str(eqn.primitive.name)
    own = operation.read(eqn.params["name"])
    return own[0] if own else str(eqn.params["name"]).lstrip("_")


def here(eqn: Any) -> Place:
    """The place of an operation. Call it from within the operation's rule."""
    path = _WALKED.get()
    return Place(path if path and path[-1][1] is eqn else (*path, (0, eqn)))


class TransformError(AliasFreeError, ValueError):
    """An operation of a program has no shift-invariant form.

    Source: this package.

    Attributes:
      where: File and line of the user's code.
      operation: The library function that the line calls, or the JAX primitive.
      within: Path of the module, if the library names its modules. Otherwise "".
      reason: Why the operation was refused.
      remedy: What to write instead.
    """

    def __init__(self, eqn: Any, reason: str, remedy: str) -> None:
        place = here(eqn)
        self.where, self.operation, self.within = place.where, place.operation, place.within
        self.reason, self.remedy = reason, remedy
        within = f" (in {self.within})" if self.within else ""
        super().__init__(f"{self.where}: {self.operation}{within}: {reason}. {remedy}")
