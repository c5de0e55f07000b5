"""What a case says of itself, without reading its weights."""

import json

import golden
import numpy as np

CASES = golden.HERE / "cases"
# Cases of libraries, whose dialects have tests of their own; the others are of the original code bases.
LIBRARIES = ("timm_", "torchvision_convnext_", "transformers_", "aka_")
# ... and of networks whose outputs are maps, which have tests of their own too.
DENSE = ("unet_", "lps_deeplab")


def originals() -> list[str]:
    """The classifiers of the original code bases."""
    return [name for name in golden.cases() if not name.startswith((*LIBRARIES, *DENSE))]


def meta(name: str) -> dict:
    """Its source, network, options and the list of its tensors."""
    with np.load(CASES / f"{name}.npz") as archive:
        return json.loads(str(archive["meta"]))


def shapes(name: str) -> dict[str, np.ndarray]:
    """Its state dict, with zeros that take no memory."""
    with np.load(CASES / f"{name}.npz") as archive:
        stored = json.loads(str(archive["meta"]))["state_dict"]
        there = {key for key, _, kind in stored if kind == "rule" or f"fixed:{key}" in archive.files}
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape, _ in stored if key in there}
