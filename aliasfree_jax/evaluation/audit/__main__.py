"""Finds the layers that break shift equivariance in networks, and names the first one.

python -m aliasfree_jax.evaluation.audit --checkpoint=runs/mine
python -m aliasfree_jax.evaluation.audit my_package.my_file:make_network --image=224,224,3 --shift=0.5,0.5
python -m aliasfree_jax.evaluation.audit nets.py:before nets.py:after --plot=audit.png --output=audit.json

make_network() takes no arguments and returns a flax.linen.Module (to be initialised), (module, variables), or
(module, variables, {"train": False}) with further arguments of its call. Images are white noise, which holds
every frequency. --plot needs matplotlib (pip install 'aliasfree_jax[figures]').
"""

import argparse
import sys

import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, command
from aliasfree_jax.evaluation.audit.alignment import Shift
from aliasfree_jax.evaluation.audit.auditing import SHIFTS, Audit, audit
from aliasfree_jax.evaluation.audit.picture import draw_audits
from aliasfree_jax.evaluation.audit.report import format_markdown, format_table, to_json
from aliasfree_jax.evaluation.audit.targets import Target, from_checkpoint, from_function, variables_for
from aliasfree_jax.evaluation.report import circumstances
from aliasfree_jax.files import local_path, write_json, write_whole
from aliasfree_jax.training.curves import figure_class

IMAGE = (224, 224, 3)
IMAGES = 2  # adaptive samplers choose for each image


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aliasfree_jax.evaluation.audit",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "targets",
        nargs="*",
        type=local_path,
        help="module:function or file.py:function that returns a network",
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        type=local_path,
        help="a run or converted directory; may be repeated",
    )
    parser.add_argument("--image", help="rows,columns,channels; default: the checkpoint's, else 224,224,3")
    default = " ".join(f"{rows:g},{columns:g}" for rows, columns in SHIFTS)
    parser.add_argument(
        "--shift", action="append", help=f"rows,columns in pixels; may be repeated; default: {default}"
    )
    parser.add_argument("--plot", type=local_path, help="the picture: error by depth")
    parser.add_argument("--output", type=local_path, help="JSON file of the audits, .md beside it")
    return parser


def _image(text: str) -> tuple[int, ...]:
    sides = text.split(",")
    if len(sides) != 3 or not all(s.isdecimal() and int(s) for s in sides):
        raise ConfigError(f"--image={text}: expected rows,columns,channels, e.g. --image=224,224,3")
    return tuple(map(int, sides))


def _shift(text: str) -> Shift:
    try:
        rows, columns = map(float, text.split(","))
    except ValueError as error:
        raise ConfigError(f"--shift={text}: expected rows,columns in pixels, e.g. --shift=0.5,0.5") from error
    return rows, columns


def _unique(targets: list[Target]) -> list[str]:
    """Names for tables and pictures; those that occur twice are numbered."""
    names = [target.name for target in targets]
    return [
        name if names.count(name) == 1 else f"{name} {names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]


def _audits(options: argparse.Namespace) -> list[Audit]:
    shifts = [_shift(text) for text in options.shift] if options.shift else SHIFTS
    asked = _image(options.image) if options.image else None
    if options.plot:
        figure_class()  # that matplotlib is missing is to be said before anything is measured
    targets = [from_checkpoint(path) for path in options.checkpoint] + [
        from_function(str(t)) for t in options.targets
    ]
    if not targets:
        raise ConfigError(
            "nothing to audit: pass --checkpoint=runs/mine, or my_package.my_file:make_network."
        )
    found: list[Audit] = []
    for name, target in zip(_unique(targets), targets, strict=True):
        shape = (IMAGES, *(asked or target.image or IMAGE))
        images = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
        variables = variables_for(target, images)
        found += audit(target.module, variables, images, shifts, network=name, arguments=target.arguments)
    return found


@command
def main(arguments: list[str]) -> None:
    """Runs the command."""
    options = _parser().parse_args(arguments)
    audits = _audits(options)
    print(format_table(audits))
    if options.output:
        about = circumstances() | {"audits": to_json(audits)}
        write_json(options.output, about)
        write_whole(options.output.with_suffix(".md"), format_markdown(audits))
        print(f"\nresults        {options.output}, {options.output.with_suffix('.md')}")
    if options.plot:
        draw_audits(audits, options.plot)
        print(f"wrote {options.plot}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
