"""Finds the operations of a network that break shift invariance. Reads the program and computes nothing.
python -m aliasfree_jax check my_file.py:make_network --image=224,224,3
python -m aliasfree_jax check my_package.my_file:make_network --shifts=all
python -m aliasfree_jax check resnet50_aps

make_network() has no arguments. It returns one of these:
a flax.linen.Module; (module, variables); (module, variables, {"train": False}), with keyword arguments of the
module's call; a function of images [1, H, W, C]; (function, variables), for function(variables, images).
The name of a network of this package is accepted too.
Every operation that breaks invariance is printed with its line, the reason and a remedy.
The exit status is 1 if there are findings and 0 if there are none, for use in continuous integration.
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
    """Defines the command's flags."""
    flags.DEFINE_string("image", "224,224,3", "rows,columns,channels", flag_values=values)
    flags.DEFINE_enum(
        "shifts",
        "whole",
        list(SHIFTS),
        "shifts to check: by whole pixels, or all (also by fractions of a pixel)",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Checks the networks that the arguments name.

    Raises:
      ConfigError: An argument names no network.
      ShapeError: The network does not run on images of this size.
      SystemExit: There are findings. The status is 1.
    """
    if not arguments:
        raise ConfigError(
            "nothing to check. Pass my_file.py:make_network, or the name of one of this package's networks."
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
