"""`run`: from a configuration to a trained network. This is the only stateful loop of the package."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard, PyTree, RunCheckpoints, keep_best, set_best_aside
from aliasfree_jax.config import RAW
from aliasfree_jax.data import BatchStream, Source
from aliasfree_jax.files import local_path, write_json
from aliasfree_jax.processes import from_first, is_first, total
from aliasfree_jax.stored_config import CONFIG, to_store
from aliasfree_jax.training.adopting import Pretrained, adopt
from aliasfree_jax.training.mesh import put_batch
from aliasfree_jax.training.mixing import CONTACT_SHEET
from aliasfree_jax.training.progress import Progress, make_writers
from aliasfree_jax.training.resuming import TerminatedError, check_identity, sole_job, watch_for_termination
from aliasfree_jax.training.setup import Evaluate, Setup, set_up
from aliasfree_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of a finished run. The newest checkpoint contains the same.

    Attributes:
      card: describes the network.
      module: the network.
      variables: the variables that are evaluated.
      results: results of the last evaluation.
      skipped: number of training examples that could not be read.
    """

    card: ModelCard
    module: nn.Module
    variables: PyTree
    results: dict[str, float]
    skipped: int


def _first_state(
    setup: Setup,
    checkpoints: RunCheckpoints,
    pretrained: Pretrained | None,
    accept_class_names: bool,
) -> tuple[int, TrainState, list[str]]:
    """The step and state to start from, and notes about them.

    They come from the run's newest undamaged checkpoint, else from initial weights, else they are random.
    """
    notes: list[str] = []
    if checkpoints.latest_step() is not None:
        abstract = setup.states.abstract()
        wanted = abstract.evaluated(), abstract.rest()
        step, evaluated, rest = checkpoints.restore(setup.card, *wanted, tell=notes.append)
        notes.append(
            f"resuming at step {step} of {setup.plan.total} from {checkpoints.directory / str(step)}"
        )
        return step, abstract.replaced(evaluated, rest), notes
    variables = None
    if pretrained is not None:
        card = pretrained.card
        notes.append(f"starting from the weights of {card.model} ({card.origin}, step {card.step})")
        variables = adopt(
            pretrained,
            setup.network.module,
            setup.card,
            seed=setup.states.seed,
            tell=notes.append,
            accept_class_names=accept_class_names,
        )
    return 0, setup.states.build(variables), notes


