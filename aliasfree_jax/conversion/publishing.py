"""Writes a network as a directory for a model hub, and reads it back with the same bits.

    model.safetensors         the variables under their paths here, e.g. "params/stem/kernel"; in half
                              precision where that keeps every value
    config.json               the network: the fields of its `ModelCard` that do not concern images
    preprocessor_config.json  how its images are prepared: the other fields
    README.md                 the page for people

The reader does not trust the directory. It executes nothing, and it checks every field and shape.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.checkpoint import (
    PREPARATION,
    ModelCard,
    PyTree,
    abstract_variables,
    differences,
    leaf_shapes,
    load_card,
    load_model,
    named_leaves,
    network_of,
)
from aliasfree_jax.config import FIELDS, TASKS
from aliasfree_jax.conversion.hub import CONFIG, PREPROCESSOR, STANDARD
from aliasfree_jax.conversion.readme import LIBRARY, readme
from aliasfree_jax.conversion.safetensors import read_safetensors, safetensors_file
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.evaluation.stored import stored_results
from aliasfree_jax.files import local_path, whole_directory, write_json, write_whole
from aliasfree_jax.legal_values import fault
from aliasfree_jax.references import is_reference

WEIGHTS, NETWORK, IMAGES, PAGE = STANDARD[0], CONFIG, PREPROCESSOR, "README.md"
FORMAT = 1
MOST_CLASSES = 1_000_000  # more are a damaged or hostile file
OF_IMAGES = ("image_size", *PREPARATION)  # fields of the card
# JSON types of the card's fields. Fields of `config.data` have their own checks.
KINDS = {
    **dict.fromkeys(("model", "origin"), str),
    **dict.fromkeys(("channels", "step"), int),
    **dict.fromkeys(("options", "shift_invariant"), dict),
    "class_names": list,
    "exif": bool,
}
NAMES = {str: "a string", int: "a whole number", dict: "an object", list: "a list", bool: "true or false"}


def publish(run: str | Path, directory: str | Path, licence: str = "") -> Path:
    """Writes a network with its measured results into a new directory. A failure leaves no directory.

    Args:
      run: A run or a saved network, as in `load_model`.
      directory: The new directory. It must not exist.
      licence: License on the page, by the hub's name, e.g. "apache-2.0". "" for none.

    Returns:
      The directory.

    Raises:
      ConfigError: The directory exists, or a file of the user makes the network.
      CheckpointError: There is no sound network at `run`.
      DataError: No results of these weights are stored beside them.
      UnwritableError: The directory cannot be written.
    """
    target, checkpoint = (
        local_path(path, name).absolute() for path, name in ((directory, "the directory"), (run, "the run"))
    )
    if target.exists():
        raise ConfigError(f"{target} exists already: choose another directory, or remove it first.")
    if is_reference(model := load_card(checkpoint).model):
        raise ConfigError(
            f"the network is made by your file {model}. Others would have to execute that file to load it, "
            "so it cannot be published. Only networks that aliasfree_jax makes by name can be. Share the "
            "file and the run instead."
        )
    card, module, variables = load_model(checkpoint)
    results = stored_results(checkpoint, card, variables)
    arrays = {name: _shortened(np.asarray(leaf)) for name, leaf in named_leaves(variables).items()}
    with whole_directory(target) as new:
        write_whole(new / WEIGHTS, safetensors_file(arrays))
        write_json(new / NETWORK, _network_fields(card))
        write_json(new / IMAGES, {field: getattr(card, field) for field in OF_IMAGES})
        write_whole(new / PAGE, readme(target.name, card, module, variables, results, licence))
    return target


def _shortened(array: np.ndarray) -> np.ndarray:
    """The array in float16 if that is shorter and keeps every value."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    with np.errstate(over="ignore"):
        short = array.astype(np.float16)
    return short if np.array_equal(short.astype(array.dtype), array) else array


def _network_fields(card: ModelCard) -> dict[str, Any]:
    """The fields of config.json. `num_classes` is for the hub's pages, the others for `read_published`."""
    fields = {name: value for name, value in card.to_json().items() if name not in OF_IMAGES}
    del fields["file_sha256"]  # only for networks of the user's files, which are not published
    return {"library_name": LIBRARY, "format": FORMAT, "num_classes": len(card.outputs()), **fields}


