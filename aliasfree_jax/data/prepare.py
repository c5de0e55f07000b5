"""Packs images into ArrayRecord shards, since a million small files are slow to read in random order.

    python -m aliasfree_jax prepare /data/imagenet /fast/imagenet                 class folders, .tar or .zip
    python -m aliasfree_jax prepare /data/ILSVRC2012 /fast/imagenet --resize=256  the three ILSVRC2012 tars
    python -m aliasfree_jax prepare --verify /fast/imagenet

After an interruption, run the same command again: it continues. Image files are copied byte by byte, unless
--resize is given and they are larger. Train with --config.data.source=records
--config.data.path=/fast/imagenet.
"""

import io
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from aliasfree_jax.data.archives import open_tree
from aliasfree_jax.data.cifar import find_cifar
from aliasfree_jax.data.folder import FolderSource
from aliasfree_jax.data.ilsvrc import TRAIN, VAL, IlsvrcTrain, IlsvrcVal
from aliasfree_jax.data.records import FORMAT, INFO, checksum, labels_file, read_info, read_labels
from aliasfree_jax.data.shards import (
    SUFFIX,
    Listed,
    Task,
    begin,
    fingerprint,
    interrupts,
    interrupts_wait,
    read_note,
    write_shard,
)
from aliasfree_jax.errors import EXIT_INTERRUPTED, ConfigError, DataError
from aliasfree_jax.files import local_path, sole_writer, write_json, write_whole

SPLITS = ("train", "val")
OPTIONS_DIFFER = (
    "contains shards of other images or options; use the earlier images and options, or another directory"
)


def open_sources(path: Path) -> dict[str, Listed]:
    """The splits to pack, from the ILSVRC2012 tars in a directory or from class folders."""
    if (path / TRAIN).exists():
        train = IlsvrcTrain(path / TRAIN)
        return {"train": train, "val": IlsvrcVal(path / VAL, train.class_names)}
    found: dict[str, Listed] = {}
    reasons = []
    for split in SPLITS:
        try:
            found[split] = FolderSource(path, split)
        except DataError as error:
            reasons.append(error)
    if not found:
        if path.exists() and find_cifar(open_tree(path, lambda name: False)):
            raise DataError(
                f"{path} is CIFAR in its original files, which need no packing: train with "
                f"--config.data.source=folder --config.data.path={path}"
            )
        raise reasons[0]
    for reason in reasons:
        print(f"a split is left out: {reason}", file=sys.stderr)
    return found


def tasks_of(sources: dict[str, Listed], directory: Path, per_shard: int, side: int) -> list[Task]:
    """The shards of all splits.

    Raises:
      DataError: the directory contains other shards.
    """
    tasks = []
    for split, source in sources.items():
        count = -(-len(source) // per_shard)
        images = fingerprint(source)
        for i in range(count):
            path = directory / f"{split}-{i:05d}-of-{count:05d}{SUFFIX}"
            bounds = i * len(source) // count, (i + 1) * len(source) // count
            tasks.append(Task(split, path, *bounds, side, images))
    known = {task.path: task for task in tasks}
    for path in sorted([*directory.glob("*-of-*.json"), *directory.glob(f"*-of-*{SUFFIX}")]):
        task, note = known.get(path.with_suffix(SUFFIX)), read_note(path.with_suffix(".json"))
        if task is None or (note and any(note[key] != value for key, value in task.identity().items())):
            raise DataError(f"{directory} {OPTIONS_DIFFER} ({path.name}).")
    return tasks


def prepare(path: Path, directory: Path, *, per_shard: int, side: int, workers: int) -> dict[str, Any]:
    """Packs all splits of `path` into `directory`. Returns the content of its `info.json`.

    Args:
      path: see `open_sources`.
      directory: where to write; created if missing.
      per_shard: largest number of images in a shard.
      side: largest shorter side in pixels; 0 keeps all images.
      workers: number of processes.

    Raises:
      DataError: there are no images, or the directory contains other data or is not writable.
      OccupiedError: another process packs into it.
    """
    _refuse_finished(directory)
    sources = open_sources(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with interrupts() as seen, sole_writer(directory):
            _refuse_finished(directory)  # another process may have finished meanwhile
            tasks = tasks_of(sources, directory, per_shard, side)
            notes = _write_shards(tasks, sources, workers, seen)
            names = next(iter(sources.values())).class_names
            info: dict[str, Any] = {"format": FORMAT, "source": str(path), "resize": side}
            info["class_names"] = list(names)
            info["splits"] = {split: _summary(split, notes[split], directory) for split in sources}
            write_json(directory / INFO, info, indent=1)
            for leftover in [*(task.note for task in tasks), *directory.glob("*.part")]:
                leftover.unlink()
    except OSError as error:
        raise DataError(
            f"cannot write in {directory}: {error}. Remove the cause, then run the same command again."
        ) from error
    return info


def _refuse_finished(directory: Path) -> None:
    if (directory / INFO).exists():
        read_info(directory)  # raises if damaged
        raise DataError(f"{directory} is prepared already: check it with --verify, or remove it first.")


def _write_shards(
    tasks: list[Task], sources: dict[str, Listed], workers: int, interrupted: list[int]
) -> dict[str, list[dict[str, Any]]]:
    """The notes of all shards, by split. Its processes end before it returns or raises."""
    notes: dict[str, list[dict[str, Any]]] = {split: [] for split in sources}
    others = set(multiprocessing.active_children())
    resource_tracker.ensure_running()  # while it starts, interrupts would not be blocked
    with interrupts_wait():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), begin, (sources,))
        written = pool.map(write_shard, tasks)
    total = sum(task.stop - task.start for task in tasks)
    try:
        with tqdm(total=total, unit=" images", desc="packing") as bar:
            for task, note in zip(tasks, written, strict=True):
                if interrupted:
                    raise KeyboardInterrupt
                notes[task.split].append(note)
                bar.update(task.stop - task.start)
    except BrokenProcessPool as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise DataError(
            "a worker process was killed, perhaps because memory ran out: run the same command again with "
            "fewer --workers"
        ) from error
    finally:
        if sum(map(len, notes.values())) < len(tasks):
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)
    return notes


