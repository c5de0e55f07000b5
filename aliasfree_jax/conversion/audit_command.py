"""Measures how much each operation of a network breaks shift equivariance, and names the first one.

python -m aliasfree_jax audit --checkpoint=runs/mine
python -m aliasfree_jax audit --checkpoint=resnet20_cifar --checkpoint=resnet20_cifar_aps
python -m aliasfree_jax audit my_package.my_file:make_network --image=224,224,3 --shift=0.5,0.5
python -m aliasfree_jax audit nets.py:before nets.py:after --plot=audit.png --output=audit.json

make_network() has no arguments. It returns one of:
  a flax.linen.Module, which the audit initializes;
  (module, variables);
  (module, variables, {"train": False}), with further arguments of the module's call;
  a function of images;
  (function, variables), for function(variables, images).
Instead of a function, pass the name of one of this package's networks. The images are white noise, which
contains all frequencies. --plot needs matplotlib (pip install 'aliasfree_jax[figures]').
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from aliasfree_jax.commands import image_sides
from aliasfree_jax.conversion.pretrained import load_for_command
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.alignment import Shift
from aliasfree_jax.evaluation.audit.auditing import SHIFTS, Audits, audit
from aliasfree_jax.evaluation.audit.report import draw_audits, format_markdown, to_json
from aliasfree_jax.evaluation.report import circumstances
from aliasfree_jax.files import output_file, write_json, write_whole
from aliasfree_jax.training.curves import picture_file
from aliasfree_jax.transform.targets import Target, of_module, target_of

IMAGE = (224, 224, 3)
IMAGES = 2  # more than one, because adaptive samplers choose for each image


def from_checkpoint(reference: str) -> Target:
    """Loads a network with weights, and names it like the last part of its path.

    Raises:
      AliasFreeError: See `load_for_command`.
    """
    card, module, variables = load_for_command(reference, "--checkpoint")
    target = of_module(Path(reference).name, module, jax.tree.map(jnp.asarray, variables), {"train": False})
    return dataclasses.replace(target, image=(card.image_size, card.image_size, card.channels))


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags. The arguments are networks."""
    usual = " ".join(f"{rows:g},{columns:g}" for rows, columns in SHIFTS)
    several = "may be repeated"
    weights = "run, directory, file of weights, hf://owner/name, or a name of weights"
    flags.DEFINE_multi_string("checkpoint", [], f"{weights}; {several}", flag_values=values)
    flags.DEFINE_string(
        "image", None, "rows,columns,channels; default: those of the checkpoint", flag_values=values
    )
    flags.DEFINE_multi_string(
        "shift", [], f"rows,columns in pixels; {several}; default: {usual}", flag_values=values
    )
    flags.DEFINE_string("plot", None, "file for the picture of error by depth", flag_values=values)
    flags.DEFINE_string(
        "output", None, "JSON file for the audits; also writes the same as .md", flag_values=values
    )


def _shift(text: str) -> Shift:
    try:
        rows, columns = map(float, text.split(","))
    except ValueError as error:
        raise ConfigError(f"--shift={text}: expected rows,columns in pixels, e.g. --shift=0.5,0.5") from error
    return rows, columns


def _unique(targets: list[Target]) -> list[str]:
    """Names for tables and pictures. Names that occur several times get numbers."""
    names = [target.name for target in targets]
    return [
        name if names.count(name) == 1 else f"{name} {names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Audits the networks of the checkpoints and of the arguments."""
    shifts = [_shift(text) for text in values.shift] or [*SHIFTS]
    asked = image_sides(values.image) if values.image else None
    # Errors of the files to write are raised now, not after the measurement.
    plot = picture_file(values.plot, "--plot") if values.plot else None
    output = output_file(values.output, "--output", (".md",)) if values.output else None
    targets = [target_of(text) for text in arguments]
    targets = [from_checkpoint(reference) for reference in values.checkpoint] + targets
    if not targets:
        raise ConfigError(
            "nothing to audit: pass --checkpoint=runs/mine, my_file.py:make_network, or the name of one of "
            "this package's networks."
        )
    audits = Audits()
    for name, target in zip(_unique(targets), targets, strict=True):
        sides = asked or target.image or IMAGE
        target.try_on(sides)
        noise = np.random.default_rng(0).standard_normal((IMAGES, *sides))
        images = jnp.asarray(noise, jnp.float32)
        variables = jax.jit(target.init)(images)
        audits += audit(target.call, variables, images, argnums=1, shifts=shifts, network=name)
    print(audits)
    if output:
        write_json(output, circumstances() | {"audits": to_json(audits)})
        write_whole(output.with_suffix(".md"), format_markdown(audits))
        print(f"\nresults        {output}, {output.with_suffix('.md')}")
    if plot:
        draw_audits(audits, plot)
        print(f"wrote {plot}")
