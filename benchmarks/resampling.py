"""Where the FFT overtakes the matrix product in resampling: `python -m benchmarks.resampling`.

Interpolates [batch, N, N, C] by 2 with both methods, for N over a range and a fixed number of values,
interleaved, and writes medians to benchmarks/results/resampling-<backend>.json. The crossover is the
constant FFT_FROM of `aliasfree_jax.ops.resample`.
"""

import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.ops.resample import Method, ideal_upsample

SIDES = (8, 16, 32, 64, 128, 256, 512, 1024)
VALUES = 2**22  # per map: 16 MB in float32
REPETITIONS = 7
METHODS: tuple[Method, ...] = ("matmul", "fft")


def measure(side: int) -> dict[str, Any]:
    """Median milliseconds of either method for maps of `side`, repetitions in turn."""
    channels = min(256, max(1, VALUES // side**2))
    batch = max(1, VALUES // (side**2 * channels))
    x = jax.random.normal(jax.random.key(side), (batch, side, side, channels))
    functions = {method: jax.jit(lambda y, m=method: ideal_upsample(y, 2, method=m)) for method in METHODS}
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for repetition in range(REPETITIONS + 1):
        for method, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(x))
            if repetition:  # the first one compiles
                times[method].append(1e3 * (time.perf_counter() - start))
    medians = {f"{method}_ms": round(statistics.median(t), 2) for method, t in times.items()}
    difference = jnp.max(jnp.abs(functions["matmul"](x) - functions["fft"](x)))
    return {"side": side, "shape": list(x.shape), **medians, "largest_difference": float(difference)}


def main() -> None:
    """Prints one row a side and writes all of them."""
    rows = []
    for side in SIDES:
        rows.append(measure(side))
        print(rows[-1], flush=True)
    device = jax.devices()[0]
    machine = f"{platform.machine()}, {jax.default_backend()}: {device.device_kind}"
    result = {
        "command": "python -m benchmarks.resampling",
        "machine": machine,
        "jax": jax.__version__,
        "rows": rows,
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"resampling-{jax.default_backend()}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
