"""One kind of command line: absl's flags before, between or after positional arguments.

A command is a module: its docstring is the help, `define(values)` defines its flags, and
`main(values, arguments)` runs it. `python -m aliasfree_jax COMMAND` performs those of the package;
`experiments` and `benchmarks` are programs of their own.
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


def takes(make: Callable[..., Any], argument: str) -> bool:
    """Whether a function has an argument of this name, or takes arguments of all names."""
    parameters = inspect.signature(make).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def made_by(target: str, expected: str, **options: Any) -> tuple[str, Any]:
    """The name of the function of "my_package.my_file:make_network", and what it returns for `options`.

    Args:
      expected: what it is to return, for messages.

    Raises:
      ConfigError: no such module, file or function, or one that takes other arguments.
    """
    make = function_of(target, expected)
    for option in options:
        if not takes(make, option):
            raise ConfigError(
                unknown(f"argument of {target}", option, inspect.signature(make).parameters)
                + " What is passed comes from model.options, train.precision and train.remat."
            )
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise ConfigError(
            f"{target} is called with {', '.join(options) or 'no arguments'}, but takes "
            f"{inspect.signature(make)}: {error}. Give each argument a default, or in training its value: "
            "--config.model.options.NAME=VALUE."
        ) from error
    return target.rpartition(":")[2], make(**options)


# Arguments by which calls of networks are told that they train, and what they are told.
TRAINING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def mode(network: Any, *, train: bool) -> dict[str, bool]:
    """The arguments of the call of a Linen module that say whether it trains; {} if it has none of them."""
    parameters = inspect.signature(type(network).__call__).parameters
    return {name: value == train for name, value in TRAINING.items() if name in parameters}


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


_PASSED = (
    "Pass the rows, columns and channels it takes as --image=224,224,3; variables and further arguments of "
    "its call are what its function returns behind the module."
)


@contextmanager
def running(name: str, sides: Sequence[int], remedy: str = _PASSED) -> Iterator[None]:
    """Within it, the user's network of this name runs on images of `sides`: rows, columns, channels.

    Raises:
      ShapeError: it does not.
    """
    try:
        yield
    except Exception as error:  # whatever the user's code raises
        given = ",".join(map(str, sides))
        raise ShapeError(
            f"{name} does not run on images of {given} ({type(error).__name__}: {error}). {remedy}"
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
