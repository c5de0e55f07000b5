"""The errors this package promises: what was wrong, what was expected, the likely fix."""

import difflib
import functools
import sys
from collections.abc import Callable, Iterable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # by Ctrl-C


class AliasFreeError(Exception):
    """Base class of every error raised on purpose by this package."""


class ConfigError(AliasFreeError, ValueError):
    """A name, option or configuration field that cannot be used."""


class ShapeError(AliasFreeError, ValueError):
    """An array or image whose shape an operation or network cannot take."""


class DataError(AliasFreeError):
    """Data that is missing, unreadable or not what its source promised."""


class CheckpointError(AliasFreeError):
    """A checkpoint that is missing, damaged or belongs to another model."""


class ConversionError(AliasFreeError, ValueError):
    """Foreign weights that cannot be read or do not fit the network."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Text for an unknown `name` of some `kind`: the near names first, then all known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


def command(main: Callable[[list[str]], None]) -> Callable[[list[str]], int]:
    """`main(arguments)` as a program: returns 0, or 2 and says why on stderr, if the user can mend it.

    Ctrl-C is one line on stderr and 130.
    """

    @functools.wraps(main)
    def program(arguments: list[str]) -> int:
        try:
            main(arguments)
        except AliasFreeError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_USER_ERROR
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        return 0

    return program
