"""One kind of command line: absl's flags before, between or after positional arguments.

A command is a module: its docstring is the help, `define(values)` defines its flags, and
`main(values, arguments)` runs it. `python -m aliasfree_jax COMMAND` performs those of the package;
`experiments` and `benchmarks` are programs of their own.
"""

import textwrap
from collections.abc import Callable
from functools import partial

from absl import flags

from aliasfree_jax.errors import ConfigError, command

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
