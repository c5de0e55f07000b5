"""Exports networks as ONNX files: jax2onnx writes them, and onnxruntime runs them for the comparison.

jax2onnx translates JAX's operations. So depthwise convolutions are XLA's operation, not shifted sums.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aliasfree_jax.conversion.stablehlo import (
    NEVER,
    Apply,
    ExportError,
    Program,
    check_weights,
    not_traced,
)
from aliasfree_jax.errors import AliasFreeError, needed
from aliasfree_jax.ops.choices import CHOICES, assume

_ROW = dataclasses.replace(
    CHOICES["cpu"], depthwise="conv", fft_from=NEVER, patches_to=0, working_set=None, repeat_matrix_from=0
)
_PROVIDERS = ["CPUExecutionProvider"]


def serialized(
    apply: Apply, variables: Any, sides: Sequence[int], platforms: Sequence[str], batch: int | None
) -> bytes:
    """Returns the content of the file.

    Args:
      apply: A function of variables and images `[N, H, W, C]`.
      variables: The variables, which become constants of the file.
      sides: Rows, columns and channels of the images.
      platforms: Ignored: ONNX files run everywhere.
      batch: Number of images in each call. None: any number.

    Raises:
      ExportError: The file would be too large, jax2onnx does not work with this JAX, or it cannot translate
        the network.
      MissingPackageError: jax2onnx or onnxruntime is missing.
    """
    if jax.__version_info__ >= (0, 11):
        raise ExportError(
            f"jax2onnx needs jax 0.10, but this is jax {jax.__version__}. Write a .stablehlo file, or export "
            "in an environment of Python 3.11 with: pip install 'jax<0.11' 'aliasfree_jax[onnx]'."
        )
    # Both warn about plugins that do not fit this jax, and about every shape with an unknown batch.
    for name in ("jax2onnx", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    to_onnx = needed("jax2onnx", "an ONNX file").to_onnx
    needed("onnxruntime", "an ONNX file")
    check_weights(variables, "an ONNX file")

    def network(images: jax.Array) -> Any:
        with assume(_ROW):
            return apply(variables, images)

    try:
        model = to_onnx(network, [("b" if batch is None else batch, *sides)], model_name="network")
    except AliasFreeError:
        raise
    except Exception as error:  # jax2onnx raises errors of all kinds
        raise not_traced(error, sides, batch) from error
    content: bytes = model.SerializeToString()
    return content


def programs(path: Path) -> Iterator[tuple[str, Program]]:
    """Yields the program of a file as a function. onnxruntime runs it on the CPU."""
    session = needed("onnxruntime", "an ONNX file").InferenceSession(path.read_bytes(), providers=_PROVIDERS)
    (images,) = session.get_inputs()
    yield "onnxruntime", lambda x: session.run(None, {images.name: np.asarray(x)})


def about(platforms: Sequence[str]) -> dict[str, Any]:
    """Returns the fields of a file's description about the format."""
    return {"format": "onnx", "jax": jax.__version__, "jax2onnx": version("jax2onnx")}


def loading(path: Path) -> tuple[str, ...]:
    """Returns the lines of Python that load and call a file."""
    return (
        "import onnxruntime  # pip install onnxruntime",
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        "outputs = session.run(None, {session.get_inputs()[0].name: images})[0]",
    )
