"""The error of a file that could hold several networks, and how to decide, in the words of each command."""

import json
from collections.abc import Mapping
from typing import Any

from aliasfree_jax.errors import ConversionError

COMMAND = "python -m aliasfree_jax convert"


class UndecidedError(ConversionError):
    """A file that leaves open which network it holds; arguments of `load_pth` decide.

    Attributes:
      reason: what is open.
      arguments: of `load_pth`, an example of what decides.
    """

    def __init__(self, reason: str, arguments: Mapping[str, Any]) -> None:
        """With the arguments as a call in Python has them."""
        self.reason, self.arguments = reason, arguments
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        super().__init__(f"{reason} Say which it is, for instance {given}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with both arguments."""
        return type(self), (self.reason, self.arguments)

    def flags(self) -> str:
        """The arguments as flags of the conversion's command line."""
        return " ".join(
            f"--{name}={value}" if isinstance(value, str) else f"--{name}='{json.dumps(value)}'"
            for name, value in self.arguments.items()
        )

    def for_conversion(self) -> ConversionError:
        """The same error for users of the conversion's command."""
        return ConversionError(f"{self.reason} Say which it is, for instance {self.flags()}.")

    def for_command(self, path: object, flag: str) -> ConversionError:
        """The same error for users of a command that takes a file or a directory with `flag`."""
        return ConversionError(
            f"{self.reason} Convert the file first and say which it is, for instance\n"
            f"  {COMMAND} {path} converted {self.flags()}\nThen pass {flag}=converted."
        )
