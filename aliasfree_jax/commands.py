"""One kind of command line: absl's flags before, between or after positional arguments.

A command is a module: its docstring is the help, `define(values)` defines its flags, and
`main(values, arguments)` runs it. `python -m aliasfree_jax COMMAND` performs those of the package;
`experiments` and `benchmarks` are programs of their own.
"""

import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

from aliasfree_jax.errors import ConfigError, ShapeError, command, unknown

Define = Callable[[flags.FlagValues], None]
Main = Callable[[flags.FlagValues, list[str]], None]


def mistake(error: flags.Error) -> ConfigError:
    """What is wrong with the flags that were typed."""
    return ConfigError(f"{error} (--help lists the flags)")


def _help(text: str | None, values: flags.FlagValues) -> str:
    """The docstring, then every flag with its meaning and its default."""
    lines = [(text or "").strip(), "", "Flags:"]
    for flag in (values[name] for name in values if name == values[name].name):
        default = "" if flag.default in (None, "", False, []) else f" (default: {flag.default_as_str})"
        lines.append(f"  --{flag.name}" if flag.boolean else f"  --{flag.name}=...")
        lines += textwrap.wrap(
            f"{flag.help}{default}", 100, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def refuse(arguments: list[str]) -> None:
    """Raises `ConfigError` for a command that takes flags alone."""
    if arguments:
        raise ConfigError(f"unexpected argument {arguments[0]!r}: every argument is a flag, --name=value.")


def perform(define: Define, main: Main, text: str | None, typed: list[str]) -> None:
    """Runs a command, or tells its help.

    Args:
      define: defines the command's flags.
      main: receives their values and the positional arguments.
      text: the command's docstring, for --help.
      typed: what stands behind the command's name.

    Raises:
      ConfigError: a flag that there is not, or a value that is none of it.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow arguments
    flags.DEFINE_bool("help", False, "tell all this, and end", short_name="h", flag_values=values)
    define(values)
    if {"-h", "--help", "-help"} & set(typed):
        print(_help(text, values))
        return
    try:
        _, *arguments = values(["", *typed])
    except flags.Error as error:
        raise mistake(error) from error
    main(values, arguments)


def program(define: Define, main: Main, text: str | None) -> Callable[[list[str]], int]:
    """A command as a program: takes what is typed and returns the exit status, as `errors.command`."""
    return command(partial(perform, define, main, text))


def _imported(place: str) -> Any:
    """The module of a dotted name, or of a .py file."""
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise  # an import inside the module
            raise ConfigError(
                f"there is no module {place!r}: name one as in an import statement, from the directory it is "
                "in, or a file: path/to/my_file.py:make_network"
            ) from error
    spec = importlib.util.spec_from_file_location(f"named_{Path(place).stem}", place)
    if spec is None or spec.loader is None or not Path(place).is_file():
        raise ConfigError(f"there is no file {place}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module


def made_by(target: str, expected: str) -> tuple[str, Any]:
    """The name of the function of "my_package.my_file:make_network", and what it returns without arguments.

    Args:
      expected: what it is to return, for messages.

    Raises:
      ConfigError: no such module, file or function.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise ConfigError(f"{target!r} is no target: expected my_package.my_file:make_network.")
    module = _imported(place)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ConfigError(f"in {place}: {unknown('function', name, known)}")
    make = getattr(module, name)
    if not (inspect.isroutine(make) or isinstance(make, type | partial)):
        raise ConfigError(
            f"{target} is no function but {type(make).__name__}: expected one that returns {expected}."
        )
    return name, make()


def call_arguments(target: str, arguments: Any) -> Mapping[str, Any] | None:
    """The further arguments of a network's call, as the function of `target` returned them.

    Raises:
      ConfigError: no mapping.
    """
    if not isinstance(arguments or {}, Mapping):
        raise ConfigError(
            f"{target}() returned arguments of type {type(arguments).__name__}: expected a mapping, such as "
            "{'train': False}."
        )
    given: Mapping[str, Any] | None = arguments
    return given


@contextmanager
def running(name: str, sides: Sequence[int]) -> Iterator[None]:
    """Within it, the user's network of this name runs on images of `sides`: rows, columns, channels.

    Raises:
      ShapeError: it does not.
    """
    try:
        yield
    except Exception as error:  # whatever the user's code raises
        given = ",".join(map(str, sides))
        raise ShapeError(
            f"{name} does not run on images of {given} ({type(error).__name__}: {error}). "
            "Pass the rows, columns and channels it takes as --image=224,224,3; variables and further "
            "arguments of its call are what its function returns behind the module."
        ) from error


def image_sides(text: str) -> tuple[int, ...]:
    """Rows, columns and channels of the flag --image.

    Raises:
      ConfigError: it has none.
    """
    sides = text.split(",")
    if len(sides) != 3 or not all(s.isdecimal() and int(s) for s in sides):
        raise ConfigError(f"--image={text}: expected rows,columns,channels, e.g. --image=224,224,3")
    return tuple(map(int, sides))
