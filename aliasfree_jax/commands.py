"""Runs commands, whose absl flags may come before, between or after the positional arguments.

A command is a module. Its docstring is the help text, `define(values)` defines its flags, and
`main(values, arguments)` runs it. `python -m aliasfree_jax COMMAND` runs the commands of the package;
`experiments` and `benchmarks` are separate programs.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from absl import flags

from aliasfree_jax.errors import ConfigError, ShapeError, command, unknown
from aliasfree_jax.references import function_of

Define = Callable[[flags.FlagValues], None]
Main = Callable[[flags.FlagValues, list[str]], None]


def mistake(error: flags.Error) -> ConfigError:
    """Converts an error of absl's flags, and points to --help."""
    return ConfigError(f"{error} (--help lists the flags)")


def _help(text: str | None, values: flags.FlagValues) -> str:
    """Help text: the docstring, then every flag with its meaning and its default."""
    lines = [(text or "").strip(), "", "Flags:"]
    for flag in (values[name] for name in values if name == values[name].name):
        default = "" if flag.default in (None, "", False, []) else f" (default: {flag.default_as_str})"
        lines.append(f"  --{flag.name}" if flag.boolean else f"  --{flag.name}=...")
        lines += textwrap.wrap(
            f"{flag.help}{default}", 100, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def refuse(arguments: list[str]) -> None:
    """Raises `ConfigError` if there are `arguments`: the command accepts only flags."""
    if arguments:
        raise ConfigError(f"unexpected argument {arguments[0]!r}: every argument is a flag, --name=value.")


def perform(define: Define, main: Main, text: str | None, typed: list[str]) -> None:
    """Runs a command, or prints its help.

    Args:
      define: Defines the command's flags.
      main: Receives the values of the flags and the positional arguments.
      text: Docstring of the command, for --help.
      typed: Words of the command line after the command's name.

    Raises:
      ConfigError: A flag is unknown, or its value is not legal.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow arguments
    flags.DEFINE_bool("help", False, "print this help", short_name="h", flag_values=values)
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
    """Returns a command as a program: a function from typed words to the exit status (`errors.command`)."""
    return command(partial(perform, define, main, text))


def takes(make: Callable[..., Any], argument: str) -> bool:
    """Whether a function accepts an argument of this name."""
    parameters = inspect.signature(make).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def made_by(target: str, expected: str, **options: Any) -> tuple[str, Any]:
    """Calls the function of a reference with `options`.

    Args:
      target: Reference, such as "my_package.my_file:make_network".
      expected: Description of what the function should return, for messages.
      **options: Arguments of the function.

    Returns:
      The function's name and its result.

    Raises:
      ConfigError: The module, file or function does not exist, or it does not accept these arguments.
    """
    make = function_of(target, expected)
    for option in options:
        if not takes(make, option):
            raise ConfigError(
                unknown(f"argument of {target}", option, inspect.signature(make).parameters)
                + " The arguments come from model.options, train.precision and train.remat."
            )
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise ConfigError(
            f"{target} is called with {', '.join(options) or 'no arguments'}, but its signature is "
            f"{inspect.signature(make)}: {error}. Write a default for each argument, or in training pass its "
            "value: --config.model.options.NAME=VALUE."
        ) from error
    return target.rpartition(":")[2], make(**options)


# Arguments that tell a network's call whether it trains, with their value in training.
TRAINING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def mode(network: Any, *, train: bool) -> dict[str, bool]:
    """Arguments that tell a Linen module's call whether it trains; {} if the call has no such argument."""
    parameters = inspect.signature(type(network).__call__).parameters
    return {name: value == train for name, value in TRAINING.items() if name in parameters}


def call_arguments(target: str, arguments: Any) -> Mapping[str, Any] | None:
    """Checks the further arguments of a network's call, which the function `target` returned.

    Raises:
      ConfigError: They are not a mapping.
    """
    if not isinstance(arguments or {}, Mapping):
        raise ConfigError(
            f"{target}() returned arguments of type {type(arguments).__name__}: expected a mapping, such as "
            "{'train': False}."
        )
    given: Mapping[str, Any] | None = arguments
    return given


_PASSED = (
    "Pass the rows, columns and channels of its input as --image=224,224,3. Its function may return "
    "variables and further arguments of the call after the module."
)


@contextmanager
def running(name: str, sides: Sequence[int], remedy: str = _PASSED) -> Iterator[None]:
    """Context in which a user's network runs: turns every exception into a `ShapeError`.

    Args:
      name: Name of the network, for the message.
      sides: Rows, columns and channels of the images.
      remedy: Advice for the message.

    Raises:
      ShapeError: The network does not run on these images.
    """
    try:
        yield
    except Exception as error:  # the user's code may raise anything
        given = ",".join(map(str, sides))
        raise ShapeError(
            f"{name} does not run on images of {given} ({type(error).__name__}: {error}). {remedy}"
        ) from error


def image_sides(text: str) -> tuple[int, ...]:
    """Parses rows, columns and channels from the flag --image.

    Raises:
      ConfigError: The text does not have this form.
    """
    sides = text.split(",")
    if len(sides) != 3 or not all(s.isdecimal() and int(s) for s in sides):
        raise ConfigError(f"--image={text}: expected rows,columns,channels, e.g. --image=224,224,3")
    return tuple(map(int, sides))
