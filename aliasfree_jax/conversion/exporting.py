"""Exports trained networks as files that run without this package.

The ending of the file selects the format: `.stablehlo` (`stablehlo`) or `.onnx` (`onnx_files`). Each file is
loaded again and compared with the network on random images. It is kept only if both agree.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.checkpoint import ModelCard, PyTree
from aliasfree_jax.conversion import onnx_files, stablehlo
from aliasfree_jax.conversion.stablehlo import ExportError, Program, check_platforms
from aliasfree_jax.files import local_path, output_file, whole_file, write_json, write_whole

BATCHES = (1, 3)  # batch sizes of the comparison, for a file that accepts any batch size
# Largest differences, relative to the largest output. Rounding in float32 causes 1e-6. Half-precision
# networks round maps to as few as 8 bits, and the compiler decides which maps are rounded.
TOLERANCE, HALF_TOLERANCE = 1e-4, 5e-2
# Draws of random images: one must agree. If two polyphase components have nearly equal norms, rounding may
# select different ones, and the outputs differ. Such a tie is rare, and very unlikely in all draws.
DRAWS = 3
LAYOUT = "images [N, H, W, C] in float32: (pixels / 255 - mean) / std for each channel"


@dataclasses.dataclass(frozen=True)
class Written:
    """Facts about an exported file.

    Attributes:
      path: The file.
      size: Its size, bytes.
      parameters: Number of trained weights.
      shape: Shape of the images. "b" is any number of images.
      difference: Largest absolute difference from the network's outputs on random images.
      largest: Largest absolute output for these images.
      compared: The platforms whose programs were compared.
      notes: One line for each platform whose program could not be compared.
    """

    path: Path
    size: int
    parameters: int
    shape: tuple[int | str, ...]
    difference: float
    largest: float
    compared: tuple[str, ...]
    notes: tuple[str, ...]


def check_output(output: str | Path) -> Path:
    """Returns the path of a file to write, after these checks.

    Raises:
      ExportError: The ending is unknown, or the file exists.
      ConfigError: As `output_file`.
    """
    path = local_path(output, "the file to write")
    if path.suffix not in FORMATS:
        raise ExportError(
            f"{path} must end in {' or '.join(FORMATS)}: the ending selects the format. To write a "
            "checkpoint of another code base, use python -m aliasfree_jax convert --to=SOURCE RUN FILE."
        )
    for file in (path, description_of(path)):
        if file.exists():
            raise ExportError(f"{file} exists already. Choose another name, or remove it first.")
    return output_file(path, "the file to write")


def description_of(path: Path) -> Path:
    """Returns the path of the JSON file beside an exported network."""
    return path.with_name(f"{path.name}.json")


def export(
    output: str | Path,
    card: ModelCard,
    module: nn.Module,
    variables: PyTree,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    image_size: int | None = None,
    batch: int | None = None,
) -> Written:
    """Writes a network as a function of images `[N, H, W, C]`, and a description as JSON beside it.

    `load_pretrained` returns the card, the module and the variables. The file is loaded again and compared
    with the network on random images. It is kept only if the outputs agree to rounding.

    Args:
      output: The file to write, which must not exist. Its ending is `.stablehlo` or `.onnx`.
      card: Image size, normalisation and class names.
      module: The network. It is exported with `train=False`.
      variables: The weights, which become part of the file.
      platforms: Platforms of a `.stablehlo` file: some of "cpu", "cuda", "rocm" and "tpu". ONNX needs none.
      image_size: Rows and columns of the images in pixels; by default the size in the card.
      batch: Number of images of each call; by default any number.

    Raises:
      ExportError: The network cannot be exported, or the outputs of the file differ.
      ConfigError: A platform is unknown.
      MissingPackageError: A package that the format needs is missing.
      PathError: `output` is an address such as gs://.
      UnwritableError: The file cannot be written.

    Source: this package.
    """
    path, platforms = check_output(output), check_platforms(platforms)
    if image_size is not None:
        card = dataclasses.replace(card, image_size=image_size)
    sides = (card.image_size, card.image_size, card.channels)

    def apply(variables: PyTree, images: jax.Array) -> Any:
        return module.apply(variables, images, train=False)

    form = FORMATS[path.suffix]
    content = form.serialized(apply, variables, sides, platforms, batch)
    shape = ("b" if batch is None else batch, *sides)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    with whole_file(path) as new:
        write_whole(new, content)
        found = compared(form.programs(new), apply, variables, sides, BATCHES if batch is None else (batch,))
        written = Written(path, len(content), parameters, shape, *found)
        check_output(path)  # another process may have written it in the meantime
        write_json(description_of(path), _description(card, written, form.about(platforms)))
    return written


def _description(card: ModelCard, written: Written, about: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the JSON file: all that a program needs to prepare images and to read the outputs."""
    return {
        "file": written.path.name,
        "input": {"shape": written.shape, "dtype": "float32", "layout": LAYOUT},
        **about,
        "parameters": written.parameters,
        "largest_difference": written.difference,
        "card": card.to_json(),
    }


