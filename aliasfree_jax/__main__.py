"""The commands of the package: python -m aliasfree_jax COMMAND [--flags] [arguments]."""

import ast
import importlib
import sys
from pathlib import Path

from aliasfree_jax.errors import ConfigError, command, unknown
from aliasfree_jax.startup import begin

# The module of each command (see aliasfree_jax.commands). It is imported only when the command runs.
COMMANDS = {
    "convert": "aliasfree_jax.conversion.command",
    "export": "aliasfree_jax.conversion.export_command",
    "publish": "aliasfree_jax.conversion.publish_command",
    "prepare": "aliasfree_jax.data.prepare",
    "models": "aliasfree_jax.models.command",
    "curves": "aliasfree_jax.training.curves",
    "report": "aliasfree_jax.evaluation.report.page",
    "check": "aliasfree_jax.transform.command",
    "audit": "aliasfree_jax.conversion.audit_command",
}


def _first_line(module: str) -> str:
    """First line of a module's docstring. The module is not imported: its dependencies may be missing."""
    path = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def overview() -> str:
    """Lists the commands, one per line."""
    lines = [f"  {name:<10}{_first_line(module)}" for name, module in COMMANDS.items()]
    ending = (
        "python -m aliasfree_jax COMMAND --help lists the flags of a command.\n"
        "See also python train.py --help and python eval.py --help."
    )
    return "\n".join([__doc__ or "", "", *lines, "", ending])


@command
def main(typed: list[str]) -> None:
    """Runs the command named by the first word of `typed`; the other words are its arguments."""
    if not typed or typed[0] in ("--help", "-h"):
        print(overview())
        return
    name, *rest = typed
    if name not in COMMANDS:
        raise ConfigError(unknown("command", name, COMMANDS))
    module = importlib.import_module(COMMANDS[name])
    from aliasfree_jax.commands import perform

    perform(module.define, module.main, module.__doc__, rest)


if __name__ == "__main__":
    begin()
    sys.exit(main(sys.argv[1:]))
