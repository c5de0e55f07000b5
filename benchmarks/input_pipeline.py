"""Throughput of reading images: decoding and random crops on one core, whole batches in worker processes.

All variants run in turn, round by round. Both clock time and processor time (all threads and workers) are
measured. A busy machine disturbs processor time less. Batches that were read ahead are removed before the
measurement, and the consumer does no work, so buffers stay empty.
"""

import importlib.metadata
import io
import itertools
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from aliasfree_jax.config import IMAGE_BACKENDS
from aliasfree_jax.data import Example, FolderSource, Source, train_batches
from aliasfree_jax.data.augment import random_flip
from aliasfree_jax.data.crops import random_resized_crop
from aliasfree_jax.data.decode import ImageBackend, image_backend
from configs.convnext_afc import recipe

Row = dict[str, Any]
Call = Callable[[int, np.random.Generator], Any]  # arguments: number of the image, random generator

SIDE, BATCH = 224, 32
PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-sample.tar"


class MadeUp:
    """JPEGs of noise with the spectrum of photographs, 500 x 375. They replace missing photographs."""

    class_names: tuple[str, ...] = ("noise",)

    def __init__(self, count: int):
        self._files = [self._encode(np.random.default_rng(i)) for i in range(count)]

    @staticmethod
    def _encode(rng: np.random.Generator) -> bytes:
        frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)[None])
        amplitude = 1 / np.maximum(frequency, 1 / 500)
        waves = np.fft.fft2(rng.standard_normal((3, 375, 500))) * amplitude
        noise = np.fft.ifft2(waves).real.transpose(1, 2, 0)
        pixels = np.clip(127 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        return file.getvalue()

    def __len__(self) -> int:
        """Number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`."""
        return Example(self._files[index], 0, f"made up {index}")


def open_photographs(path: Path | None, quick: bool) -> tuple[Source, str]:
    """The images at `path`, or the sample of ImageNet, or made-up images, and a description."""
    if path is None and (quick or not PHOTOGRAPHS.exists()):
        count = 8 if quick else 89
        return MadeUp(count), f"{count} made-up JPEGs"
    source = FolderSource(path or PHOTOGRAPHS, "val")
    return source, f"{len(source)} photographs of {(path or PHOTOGRAPHS).name}"


def core_calls(files: list[bytes], backend: ImageBackend) -> dict[str, Call]:
    """The steps from an image file to a training image, separately and together."""
    decoded = [backend.decode(data, "") for data in files]

    def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return random_flip(random_resized_crop(image, rng, SIDE, resize=backend.resize), rng)

    return {
        "decode": lambda i, rng: backend.decode(files[i], ""),
        "crop, resize, flip": lambda i, rng: crop(decoded[i], rng),
        "decode, crop, resize, flip": lambda i, rng: crop(backend.decode(files[i], ""), rng),
    }


def measure_core(files: list[bytes], rounds: int) -> list[Row]:
    """One row per step: images/s on one core with each backend, medians over the rounds."""
    calls = {name: core_calls(files, image_backend(name)) for name in IMAGE_BACKENDS}
    steps = list(calls[IMAGE_BACKENDS[0]])
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        for round_, step, name in itertools.product(range(rounds + 1), steps, IMAGE_BACKENDS):
            clock, processor = time.perf_counter(), time.process_time()
            for i in range(len(files)):
                calls[name][step](i, np.random.default_rng((round_, i)))
            taken = time.perf_counter() - clock, time.process_time() - processor
            if round_:  # the first one warms up
                times.setdefault((step, name), []).append(taken)
    finally:
        os.sched_setaffinity(0, cores)
    rows = []
    for step in steps:
        row: Row = {"step": step}
        for name in IMAGE_BACKENDS:
            clock, processor = (statistics.median(t) for t in zip(*times[step, name], strict=True))
            row[f"{name}, images/s of processor time"] = round(len(files) / processor)
            row[f"{name}, of clock time"] = round(len(files) / clock)
        quotients = [s[1] / f[1] for s, f in zip(times[step, "pillow"], times[step, "fast"], strict=True)]
        row["pillow / fast, median of the rounds"] = round(statistics.median(quotients), 2)
        rows.append(row)
    return rows


def _processor_seconds() -> float:
    """Processor time of this process and its worker processes so far."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system time
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def seconds_of(source: Source, data: ConfigDict, batches: int) -> tuple[float, float]:
    """Clock and processor time of `batches` batches of `train_batches`, without batches read ahead."""
    with closing(train_batches(source, data, batch_size=BATCH, seed=0)) as stream:
        for _ in range(2 + 3 * data.workers):  # each worker holds, queues and makes one batch
            next(stream)
        clock, processor = time.perf_counter(), _processor_seconds()
        for _ in range(batches):
            next(stream)
        return time.perf_counter() - clock, _processor_seconds() - processor


def measure_pipeline(source: Source, workers: tuple[int, ...], batches: int, rounds: int) -> list[Row]:
    """One row per augmentation, backend and number of workers: images/s, medians over the rounds."""
    plain, whole = recipe("convnext_afc_tiny").data, recipe("convnext_afc_tiny").data
    plain.update({"rand_augment": "", "erase_probability": 0.0})
    recipes = {"crop, flip": plain, "crop, flip, RandAugment, erasing": whole}
    times: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for round_ in range(rounds):
        print(f"  round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)
        for key in itertools.product(recipes, IMAGE_BACKENDS, workers):
            data = recipes[key[0]]
            data.update({"image_backend": key[1], "workers": key[2]})
            times.setdefault(key, []).append(seconds_of(source, data, batches))
    rows = []
    for (augmentation, backend, count), taken in times.items():
        clock, processor = (batches * BATCH / statistics.median(t) for t in zip(*taken, strict=True))
        row: Row = {"augmentation": augmentation, "backend": backend, "workers": count or "threads"}
        rows.append({**row, "images/s of processor time": round(processor), "of clock time": round(clock)})
    return rows


def measure(quick: bool, repetitions: int, path: Path | None = None) -> dict[str, Any]:
    """Both tables, with the images and versions that were used."""
    source, description = open_photographs(path, quick)
    files = [bytes(source[i].image) for i in range(len(source))]
    packages = ("pillow", "simplejpeg", "cykooz-resizer", "grain")
    cores = len(os.sched_getaffinity(0))
    workers = (1,) if quick else tuple(count for count in (0, 1, 2, 4, 8, 16) if count <= cores)
    return {
        "images": f"{description}, {sum(map(len, files)) // len(files) // 1000} kB on average",
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "core": measure_core(files, repetitions if quick else 3 * repetitions),
        "pipeline": measure_pipeline(source, workers, 2 if quick else 20, max(1, repetitions // 2)),
    }


def markdown(rows: dict[str, Any], table: Callable[[list[Row]], str]) -> str:
    """The page's section on reading images."""
    versions = ", ".join(f"{package} {version}" for package, version in rows["versions"].items())
    return "\n".join(
        [
            f"{rows['images']}, resized to {SIDE} x {SIDE}; {versions}. On one core:\n",
            table(rows["core"]) + "\n",
            f"`train_batches` with batches of {BATCH}. Processor time is that of all threads and workers:\n",
            table(rows["pipeline"]) + "\n",
        ]
    )
