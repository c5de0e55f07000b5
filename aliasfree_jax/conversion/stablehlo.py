"""Exports networks as files of `jax.export`: StableHLO programs that JAX runs without this package.

A file holds one program for each kind of platform, because the fastest methods differ (`ops.choices`). For
instance, CPUs compute depthwise convolutions as shifted sums, and accelerators use XLA's convolution. The
weights are stored once. JAX selects the program when it compiles the file.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from aliasfree_jax.errors import AliasFreeError, ConfigError, needed, unknown
from aliasfree_jax.ops.choices import CHOICES, Choices, assume

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# Bytes. A file of jax.export is a FlatBuffer, which must be smaller than 2 GiB.
LIMIT = 2**31 - 2**20
NEVER = 1 << 30  # a value of `Choices.fft_from`: no map is that large
# The name of the FFT in the bytecode of a portable StableHLO artifact.
_FFT = b"\0fft_v1\0"

Apply = Callable[[Any, jax.Array], Any]
Program = Callable[[jax.Array], Any]


class ExportError(AliasFreeError):
    """A network cannot be exported, or the outputs of its file differ from those of the network."""


def check_platforms(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of platforms without repetitions.

    Raises:
      ConfigError: A name is unknown, or there is none.
    """
    for name in names:
        if name == "gpu":
            raise ConfigError("unknown platform 'gpu'. Use cuda for GPUs of NVIDIA and rocm for GPUs of AMD.")
        if name not in PLATFORMS:
            raise ConfigError(unknown("platform", name, PLATFORMS))
    if not names:
        raise ConfigError(f"no platform is given. Expected one or more of {', '.join(PLATFORMS)}.")
    return tuple(dict.fromkeys(names))


def _row(platform: str) -> Choices:
    """The choices of a platform, without FFTs: some compilers of StableHLO lack them."""
    return dataclasses.replace(CHOICES.get(platform, CHOICES["gpu"]), fft_from=NEVER)


def serialized(
    apply: Apply, variables: Any, sides: Sequence[int], platforms: Sequence[str], batch: int | None
) -> bytes:
    """Returns the content of the file.

    Args:
      apply: A function of variables and images `[N, H, W, C]`.
      variables: The variables, which become constants of the program.
      sides: Rows, columns and channels of the images.
      platforms: Names from `PLATFORMS`.
      batch: Number of images in each call. None: any number.

    Raises:
      ExportError: The file would be too large, the program contains an FFT or an operation that JAX does not
        keep stable, or the network does not run on images of this shape.
      MissingPackageError: flatbuffers is missing.
    """
    needed("flatbuffers", "a file of jax.export")
    check_weights(variables)
    count = jax.export.symbolic_shape("b")[0] if batch is None else batch
    images = jax.ShapeDtypeStruct((count, *sides), jnp.float32)
    try:
        exported = jax.export.export(
            jax.jit(functools.partial(_by_platform(apply, platforms), variables)), platforms=platforms
        )(images)
    except AliasFreeError:
        raise
    except Exception as error:  # a user's network can raise any error
        raise not_traced(error, sides, batch) from error
    if len(exported.mlir_module_serialized) >= LIMIT:
        raise _too_large(len(exported.mlir_module_serialized))
    content = bytes(exported.serialize())
    if _FFT in content:
        raise ExportError(
            "the program contains an FFT, which some compilers of StableHLO lack. Build the network with "
            'method="matmul" or "auto" instead of "fft", and without jax.numpy.fft.'
        )
    return content


def _by_platform(apply: Apply, platforms: Sequence[str]) -> Apply:
    """A function that traces `apply` once for each different row of choices."""
    rows = {platform: _row(platform) for platform in platforms}
    branches = {row: functools.partial(_under, row, apply) for row in rows.values()}
    if len(branches) == 1:
        (branch,) = branches.values()
        return branch
    per_platform = {platform: branches[row] for platform, row in rows.items()}
    # The variables are operands of the branches, so all branches share one copy.
    return lambda variables, images: jax.lax.platform_dependent(variables, images, **per_platform)


def _under(row: Choices, apply: Apply, variables: Any, images: jax.Array) -> Any:
    with assume(row):
        return apply(variables, images)


def check_weights(variables: Any, file: str = "a file of jax.export") -> None:
    """Raises `ExportError` if the weights are too large for this kind of file."""
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    if weights >= LIMIT:
        raise _too_large(weights, file)


def _too_large(size: int, file: str = "a file of jax.export") -> ExportError:
    """Returns the error for a network of `size` bytes, which does not fit into a file of this kind."""
    return ExportError(
        f"the network has {size / 2**30:.1f} GiB of weights, but {file} must be smaller than 2 GiB. "
        "Keep the checkpoint and load it with aliasfree_jax.load_pretrained."
    )


def not_traced(error: Exception, sides: Sequence[int], batch: int | None) -> ExportError:
    """Returns the error for a network that cannot be traced or translated for images of this shape."""
    shape = ", ".join(map(str, ("b" if batch is None else batch, *sides)))
    remedy = "Try another size: --image_size=PIXELS."
    if "custom call" in str(error):
        remedy = "JAX exports only operations that it keeps stable. Replace this one in the network."
    elif batch is None:
        remedy += " If the network needs a known number of images, pass --batch=NUMBER."
    return ExportError(
        f"the network cannot be exported for images [{shape}] ({type(error).__name__}: {error}). {remedy}"
    )


def programs(path: Path) -> Iterator[tuple[str, Program]]:
    """Yields the programs of a file as functions that run here, each with the name of its first platform.

    Programs of other platforms run on this machine too, because StableHLO is the same everywhere.
    """
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    here = jax.export.default_export_platform()
    first: dict[Choices, str] = {}
    for platform in sorted(exported.platforms, key=lambda name: name != here):
        first.setdefault(_row(platform), platform)
    for platform in first.values():
        # JAX selects by the position of its platform in this list.
        names = [here if name == platform else f"not {name}" for name in exported.platforms]
        yield platform, jax.jit(dataclasses.replace(exported, platforms=tuple(names)).call)


def about(platforms: Sequence[str]) -> dict[str, Any]:
    """Returns the fields of a file's description about the format."""
    return {"format": "jax.export", "jax": jax.__version__, "platforms": list(platforms)}


def loading(path: Path) -> tuple[str, ...]:
    """Returns the lines of Python that load and call a file."""
    return (
        "import jax.export  # pip install jax flatbuffers",
        f"exported = jax.export.deserialize(bytearray(open({str(path)!r}, 'rb').read()))",
        "outputs = jax.jit(exported.call)(images)",
    )
