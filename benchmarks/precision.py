"""Measures the numerical errors of each precision of the configuration: errors of logits and of equivariance.

`measure` runs the alias-free ConvNeXt-T at 224 pixels in every mode of `config.PRECISIONS`, and a circular
one for comparison. The weights are random (`random_variables`), and no part of the network is hidden by a
small gain. The consistency of such a network means nothing, so only errors are measured.

TF32 is emulated on hardware without it (`benchmarks.tf32`). All modes use the program for GPUs (the row "gpu"
of `ops.choices`) on every backend, because its depthwise convolutions are products, too.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax import create_model
from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.ops.activation import GELU_QUADRATIC
from aliasfree_jax.ops.choices import CHOICES
from benchmarks.tf32 import has_tf32, rounded_products

Moved = dict[str, list[np.ndarray]]

FAMILIES = ("convnext_afc", "convnext_circular")
BATCH = 2
MAX_SHIFT = 31  # pixels
SHIFTS_OF_A_KIND = 2

# Without LLVM's optimisation, compilation takes half the time. Results change by rounding only.
_UNOPTIMISED: dict[str, Any] = {"xla_backend_optimization_level": 0}


@contextlib.contextmanager
def _program_of_a_gpu() -> Iterator[None]:
    with mock.patch.dict(CHOICES, {jax.default_backend(): CHOICES["gpu"]}):
        yield


def random_variables(network: Any, side: int) -> Any:
    """Random float32 variables of a network for images `[N, side, side, 3]`, which all affect its output.

    Kernels are normal with deviation 1 / sqrt(fan-in). Coefficients of polynomials are those of the quadratic
    fit to GELU, times 1 + 0.2 z. Biases are 0.1 z. All other variables are 1 + 0.1 z: scales of norms, gains
    of residual branches (1e-6 in a new network) and of the stem's activation (0), and scales of polynomials
    (7). The z are standard normal.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    rng = np.random.default_rng(0)

    def value(path: Any, leaf: Any) -> np.ndarray:
        name, z = path[-1].key, rng.standard_normal(leaf.shape)
        if name == "kernel":
            z /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif name == "coefficients":
            z = np.asarray(GELU_QUADRATIC) * (1 + 0.2 * z)
        else:
            z = 0.1 * z + (name != "bias")
        return z.astype(np.float32)

    return jax.tree_util.tree_map_with_path(value, shapes)


def random_images(side: int) -> np.ndarray:
    """Noise with photographs' spectrum, 1 / frequency: float32 `[BATCH, side, side, 3]`, deviation 1."""
    white = np.random.default_rng(1).standard_normal((BATCH, side, side, 3))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side)] * 2))
    gains = 1 / np.maximum(frequency, 1 / side)[:, :, None]
    noise = np.fft.ifft2(np.fft.fft2(white, axes=(1, 2)) * gains, axes=(1, 2)).real
    return (noise / noise.std(axis=(1, 2, 3), keepdims=True)).astype(np.float32)


def shifted_images(images: np.ndarray) -> Moved:
    """The images after random shifts of each kind, computed by FFT in float64 and rounded to float32."""
    rng, size = np.random.default_rng(2), (SHIFTS_OF_A_KIND, 2)
    shifts = {
        "integer": rng.integers(1, MAX_SHIFT + 1, size).astype(float),
        "half_pixel": rng.integers(0, MAX_SHIFT, size) + 0.5,
        "fractional": rng.uniform(0, MAX_SHIFT, size),
    }

    def moved(down: float, right: float) -> np.ndarray:
        y = images.astype(np.float64)
        for axis, pixels in ((1, down), (2, right)):
            phases = np.exp(-2j * np.pi * np.fft.fftfreq(y.shape[axis]) * pixels)
            phases = phases.reshape(-1, *[1] * (3 - axis))
            y = np.fft.ifft(np.fft.fft(y, axis=axis) * phases, axis=axis).real
        return y.astype(np.float32)

    return {kind: [moved(*pair) for pair in pairs] for kind, pairs in shifts.items()}


def _compiled(apply: Callable[..., Any], variables: Any, images: np.ndarray) -> Callable[..., np.ndarray]:
    options = _UNOPTIMISED if jax.default_backend() == "cpu" else {}
    with _program_of_a_gpu():
        compiled = jax.jit(apply).lower(variables, images).compile(compiler_options=options)
    return lambda moved: np.asarray(compiled(variables, moved), np.float64)


def _reference(name: str, variables: Any, images: np.ndarray) -> np.ndarray:
    """The logits in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (variables, images))
        return _compiled(create_model(name).apply, *wide)(wide[1])


def _row(
    name: str, precision: str, variables: Any, images: np.ndarray, moved: Moved, reference: np.ndarray
) -> dict[str, Any]:
    apply = create_model(name, **PRECISIONS[precision]).apply
    emulated = precision == "tf32" and not has_tf32()
    logits = _compiled(rounded_products(apply) if emulated else apply, variables, images)
    unmoved = logits(images)
    scale = np.abs(unmoved).max()
    changes = {
        kind: max(float(np.abs(logits(batch) - unmoved).max() / scale) for batch in batches)
        for kind, batches in moved.items()
    }
    return {
        "network": name,
        "side": images.shape[1],
        "precision": precision,
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "emulated": emulated,
        "logit_error": float(np.abs(unmoved - reference).max() / np.abs(reference).max()),
        "equivariance_error": max(changes.values()),
        **{f"{kind}_error": change for kind, change in changes.items()},
    }


def measure(quick: bool) -> list[dict[str, Any]]:
    """One row per network and precision. `quick` uses micro networks at 32 pixels.

    All errors are relative to the largest logit of the batch. `logit_error` is the largest difference from
    the same network in float64. `integer_error`, `half_pixel_error` and `fractional_error` are the largest
    changes of a logit under circular shifts of that kind, up to 31 pixels. `equivariance_error` is the
    largest of the three.
    """
    size, side = ("micro", 32) if quick else ("tiny", 224)
    images, rows = random_images(side), []
    moved = shifted_images(images)
    for family in FAMILIES:
        name = f"{family}_{size}"
        variables = random_variables(create_model(name), side)
        reference = _reference(name, variables, images)
        rows += [
            _row(name, precision, variables, images, moved, reference)
            for precision in PRECISIONS
            if precision != "default"
        ]
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `measure` as a Markdown table."""
    lines = [
        "| network | precision | logits against float64 | integer shifts | half-pixel shifts | real shifts |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        precision = f"{row['precision']}, emulated" if row["emulated"] else row["precision"]
        errors = [row[f"{kind}_error"] for kind in ("logit", "integer", "half_pixel", "fractional")]
        cells = [f"{row['network']}, {row['side']} px", precision, *(f"{error:.1e}" for error in errors)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
