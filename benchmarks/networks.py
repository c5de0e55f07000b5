"""Compares whole networks. Each runs in a separate process, and the processes are measured in turn.

The processes are separate because two frameworks in one process disturb each other's threads and memory. They
take turns because the speed of a shared machine varies over time. On an accelerator, one process follows the
other, because they would have to share its memory.
"""

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

CALLS = ("forward", "gradient", "step")

LARGEST_BATCH_ON_THE_DOUBLE_GRID = 32  # its gradient keeps about 1.6 GiB per image in float32

# Undoes the settings of `aliasfree_jax.startup`, for comparison.
AS_STARTED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "XLA_FLAGS": ""}

Task = dict[str, Any]


def tasks(batch: int, side: int, size: str, precision: str, quick: bool, accelerator: bool) -> list[Task]:
    """The tasks for ConvNeXt: this package's five families, and PyTorch's networks if it is installed."""
    common = {"batch": batch, "side": side, "precision": precision, "compile": False}
    common |= {"options": {"depths": (1, 1)} if quick else {}, "together": quick}
    result = [
        {**common, "label": label, "framework": "jax", "network": f"{family}_{size}"}
        for label, family in (
            ("plain", "convnext"),
            ("circular", "convnext_circular"),
            ("APS", "convnext_aps"),
            ("gated", "convnext_afg"),
            ("alias-free", "convnext_afc"),
        )
    ]
    if quick:
        return [result[0], result[-1]]
    if importlib.util.find_spec("torch") is None:
        return result
    result.append({**common, "label": "torch plain", "framework": "torch", "network": "plain"})
    if importlib.util.find_spec("timm"):
        result.append({**common, "label": "timm plain", "framework": "torch", "network": "timm"})
    if accelerator:
        result.append({**result[-1], "label": f"{result[-1]['label']}, compiled", "compile": True})
    smaller = min(batch, LARGEST_BATCH_ON_THE_DOUBLE_GRID)
    return [
        *result,
        {
            **common,
            "label": "torch alias-free",
            "framework": "torch",
            "network": "alias_free",
            "batch": smaller,
        },
    ]


def _beside_torch(
    common: Task, networks: dict[str, str], started: str, network: str, package: str
) -> list[Task]:
    """Tasks of this package's `networks` by label, and of PyTorch's `network`.

    The network labelled `started` is also measured without `aliasfree_jax.startup`. PyTorch's network takes
    part if `package` is installed.
    """
    common = {**common, "options": {}, "compile": False, "together": False}
    result = [
        {**common, "label": label, "framework": "jax", "network": own} for label, own in networks.items()
    ]
    as_started = {"label": f"{started}, without startup", "environment": AS_STARTED}
    result.append({**result[list(networks).index(started)], **as_started})
    if importlib.util.find_spec(package):
        result.append({**common, "label": f"torch {started}", "framework": "torch", "network": network})
    return result


def resnet_tasks(batch: int, precision: str) -> list[Task]:
    """The tasks for ResNet-50: each sampler, and BlurPool's network if `antialiased-cnns` is installed."""
    networks = {"plain": "resnet50", "blur": "resnet50_blur", "APS": "resnet50_aps", "LPS": "resnet50_lps"}
    common = {"batch": batch, "side": 224, "precision": precision}
    return _beside_torch(common, networks, "blur", "blur_resnet50", "antialiased_cnns")


def cifar_tasks(precision: str) -> list[Task]:
    """The tasks for ResNet-20 at 32 pixels with batches of 128, and PyTorch's network if it is installed."""
    plain = "resnet20_cifar"
    networks = {"plain": plain, "APS": f"{plain}_aps", "alias-free": f"{plain}_afc"}
    common = {"batch": 128, "side": 32, "precision": precision}
    return _beside_torch(common, networks, "plain", "resnet20", "torch")


def xcit_tasks(size: str, batch: int, precision: str) -> list[Task]:
    """The tasks for XCiT: plain, gated, and the Alias-Free ViT by products and by FFT (as published)."""
    common = {"batch": batch, "side": 224, "precision": precision, "framework": "jax", "compile": False}
    common |= {"options": {}, "together": False}
    families = {"plain": "xcit", "gated": "xcit_afg", "AFT": "xcit_aft", "AFT by FFT": "xcit_aft"}
    return [
        {**common, "label": label, "network": f"{family}_{size}", "fft": label.endswith("FFT")}
        for label, family in families.items()
    ]


class Worker:
    """A running `benchmarks.worker`."""

    def __init__(self, task: Task) -> None:
        """Starts the process, which compiles and runs everything once. `ready` waits until it is done."""
        environment = {**os.environ, **task.get("environment", {})}
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(task)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self.facts: dict[str, Any] = {}

    def ready(self) -> None:
        """Waits until the process accepts requests."""
        self.facts = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self.process.wait()}. Its error is above.")
        return json.loads(line)

    def ask(self, name: str) -> float:
        """Milliseconds of the call `name`, or the peak memory for "peak_mib"."""
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def stop(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def _running(group: list[Task]) -> Iterator[list[Worker]]:
    workers = []
    try:
        for task in group:
            print(f"  preparing {task['label']}", file=sys.stderr, flush=True)
            workers.append(Worker(task))
            if not task["together"]:  # so that compile times are those of an idle machine
                workers[-1].ready()
        for worker in workers:
            if not worker.facts:
                worker.ready()
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def measure(all_tasks: list[Task], repetitions: int, accelerator: bool) -> list[dict[str, Any]]:
    """One row per task: medians in milliseconds, images/s, memory, compile times and FLOPs."""
    rows = []
    for group in [[task] for task in all_tasks] if accelerator else [all_tasks]:
        with _running(group) as workers:
            times: list[dict[str, list[float]]] = [{call: [] for call in CALLS} for _ in workers]
            for round_ in range(repetitions):
                print(f"  round {round_ + 1} of {repetitions}", file=sys.stderr, flush=True)
                for call in CALLS:
                    for worker, measured in zip(workers, times, strict=True):
                        measured[call].append(worker.ask(call))
            for task, worker, measured in zip(group, workers, times, strict=True):
                rows.append(_row(task, worker, measured))
                if accelerator:  # printed now, in case a later network fails
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _row(task: Task, worker: Worker, measured: dict[str, list[float]]) -> dict[str, Any]:
    row = {key: task[key] for key in ("label", "framework", "network", "batch", "side", "precision")}
    for call, values in measured.items():
        median = statistics.median(values)
        row[f"{call}_ms"] = round(median, 2)
        row[f"{call}_spread"] = round((max(values) - min(values)) / median, 2)
        row[f"{call}_images_per_s"] = round(1e3 * task["batch"] / median, 1)
    return {**row, "peak_mib": round(worker.ask("peak_mib")), **worker.facts}
