"""Writes the shards of `aliasfree_jax.data.prepare` one at a time, in worker processes that may be killed.

A shard is finished if its note exists, is complete, and describes the same images and options.
"""

import hashlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from aliasfree_jax.data.decode import ORIENTATION_TAG, UPRIGHT, decode, orientation
from aliasfree_jax.data.records import checksum, pack
from aliasfree_jax.data.sources import Example, Source
from aliasfree_jax.data.views import resize_shorter
from aliasfree_jax.errors import DataError
from aliasfree_jax.files import write_json

QUALITY = 95  # of resized JPEGs
SUFFIX = ".array_record"


class Listed(Source, Protocol):
    """A source that knows the names and labels of its images without reading them."""

    names: list[str]
    labels: np.ndarray


class Task(NamedTuple):
    """One shard: the examples [start, stop) of a split.

    Attributes:
      split: name of the split.
      path: file of the shard.
      start: index of the first example.
      stop: index after the last example.
      resize: largest shorter side in pixels; 0 keeps all images.
      images: the `fingerprint` of the split.
    """

    split: str
    path: Path
    start: int
    stop: int
    resize: int
    images: str

    @property
    def note(self) -> Path:
        """The file that describes the finished shard."""
        return self.path.with_suffix(".json")

    def identity(self) -> dict[str, Any]:
        """The part of the note that identifies the shard."""
        return {"start": self.start, "stop": self.stop, "resize": self.resize, "images": self.images}


def fingerprint(source: Listed) -> str:
    """A hash of the names, labels and classes of all images, in their order."""
    text = "\n".join([*source.class_names, "", *source.names])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape") + source.labels.tobytes()).hexdigest()


NOTE = {"file": str, "start": int, "stop": int, "resize": int, "images": str, "labels": list}
NOTE |= {"unreadable": list, "bytes": int, "sha256": str}


def read_note(path: Path) -> dict[str, Any] | None:
    """The note of a shard; None if it is missing or unusable, so that the shard is not finished."""
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(note, dict) and all(isinstance(note.get(key), kind) for key, kind in NOTE.items())
    return note if whole else None


def smaller(example: Example, side: int) -> Example:
    """Shrinks the image so that its shorter side is `side`, and encodes it as JPEG.

    Smaller images are unchanged. The EXIF orientation is kept, so that data.exif still has an effect.

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


_sources: dict[str, Listed] = {}  # set in each worker process


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delays a Ctrl-C within the block until its end. Processes started within the block never receive it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    usual, late = signal.getsignal(signal.SIGINT), list[tuple[int, FrameType | None]]()
    # New processes inherit the mask. In this process another thread may take the signal and interrupt us.
    waits = callable(usual) and threading.current_thread() is threading.main_thread()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    if waits:
        signal.signal(signal.SIGINT, lambda *given: late.append(given))
    try:
        yield
    finally:
        if waits:
            signal.signal(signal.SIGINT, usual)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if late and callable(usual):
            usual(*late[-1])


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Records every Ctrl-C within the block in a list.

    Each raises `KeyboardInterrupt` as usual. But Python loses an exception that is raised in a callback of
    the garbage collector, and JAX has such a callback: Python would only print it with a traceback.
    """
    seen: list[int] = []
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nohup, for one, ignores it
    if not usual or threading.current_thread() is not threading.main_thread():  # only it handles signals
        yield seen
        return

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    before, tell_lost = signal.signal(signal.SIGINT, handle), sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else tell_lost(lost)
    try:
        yield seen
    finally:
        sys.unraisablehook = tell_lost
        signal.signal(signal.SIGINT, before)


def begin(sources: dict[str, Listed]) -> None:
    """Prepares a worker process for `write_shard`. It ignores Ctrl-C, which its parent process handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _sources.update(sources)


def write_shard(task: Task) -> dict[str, Any]:
    """Writes one shard unless it is finished. Returns its note, which becomes part of `info.json`.

    Raises:
      DataError: the shard cannot be written.
    """
    note = read_note(task.note)
    if note and task.path.exists() and task.path.stat().st_size == note["bytes"]:
        return note
    part = task.path.with_suffix(".part")
    part.unlink(missing_ok=True)
    labels, unreadable = [], []
    try:
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
        with part.open("rb+") as file:  # must be on the disk before its note
            os.fsync(file.fileno())
        note = {"file": task.path.name, **task.identity(), "labels": labels, "unreadable": unreadable}
        note |= {"bytes": part.stat().st_size, "sha256": checksum(part)}
        part.replace(task.path)
        write_json(task.note, note, indent=None)
    except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError
        raise DataError(
            f"cannot write {task.path}: {error}. Remove the cause, then run the same command again."
        ) from error
    return note
