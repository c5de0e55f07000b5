"""`run`: from a configuration to a trained network. The only stateful loop of the package."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from flax import linen as nn
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import (
    ModelCard,
    PyTree,
    RunCheckpoints,
    keep_best,
    newest_card,
    set_best_aside,
)
from aliasfree_jax.config import RAW, validate
from aliasfree_jax.data import BatchStream, Source, open_source, train_batches
from aliasfree_jax.files import local_path, write_json
from aliasfree_jax.processes import is_first, total
from aliasfree_jax.stored_config import CONFIG
from aliasfree_jax.training.contact_sheet import CONTACT_SHEET, write_contact_sheet
from aliasfree_jax.training.identity import check_identity, sole_job, stored
from aliasfree_jax.training.mesh import check_batch, make_mesh, own_share, put_batch
from aliasfree_jax.training.network import check_network
from aliasfree_jax.training.preparation import (
    VALIDATION,
    Evaluate,
    Initial,
    Parts,
    first_state,
    fit_sources,
    prepare,
)
from aliasfree_jax.training.profile import StepProfile
from aliasfree_jax.training.progress import Progress
from aliasfree_jax.training.state import TrainState
from aliasfree_jax.training.stopping import TerminatedError, watch_for_termination
from aliasfree_jax.training.writers import make_writers


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a finished run leaves in memory; the same is in its newest checkpoint."""

    workdir: Path
    card: ModelCard
    module: nn.Module
    variables: PyTree  # those that are evaluated
    results: dict[str, float]  # of the last evaluation
    skipped: int  # training examples that could not be read


def _keep_best(
    workdir: Path, card: ModelCard, state: TrainState, results: Mapping[str, float], metric: str, images: str
) -> str:
    """Keeps the network if it is the best so far by `metric`; says so, or why none is kept.

    The weights that are kept are those that the metric is of: the raw ones, or those that are evaluated.
    """
    if metric and metric not in results:
        return f"no best network is kept: checkpoint.best = {metric!r}, evaluated are {', '.join(results)}"
    variables = state.raw() if metric.startswith(RAW) else state.evaluated()
    if metric and keep_best(workdir, card, variables, results, metric, images):
        return f"best {metric} of {images} images so far: kept in {workdir / 'best'}"
    return ""


def _evaluate(
    run: Parts, state: TrainState, done: int, workdir: Path, progress: Progress, stop: Callable[[], bool]
) -> dict[str, float]:
    """Evaluates the network that `done` updates left, keeps it if it is the best, and tells of both.

    Raises:
      TerminatedError: SIGTERM came; nothing is told.
    """
    if run.evaluate is None:
        return {}
    results = run.evaluate(state, stop)
    # A network that still blends is not the one that is wanted, however good.
    metric = run.config.checkpoint.best if done >= run.plan.blend else ""
    told = _keep_best(workdir, run.card_after(done), state, results, metric, run.looked_at)
    progress.evaluated(results, run.looked_at)  # last: an evaluation without its line is made again
    if told:
        progress.note(told)
    return results


def _about_evaluation(run: Parts, train: Source) -> list[str]:
    """Which images evaluations while training look at, and so the choice of the best network."""
    if run.looked_at == VALIDATION:
        held = len(train) - len(run.train)
        return [f"validation: {held} of {len(train)} training images are held out (data.validation)"]
    if run.evaluate and run.config.checkpoint.best:
        return [
            "best by test images: data.validation=0, so the network in best/ is chosen on the evaluation "
            "split, and its results there are too good; data.validation=0.1 holds training images out for it"
        ]
    return []


def _train(
    run: Parts,
    state: TrainState,
    start: int,
    batches: BatchStream,
    checkpoints: RunCheckpoints,
    progress: Progress,
    stop_requested: Callable[[], bool],
) -> tuple[TrainState, dict[str, float]]:
    """Updates from step `start` to the plan's end; returns the last state and evaluation."""
    results: dict[str, float] = {}
    workdir = checkpoints.directory.parent

    def save(done: int) -> None:
        checkpoints.save(run.card_after(done), state.evaluated(), state.rest())
        progress.saved(checkpoints.directory / str(done))

    profile = StepProfile(run.config.log.profile_steps, start, run.plan.total, workdir / "profile")
    progress.note("compiling the first step ...")
    progress.restart_clock()
    for done in range(start + 1, run.plan.total + 1):
        with progress.waiting_for_data():
            batch = next(batches)
        profile.before(done)
        if done == 1 and is_first():
            write_contact_sheet(workdir / CONTACT_SHEET, batch["image"], run.config)
        compiles = done == start + 1 or done == run.plan.blend + 1
        if compiles and done > start + 1:
            progress.note("the network has only its own layers from here on: compiling their step ...")
            progress.restart_clock()
        state, metrics = run.step_after(done - 1)(state, put_batch(batch, run.mesh))
        if compiles:
            progress.first_step(metrics)
        else:
            progress.step(metrics)
        if told := profile.after(done, metrics):
            progress.note(told)
        stops = stop_requested() and done < run.plan.total
        evaluates, saves = run.plan.evaluates(done), run.plan.saves(done) or stops
        if evaluates or saves or done % run.config.log.every_steps == 0:
            skipped = total(batches.skipped)
            progress.log_steps(**({"skipped": skipped} if skipped else {}))
        if saves:
            save(done)
        if stops:
            raise TerminatedError(done)
        if evaluates:
            try:
                results = _evaluate(run, state, done, workdir, progress, stop_requested)
            except TerminatedError:
                if not saves:
                    save(done)
                raise
        if (evaluates or saves) and done < run.plan.total:
            progress.restart_clock()
    return state, results


