"""Where in the user's code the operations of a program come from."""

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
_NETWORKS = (f"{_PACKAGE / 'layers'}/", f"{_PACKAGE / 'models'}/")  # of this package, what users may write
_INSTALLED = tuple(
    f"{sysconfig.get_paths()[kind]}/" for kind in ("purelib", "platlib", "stdlib", "platstdlib")
)
_FRAMEWORKS = ("aliasfree_jax", "equinox", "flax", "haiku", "jax")
# Functions of libraries that are better known than the primitives they are made of.
_FUNCTIONS = ("jax/_src/nn/functions.py", "flax/linen/pooling.py", "aliasfree_jax/ops/")

# Primitives that are named by what is in them.
_CONTAINERS = (
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat2", "checkpoint"),
    *("closed_call", "core_call", "cond", "scan", "while"),
)
# Those of them, and calls, that a report goes into as if they were written out.
LOOKED_INTO = (*_CONTAINERS[:-3], "jit")
_TRANSFORMED = re.compile(r"^(\w+\()+")  # jax's own scopes: vmap(block), transpose(jvp(block))

# The operations that are being looked into, from the program's own on, each with its number in its program.
_WALKED: contextvars.ContextVar[tuple[tuple[int, Any], ...]] = contextvars.ContextVar("walked", default=())


@contextmanager
def walking(number: int, eqn: Any) -> Iterator[None]:
    """Within it, `eqn` is the operation of its program that is evaluated."""
    token = _WALKED.set((*_WALKED.get(), (number, eqn)))
    try:
        yield
    finally:
        _WALKED.reset(token)


@dataclasses.dataclass(frozen=True)
class Place:
    """An operation, and those whose programs it is in.

    Attributes:
      path: from the program's own operation inwards, each with its number in its program.
    """

    path: tuple[tuple[int, Any], ...]

    @property
    def position(self) -> tuple[int, ...]:
        """Of places of one program, the earlier operation has the lower one."""
        return tuple(number for number, _ in self.path)

    @property
    def primitive(self) -> str:
        """Of the operation."""
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
        """The path of the module, where the library names its modules."""
        parts = "/".join(str(eqn.source_info.name_stack) for _, eqn in self.path).split("/")
        modules = (_module(part) for part in parts)
        return "/".join(module for module, _ in itertools.groupby(modules) if module)

    @functools.cached_property
    def _found(self) -> tuple[str, str]:
        # Innermost first: programs of library functions are traced once, and have no line of the user.
        for is_wanted in (_is_users, _is_networks):
            name = ""
            for _, eqn in reversed(self.path):
                function, name = "", name if name and eqn.primitive.name in _CONTAINERS else _name(eqn)
                for frame in _frames(eqn):
                    if is_wanted(frame.file_name):
                        return f"{frame.file_name}:{frame.line_num}", function or name
                    if any(known in frame.file_name for known in _FUNCTIONS):
                        function = frame.function_name.rpartition(".")[2].lstrip("_")
        return "a line that is not known", name


def short(where: str) -> str:
    """The line relative to the working directory where it is below, or to where packages are installed."""
    return re.sub(r".*-packages/", "", where).removeprefix(f"{Path.cwd()}{os.sep}")


def _module(scope: str) -> str:
    """The module of a name scope: of "block.method" the block, of "package.Class" the class."""
    names = _TRANSFORMED.sub("", scope).rstrip(")").split(".")
    return names[-1] if names[-1][:1].isupper() else names[0]


def _frames(eqn: Any) -> Any:
    traceback = eqn.source_info.traceback
    return traceback.frames if traceback else ()


@functools.cache
def _is_users(file: str) -> bool:
    """Whether a file is no installed package's; of this one, networks may be users' own."""
    if file.startswith((*_INSTALLED, "<frozen")) or "-packages/" in file:
        return False
    return file.startswith(_NETWORKS) or not file.startswith(f"{_PACKAGE}/")


@functools.cache
def _is_networks(file: str) -> bool:
    """Whether a file is an installed package's that may have networks."""
    return "-packages/" in file and not any(f"-packages/{package}/" in file for package in _FRAMEWORKS)


def _name(eqn: Any) -> str:
    """What an operation is called: by its primitive, or by the function that is called."""
    if eqn.primitive.name != "jit":
        return str(eqn.primitive.name)
    own = operation.read(eqn.params["name"])
    return own[0] if own else str(eqn.params["name"]).lstrip("_")


def here(eqn: Any) -> Place:
    """The place of an operation, from within its rule."""
    path = _WALKED.get()
    return Place(path if path and path[-1][1] is eqn else (*path, (0, eqn)))


class TransformError(AliasFreeError, ValueError):
    """An operation of a program that cannot be kept on grids.

    Attributes:
      where: file and line of the user's code.
      operation: the primitive, or the function of a known library.
      within: the path of the module, where the library names its modules.
      reason: why it cannot be kept.
      remedy: what to write in its place.
    """

    def __init__(self, eqn: Any, reason: str, remedy: str) -> None:
        place = here(eqn)
        self.where, self.operation, self.within = place.where, place.operation, place.within
        self.reason, self.remedy = reason, remedy
        within = f" (in {self.within})" if self.within else ""
        super().__init__(f"{self.where}: {self.operation}{within}: {reason}. {remedy}")
