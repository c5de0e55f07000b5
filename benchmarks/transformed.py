"""Compares ResNet-50 transformed by `aliasfree_jax.shift_invariant` with the native shift-invariant network.

This package's plain network, and Haiku's if it is installed, are transformed. All run in one process, in
turn. Values are medians in milliseconds, and their ratios to the native network.
"""

import functools
import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax import create_model
from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.transform import shift_invariant
from benchmarks.timing import in_turn

Row = dict[str, Any]
Apply = Callable[..., Any]  # (parameters, images, statistics, train) -> (logits, statistics)

SAMPLERS: dict[str, Any] = {"blur": {"name": "blur", "kernel_size": 3}, "polyphase": "polyphase"}
CIRCULAR = {"padding": "CIRCULAR", "stem": {"name": "image", "pool_size": 3, "pool_padding": "CIRCULAR"}}


def own(precision: str, **options: Any) -> tuple[Apply, Any]:
    """The apply function and module of this package's ResNet-50."""
    module = create_model("resnet50", num_classes=1000, **PRECISIONS[precision], **options)

    def apply(parameters: Any, images: jax.Array, statistics: Any, train: bool) -> Any:
        variables = {"params": parameters, "batch_stats": statistics}
        return module.apply(variables, images, train=train, mutable=["batch_stats"])

    return apply, module


def haiku() -> tuple[Apply, Any]:
    """The apply function and module of Haiku's ResNet-50."""
    import haiku as hk

    def network(images: jax.Array, train: bool) -> jax.Array:
        return hk.nets.ResNet50(1000)(images, train)

    module: Any = hk.without_apply_rng(hk.transform_with_state(network))

    def apply(parameters: Any, images: jax.Array, statistics: Any, train: bool) -> Any:
        return module.apply(parameters, statistics, images, train)

    return apply, module


def programs(apply: Apply, parameters: Any, images: jax.Array, statistics: Any) -> dict[str, Any]:
    """The compiled logits in evaluation, and the compiled gradient of a loss in training."""

    def loss(parameters: Any, images: jax.Array, statistics: Any) -> Any:
        logits, statistics = apply(parameters, images, statistics, True)
        return jnp.mean(jax.nn.log_softmax(logits.astype(jnp.float32))[:, 0]), statistics

    calls = {"forward": lambda *args: apply(*args, False)[0], "gradient": jax.grad(loss, has_aux=True)}
    ready = [jax.jit(call).lower(parameters, images, statistics) for call in calls.values()]
    with ThreadPoolExecutor() as pool:
        return dict(zip(calls, pool.map(lambda program: program.compile(), ready), strict=True))


def measure(batch: int, side: int, repetitions: int, precision: str) -> list[Row]:
    """One row per sampler, pass and network."""
    images = jax.random.normal(jax.random.key(0), (batch, side, side, 3))
    plain, module = own(precision)
    ours = jax.jit(module.init)(jax.random.key(0), images)
    variables = {"ours, transformed": (ours["params"], images, ours["batch_stats"])}
    functions = {"ours, transformed": plain}
    if importlib.util.find_spec("haiku") and precision == "float32":
        functions["Haiku's, transformed"], module = haiku()
        parameters, statistics = jax.jit(functools.partial(module.init, train=True))(
            jax.random.key(0), images
        )
        variables["Haiku's, transformed"] = parameters, images, statistics
    variables["native"] = variables["ours, transformed"]  # equal names and shapes
    rows = []
    for sampler, part in SAMPLERS.items():
        networks = {"native": own(precision, sampler=part, **CIRCULAR)[0]}
        networks |= {n: shift_invariant(f, sampler=part, argnums=1) for n, f in functions.items()}
        compiled, seconds = {}, {}
        for name, apply in networks.items():
            start = time.perf_counter()
            compiled[name] = programs(apply, *variables[name])
            seconds[name] = round(time.perf_counter() - start, 1)
        for call in ("forward", "gradient"):
            calls = {n: functools.partial(compiled[n][call], *variables[n]) for n in networks}
            times = in_turn(calls, repetitions)
            for name, taken in times.items():
                gflop = compiled[name][call].cost_analysis()["flops"] / 1e9 / batch
                row: Row = {"sampler": sampler, "pass": call, "network": name, "ms": taken}
                row["ms : native's"] = round(taken / times["native"], 2)
                row["GFLOP an image"] = round(gflop, 1)
                rows.append(row | {"compile both, s": seconds[name], "batch": batch, "side": side})
    return rows
