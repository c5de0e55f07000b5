"""Runs one network in a separate process, and times a call on request.

`python -m benchmarks.worker '{"framework": "jax", "network": "convnext_afc_tiny", ...}'` prints one line of
JSON when it is ready. For every line on its standard input it calls the function of that name once, then
for half a second, and prints the median milliseconds. `benchmarks.networks` starts several workers, which
take turns.
"""

import dataclasses
import functools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

Calls = dict[str, Callable[[], float]]  # milliseconds of one call
SHORTEST_MS = 500  # a request is timed for this long, because single calls are noisy


def prepare_jax(task: dict[str, Any]) -> tuple[Calls, dict[str, Any]]:
    """Forward pass, gradient and training step of a network of this package."""
    import jax
    import jax.numpy as jnp
    import optax

    from aliasfree_jax import create_model
    from aliasfree_jax.config import PRECISIONS
    from aliasfree_jax.ops.choices import assume, choices
    from aliasfree_jax.training.mesh import make_mesh
    from aliasfree_jax.training.objective import cross_entropy
    from aliasfree_jax.training.state import StateBuilder
    from aliasfree_jax.training.step import make_train_step
    from benchmarks.timing import machine, milliseconds

    batch, side = task["batch"], task["side"]
    network = create_model(
        task["network"], num_classes=1000, **PRECISIONS[task["precision"]], **task["options"]
    )
    images = jax.random.normal(jax.random.key(0), (batch, side, side, 3))
    labels = jnp.arange(batch)
    optimizer, mesh = optax.adamw(1e-6), make_mesh(1)
    state = StateBuilder(network, optimizer, (side, side, 3), mesh).build()
    # Copies, because the training step donates the state.
    variables = jax.tree.map(jnp.copy, {"params": state.params, **state.collections})

    def loss(params: Any, x: jax.Array) -> jax.Array:
        logits: Any = network.apply(
            {**variables, "params": params},
            x,
            train=True,
            mutable=list(state.collections),
            rngs={"gumbel": jax.random.key(1)},
        )[0]
        return jnp.mean(cross_entropy(logits, labels, 0.0))

    step: Any = make_train_step(network, optimizer, optax.constant_schedule(1e-6), mesh)
    whole = {"image": images, "label": labels, "mask": jnp.ones(batch)}
    programs: dict[str, Any] = {}
    facts = machine()
    for name, function, arguments in (
        ("forward", jax.jit(lambda v, x: network.apply(v, x)), (variables, images)),
        ("gradient", jax.jit(jax.value_and_grad(loss)), (variables["params"], images)),
        ("step", step, (state, whole)),
    ):
        start = time.perf_counter()
        row = choices()
        with assume(dataclasses.replace(row, fft_from=0) if task.get("fft") else row):
            programs[name] = function.lower(*arguments).compile()
        facts[f"{name}_compile_s"] = round(time.perf_counter() - start, 1)
        analysis: Any = programs[name].memory_analysis()
        facts[f"{name}_temporary_mib"] = round(analysis.temp_size_in_bytes / 2**20)
        facts[f"{name}_gflop"] = round(programs[name].cost_analysis()["flops"] / 1e9 / batch, 2)

    def train() -> Any:
        nonlocal state
        state, metrics = programs["step"](state, whole)  # donates the state
        return metrics

    calls = {
        "forward": lambda: programs["forward"](variables, images),
        "gradient": lambda: programs["gradient"](variables["params"], images),
        "step": train,
    }
    return {name: functools.partial(milliseconds, call) for name, call in calls.items()}, facts


def prepare_torch(task: dict[str, Any]) -> tuple[Calls, dict[str, Any]]:
    """The same calls for a PyTorch network of `benchmarks.torch_networks` or of an installed package."""
    import torch

    from benchmarks.torch_networks import alias_free_convnext, plain_convnext, resnet20

    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
    torch.manual_seed(0)
    if task["network"] == "timm":
        import timm

        facts["timm"] = timm.__version__
        network = timm.create_model("convnext_tiny")
    elif task["network"] == "blur_resnet50":
        import antialiased_cnns

        network = antialiased_cnns.resnet50(pretrained=False)
    else:
        own: dict[str, Callable[[], Any]] = {
            "plain": plain_convnext,
            "alias_free": alias_free_convnext,
            "resnet20": resnet20,
        }
        network = own[task["network"]]()
    network = network.to(device)
    if task["compile"]:
        network = torch.compile(network)
    images = torch.randn(task["batch"], 3, task["side"], task["side"], device=device)
    labels = torch.arange(task["batch"], device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    half = torch.autocast(device, torch.bfloat16, enabled=task["precision"] == "bfloat16")

    def forward() -> None:
        with torch.inference_mode(), half:
            network(images)

    def gradient() -> None:
        optimizer.zero_grad()
        with half:
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()

    def step() -> None:
        gradient()
        optimizer.step()

    def timed(call: Callable[[], None]) -> float:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    calls = {"forward": forward, "gradient": gradient, "step": step}
    return {name: functools.partial(timed, call) for name, call in calls.items()}, facts


def _device_peak(framework: str) -> int:
    """Peak memory in bytes: of the device, or of the process on a CPU."""
    if framework == "torch":
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
    else:
        import jax

        memory = jax.devices()[0].memory_stats()
        if memory:
            return int(memory["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _timed(call: Callable[[], float]) -> float:
    """The median milliseconds of several calls. The first call, after other processes ran, does not count."""
    call()
    times = [call()]
    while sum(times) < SHORTEST_MS:
        times.append(call())
    return statistics.median(times)


def main() -> None:
    """Prepares the task given as the only argument, and answers requests until standard input ends."""
    task = json.loads(sys.argv[1])
    calls, facts = {"jax": prepare_jax, "torch": prepare_torch}[task["framework"]](task)
    for call in calls.values():
        call()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        name = line.strip()
        result = _device_peak(task["framework"]) / 2**20 if name == "peak_mib" else _timed(calls[name])
        print(json.dumps(round(result, 3)), flush=True)


if __name__ == "__main__":
    main()
