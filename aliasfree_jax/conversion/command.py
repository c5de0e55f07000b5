"""Converts weights of another code base into a checkpoint of this package, or a run into such weights.

python -m aliasfree_jax convert convnext_tiny_afc.pth converted/convnext_afc_tiny
python -m aliasfree_jax convert --to=antialiased-cnns runs/resnet50_lpf4 weights.safetensors
python -m aliasfree_jax convert --half runs/mine rounded/mine

The input is a file of torch.save or a .safetensors file. The network is recognised from the file. --model and
--options override that. Nothing in the file is executed. PyTorch is not needed.

--half rounds the parameters to half precision. They keep their dtype, and `publish` writes half the bytes.

With --to, the output file has the keys of that code base, and its programs load the file strictly. The ending
chooses the format: .safetensors, .pth (the state dict) or .pth.tar (an entry "state_dict", like
--save_weights of the originals).
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from aliasfree_jax.checkpoint import PyTree, save_model
from aliasfree_jax.checkpoint.network import model_directory
from aliasfree_jax.conversion.code_bases import SOURCES
from aliasfree_jax.conversion.pretrained import load_pretrained
from aliasfree_jax.conversion.to_files import write_original
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.data.views import described
from aliasfree_jax.errors import ConfigError, ConversionError
from aliasfree_jax.files import local_path

FOR_FILES = ("source", "model", "options", "key", "image_size", "half")
# Configurations whose data settings fit a task. For classifiers, the image size decides.
CONFIGS = {"segmentation": "deeplab_voc", "regression": "unet_denoise"}


def _options(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConversionError(f"--options is not JSON ({error}): {text}") from error
    if not isinstance(options, dict):
        raise ConversionError(f"--options must be a JSON object of constructor arguments, got {text}")
    return options


def halved(params: PyTree) -> PyTree:
    """Returns parameters rounded to float16, in their own dtype.

    Raises:
      ConversionError: float16 cannot hold a value.
    """

    def rounded(value: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            found = np.asarray(value).astype(np.float16).astype(value.dtype)
        if not np.isfinite(found).all():
            raise ConversionError(
                f"--half: a parameter has the size {np.abs(value).max():.3g}. float16 holds at most 65504."
            )
        return found

    return jax.tree.map(rounded, params)


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    for name, text in {
        "to": f"write a file for this code base: {', '.join(SOURCES)}",
        "source": "code base of the input, e.g. alias_free_convnets",
        "model": "network in that code base, e.g. convnext_afc",
        "options": "arguments of the network's constructor, as JSON",
        "key": "entry of a training checkpoint, e.g. model (default: averaged weights, if any)",
    }.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_bool("half", False, "round the parameters to half precision", flag_values=values)
    flags.DEFINE_integer(
        "image_size",
        None,
        "side of the input images, pixels (default 224; 32 for CIFAR-10)",
        flag_values=values,
    )


def _to_original(values: flags.FlagValues, run: Path, output: Path) -> None:
    given = [name for name in FOR_FILES if values[name].present]
    if given:
        raise ConversionError(
            f"--{given[0]} cannot be used with --to: the run states its network. Remove the flag."
        )
    model, options, count = write_original(values.to, run, output)
    print(f"{values.to}: {model} {json.dumps(options)}")
    print(f"wrote {count:,} values to {output}")


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    if len(arguments) != 2:
        raise ConfigError(
            f"expected two arguments, an input and an output, got {arguments}. Pass a file of weights and "
            "the new directory. With --to=SOURCE, pass a run (or its best, a step, a converted directory) "
            "and the new file."
        )
    given = arguments[0]
    if values.to is not None:
        return _to_original(values, local_path(given), local_path(arguments[1]))
    output = model_directory(arguments[1])
    try:
        card, _, variables = load_pretrained(
            given,
            source=values.source,
            model=values.model,
            options=_options(values.options),
            key=values.key,
            image_size=values.image_size,
            tell=lambda note: print(f"note: {note}"),
        )
    except UndecidedError as error:
        raise error.for_conversion() from error
    if values.half:
        variables = {**variables, "params": halved(variables["params"])}
    written = save_model(output, card, variables)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(f"{card.origin}: {card.model} {json.dumps(card.options)}")
    print(f"wrote {count:,} parameters to {written}")
    config = CONFIGS.get(card.task) or ("cifar10_resnet" if card.image_size == 32 else "convnext_afc")
    prepared = described(card.preparation(), card.task)
    print(f"evaluate them at {prepared}: python eval.py --checkpoint={written} --config=configs/{config}.py")
