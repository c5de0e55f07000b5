"""The package's own programs: python -m aliasfree_jax COMMAND [--flags] [arguments]."""

import ast
import importlib
import sys
from pathlib import Path

from aliasfree_jax.errors import ConfigError, command, unknown
from aliasfree_jax.startup import begin

# A command's module, as aliasfree_jax.commands describes it. Imported when it is asked for.
COMMANDS = {
    "convert": "aliasfree_jax.conversion.command",
    "export": "aliasfree_jax.conversion.export_command",
    "publish": "aliasfree_jax.conversion.publish_command",
    "prepare": "aliasfree_jax.data.prepare",
    "models": "aliasfree_jax.models.command",
    "curves": "aliasfree_jax.training.curves",
    "report": "aliasfree_jax.evaluation.report.page",
    "check": "aliasfree_jax.transform.command",
    "audit": "aliasfree_jax.evaluation.audit.command",
}


def _first_line(module: str) -> str:
    """Of the module's docstring, without importing it: a package that it needs may be missing."""
    path = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<10}{_first_line(module)}" for name, module in COMMANDS.items()]
    ending = (
        "python -m aliasfree_jax COMMAND --help lists a command's flags; train.py and eval.py have their own."
    )
    return "\n".join([__doc__ or "", "", *lines, "", ending])


@command
def main(typed: list[str]) -> None:
    """Performs the command that `typed` begins with; the rest is for that command."""
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
