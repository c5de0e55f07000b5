"""Parses command lines of train.py or eval.py with their own flags, and runs nothing.

This is a program for one of the two, since both define flags of the same names. It reads lines as JSON from
stdin and writes what each asks for, or its error, as JSON to stdout.
"""

import importlib
import json
import shlex
import sys
from pathlib import Path

from absl import flags

from aliasfree_jax import cli
from aliasfree_jax.errors import AliasFreeError
from aliasfree_jax.validation import validate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
PROGRAM = importlib.import_module(sys.argv[1])
OWN = ("workdir",) if sys.argv[1] == "train" else ("workdir", "checkpoint", "presets", "paper")


def _default():
    if sys.argv[1] == "train":
        return PROGRAM.default_config()
    return cli.stored_config(PROGRAM.checkpoints()[0])


def parsed(line):
    for name in [name for name in flags.FLAGS if name.split(".")[0] == "config"]:
        delattr(flags.FLAGS, name)
    for name in OWN:
        flags.FLAGS[name].unparse()
    try:
        cli.parse([sys.argv[1], *shlex.split(line)], _default)
        validate(flags.FLAGS.config)
    except AliasFreeError as error:
        return {"error": str(error)}
    own = {name: flags.FLAGS[name].value for name in OWN}
    if own.get("checkpoint") is not None:
        own["checkpoint"] = "".join(own["checkpoint"])  # the lines have one at most
    return {"config": flags.FLAGS.config.to_dict(), **own}


if __name__ == "__main__":
    json.dump([parsed(line) for line in json.load(sys.stdin)], sys.stdout)
