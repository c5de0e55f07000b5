"""Runs a command of `python -m aliasfree_jax` in the tests' own process."""

from types import ModuleType

from absl import flags


def run(command: ModuleType, *arguments: str) -> None:
    """Calls the command; errors that the user can mend are raised."""
    values = flags.FlagValues()
    command.define(values)
    command.main(values, values(["command", *arguments])[1:])
