"""Functions of users by reference: my_file.py:make_network, or my_package.my_file:make_network."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.files import local_path


def is_reference(name: str) -> bool:
    """Whether a network's name is that of a function which makes it."""
    return ":" in name or name.endswith(".py")


def located(target: str) -> str:
    """The same target, from every directory: "my_file.py:make_network" with the whole path of the file."""
    place, _, name = target.rpartition(":")
    return f"{local_path(place).resolve()}:{name}" if place.endswith(".py") else target


def _spec(place: str) -> ModuleSpec:
    """Where the module of a dotted name, or of a .py file, is; the module itself is not run.

    Raises:
      ConfigError: there is none.
    """
    is_file, found, cause = place.endswith(".py"), None, None
    if is_file and not Path(place).is_file():
        raise ConfigError(f"there is no file {place}.")
    beside = str(Path(place).resolve().parent if is_file else Path.cwd())
    if beside not in sys.path:
        sys.path.append(beside)  # as Python does for a program, which may import the files beside it
    try:
        found = None if is_file else importlib.util.find_spec(place)
    except (ImportError, ValueError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else place
        if missing is None or not f"{place}.".startswith(f"{missing}."):
            raise  # an import inside the package
        cause = error
    if is_file:  # run once, unless it changes: what it registers is registered once
        file = Path(place).resolve()
        state = hashlib.sha256(f"{file} {fingerprint(file)}".encode()).hexdigest()
        found = importlib.util.spec_from_file_location(f"{file.stem}_{state[:16]}", file)
    if found is None or found.loader is None or not found.has_location:
        raise ConfigError(
            f"there is no module {place!r}: name one as in an import statement, from the directory it is "
            "in, or a file: path/to/my_file.py:make_network"
        ) from cause
    return found


def fingerprint(file: Path) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _parts(target: str) -> tuple[str, str]:
    """Module or file, and function, of a target.

    Raises:
      ConfigError: it has not both.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise ConfigError(f"{target!r} is no target: expected my_package.my_file:make_network.")
    return place, name


def source_file(target: str) -> Path:
    """The file that the function of "my_package.my_file:make_network" is written in; it is not run.

    Raises:
      ConfigError: no such module or file.
    """
    return Path(str(_spec(_parts(target)[0]).origin))


def _imported(place: str) -> ModuleType:
    """The module of a dotted name, or of a .py file."""
    spec = _spec(place)
    if not place.endswith(".py"):
        return importlib.import_module(place)
    if spec.name not in sys.modules:
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look up annotations
        try:
            spec.loader.exec_module(module)  # type: ignore[union-attr]  # _spec has looked
        except BaseException:
            del sys.modules[spec.name]
            raise
    return sys.modules[spec.name]


def function_of(target: str, expected: str) -> Callable[..., Any]:
    """The function that "my_package.my_file:make_network" names.

    Args:
      expected: what it is to return, for messages.

    Raises:
      ConfigError: no such module, file or function.
    """
    place, name = _parts(target)
    module = _imported(place)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ConfigError(f"in {place}: {unknown('function', name, known)}")
    make: Callable[..., Any] = getattr(module, name)
    if not (inspect.isroutine(make) or isinstance(make, type | partial)):
        raise ConfigError(
            f"{target} is no function but {type(make).__name__}: expected one that returns {expected}."
        )
    return make
