"""Makes batches from a source: one Grain pipeline, with threads or processes that decode and augment.

The order of the training stream and the augmentation depend only on the seed and on the position in the
stream. They do not depend on the number of workers, or on the step at which the stream starts.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np
from absl import flags
from grain.experimental import ThreadPrefetchIterDataset
from ml_collections import ConfigDict

from aliasfree_jax.data.augment import Preprocessing, check_task
from aliasfree_jax.data.decode import ImageBackend, image_backend
from aliasfree_jax.data.examples import DecodeOnce, decoded
from aliasfree_jax.data.pairs import evaluation_pair, label_form, training_pair
from aliasfree_jax.data.sources import Example, Source, task_of
from aliasfree_jax.errors import ConfigError, DataError

# image: float32 [B, H, W, C]. mask: float32 [B], 1 for examples that count. label: int32 [B]; for
# segmentation int32 [B, H, W] with sources.IGNORED; for regression float32 [B, H, W, K], normalised.
Batch = dict[str, np.ndarray]

# Unreadable training examples are replaced. With more replacements in a row the data set must be broken.
MAX_REPLACEMENTS = 100
NAMES_KEPT = 10
# Below this size, passing images between threads costs more than preparing them.
SMALL_IMAGE_BYTES = 16_384
SIZES_READ = 15  # images whose sizes are compared with it
MAX_THREADS = 16


@dataclass(frozen=True)
class ProcessPart:
    """The part of every batch that a process reads: block `index` of `count` equal blocks of rows."""

    index: int
    count: int


WHOLE = ProcessPart(0, 1)


class _Element(NamedTuple):
    image: np.ndarray | None  # None: padding of a batch
    label: int | np.ndarray
    skipped: tuple[str, ...]


_FILLING = _Element(None, 0, ())


class _Bundle(NamedTuple):
    batch: Batch
    skipped: tuple[str, ...]


def _read(source: Source, index: int, backend: ImageBackend) -> Example:
    return decoded(source[index], backend.decode, task_of(source), len(source.class_names))


@dataclass(frozen=True)
class _TrainElement:
    """Reads, decodes and augments the example at an index. Replaces it if it is unreadable."""

    source: Source
    how: Preprocessing
    backend: ImageBackend
    skip: bool

    def __call__(self, index: int, rng: np.random.Generator) -> _Element:
        skipped: list[str] = []
        while True:
            try:
                example = _read(self.source, index, self.backend)
            except DataError as error:
                if not self.skip:
                    raise DataError(f"{error} (data.corrupt = 'skip' leaves such images out)") from error
                skipped.append(str(error))
                if len(skipped) > MAX_REPLACEMENTS:
                    raise DataError(
                        f"{len(skipped)} training images in a row are unreadable; check data.path. "
                        f"The last one: {error}"
                    ) from error
                index = int(rng.integers(len(self.source)))
            else:
                return _Element(*training_pair(example, rng, self.how, self.backend.resize), tuple(skipped))


@dataclass(frozen=True)
class _EvalElement:
    source: Source
    how: Preprocessing
    backend: ImageBackend
    skip: bool

    def __call__(self, index: int) -> _Element:
        try:
            example = _read(self.source, index, self.backend)
        except DataError as error:
            if not self.skip:
                raise
            return _FILLING._replace(skipped=(str(error),))
        return _Element(*evaluation_pair(example, index, self.how, self.backend.resize), ())


@dataclass(frozen=True)
class _Repeated:
    """The indices of all epochs, each `repeats` times in a row. The end of an epoch's order is left out."""

    order: grain.MapDataset
    length: int  # of an epoch
    repeats: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> int:
        within = position % self.length
        return int(self.order[position - within + within // self.repeats])


@dataclass(frozen=True)
class _Rows:
    """The elements of one process's part of every batch from `first_batch` on."""

    elements: grain.MapDataset
    batch_size: int  # over all processes
    part: ProcessPart
    first_batch: int
    end: int  # number of the last batch plus one; an incomplete batch is padded

    @property
    def own(self) -> int:
        """Rows of this part. The last parts are padded to the same number."""
        return -(-self.batch_size // self.part.count)

    def __len__(self) -> int:
        return (self.end - self.first_batch) * self.own

    def __getitem__(self, index: int) -> _Element:
        batch, row = divmod(index, self.own)
        row += self.part.index * self.own
        position = (self.first_batch + batch) * self.batch_size + row
        there = row < self.batch_size and position < len(self.elements)
        return self.elements[position] if there else _FILLING


@dataclass(frozen=True)
class _Collate:
    """Stacks elements. Padding becomes zeros with mask 0, and its pixels IGNORED."""

    how: Preprocessing

    def __call__(self, elements: Sequence[_Element]) -> _Bundle:
        size = len(elements)
        side, channels = self.how.input_size, len(self.how.mean)
        images = np.zeros((size, side, side, channels), np.float32)
        shape, dtype, filling = label_form(self.how)
        labels: np.ndarray = np.full((size, *shape), filling, dtype)
        mask = np.zeros(size, np.float32)
        for i, element in enumerate(elements):
            if element.image is not None:
                images[i], labels[i], mask[i] = element.image, element.label, 1
        skipped = tuple(text for element in elements for text in element.skipped)
        return _Bundle({"image": images, "label": labels, "mask": mask}, skipped)


class BatchStream(Iterator[Batch]):
    """An iterator of batches. `close` it if you stop before its end and it has worker processes.

    Attributes:
      skipped: number of unreadable images that were replaced or left out so far.
      first_skipped: the messages of the first few of them.
    """

    def __init__(self, dataset: grain.IterDataset):
        self._bundles = iter(dataset)
        self.skipped = 0
        self.first_skipped: list[str] = []

    def __next__(self) -> Batch:
        """The next batch."""
        batch, skipped = next(self._bundles)
        self.skipped += len(skipped)
        self.first_skipped += skipped[: NAMES_KEPT - len(self.first_skipped)]
        return batch

    def close(self) -> None:
        """Ends the threads and processes."""
        self._bundles.close()


def _threads(source: Source) -> int:
    """How many threads should prepare elements; 0: the thread that collects the batches does it."""
    sizes = []
    for index in range(0, len(source), -(-len(source) // SIZES_READ)):  # one image may be far from typical
        with suppress(DataError):  # the stream reports or skips it later
            image = source[index].image
            sizes.append(len(image) if isinstance(image, bytes) else image.nbytes)
    small = bool(sizes) and np.median(sizes) < SMALL_IMAGE_BYTES
    return 0 if small else min(os.cpu_count() or 1, MAX_THREADS)


def _begin_worker(index: int, count: int) -> None:
    """Leaves signals to the main process, which still needs batches until it has saved a checkpoint.

    Launchers and terminals signal all processes of a job. A worker ends with its main process.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    if (main := multiprocessing.parent_process()) is not None:
        main.join()
        os._exit(1)


def _stream(rows: _Rows, how: Preprocessing, threads: int, workers: int) -> BatchStream:
    size = rows.own
    elements = grain.MapDataset.source(rows)
    collate = _Collate(how)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags when it starts processes
            flags.FLAGS.mark_as_parsed()
        # Workers receive whole batches, so that their number does not change a batch.
        batches = elements.batch(size, batch_fn=collate)
        reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        return BatchStream(batches.to_iter_dataset(reading).mp_prefetch(options, _begin_worker))
    reading = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(size, threads) if threads else 0
    )
    batches = elements.to_iter_dataset(reading).batch(size, batch_fn=collate)
    return BatchStream(ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1))


def _check(source: Source, batch_size: int, part: ProcessPart) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be positive, got {batch_size}.")
    if not 0 <= part.index < part.count:
        raise ConfigError(f"there is no block {part.index} of {part.count}: blocks are counted from 0.")
    if len(source) == 0:
        raise DataError("the source has no examples.")


def _preprocessing(source: Source, data: ConfigDict) -> Preprocessing:
    check_task(data, task_of(source))
    return Preprocessing.from_config(data, task_of(source))


def train_batches(
    source: Source,
    data: ConfigDict,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    part: ProcessPart = WHOLE,
) -> BatchStream:
    """An endless stream of full training batches, in a new order every epoch.

    With data.repeats = n, n consecutive examples are the same image (Hoffer et al. 2020, arXiv 1901.09335).

    Epochs follow each other without a gap: a batch may contain the end of one epoch and the start of the
    next.

    Args:
      source: the training examples.
      data: the section `config.data`.
      batch_size: examples in a batch, over all processes.
      seed: seed of the order and of the augmentation.
      start_step: position of the first batch in the whole stream.
      part: the rows that this process reads. All parts together are the batch of a single process.

    Returns:
      An iterator of batches (see `Batch`) whose `mask` is all 1. B is batch_size / part.count. Its attributes
        `skipped` and `first_skipped` report what data.corrupt = "skip" left out.

    Raises:
      ConfigError: fields of `data` do not fit the images; raised here or at the first batch.
      DataError: there are no examples. While iterating: an image is unreadable, if data.corrupt = "raise".
    """
    _check(source, batch_size, part)
    if batch_size % part.count:
        raise ConfigError(
            f"a batch of {batch_size} cannot be read as {part.count} equal blocks: use a multiple of the "
            "number of processes."
        )
    backend = image_backend(data.image_backend, data.interpolation, data.exif)
    threads = 0 if data.workers else _threads(source)
    if not threads and not data.workers:
        source = DecodeOnce(source, backend.decode)
    order_seed, image_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
    how = _preprocessing(source, data)
    make = _TrainElement(source, how, backend, skip=data.corrupt == "skip")
    order = grain.MapDataset.range(len(source)).shuffle(order_seed).repeat()
    if data.repeats > 1:
        order = grain.MapDataset.source(_Repeated(order, len(source), data.repeats))
    elements = order.random_map(make, seed=image_seed)
    end = len(elements) // batch_size
    return _stream(_Rows(elements, batch_size, part, start_step, end), how, threads, data.workers)


def eval_batches(
    source: Source, data: ConfigDict, *, batch_size: int, part: ProcessPart = WHOLE, skip: bool = False
) -> BatchStream:
    """Every example of `source` once, in order. The last batch is padded with masked zeros.

    If the number of parts does not divide the batch size, the parts are padded to equal sizes. The batch
    keeps its images. Noise (data.noise) depends only on the position of the example.

    Args:
      source: the evaluation examples.
      data: the section `config.data`.
      batch_size: examples in a batch, over all processes.
      part: the rows that this process reads.
      skip: replace unreadable images by masked zeros and count them, instead of raising an error.

    Returns:
      An iterator of batches (see `Batch`) whose `mask` is 1 for real examples.

    Raises:
      ConfigError: fields of `data` do not fit the images; raised here or at the first batch.
      DataError: there are no examples. While iterating: an image is unreadable, unless `skip`.
    """
    _check(source, batch_size, part)
    how = _preprocessing(source, data)
    backend = image_backend("pillow", data.interpolation, data.exif)
    elements = grain.MapDataset.range(len(source)).map(_EvalElement(source, how, backend, skip))
    threads = 0 if data.workers else _threads(source)
    end = -(-len(source) // batch_size)
    return _stream(_Rows(elements, batch_size, part, 0, end), how, threads, data.workers)
