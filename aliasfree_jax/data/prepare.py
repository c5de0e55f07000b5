"""Packs images into ArrayRecord shards, since a million small files are slow to read at random.

python -m aliasfree_jax.data.prepare /data/imagenet /fast/imagenet              folders, .tar or .zip of them
python -m aliasfree_jax.data.prepare /data/ILSVRC2012 /fast/imagenet --resize=256    the three ILSVRC2012 tars
python -m aliasfree_jax.data.prepare --verify /fast/imagenet

Interrupted, it goes on where it was when started again. Images are kept byte by byte unless --resize is
given and they are larger. Train with --config.data.source=records --config.data.path=/fast/imagenet.
"""

import argparse
import io
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tqdm import tqdm

from aliasfree_jax.data.decode import ORIENTATION_TAG, UPRIGHT, decode, orientation
from aliasfree_jax.data.folder import FolderSource
from aliasfree_jax.data.ilsvrc import TRAIN, VAL, IlsvrcTrain, IlsvrcVal
from aliasfree_jax.data.records import FORMAT, INFO, checksum, pack, read_info
from aliasfree_jax.data.sources import Example, Source
from aliasfree_jax.data.views import resize_shorter
from aliasfree_jax.errors import DataError, command

SPLITS = ("train", "val")
QUALITY = 95  # of the JPEGs that are written again, smaller
OPTIONS_DIFFER = "holds shards of other images or options; continue with those, or use another directory"


class Task(NamedTuple):
    """One shard: the examples [start, stop) of a split."""

    split: str
    path: Path
    start: int
    stop: int
    resize: int

    @property
    def note(self) -> Path:
        """What is known of the finished shard."""
        return self.path.with_suffix(".json")


def smaller(example: Example, side: int) -> Example:
    """The image with its shorter side at `side`, as a JPEG; as it is if it is no larger.

    It keeps its EXIF orientation, for data.exif to choose.

    Raises:
      DataError: the image cannot be decoded.
    """
    assert isinstance(example.image, bytes)
    image = decode(example.image, example.name)
    if min(image.shape[:2]) <= side:
        return example
    out, turned = io.BytesIO(), Image.Exif()
    if (found := orientation(Image.open(io.BytesIO(example.image)))) in UPRIGHT:
        turned[ORIENTATION_TAG] = found
    Image.fromarray(resize_shorter(image, side, 1.0)).save(out, "JPEG", quality=QUALITY, exif=turned)
    return Example(out.getvalue(), example.label, example.name)


_sources: dict[str, Source] = {}  # of a worker process


def _begin(sources: dict[str, Source]) -> None:
    _sources.update(sources)


def write_shard(task: Task) -> dict[str, Any]:
    """Writes one shard, or finds it finished; what `info.json` is to say of it, and its labels."""
    if task.path.exists() and task.note.exists():
        return json.loads(task.note.read_text())
    part = task.path.with_suffix(".part")
    part.unlink(missing_ok=True)
    labels, unreadable = [], []
    writer = ArrayRecordWriter(str(part), "group_size:1")
    for index in range(task.start, task.stop):
        try:
            example = _sources[task.split][index]
            example = smaller(example, task.resize) if task.resize else example
        except DataError as error:
            unreadable.append(str(error))
            continue
        writer.write(pack(example))
        labels.append(example.label)
    writer.close()
    note = {"file": task.path.name, "start": task.start, "stop": task.stop, "resize": task.resize}
    note |= {"labels": labels, "unreadable": unreadable, "sha256": checksum(part)}
    part.rename(task.path)
    task.note.write_text(json.dumps(note))
    return note


def open_sources(path: Path) -> dict[str, Source]:
    """The splits to pack: of the ILSVRC2012 tars in a directory, or of class folders."""
    if (path / TRAIN).exists():
        train = IlsvrcTrain(path / TRAIN)
        return {"train": train, "val": IlsvrcVal(path / VAL, train.class_names)}
    found: dict[str, Source] = {}
    reasons = []
    for split in SPLITS:
        try:
            found[split] = FolderSource(path, split)
        except DataError as error:
            reasons.append(error)
    if not found:
        raise reasons[0]
    for reason in reasons:
        print(f"without: {reason}", file=sys.stderr)
    return found