def compared(
    programs: Iterator[tuple[str, Program]],
    apply: Callable[[PyTree, jax.Array], Any],
    variables: PyTree,
    sides: Sequence[int],
    batches: Sequence[int],
) -> tuple[float, float, tuple[str, ...], tuple[str, ...]]:
    """Compares the programs of a file with the network. Returns the last four fields of `Written`.

    Args:
      programs: Functions of images, by platform.
      apply: The network, a function of variables and images.
      variables: Its variables.
      sides: Rows, columns and channels of the images.
      batches: Batch sizes to compare.

    Raises:
      ExportError: The first program does not run, or outputs differ by more than rounding.
    """
    network = jax.jit(apply)
    tolerance = _tolerance(network, variables, (batches[-1], *sides))
    worst, largest, names, notes = 0.0, 0.0, [], []
    for number, (platform, program) in enumerate(programs):
        # One batch size is enough for the programs of the other platforms.
        for batch in batches if number == 0 else batches[-1:]:
            try:
                difference, output = _agree(
                    program, lambda x: network(variables, x), (batch, *sides), tolerance
                )
            except ExportError as error:
                raise ExportError(f"the program for {platform} {error} Nothing was written.") from error
            except Exception as error:
                if number == 0:
                    remedy = " Export for a known number of images: --batch=NUMBER." * (len(batches) > 1)
                    raise ExportError(
                        f"the program for {platform} does not run ({type(error).__name__}: {error}). Nothing "
                        f"was written.{remedy}"
                    ) from error
                reason = str(error).partition("\n")[0]
                notes.append(f"the program for {platform} does not run here and was not compared: {reason}")
                break
            worst, largest = max(worst, difference), max(largest, output)
        else:
            names.append(platform)
    return worst, largest, tuple(names), tuple(notes)


def _tolerance(network: Any, variables: PyTree, shape: Sequence[int]) -> float:
    program = str(network.trace(variables, jax.ShapeDtypeStruct(tuple(shape), np.float32)).jaxpr)
    return HALF_TOLERANCE if re.search(r"\b(bf16|f16)\[", program) else TOLERANCE


def _agree(program: Program, network: Program, shape: Sequence[int], tolerance: float) -> tuple[float, float]:
    """Returns the largest difference and the largest output for random images.

    Raises:
      ExportError: The outputs differ in every draw. The message continues "the program for ...".
    """
    for seed in range(DRAWS):
        images = jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))
        expected, found = (jax.tree.map(np.asarray, run(images)) for run in (network, program))
        expected, found = (jax.tree.leaves(tree) for tree in (expected, found))
        if [leaf.shape for leaf in expected] != [leaf.shape for leaf in found]:
            raise ExportError(
                f"returns arrays of shapes {[leaf.shape for leaf in found]}, and the network returns "
                f"{[leaf.shape for leaf in expected]}."
            )
        # np.max, unlike max, returns nan if any value is nan.
        largest = float(np.max([float(np.abs(leaf).max()) for leaf in expected]))
        if not np.isfinite(largest):
            raise ExportError(
                "cannot be compared, because the network returns values that are not finite for random "
                "images. Check its weights."
            )
        pairs = zip(found, expected, strict=True)
        difference = float(np.max([float(np.abs(a.astype(np.float64) - b).max()) for a, b in pairs]))
        if difference <= tolerance * largest:
            return difference, largest
    raise ExportError(
        f"differs from the network by {difference:.2g} on random images, where the largest output is "
        f"{largest:.2g}: more than rounding explains."
    )


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
      serialized: Returns the content of a file. Its arguments are those of `stablehlo.serialized`.
      programs: Yields the programs of a file as (platform, function of images).
      about: Returns the fields of the description about the format, for given platforms.
      loading: Returns the lines of Python that load and call a file.
    """

    serialized: Callable[..., bytes]
    programs: Callable[[Path], Iterator[tuple[str, Program]]]
    about: Callable[[Sequence[str]], Mapping[str, Any]]
    loading: Callable[[Path], Sequence[str]]


FORMATS = {
    ".stablehlo": Format(stablehlo.serialized, stablehlo.programs, stablehlo.about, stablehlo.loading),
    ".onnx": Format(onnx_files.serialized, onnx_files.programs, onnx_files.about, onnx_files.loading),
}