def is_published(directory: str | Path) -> bool:
    """Whether the config.json of a directory states that `publish` wrote it."""
    try:
        return _read_json(Path(directory) / NETWORK).get("library_name") == LIBRARY
    except CheckpointError:
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a JSON object. Expected the file that `publish` wrote.")
    return found


def read_published(directory: str | Path) -> tuple[ModelCard, nn.Module, PyTree]:
    """Reads a directory that `publish` wrote. The variables have the same bits.

    Returns:
      `(card, module, variables)`.

    Raises:
      CheckpointError: A file is missing or damaged, has another library or format, or the arrays do not fit
        the network.
      ConversionError: The weights are not a sound safetensors file.
    """
    directory = Path(directory)
    if missing := [name for name in (NETWORK, IMAGES, WEIGHTS) if not (directory / name).is_file()]:
        raise CheckpointError(
            f"{directory} has no {', '.join(missing)}: expected a directory that `python -m aliasfree_jax "
            "publish` wrote. Copy or download it again."
        )
    card = _read_card(directory)
    try:
        module = network_of(card)
        abstract = abstract_variables(module, card.image_size, card.channels)
    except Exception as error:  # unknown options of others can raise any error in the network
        raise CheckpointError(
            f"{directory / NETWORK}: this version cannot make the network {card.in_words()}: {error}"
        ) from error
    tensors = read_safetensors(directory / WEIGHTS)
    if faults := differences(leaf_shapes(abstract), leaf_shapes(tensors)):
        raise CheckpointError(
            f"{directory / WEIGHTS} does not fit the network in {NETWORK}. Compared with that network:\n"
            f"{faults}\nDownload both files again, from the same revision."
        )
    leaves = [jnp.asarray(tensors[name], leaf.dtype) for name, leaf in named_leaves(abstract).items()]
    return card, module, jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _read_card(directory: Path) -> ModelCard:
    """Reads the card from both descriptions.

    Raises:
      CheckpointError: They have another library or format, or invalid fields.
    """
    network, images = _read_json(directory / NETWORK), _read_json(directory / IMAGES)
    library, version, count = (network.pop(name, None) for name in ("library_name", "format", "num_classes"))
    if library != LIBRARY:
        raise CheckpointError(
            f"{directory / NETWORK} belongs to the library {library!r}. Expected {LIBRARY!r}."
        )
    if version != FORMAT:
        raise CheckpointError(
            f"{directory} has format {version}, but this version of aliasfree_jax reads format {FORMAT}. Use "
            "the version that wrote it."
        )
    if twice := sorted(set(network) & set(images)):
        raise CheckpointError(
            f"{NETWORK} and {IMAGES} in {directory} both have {', '.join(twice)}. Remove it from one of them."
        )
    fields = network | images
    if faults := list(_faults(fields)):
        raise CheckpointError(f"{directory}: {' '.join(faults)}")
    try:
        card = ModelCard.from_json(fields)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error
    for field, found, expected in (
        ("num_classes", count, len(card.outputs())),
        ("the number of means", len(card.mean), card.channels),
        ("the number of deviations (std)", len(card.std), card.channels),
        ("image_size", card.image_size, max(card.image_size, 2 * card.zero_pad + 1)),
    ):
        if found != expected:
            raise CheckpointError(f"{directory}: {field} is {found}, expected {expected}.")
    return card


def _faults(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the fields of a card that others wrote."""
    for name, value in fields.items():
        kind = KINDS.get(name)
        if kind and type(value) is not kind:
            yield f"{name} should be {NAMES[kind]}, got {value!r}."
        elif (field := f"data.{name}") in FIELDS and (text := fault(name, value, FIELDS[field][1])):
            yield text
    task, options = fields.get("task", TASKS[0]), fields.get("options")
    if task not in TASKS:
        yield f"task should be one of {', '.join(TASKS)}, got {task!r}."
    count = options.get("num_classes", 0) if isinstance(options, dict) else 0
    if type(count) is not int or count > MOST_CLASSES:
        yield f"num_classes in options should be a whole number of up to {MOST_CLASSES:,}, got {count!r}."
    names = fields.get("class_names", ())
    if isinstance(names, list) and not all(isinstance(name, str) for name in names):
        yield "class_names should be a list of names."
    if is_reference(str(fields.get("model", ""))) or fields.get("file_sha256"):
        yield (
            f"model is {fields['model']!r}, a file with code. It was refused: published networks must be "
            "made by aliasfree_jax by name."
        )