def _go_on(
    run: Parts,
    state: TrainState,
    start: int,
    checkpoints: RunCheckpoints,
    progress: Progress,
    stop_requested: Callable[[], bool],
) -> tuple[TrainState, dict[str, float], int]:
    """Makes up for an evaluation that was interrupted at step `start`, then trains on.

    Returns:
      the last state and evaluation, and the number of skipped training examples.
    """
    config, results = run.config, dict[str, float]()
    if start and run.plan.evaluates(start) and total(int(is_first() and not progress.has_evaluation)):
        results = _evaluate(run, state, start, checkpoints.directory.parent, progress, stop_requested)
    if start >= run.plan.total:
        progress.note(f"nothing to train: the run has {start} of {run.plan.total} steps")
        if run.evaluate and not results:
            results = run.evaluate(state, stop_requested)
        return state, results, 0
    batches = train_batches(
        run.train,
        config.data,
        batch_size=config.train.batch_size,
        seed=config.seed,
        start_step=start,
        share=own_share(),
    )
    with closing(batches):
        state, results = _train(run, state, start, batches, checkpoints, progress, stop_requested)
    skipped = total(batches.skipped)
    if skipped:
        first = "\n  ".join(batches.first_skipped)
        progress.note(f"{skipped} training images could not be read and were replaced:\n  {first}")
    return state, results, skipped


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    initial: Initial | None = None,
    evaluate: Evaluate | None = None,
    sources: tuple[Source, Source | None] | None = None,
    origin: str = "",
    accept_changes: Sequence[str] = (),
    accept_class_names: bool = False,
) -> Summary:
    """Trains a network and leaves checkpoints, `metrics.jsonl` and `config.json` in `workdir`.

    `augmented.png` shows what the network sees in the first step.

    A run that was interrupted goes on from its newest checkpoint when it is started again with the
    same `workdir`; it then sees the same batches, and computes the same, as if it had not been. At
    SIGTERM, which schedulers send before they end a job, it saves a checkpoint after the current step, or
    ends the evaluation after the current batch; an evaluation that was interrupted is made up for.

    Args:
      config: see `aliasfree_jax.config.base_config`.
      workdir: directory of this run; made if need be.
      initial: (card, variables) to start from; ignored where the run already has a checkpoint.
      evaluate: (predict, batches) -> results, called as the configuration says and at the end, on the
        images that `data.validation` holds out of the training split, else on the evaluation split;
        None: no evaluation.
      sources: training and evaluation data of your own, e.g. `data.ArraySource`s, for the source
        "arrays"; None: those that the configuration names.
      origin: what to write on the model card, e.g. the configuration's file.
      accept_changes: fields, such as "data.path", that may differ from those of the run that goes on,
        although they change the result; `config.json` keeps them.
      accept_class_names: take labels by position where the run to go on with, or the evaluation split, has
        as many classes with other names; and keep the head of initial weights.

    Raises:
      OccupiedError: another live job trains in `workdir`.
      AliasFreeError: the configuration, data, initial weights or checkpoint cannot be used, the run there
        is of another configuration, or the loss is no longer finite.
      TerminatedError: SIGTERM came; the checkpoint is written.
    """
    workdir = local_path(workdir, "workdir")
    validate(config)
    mesh = make_mesh(config.train.devices, config.train.parameter_shards)
    check_batch(config.train.batch_size, config.train.accumulation_steps, mesh)
    check_network(config)
    if sources is None:
        train = open_source(config.data, train=True)
        sources = train, open_source(config.data, train=False) if evaluate else None
    train, held_out = sources if evaluate else (sources[0], None)
    train, held_out, told = fit_sources(
        train, held_out, newest_card(workdir), accept_class_names=accept_class_names
    )
    parts = prepare(config, mesh, train, held_out, origin, evaluate)
    with sole_job(workdir), RunCheckpoints(workdir, config.checkpoint.keep) as checkpoints:
        accepted, changes = check_identity(workdir, config, checkpoints.latest_step(), accept_changes)
        start, state, notes = first_state(parts, checkpoints, initial, accept_class_names=accept_class_names)
        if not start and is_first():
            notes += set_best_aside(workdir)
        writers = make_writers(config, workdir, start) if is_first() else []
        sizes = {"start": start, "batch_size": config.train.batch_size}
        with Progress(workdir, parts.plan, **sizes, writers=writers) as progress:
            for note in told + notes + changes + _about_evaluation(parts, train):
                progress.note(note)
            if start:
                progress.saved(checkpoints.directory / str(start))
            # Not earlier: a configuration that does not fit the run must not replace the run's own.
            if is_first():
                write_json(workdir / CONFIG, stored(config, accepted))
            with watch_for_termination() as stop_requested:
                state, results, skipped = _go_on(parts, state, start, checkpoints, progress, stop_requested)
    card = dataclasses.replace(parts.card, step=max(start, parts.plan.total))
    if stop_requested():  # during the last batch of the last evaluation
        raise TerminatedError(card.step)
    return Summary(workdir, card, parts.module, state.evaluated(), results, skipped)
