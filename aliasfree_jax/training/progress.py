"""What a run tells: a progress bar with notes on stderr, and `metrics.jsonl`, one line an event.

TensorBoard and Weights & Biases get the same numbers, where a run asks for them. Metrics stay on the device
until they are logged, so that the host need not wait for every step.
"""

import json
import math
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from aliasfree_jax.errors import AliasFreeError, needed
from aliasfree_jax.files import UnwritableError, write_whole
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.schedules import Plan

# Steps the host may run ahead: enough to keep the device busy, few enough to bound the batches in memory.
AHEAD = 2
# Takes named numbers, such as "train/loss", after so many steps; and ends the run there.
Writer = tuple[Callable[[int, Mapping[str, float]], None], Callable[[], None]]
METRICS, WANDB_ID = "metrics.jsonl", "wandb_id"  # in the run's directory


class DivergedError(AliasFreeError, ArithmeticError):
    """The loss became infinite or not a number."""


def read_events(run: Path) -> list[dict[str, Any]]:
    """What a run has told so far: the lines of its `metrics.jsonl`."""
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def _kept_events(path: Path, step: int) -> list[dict[str, Any]]:
    """What an earlier part of the run told up to `step`; what comes later or is half written is dropped."""
    kept = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            event = json.loads(line)
            if event["step"] <= step:
                kept.append(event)
        except (ValueError, KeyError, TypeError):
            break
    return kept


def _tensorboard(workdir: Path, start: int) -> Writer:
    """Event files by tensorboardX: without TensorFlow and torch.

    Events of steps after `start`, left by a part of the run that is done again, are dropped.
    """
    module = needed("tensorboardX", "log.tensorboard")
    writer = module.SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return write, writer.close


def _weights_and_biases(workdir: Path, config: ConfigDict) -> Writer:
    """A run of the project `log.wandb`, named after the working directory; directories may share a name.

    It is known there by an identifier that is made once: no other run has it, and the run keeps it.
    """
    module = needed("wandb", "log.wandb")
    known = workdir / WANDB_ID
    if not known.exists():
        write_whole(known, uuid.uuid4().hex)
    names = {"project": config.log.wandb, "name": workdir.absolute().name, "id": known.read_text().strip()}
    run = module.init(**names, dir=str(workdir), resume="allow", config=config.to_dict())
    return lambda step, values: run.log(dict(values), step=step), run.finish


def make_writers(config: ConfigDict, workdir: Path, start: int) -> list[Writer]:
    """Those that the section `log` asks for.

    Raises:
      MissingPackageError: a package is missing.
    """
    writers = [_tensorboard(workdir, start)] if config.log.tensorboard else []
    return writers + ([_weights_and_biases(workdir, config)] if config.log.wandb else [])


