"""Descriptions of golden cases, without their weights."""

import json

import golden
import numpy as np

CASES = golden.HERE / "cases"
# Cases of other libraries. Separate tests check them; all other cases come from the original code bases.
LIBRARIES = ("timm_", "torchvision_convnext_", "transformers_", "aka_")
# Cases of networks whose outputs are maps. Separate tests check them, too.
DENSE = ("unet_", "lps_deeplab")


def originals() -> list[str]:
    """Returns the classifiers of the original code bases."""
    return [name for name in golden.cases() if not name.startswith((*LIBRARIES, *DENSE))]


def meta(name: str) -> dict:
    """Returns the source, network, options and list of tensors of a case."""
    with np.load(CASES / f"{name}.npz") as archive:
        return json.loads(str(archive["meta"]))


def shapes(name: str) -> dict[str, np.ndarray]:
    """Returns the state dict of a case, with zeros that need no memory."""
    with np.load(CASES / f"{name}.npz") as archive:
        stored = json.loads(str(archive["meta"]))["state_dict"]
        there = {key for key, _, kind in stored if kind == "rule" or f"fixed:{key}" in archive.files}
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape, _ in stored if key in there}
