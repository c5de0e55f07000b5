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

import inspect
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import flags

from aliasfree_jax.commands import call_arguments, image_sides, made_by, running
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.files import local_path
from aliasfree_jax.models.registry import create_model, list_models
from aliasfree_jax.transform.checking import check
from aliasfree_jax.transform.reporting import FRACTIONS, WHOLE

SHIFTS = {"whole": WHOLE, "all": FRACTIONS}
EXPECTED = "a flax.linen.Module, (module, variables), a function of images or (function, variables)"
EVALUATION = {"train": False, "training": False, "is_training": False, "deterministic": True}


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
    images = jax.ShapeDtypeStruct((1, *image_sides(values.image)), jnp.float32)
    found = 0
    for target in arguments:
        function, variables = _network(target, images)
        findings = check(function, variables, images, shifts=SHIFTS[values.shifts], argnums=1)
        print(f"{target}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}")
        if findings:
            print(findings)
        found += len(findings)
    if found:
        sys.exit(1)


def _network(target: str, images: jax.ShapeDtypeStruct) -> tuple[Callable[..., Any], Any]:
    """The function of variables and images that `target` names, and its variables.

    Raises:
      ConfigError: there is none.
      ShapeError: it does not run on `images`.
    """
    if target in list_models():
        name, made = target, create_model(target)
    elif ":" in target:
        name, made = made_by(str(local_path(target)), EXPECTED)
    else:
        raise ConfigError(
            f"{target!r} is neither my_file.py:make_network nor a network of this package: `python -m "
            "aliasfree_jax models` lists those."
        )
    network, variables, arguments = (*made, None, None)[:3] if isinstance(made, tuple) else (made, None, None)
    given = isinstance(made, tuple) and len(made) > 1
    if not callable(network):
        raise ConfigError(f"{target}() returned {type(network).__name__}: expected {EXPECTED}.")
    arguments = call_arguments(target, arguments)
    with running(name, images.shape[1:]):
        if isinstance(network, nn.Module):
            options = arguments if arguments is not None else _evaluation(network)
            if variables is None:
                init = lambda key, x: network.init(key, x, **options)  # noqa: E731
                variables = jax.eval_shape(init, jax.random.key(0), images)
            function: Callable[..., Any] = lambda v, x: network.apply(v, x, **options)  # noqa: E731
        elif given:
            function = network
        else:
            function = lambda _, x: network(x)  # noqa: E731
        jax.eval_shape(function, variables, images)
    return function, variables


def _evaluation(network: nn.Module) -> dict[str, bool]:
    """Arguments of the network's call that say that it is not trained."""
    parameters = inspect.signature(type(network).__call__).parameters
    return {name: value for name, value in EVALUATION.items() if name in parameters}
