"""Programs of StableHLO: a network as a file of `jax.export`, which JAX runs without this package.

One file holds a program for each kind of platform: that of a CPU computes depthwise convolutions as shifted
sums, that of an accelerator uses XLA's convolution, and so on (`ops.choices`). The weights are stored once.
JAX selects the program when it compiles the file.
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
# A file of jax.export is a FlatBuffer, which holds less than 2 GiB.
LIMIT = 2**31 - 2**20
NEVER = 1 << 30
# The name of the operation in the bytecode of a portable StableHLO artifact.
_FFT = b"\0fft_v1\0"

Apply = Callable[[Any, jax.Array], Any]
Program = Callable[[jax.Array], Any]


class ExportError(AliasFreeError):
    """A network that cannot be exported, or whose file does not compute what the network computes."""


def check_platforms(names: Sequence[str]) -> tuple[str, ...]:
    """The names without repetitions.

    Raises:
      ConfigError: no name, or an unknown one.
    """
    for name in names:
        if name == "gpu":
            raise ConfigError("unknown platform 'gpu'. Use cuda for GPUs of NVIDIA and rocm for GPUs of AMD.")
        if name not in PLATFORMS:
            raise ConfigError(unknown("platform", name, PLATFORMS))
    if not names:
        raise ConfigError(f"no platform is given: expected some of {', '.join(PLATFORMS)}.")
    return tuple(dict.fromkeys(names))


def _row(platform: str) -> Choices:
    """The choices of a platform. FFTs are left out: not every compiler of StableHLO has them."""
    return dataclasses.replace(CHOICES.get(platform, CHOICES["gpu"]), fft_from=NEVER)


def serialized(
    apply: Apply, variables: Any, sides: Sequence[int], platforms: Sequence[str], batch: int | None
) -> bytes:
    """The content of the file.

    Args:
      apply: a function of variables and images `[N, H, W, C]`.
      variables: the weights, which become constants of the program.
      sides: rows, columns and channels of the images.
      platforms: some of `PLATFORMS`.
      batch: number of images of each call; None for any number.

    Raises:
      ExportError: the file would be too large, contains an FFT or an operation that JAX does not keep stable,
        or the network does not run on images of this shape.
      MissingPackageError: flatbuffers is missing.
    """
    needed("flatbuffers", "a file of jax.export")
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    if weights >= LIMIT:
        raise too_large(weights)
    count = jax.export.symbolic_shape("b")[0] if batch is None else batch
    images = jax.ShapeDtypeStruct((count, *sides), jnp.float32)
    try:
        exported = jax.export.export(
            jax.jit(functools.partial(_by_platform(apply, platforms), variables)), platforms=platforms
        )(images)
    except AliasFreeError:
        raise
    except Exception as error:  # whatever the code of a user's network raises
        raise not_traced(error, sides, batch) from error
    if len(exported.mlir_module_serialized) >= LIMIT:
        raise too_large(len(exported.mlir_module_serialized))
    content = bytes(exported.serialize())
    if _FFT in content:
        raise ExportError(
            "the program contains an FFT, which not every runtime of StableHLO has. Build the network with "
            'method="matmul" or "auto" instead of "fft", and without jax.numpy.fft.'
        )
    return content


def _by_platform(apply: Apply, platforms: Sequence[str]) -> Apply:
    """`apply` traced once for each different row of choices."""
    rows = {platform: _row(platform) for platform in platforms}
    branches = {row: functools.partial(_under, row, apply) for row in rows.values()}
    if len(branches) == 1:
        (branch,) = branches.values()
        return branch
    per_platform = {platform: branches[row] for platform, row in rows.items()}
    # The variables are operands of the branches, which therefore share one copy.
    return lambda variables, images: jax.lax.platform_dependent(variables, images, **per_platform)


def _under(row: Choices, apply: Apply, variables: Any, images: jax.Array) -> Any:
    with assume(row):
        return apply(variables, images)


def too_large(size: int, file: str = "a file of jax.export") -> ExportError:
    """Says that a network of `size` bytes does not fit into a file of this kind."""
    return ExportError(
        f"the network has {size / 2**30:.1f} GiB of weights, and {file} holds less than 2 GiB. "
        "Keep the checkpoint and load it by aliasfree_jax.load_pretrained."
    )


def not_traced(error: Exception, sides: Sequence[int], batch: int | None) -> ExportError:
    """Says why the network does not become a program for images of this shape."""
    shape = ", ".join(map(str, ("b" if batch is None else batch, *sides)))
    remedy = "Choose another size by --image_size=PIXELS."
    if "custom call" in str(error):
        remedy = "JAX exports only operations that it keeps stable: replace this one in the network."
    elif batch is None:
        remedy += " A network that needs a known number of images is exported with --batch=NUMBER."
    return ExportError(
        f"the network cannot be exported for images [{shape}] ({type(error).__name__}: {error}). {remedy}"
    )


def programs(path: Path) -> Iterator[tuple[str, Program]]:
    """The programs in a file, each with the name of its first platform, as functions that run here.

    The program of another platform runs on this machine too: StableHLO is the same everywhere.
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
    """What the description of a file says of its format."""
    return {"format": "jax.export", "jax": jax.__version__, "platforms": list(platforms)}


def loading(path: Path) -> tuple[str, ...]:
    """The lines of Python that load and call a file."""
    return (
        "import jax.export  # pip install jax flatbuffers",
        f"exported = jax.export.deserialize(bytearray(open({str(path)!r}, 'rb').read()))",
        "outputs = jax.jit(exported.call)(images)",
    )