def _summary(split: str, notes: list[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """Writes the labels of a split. Returns the entry of the split in `info.json`."""
    labels = [label for note in notes for label in note["labels"]]
    file = io.BytesIO()
    np.save(file, np.array(labels, np.int32))
    write_whole(labels_file(directory, split), file.getvalue())
    shards = [
        {"file": note["file"], "images": len(note["labels"]), "sha256": note["sha256"]} for note in notes
    ]
    return {
        "images": len(labels),
        "labels_sha256": checksum(labels_file(directory, split)),
        "unreadable": [u for note in notes for u in note["unreadable"]],
        "shards": shards,
    }


def verify(directory: Path) -> int:
    """Compares all shards and labels with their checksums. Returns the number of shards.

    Raises:
      DataError: files are missing or differ; the message names all of them.
    """
    info, faults = read_info(directory), []
    shards = [shard for split in info["splits"].values() for shard in split["shards"]]
    for shard in tqdm(shards, unit=" shards", desc="verifying"):
        path = directory / shard["file"]
        if not path.exists():
            faults.append(f"{path.name} is missing")
        elif checksum(path) != shard["sha256"]:
            faults.append(f"{path.name} is damaged")
    for split, summary in info["splits"].items():
        path = labels_file(directory, split)
        read_labels(directory, split, info)
        if summary.get("labels_sha256", checksum(path)) != checksum(path):
            faults.append(f"{path.name} is damaged")
    if faults:
        raise DataError(
            f"{directory}: {'; '.join(faults)}. Remove {INFO} and these files, and prepare it again."
        )
    return len(shards)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the command."""
    flags.DEFINE_bool("verify", False, "only check the shards of a directory", flag_values=values)
    flags.DEFINE_integer(
        "resize", 0, "largest shorter side in pixels; 0: keep all sizes", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer(
        "images_per_shard", 1024, "largest number of images in a shard", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "workers", os.cpu_count() or 1, "number of processes", lower_bound=1, flag_values=values
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    if len(arguments) != (1 if values.verify else 2):
        raise ConfigError(
            "expected IMAGES and DIRECTORY (the data to pack, and where to write), or --verify and one "
            f"directory, got {arguments}."
        )
    paths = [local_path(text) for text in arguments]
    if values.verify:
        print(f"all {verify(paths[0])} shards have the right checksums")
        return
    path, directory = paths
    sizes = {"per_shard": values.images_per_shard, "side": values.resize, "workers": values.workers}
    try:
        info = prepare(path, directory, **sizes)
    except KeyboardInterrupt:
        print(f"interrupted: run the same command again to continue in {directory}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    for split, summary in info["splits"].items():
        print(f"{split}: {summary['images']} images in {len(summary['shards'])} shards")
        for text in summary["unreadable"]:
            print(f"  left out: {text}")
    print(f"train with: --config.data.source=records --config.data.path={directory}")
