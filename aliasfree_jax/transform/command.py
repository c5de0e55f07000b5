"""Finds what breaks shift invariance in networks, by reading their programs: nothing is computed.

python -m aliasfree_jax check my_file.py:make_network --image=224,224,3
python -m aliasfree_jax check my_package.my_file:make_network --shifts=all
python -m aliasfree_jax check resnet50_aps

make_network() takes no arguments and returns a flax.linen.Module, (module, variables) or (module, variables,
{"train": False}) with further arguments of its call; or a function of images [1, H, W, C], or (function,
variables) for function(variables, images). In place of it stands the name of one of this package's networks.
Every operation that breaks invariance is printed with its line, the reason and what to write in its place.
The status is 1 if there are any, for use in continuous integration; 0 if there are none.
"""

import sys

import jax
from absl import flags

from aliasfree_jax.commands import image_sides
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.transform.checking import check
from aliasfree_jax.transform.reporting import FRACTIONS, WHOLE
from aliasfree_jax.transform.targets import target_of

SHIFTS = {"whole": WHOLE, "all": FRACTIONS}


def define(values: flags.FlagValues) -> None:
    """The command's flags; its arguments are the networks."""
    flags.DEFINE_string("image", "224,224,3", "rows,columns,channels", flag_values=values)
    flags.DEFINE_enum(
        "shifts",
        "whole",
        list(SHIFTS),
        "by whole pixels, or all: those by fractions of a pixel too",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Checks the networks that the arguments name.

    Raises:
      ConfigError: no network there.
      ShapeError: it does not run on such images.
      SystemExit: with status 1, if there are findings.
    """
    if not arguments:
        raise ConfigError(
            "nothing to check: name my_file.py:make_network, or one of this package's networks."
        )
    sides, found = image_sides(values.image), 0
    images = jax.ShapeDtypeStruct((1, *sides), "float32")
    for text in arguments:
        target = target_of(text)
        target.try_on(sides)
        variables = jax.eval_shape(target.init, images)
        findings = check(target.call, variables, images, shifts=SHIFTS[values.shifts], argnums=1)
        print(f"{text}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}")
        if findings:
            print(findings)
        found += len(findings)
    if found:
        sys.exit(1)