@dataclasses.dataclass
class _Loop:
    """A run in training: the state, and everything that is updated with it."""

    setup: Setup
    state: TrainState
    done: int  # number of updates
    checkpoints: RunCheckpoints
    progress: Progress
    stop_requested: Callable[[], bool]
    results: dict[str, float] = dataclasses.field(default_factory=dict)  # of the last evaluation

    @property
    def card(self) -> ModelCard:
        """The card of the network in its present state."""
        return dataclasses.replace(self.setup.card, step=self.done)

    def _save(self) -> None:
        self.checkpoints.save(self.card, self.state.evaluated(), self.state.rest())
        self.progress.saved(self.checkpoints.directory / str(self.done))

    def _keep_best(self, metric: str, images: str) -> str:
        """Keeps the network if it is the best so far by `metric`. Returns a note about it, or "".

        If the metric was measured with raw weights, these are kept; otherwise the weights that are evaluated.
        """
        results, workdir = self.results, self.checkpoints.directory.parent
        if metric not in results:
            return (
                f"no best network is kept: the evaluation has no result {metric!r} (checkpoint.best), only "
                f"{', '.join(results)}"
            )
        variables = self.state.raw() if metric.startswith(RAW) else self.state.evaluated()
        if keep_best(workdir, self.card, variables, results, metric, images):
            return f"best {metric} of {images} images so far: kept in {workdir / 'best'}"
        return ""

    def _evaluate(self) -> None:
        """Evaluates the network, keeps it if it is the best, and reports both.

        Raises:
          TerminatedError: SIGTERM came; nothing is reported.
        """
        evaluation = self.setup.evaluation
        if evaluation is None:
            return
        self.results = self.setup.evaluate(self.state, self.stop_requested)
        told = self._keep_best(evaluation.best, evaluation.images) if evaluation.best else ""
        # Logged last: an evaluation without a line in the log is repeated after a restart.
        self.progress.evaluated(self.results, evaluation.images)
        if told:
            self.progress.note(told)

    def _train(self, batches: BatchStream) -> None:
        """Trains to the end of the plan."""
        setup, plan, progress, start = self.setup, self.setup.plan, self.progress, self.done
        workdir = self.checkpoints.directory.parent
        profile = plan.profiled(start)
        progress.note("compiling the first step ...")
        progress.restart_clock()
        while self.done < plan.total:
            with progress.waiting_for_data():
                batch = next(batches)
            self.done += 1
            if profile and self.done == profile[0]:
                jax.profiler.start_trace(workdir / "profile")
            if self.done == 1 and is_first():
                setup.draw_batch(workdir / CONTACT_SHEET, batch["image"])
            self.state, metrics = setup.network.train_step(self.state, put_batch(batch, setup.mesh))
            if self.done == start + 1:
                progress.first_step(metrics)
            else:
                progress.step(metrics)
            if profile and self.done == profile[1]:
                jax.block_until_ready(metrics)
                jax.profiler.stop_trace()
                progress.note(f"profile of steps {profile[0]} to {profile[1]}: {workdir / 'profile'}")
            self._after_step(batches)

    def _after_step(self, batches: BatchStream) -> None:
        """Logs, saves, stops and evaluates, as far as due."""
        plan, progress, last = self.setup.plan, self.progress, self.done == self.setup.plan.total
        stops = self.stop_requested() and not last
        evaluates, saves = plan.evaluates(self.done), plan.saves(self.done) or stops
        if evaluates or saves or self.done % plan.log_every == 0:
            skipped = total(batches.skipped)
            progress.log_steps(**({"skipped": skipped} if skipped else {}))
        if saves:
            self._save()
        if stops:
            raise TerminatedError(self.done)
        if evaluates:
            try:
                self._evaluate()
            except TerminatedError:
                if not saves:
                    self._save()
                raise
        if (evaluates or saves) and not last:
            progress.restart_clock()

    def go_on(self) -> int:
        """Repeats an evaluation that was interrupted, then trains to the end of the plan.

        Returns:
          The number of skipped training examples.
        """
        setup, plan, progress = self.setup, self.setup.plan, self.progress
        if self.done and plan.evaluates(self.done) and not from_first(progress.has_evaluation):
            self._evaluate()
        if self.done >= plan.total:
            progress.note(f"nothing to train: the run has {self.done} of {plan.total} steps")
            self.results = self.results or setup.evaluate(self.state, self.stop_requested)
            return 0
        with closing(setup.batches(start_step=self.done)) as batches:
            self._train(batches)
        skipped = total(batches.skipped)
        if skipped:
            first = "\n  ".join(batches.first_skipped)
            progress.note(f"{skipped} training images could not be read and were replaced:\n  {first}")
        return skipped


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    pretrained: Pretrained | None = None,
    evaluate: Evaluate | None = None,
    sources: tuple[Source, Source | None] | None = None,
    origin: str = "",
    accept_changes: Sequence[str] = (),
    accept_class_names: bool = False,
) -> Summary:
    """Trains a network. Writes checkpoints, `metrics.jsonl` and `config.json` to `workdir`.

    `augmented.png` shows the network's input in the first step.

    To resume a run that was interrupted, start it again with the same `workdir`. It continues from its newest
    checkpoint, sees the same batches, and computes the same as without the interruption. After SIGTERM, which
    schedulers send before they end a job, the run saves a checkpoint after the current step. During an
    evaluation it stops after the current batch; the resumed run repeats the evaluation.

    Args:
      config: see `aliasfree_jax.config.base_config`.
      workdir: directory of this run; created if missing.
      pretrained: weights to start from; ignored if the run already has a checkpoint.
      evaluate: (predict, batches) -> results. It is called as the configuration says, and at the end, on the
        images that `data.validation` holds out of the training split, else on the evaluation split. None: no
        evaluation.
      sources: your own training and evaluation data, e.g. `data.ArraySource`s, for the source "arrays". None:
        the data that the configuration names.
      origin: text for the model card, e.g. the configuration's file.
      accept_changes: fields, such as "data.path", that may differ from the resumed run, although they change
        the result. `config.json` records them.
      accept_class_names: take labels by position if the resumed run, or the evaluation split, has equally
        many classes with other names. Also keeps the head of initial weights.

    Raises:
      OccupiedError: another live job trains in `workdir`.
      AliasFreeError: the configuration, data, initial weights or checkpoint cannot be used, the existing run
        has another configuration, or the loss is not finite.
      TerminatedError: SIGTERM came; the checkpoint is written.
    """
    workdir = local_path(workdir, "workdir")
    setup = set_up(
        config,
        evaluate=evaluate,
        sources=sources,
        origin=origin,
        workdir=workdir,
        accept_class_names=accept_class_names,
    )
    with sole_job(workdir), closing(RunCheckpoints(workdir, setup.keep)) as checkpoints:
        accepted, changes = check_identity(workdir, config, checkpoints.latest_step(), accept_changes)
        start, state, notes = _first_state(setup, checkpoints, pretrained, accept_class_names)
        if not start and is_first():
            notes += set_best_aside(workdir)
        writers = make_writers(config, workdir, start) if is_first() else []
        with closing(Progress(workdir, setup.plan, start=start, writers=writers)) as progress:
            for note in setup.notes + notes + changes:
                progress.note(note)
            if start:
                progress.saved(checkpoints.directory / str(start))
            # Written after all checks: a configuration that does not fit must not replace the run's.
            if is_first():
                write_json(workdir / CONFIG, to_store(config, accepted))
            with watch_for_termination() as stop_requested:
                loop = _Loop(setup, state, start, checkpoints, progress, stop_requested)
                skipped = loop.go_on()
    if stop_requested():  # SIGTERM came during the last batch of the last evaluation
        raise TerminatedError(loop.done)
    return Summary(loop.card, setup.network.module, loop.state.evaluated(), loop.results, skipped)
