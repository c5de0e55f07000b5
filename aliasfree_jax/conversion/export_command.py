"""Writes a trained network as one file that runs without this package: StableHLO for JAX, or ONNX.

python -m aliasfree_jax export runs/mine mine.stablehlo
python -m aliasfree_jax export hf://OWNER/NAME mine.onnx

The arguments are CHECKPOINT and OUT. CHECKPOINT is a reference of aliasfree_jax.load_pretrained: a run, a
directory, a file of weights or a name. The ending of OUT selects the format. The file is loaded again and
compared with the network on random images. It is kept only if both agree.
OUT.json beside it has the image size, the normalisation and the class names.
ONNX needs Python 3.11 and: pip install 'aliasfree_jax[onnx]'.
"""

from absl import flags

from aliasfree_jax.conversion.exporting import FORMATS, check_output, description_of, export
from aliasfree_jax.conversion.pretrained import load_for_command
from aliasfree_jax.conversion.stablehlo import PLATFORMS, check_platforms
from aliasfree_jax.errors import ConfigError


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_list(
        "platforms",
        "cpu,cuda,tpu",
        f"platforms that will run a .stablehlo file, from: {', '.join(PLATFORMS)}",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "image_size",
        None,
        "rows and columns of the images, pixels (default: the size that the network was trained for)",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch",
        None,
        "number of images in each call (default: any number)",
        lower_bound=1,
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    if len(arguments) != 2:
        raise ConfigError(f"expected two arguments, CHECKPOINT and OUT (the new file), got {arguments}.")
    checkpoint, output = arguments
    path, platforms = check_output(output), check_platforms(values.platforms)
    card, module, variables = load_for_command(checkpoint, "CHECKPOINT")
    written = export(
        path,
        card,
        module,
        variables,
        platforms=platforms,
        image_size=values.image_size,
        batch=values.batch,
    )
    for note in written.notes:
        print(f"note           {note}")
    shape = ", ".join(map(str, written.shape))
    print(
        f"exported       {path}: {written.size / 1e6:.1f} MB, {written.parameters:,} parameters, "
        f"images [{shape}], largest difference {written.difference:.1g} of outputs up to "
        f"{written.largest:.2g} ({', '.join(written.compared)})"
    )
    print(f"described      {description_of(path)}: image size, normalisation, class names")
    print("load           " + "\n               ".join(FORMATS[path.suffix].loading(path)))
