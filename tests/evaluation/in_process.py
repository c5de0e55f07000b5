"""Runs a command of `python -m aliasfree_jax` in the process of the tests."""

from types import ModuleType

from absl import flags


def run(command: ModuleType, *arguments: str) -> None:
    """Calls the command. Errors that the user can correct are raised."""
    values = flags.FlagValues()
    command.define(values)
    command.main(values, values(["command", *arguments])[1:])
