"""Reports of a run: a progress bar and notes on stderr, and `metrics.jsonl` with one event per line.

TensorBoard and Weights & Biases receive the same numbers if the configuration says so. Metrics stay on the
device until they are logged, so the host does not wait for every step.
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

from aliasfree_jax.errors import NotFiniteError, needed
from aliasfree_jax.files import UnwritableError, write_whole
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.schedules import Plan

# Steps that the host may run ahead. This keeps the device busy and limits the batches in memory.
AHEAD = 2
# A function that writes named numbers, such as "train/loss", for a step; and a function that ends the run.
Writer = tuple[Callable[[int, Mapping[str, float]], None], Callable[[], None]]
METRICS, WANDB_ID = "metrics.jsonl", "wandb_id"  # files in the run's directory


def read_events(run: Path) -> list[dict[str, Any]]:
    """The events of a run so far: the lines of its `metrics.jsonl`."""
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def _kept_events(path: Path, step: int) -> list[dict[str, Any]]:
    """The earlier events of the run up to `step`. Later and incomplete lines are dropped."""
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
    """Writes event files with tensorboardX, without TensorFlow and torch.

    Events of steps after `start` are dropped, because the run repeats these steps.
    """
    module = needed("tensorboardX", "log.tensorboard")
    writer = module.SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return write, writer.close


def _weights_and_biases(workdir: Path, config: ConfigDict) -> Writer:
    """A run of the project `log.wandb`, named after the working directory.

    Several directories may share a name. So a random identifier is created once and kept with the run.
    """
    module = needed("wandb", "log.wandb")
    known = workdir / WANDB_ID
    if not known.exists():
        write_whole(known, uuid.uuid4().hex)
    names = {"project": config.log.wandb, "name": workdir.absolute().name, "id": known.read_text().strip()}
    run = module.init(**names, dir=str(workdir), resume="allow", config=config.to_dict())
    return lambda step, values: run.log(dict(values), step=step), run.finish


def make_writers(config: ConfigDict, workdir: Path, start: int) -> list[Writer]:
    """The writers that the section `log` asks for.

    Raises:
      MissingPackageError: a package is missing.
    """
    writers = [_tensorboard(workdir, start)] if config.log.tensorboard else []
    return writers + ([_weights_and_biases(workdir, config)] if config.log.wandb else [])


class Progress:
    """Progress bar and metrics file of one run. `close` it at the end.

    The throughput counts training steps only: call `restart_clock` after everything else that takes time. If
    there are several processes, only the first shows and writes anything, but all check the losses.
    """

    def __init__(self, workdir: Path, plan: Plan, *, start: int, writers: Sequence[Writer] = ()):
        self._checkpoint = "none yet"
        self._path = workdir / METRICS
        self._writes = is_first()
        self.has_evaluation = False  # whether step `start` was evaluated; only the first process knows
        if self._writes:
            self._keep_lines(start)
        self._writers = writers
        self._plan = plan
        self._step = start
        self._pending: list[dict[str, jax.Array]] = []
        # A terminal redraws one line. In a log file every refresh is a new line, so refresh rarely.
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
        self._compiled = time.perf_counter(), start  # time and step
        self.restart_clock()

    def note(self, text: str) -> None:
        """Prints a line above the progress bar."""
        if self._writes:
            self._bar.write(text, file=sys.stderr)

    def restart_clock(self) -> None:
        """Excludes the time since the last step from the throughput."""
        self._since, self._timed, self._waited = time.perf_counter(), 0, 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the time in the block as waiting for data."""
        since = time.perf_counter()
        yield
        self._waited += time.perf_counter() - since

    def first_step(self, metrics: dict[str, jax.Array]) -> None:
        """Records the metrics of the first step. Its time is mostly compilation."""
        jax.block_until_ready(metrics)
        self.note(f"first step done after {time.perf_counter() - self._since:.0f} s")
        self.step(metrics)
        self._compiled = time.perf_counter(), self._step
        self.restart_clock()

    def step(self, metrics: dict[str, jax.Array]) -> None:
        """Records the metrics of the next step; the device may still be computing them."""
        self._pending.append(metrics)
        self._step += 1
        self._timed += 1
        if len(self._pending) > AHEAD:
            jax.block_until_ready(self._pending[-1 - AHEAD]["loss"])
        self._bar.update()

    def log_steps(self, **also: Any) -> None:
        """Logs the mean metrics of the steps since the last call, and the values `also`.

        Raises:
          NotFiniteError: a loss is not finite, or a gradient is not a number.
        """
        if not self._pending:
            return
        window = jax.device_get(self._pending)
        self._pending = []
        self._check_finite(window)
        mean = {name: float(sum(float(m[name]) for m in window) / len(window)) for name in window[0]}
        # The last value, not the mean: a restart at this step would continue from it.
        mean["learning_rate"] = float(window[-1]["learning_rate"])
        speed = ""
        if self._timed:
            elapsed = time.perf_counter() - self._since
            mean["images_per_second"] = self._timed * self._plan.batch_size / elapsed
            # An upper limit of the slowdown, because the devices may be busy during the wait.
            mean["data_wait"] = self._waited / elapsed
            speed = f", {mean['images_per_second']:.0f} images/s ({mean['data_wait']:.0%} data wait)"
        self.restart_clock()
        self._write("train", mean | also)
        accuracy = f", accuracy {mean['accuracy']:.1%}" if "accuracy" in mean else ""
        text = f"loss {mean['loss']:.3f}{accuracy}{speed}{self._time_left()}"
        self._bar.set_postfix_str(text, refresh=False)

    def _time_left(self) -> str:
        """Estimated from all steps after the first, including evaluations and checkpoints between them."""
        since, first = self._compiled
        if self._step <= first:
            return ""
        seconds = (time.perf_counter() - since) / (self._step - first) * (self._plan.total - self._step)
        return f", {tqdm.format_interval(seconds)} left"

    def _check_finite(self, window: Sequence[Mapping[str, Any]]) -> None:
        for step, metrics in enumerate(window, self._step - len(window) + 1):
            loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
            # The loss is computed before the update, and a gradient that is not a number spoils the weights.
            # A gradient with an infinite norm does not: clipping makes its update zero.
            if math.isfinite(loss) and not math.isnan(norm):
                continue
            what, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
            raise NotFiniteError(
                f"the {what} of step {step} is {value}. Last checkpoint: {self._checkpoint}. Lower "
                "optimizer.learning_rate, raise optimizer.warmup_epochs or set optimizer.clip_norm. Then "
                "start again, or resume the run with --workdir."
            )

    def evaluated(self, results: Mapping[str, float], images: str) -> None:
        """Logs the results of an evaluation at this step. `images` is the name of the evaluated images."""
        self._write(images, results)
        shares = ("accuracy", "consistency", "iou")
        shown = (f"{k} {v:.2%}" if k.endswith(shares) else f"{k} {v:.4g}" for k, v in results.items())
        where = f"epoch {self._plan.epoch(self._step):.4g} (step {self._step}), {images}"
        self.note(f"{where}: {', '.join(shown)}")

    def saved(self, directory: Path) -> None:
        """Remembers the newest checkpoint for error messages."""
        self._checkpoint = str(directory)

    def _keep_lines(self, start: int) -> None:
        """Drops the events after step `start`, and leaves the file open for new ones."""
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
            f"Last checkpoint: {self._checkpoint}. Free some space or repair the file system, then resume "
            "with --workdir."
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
        """Closes the bar, the file and the writers."""
        self._bar.close()
        if self._writes:
            self._file.close()
        for _, close in self._writers:
            close()
