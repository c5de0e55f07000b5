"""Parses command lines of train.py or eval.py with their own flags, and runs nothing.

A program for one of the two, since both define some flags of the same name: the lines come as JSON on stdin, and what
each says leaves as JSON on stdout. An error is that of the program.
"""

import importlib
import json
import shlex
import sys
from pathlib import Path

from absl import flags

from aliasfree_jax import cli
from aliasfree_jax.config import fields, validate
from aliasfree_jax.errors import AliasFreeError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
PROGRAM = importlib.import_module(sys.argv[1])
OWN = ("workdir",) if sys.argv[1] == "train" else ("workdir", "checkpoint", "presets", "paper")


def _default():
    if sys.argv[1] == "train":
        return PROGRAM.default_config()
    return cli.stored_config(PROGRAM.checkpoint())


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
    return {"config": fields(flags.FLAGS.config.to_dict()), **own}


if __name__ == "__main__":
    json.dump([parsed(line) for line in json.load(sys.stdin)], sys.stdout)
