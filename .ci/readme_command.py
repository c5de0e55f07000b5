"""Prints the shell block of README.md that follows the comment `<!-- ci: NAME -->`."""

import re
import sys
from pathlib import Path


def command(readme: str, name: str) -> str:
    """Returns the unchanged content of the block."""
    match = re.search(rf"<!-- ci: {re.escape(name)} -->\s*```sh\n(.*?)```", readme, re.DOTALL)
    if match is None:
        raise SystemExit(f"README.md has no shell block after '<!-- ci: {name} -->'")
    return match[1]


if __name__ == "__main__":
    print(command((Path(__file__).parents[1] / "README.md").read_text(), sys.argv[1]), end="")
