"""Finds the layers that break shift equivariance in networks, and names the first one.

python -m aliasfree_jax audit --checkpoint=runs/mine
python -m aliasfree_jax audit my_package.my_file:make_network --image=224,224,3 --shift=0.5,0.5
python -m aliasfree_jax audit nets.py:before nets.py:after --plot=audit.png --output=audit.json

make_network() takes no arguments and returns a flax.linen.Module (to be initialised), (module, variables), or
(module, variables, {"train": False}) with further arguments of its call. Images are white noise, which holds
every frequency. --plot needs matplotlib (pip install 'aliasfree_jax[figures]').
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from aliasfree_jax.checkpoint import PyTree, load_model
from aliasfree_jax.commands import call_arguments, image_sides, made_by, running
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.audit.alignment import Shift
from aliasfree_jax.evaluation.audit.auditing import SHIFTS, Audit, audit
from aliasfree_jax.evaluation.audit.report import draw_audits, format_markdown, format_table, to_json
from aliasfree_jax.evaluation.report import circumstances
from aliasfree_jax.files import local_path, write_json, write_whole
from aliasfree_jax.training.curves import figure_class

IMAGE = (224, 224, 3)
IMAGES = 2  # adaptive samplers choose for each image
EXPECTED = "a flax.linen.Module, (module, variables) or (module, variables, arguments of its call)"


@dataclasses.dataclass(frozen=True)
class Target:
    """A network to audit.

    Attributes:
      name: of it, in tables and pictures.
      variables: None if they are to be initialised.
      arguments: further ones of the module's call.
      image: rows, columns and channels that it is made for, where that is known.
    """

    name: str
    module: nn.Module
    variables: PyTree | None
    arguments: Mapping[str, Any]
    image: tuple[int, ...] | None = None


def from_checkpoint(path: str | Path) -> Target:
    """The network of a run or a converted model, under the name of its directory.

    Raises:
      CheckpointError: see `load_model`.
    """
    card, module, variables = load_model(path)
    image = (card.image_size, card.image_size, card.channels)
    return Target(Path(path).name or card.model, module, variables, {"train": False}, image)


def from_function(target: str) -> Target:
    """What the function of "my_package.my_file:make_network" returns, called without arguments.

    Raises:
      ConfigError: no such module, file or function, or it returns no network.
    """
    name, made = made_by(target, EXPECTED)
    parts = made if isinstance(made, tuple) else (made,)
    if not (1 <= len(parts) <= 3 and isinstance(parts[0], nn.Module)):
        raise ConfigError(f"{target}() returned {_kinds(made)}: expected {EXPECTED}.")
    network, variables, arguments = (*parts, None, None)[:3]
    if variables is not None and not isinstance(variables, Mapping):
        raise ConfigError(
            f"{target}() returned variables of type {type(variables).__name__}: "
            "expected what module.init returns."
        )
    return Target(name, network, variables, call_arguments(target, arguments) or {})


def _kinds(made: Any) -> str:
    return (
        f"({', '.join(type(p).__name__ for p in made)})" if isinstance(made, tuple) else type(made).__name__
    )


def variables_for(target: Target, images: jax.Array) -> PyTree:
    """The variables, initialised where there are none, once the network takes `images` [N, H, W, C].

    Raises:
      ShapeError: it does not.
    """
    module, variables = target.module, target.variables
    with running(target.name, images.shape[1:]):
        if variables is None:
            variables = jax.jit(lambda key, x: module.init(key, x, **target.arguments))(
                jax.random.key(0), images
            )
        jax.eval_shape(lambda v, x: module.apply(v, x, **target.arguments), variables, images)
    return jax.tree.map(jnp.asarray, variables)


def define(values: flags.FlagValues) -> None:
    """The command's flags; its arguments are module:function or file.py:function that returns a network."""
    usual = " ".join(f"{rows:g},{columns:g}" for rows, columns in SHIFTS)
    several = "may be repeated"
    flags.DEFINE_multi_string(
        "checkpoint", [], f"a run or converted directory; {several}", flag_values=values
    )
    flags.DEFINE_string("image", None, "rows,columns,channels; default: the checkpoint's", flag_values=values)
    flags.DEFINE_multi_string(
        "shift", [], f"rows,columns in pixels; {several}; default: {usual}", flag_values=values
    )
    flags.DEFINE_string("plot", None, "the picture: error by depth", flag_values=values)
    flags.DEFINE_string("output", None, "JSON file of the audits, .md beside it", flag_values=values)


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


def _audits(targets: list[Target], asked: tuple[int, ...] | None, shifts: list[Shift]) -> list[Audit]:
    found: list[Audit] = []
    for name, target in zip(_unique(targets), targets, strict=True):
        shape = (IMAGES, *(asked or target.image or IMAGE))
        images = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
        variables = variables_for(target, images)
        found += audit(target.module, variables, images, shifts, network=name, arguments=target.arguments)
    return found


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Audits the networks of the checkpoints and of the functions that the arguments name."""
    shifts = [_shift(text) for text in values.shift] or [*SHIFTS]
    asked = image_sides(values.image) if values.image else None
    plot = local_path(values.plot, "--plot") if values.plot else None
    output = local_path(values.output, "--output") if values.output else None
    if plot:
        figure_class()  # that matplotlib is missing is to be said before anything is measured
    checkpoints = [local_path(path, "--checkpoint") for path in values.checkpoint]
    targets = [from_function(str(local_path(target))) for target in arguments]
    targets = [from_checkpoint(path) for path in checkpoints] + targets
    if not targets:
        raise ConfigError(
            "nothing to audit: pass --checkpoint=runs/mine, or my_package.my_file:make_network."
        )
    audits = _audits(targets, asked, shifts)
    print(format_table(audits))
    if output:
        write_json(output, circumstances() | {"audits": to_json(audits)})
        write_whole(output.with_suffix(".md"), format_markdown(audits))
        print(f"\nresults        {output}, {output.with_suffix('.md')}")
    if plot:
        draw_audits(audits, plot)
        print(f"wrote {plot}")