class Progress:
    """Progress bar and metrics file of one run; `close` it.

    Throughput counts training steps only: `restart_clock` after anything else that takes time. Of several
    processes only the first shows and writes anything; all check the losses.
    """

    def __init__(self, workdir: Path, plan: Plan, *, start: int, writers: Sequence[Writer] = ()):
        self._checkpoint = "none yet"
        self._path = workdir / METRICS
        self._writes = is_first()
        self.has_evaluation = False  # of step `start`; known to the first process
        if self._writes:
            self._keep_lines(start)
        self._writers = writers
        self._plan = plan
        self._step = start
        self._pending: list[dict[str, jax.Array]] = []
        # A terminal redraws one line; in a log file every refresh is a new line, so make them rare.
        interval = 0.5 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(
            total=plan.total,
            initial=start,
            file=sys.stderr,
            disable=not self._writes,
            dynamic_ncols=True,
            mininterval=interval,
            bar_format="{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )
        self._compiled = time.perf_counter(), start  # when, and at which step
        self.restart_clock()

    def note(self, text: str) -> None:
        """Prints a line above the progress bar."""
        if self._writes:
            self._bar.write(text, file=sys.stderr)

    def restart_clock(self) -> None:
        """Leaves the time since the last step out of the throughput."""
        self._since, self._timed, self._waited = time.perf_counter(), 0, 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Measures the time in the block as waiting for data."""
        since = time.perf_counter()
        yield
        self._waited += time.perf_counter() - since

    def first_step(self, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of the first step, whose time is that of compiling."""
        jax.block_until_ready(metrics)
        self.note(f"first step done after {time.perf_counter() - self._since:.0f} s")
        self.step(metrics)
        self._compiled = time.perf_counter(), self._step
        self.restart_clock()

    def step(self, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of the next step, still being computed."""
        self._pending.append(metrics)
        self._step += 1
        self._timed += 1
        if len(self._pending) > AHEAD:
            jax.block_until_ready(self._pending[-1 - AHEAD]["loss"])
        self._bar.update()

    def log_steps(self, **also: Any) -> None:
        """Logs the mean metrics of the steps since the last call, and `also`.

        Raises:
          DivergedError: one of their losses is not finite.
        """
        if not self._pending:
            return
        window = jax.device_get(self._pending)
        self._pending = []
        self._check_finite([float(metrics["loss"]) for metrics in window])
        mean = {name: float(sum(float(m[name]) for m in window) / len(window)) for name in window[0]}
        # Of the last step, not a mean: the value that a restart at this step would continue from.
        mean["learning_rate"] = float(window[-1]["learning_rate"])
        speed = ""
        if self._timed:
            elapsed = time.perf_counter() - self._since
            mean["images_per_second"] = self._timed * self._plan.batch_size / elapsed
            # At most so much of it slows the training: the devices may have been busy meanwhile.
            mean["data_wait"] = self._waited / elapsed
            speed = f", {mean['images_per_second']:.0f} images/s ({mean['data_wait']:.0%} data wait)"
        self.restart_clock()
        self._write("train", mean | also)
        accuracy = f", accuracy {mean['accuracy']:.1%}" if "accuracy" in mean else ""
        text = f"loss {mean['loss']:.3f}{accuracy}{speed}{self._time_left()}"
        self._bar.set_postfix_str(text, refresh=False)

    def _time_left(self) -> str:
        """From all steps after the first, with the evaluations and checkpoints between them."""
        since, first = self._compiled
        if self._step <= first:
            return ""
        seconds = (time.perf_counter() - since) / (self._step - first) * (self._plan.total - self._step)
        return f", {tqdm.format_interval(seconds)} left"

    def _check_finite(self, losses: list[float]) -> None:
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss of step {self._step - len(losses) + i + 1} is {loss}. "
                    f"Last checkpoint: {self._checkpoint}. Lower optimizer.learning_rate, lengthen "
                    "optimizer.warmup_epochs or set optimizer.clip_norm; then start again, or resume the run "
                    "with --workdir."
                )

    def evaluated(self, results: Mapping[str, float], images: str) -> None:
        """Logs the results of an evaluation at this step, on the `images` of this name."""
        self._write(images, results)
        shares = ("accuracy", "consistency", "iou")
        shown = (f"{k} {v:.2%}" if k.endswith(shares) else f"{k} {v:.4g}" for k, v in results.items())
        where = f"epoch {self._plan.epoch(self._step):.4g} (step {self._step}), {images}"
        self.note(f"{where}: {', '.join(shown)}")

    def saved(self, directory: Path) -> None:
        """Remembers the newest checkpoint, which error messages name."""
        self._checkpoint = str(directory)

    def _keep_lines(self, start: int) -> None:
        """Drops what was written after step `start`, and leaves the file open for more."""
        try:
            events = _kept_events(self._path, start)
            write_whole(self._path, "".join(json.dumps(event) + "\n" for event in events))
            self._file = self._path.open("a")
        except OSError as error:
            raise self._unwritable(error) from error
        last = events[-1] if events else {}
        self.has_evaluation = last.get("step") == start and last.get("split") != "train"

    def _unwritable(self, error: OSError) -> UnwritableError:
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        return UnwritableError(
            f"cannot write {self._path}: {reason.strerror or reason}. "
            f"Last checkpoint: {self._checkpoint}. Make room or mend the file system, then go on with "
            "--workdir."
        )

    def _write(self, split: str, values: Mapping[str, Any]) -> None:
        event = {
            "step": self._step,
            "epoch": round(self._plan.epoch(self._step), 4),
            "split": split,
            **values,
        }
        if not self._writes:
            return
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error
        numbers = {f"{split}/{name}": float(v) for name, v in values.items() if isinstance(v, int | float)}
        for write, _ in self._writers:
            write(self._step, numbers)

    def close(self) -> None:
        """Ends the bar, the file and the writers."""
        self._bar.close()
        if self._writes:
            self._file.close()
        for _, close in self._writers:
            close()
