"""Times several functions in turn, so that a noisy machine disturbs all of them equally."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax


def milliseconds(function: Callable[[], Any]) -> float:
    """The time of one call, until its results are ready on the device."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return 1e3 * (time.perf_counter() - start)


def in_turn(functions: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Median milliseconds of each function over `repetitions` rounds, after one round that compiles."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(repetitions + 1):
        for name, function in functions.items():
            taken = milliseconds(function)
            if round_:
                times[name].append(taken)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def lowered(function: Callable[..., Any], *arguments: Any, gradient: bool = False) -> Any:
    """`function`, lowered for these arguments and ready to compile.

    `gradient` adds the gradient for all arguments, with the output as the cotangent. The output is still
    returned.
    """

    def both(*args: Any) -> Any:
        y, backward = jax.vjp(function, *args)
        return y, backward(y)

    return jax.jit(both if gradient else function).lower(*arguments)


def compiled(
    function: Callable[..., Any], *arguments: Any, gradient: bool = False
) -> tuple[Callable[[], Any], Any]:
    """A function without arguments that calls `function(*arguments)` or its gradient, and the program."""
    program = lowered(function, *arguments, gradient=gradient).compile()
    return (lambda: program(*arguments)), program


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.processor()}"


def machine() -> dict[str, Any]:
    """The device, versions and load of this machine."""
    device = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "device": device.device_kind if jax.default_backend() != "cpu" else _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "load": round(os.getloadavg()[0], 1),
    }