def tasks_of(sources: dict[str, Source], directory: Path, per_shard: int, side: int) -> list[Task]:
    """The shards of all splits.

    Raises:
      DataError: the directory holds other ones.
    """
    tasks = []
    for split, source in sources.items():
        count = -(-len(source) // per_shard)
        for i in range(count):
            path = directory / f"{split}-{i:05d}-of-{count:05d}.array_record"
            bounds = i * len(source) // count, (i + 1) * len(source) // count
            tasks.append(Task(split, path, *bounds, side))
    known = {task.note.name: task for task in tasks}
    for note in directory.glob("*-of-*.json"):
        task, stored = known.get(note.name), json.loads(note.read_text())
        if task is None or (task.start, task.stop, side) != (
            stored["start"],
            stored["stop"],
            stored["resize"],
        ):
            raise DataError(f"{directory} {OPTIONS_DIFFER} ({note.name}).")
    return tasks


def prepare(path: Path, directory: Path, *, per_shard: int, side: int, workers: int) -> dict[str, Any]:
    """Packs all splits of `path` into `directory`; the content of its `info.json`.

    Raises:
      DataError: no images, or the directory holds something else.
    """
    if (directory / INFO).exists():
        raise DataError(f"{directory} is prepared already; check it with --verify, or remove it first.")
    sources = open_sources(path)
    directory.mkdir(parents=True, exist_ok=True)
    tasks = tasks_of(sources, directory, per_shard, side)
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _begin, (sources,)) as pool:
        total = sum(task.stop - task.start for task in tasks)
        notes: dict[str, list[dict[str, Any]]] = {split: [] for split in sources}
        with tqdm(total=total, unit=" images", desc="packing") as bar:
            for task, note in zip(tasks, pool.imap(write_shard, tasks), strict=True):
                notes[task.split].append(note)
                bar.update(task.stop - task.start)
    names = next(iter(sources.values())).class_names
    info: dict[str, Any] = {"format": FORMAT, "source": str(path), "resize": side, "class_names": list(names)}
    info["splits"] = {split: _summary(split, notes[split], directory) for split in sources}
    (directory / "info.part").write_text(json.dumps(info, indent=1) + "\n")
    (directory / "info.part").rename(directory / INFO)
    for task in tasks:
        task.note.unlink()
    return info


def _summary(split: str, notes: list[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """What `info.json` says of a split, whose labels are written."""
    labels = [label for note in notes for label in note["labels"]]
    np.save(directory / f"{split}-labels.npy", np.array(labels, np.int32))
    shards = [
        {"file": note["file"], "images": len(note["labels"]), "sha256": note["sha256"]} for note in notes
    ]
    return {
        "images": len(labels),
        "unreadable": [u for note in notes for u in note["unreadable"]],
        "shards": shards,
    }


def verify(directory: Path) -> int:
    """Compares every shard with its checksum; the number of shards.

    Raises:
      DataError: some are missing or differ; all are named.
    """
    info, faults = read_info(directory), []
    shards = [shard for split in info["splits"].values() for shard in split["shards"]]
    for shard in tqdm(shards, unit=" shards", desc="verifying"):
        path = directory / shard["file"]
        if not path.exists():
            faults.append(f"{path.name} is missing")
        elif checksum(path) != shard["sha256"]:
            faults.append(f"{path.name} is damaged")
    if faults:
        raise DataError(f"{directory}: {'; '.join(faults)}. Remove {INFO} and these, and prepare it again.")
    return len(shards)


@command
def main(arguments: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m aliasfree_jax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="IMAGES DIRECTORY", help="what to pack, and where to"
    )
    parser.add_argument("--verify", action="store_true", help="check the shards of one directory instead")
    parser.add_argument(
        "--resize", type=int, default=0, help="largest shorter side, pixels; 0: all as they are"
    )
    parser.add_argument("--images_per_shard", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    if len(options.paths) != (1 if options.verify else 2):
        parser.error("expected IMAGES and DIRECTORY, or --verify and one directory")
    if options.resize < 0 or options.images_per_shard < 1 or options.workers < 1:
        parser.error("--resize must not be negative, --images_per_shard and --workers must be positive")
    if options.verify:
        print(f"{verify(options.paths[0])} shards are as they were written")
        return
    path, directory = options.paths
    sizes = {"per_shard": options.images_per_shard, "side": options.resize, "workers": options.workers}
    info = prepare(path, directory, **sizes)
    for split, summary in info["splits"].items():
        print(f"{split}: {summary['images']} images in {len(summary['shards'])} shards")
        for text in summary["unreadable"]:
            print(f"  left out: {text}")
    print(f"train with: --config.data.source=records --config.data.path={directory}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
