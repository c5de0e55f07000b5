"""`run`: from a configuration to a trained network. The only stateful loop of the package."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard, PyTree, RunCheckpoints, keep_best
from aliasfree_jax.config import validate
from aliasfree_jax.data import BatchStream, Source, eval_batches, open_source, train_batches
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.models import create_model
from aliasfree_jax.training.contact_sheet import CONTACT_SHEET, write_contact_sheet
from aliasfree_jax.training.initial import adopt
from aliasfree_jax.training.mesh import check_batch, make_mesh, put_batch, split
from aliasfree_jax.training.mixing import Mixing
from aliasfree_jax.training.network import check_network, make_card
from aliasfree_jax.training.optimizer import make_optimizer
from aliasfree_jax.training.plan import Plan, make_plan
from aliasfree_jax.training.progress import Progress
from aliasfree_jax.training.recipe import learning_rate, temperature
from aliasfree_jax.training.state import TrainState, abstract_state, create_state
from aliasfree_jax.training.step import TrainStep, make_predict, make_train_step
from aliasfree_jax.training.stopping import TerminatedError, watch_for_termination

# (images -> logits, batches) -> named results; passed in, so that training knows no evaluation.
Evaluate = Callable[[Callable[[Any], jax.Array], Iterable[Mapping[str, Any]]], Mapping[str, float]]
Initial = tuple[ModelCard, PyTree]  # weights to start from


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a finished run leaves in memory; the same is in its newest checkpoint."""

    workdir: Path
    card: ModelCard
    module: nn.Module
    variables: PyTree  # those that are evaluated
    results: dict[str, float]  # of the last evaluation
    skipped: int  # training examples that could not be read


@dataclasses.dataclass(frozen=True)
class _Run:
    """The parts of a run that do not change while it trains."""

    config: ConfigDict
    mesh: Mesh
    plan: Plan
    module: nn.Module
    card: ModelCard
    optimizer: optax.GradientTransformation
    train_step: TrainStep
    evaluate: Callable[[TrainState], dict[str, float]] | None


def _check_classes(train: Source, held_out: Source) -> None:
    if list(train.class_names) != list(held_out.class_names):
        found, wanted = len(held_out.class_names), len(train.class_names)
        raise DataError(
            f"the evaluation split has {found} classes, not the {wanted} of the training split: labels would "
            "differ in meaning. Check data.train_split and data.eval_split."
        )


def _make_evaluate(
    config: ConfigDict, mesh: Mesh, module: nn.Module, source: Source, evaluate: Evaluate
) -> Callable[[TrainState], dict[str, float]]:
    """Binds `evaluate` to the evaluation split and to the variables of a state."""
    predict = make_predict(module, mesh)
    batch_size = -(-config.eval.batch_size // mesh.size) * mesh.size

    def results(state: TrainState) -> dict[str, float]:
        variables = state.evaluated()
        batches = eval_batches(source, config.data, batch_size=batch_size)
        return dict(evaluate(lambda images: predict(variables, jax.device_put(images, split(mesh))), batches))

    return results


def _make_workdir(workdir: Path) -> Path:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the run directory {workdir}: {error}") from error
    return workdir


def _prepare(
    config: ConfigDict,
    mesh: Mesh,
    train: Source,
    held_out: Source | None,
    origin: str,
    evaluate: Evaluate | None,
) -> _Run:
    plan = make_plan(config, len(train))
    card = make_card(config, train.class_names, origin)
    module = create_model(card.model, **card.options)
    schedule = learning_rate(config.optimizer, plan)
    optimizer = make_optimizer(config.optimizer, schedule)
    train_step = make_train_step(
        module,
        optimizer,
        schedule,
        mesh,
        temperature=temperature(config.train.temperature, plan),
        label_smoothing=config.train.label_smoothing,
        mixing=Mixing.from_config(config.train.mixing),
        accumulation_steps=config.train.accumulation_steps,
        ema_decay=config.train.ema_decay,
    )
    evaluator = None
    if evaluate is not None and held_out is not None:
        _check_classes(train, held_out)
        evaluator = _make_evaluate(config, mesh, module, held_out, evaluate)
    return _Run(config, mesh, plan, module, card, optimizer, train_step, evaluator)


def _first_state(
    run: _Run, checkpoints: RunCheckpoints, initial: Initial | None
) -> tuple[int, TrainState, list[str]]:
    """Step and state to go on from, and what to tell of it.

    That is the run's own newest sound checkpoint, else initial weights, else random ones.
    """
    shape = (run.card.image_size, run.card.image_size, run.card.channels)
    average, seed = run.config.train.ema_decay > 0, run.config.seed
    notes: list[str] = []
    if checkpoints.latest_step() is not None:
        abstract = abstract_state(run.module, run.optimizer, shape, run.mesh, average=average)
        wanted = abstract.evaluated(), abstract.rest()
        step, evaluated, rest = checkpoints.restore(run.card, *wanted, tell=notes.append)
        notes.append(f"resuming at step {step} of {run.plan.total} from {checkpoints.directory / str(step)}")
        return step, abstract.replaced(evaluated, rest), notes
    variables = None
    if initial is not None:
        card, weights = initial
        variables, drawn = adopt(card, weights, run.module, run.card, seed=seed)
        head = f"; drawn afresh for {len(run.card.class_names)} classes: {', '.join(drawn)}" if drawn else ""
        notes.append(f"starting from the weights of {card.model} ({card.origin}, step {card.step}){head}")
    state = create_state(
        run.module, run.optimizer, shape, run.mesh, seed=seed, average=average, variables=variables
    )
    return 0, state, notes


def _keep_best(
    run: _Run,
    card: ModelCard,
    state: TrainState,
    results: Mapping[str, float],
    checkpoints: RunCheckpoints,
    progress: Progress,
) -> None:
    workdir, metric = checkpoints.directory.parent, run.config.checkpoint.best
    if not metric:
        return
    if metric not in results:
        progress.note(
            f"no best network is kept: checkpoint.best = {metric!r}, evaluated are {', '.join(results)}"
        )
    elif keep_best(workdir, card, state.evaluated(), results, metric):
        progress.note(f"best {metric} so far: kept in {workdir / 'best'}")


def _train(
    run: _Run,
    state: TrainState,
    start: int,
    batches: BatchStream,
    checkpoints: RunCheckpoints,
    progress: Progress,
    stop_requested: Callable[[], bool],
) -> tuple[TrainState, dict[str, float]]:
    """Updates from step `start` to the plan's end; returns the last state and evaluation."""
    results: dict[str, float] = {}
    progress.note("compiling the first step ...")
    progress.restart_clock()
    for done in range(start + 1, run.plan.total + 1):
        batch = next(batches)
        if done == 1:
            write_contact_sheet(checkpoints.directory.parent / CONTACT_SHEET, batch["image"], run.config)
        state, metrics = run.train_step(state, put_batch(batch, run.mesh))
        if done == start + 1:
            progress.first_step(metrics)
        else:
            progress.step(metrics)
        stops = done < run.plan.total and stop_requested()
        evaluates, saves = run.plan.evaluates(done), run.plan.saves(done) or stops
        if evaluates or saves or done % run.config.log.every_steps == 0:
            progress.log_steps(**({"skipped": batches.skipped} if batches.skipped else {}))
        if saves:
            checkpoints.save(dataclasses.replace(run.card, step=done), state.evaluated(), state.rest())
            progress.saved(checkpoints.directory / str(done))
        if stops:
            raise TerminatedError(done)
        if evaluates and run.evaluate:
            results = run.evaluate(state)
            progress.evaluated(results)
            _keep_best(run, dataclasses.replace(run.card, step=done), state, results, checkpoints, progress)
        if (evaluates or saves) and done < run.plan.total:
            progress.restart_clock()
    return state, results


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    initial: Initial | None = None,
    evaluate: Evaluate | None = None,
    sources: tuple[Source, Source | None] | None = None,
    origin: str = "",
) -> Summary:
    """Trains a network and leaves checkpoints, `metrics.jsonl` and `config.json` in `workdir`.

    `augmented.png` shows what the network sees in the first step.

    A run that was interrupted goes on from its newest checkpoint when it is started again with the
    same `workdir`; it then sees the same batches, and computes the same, as if it had not been. At
    SIGTERM, which schedulers send before they end a job, it saves a checkpoint after the current step.

    Args:
      config: see `aliasfree_jax.config.base_config`.
      workdir: directory of this run; made if need be.
      initial: (card, variables) to start from; ignored where the run already has a checkpoint.
      evaluate: (predict, batches) -> results, called on the evaluation split as the configuration
        says and at the end; None: no evaluation.
      sources: training and evaluation data of your own, e.g. `data.ArraySource`s, for the source
        "arrays"; None: those that the configuration names.
      origin: what to write on the model card, e.g. the configuration's file.

    Raises:
      AliasFreeError: the configuration, data, initial weights or checkpoint cannot be used, or the
        loss is no longer finite.
      TerminatedError: SIGTERM came; the checkpoint is written.
    """
    validate(config)
    mesh = make_mesh(config.train.devices)
    check_batch(config.train.batch_size, config.train.accumulation_steps, mesh)
    check_network(config)
    if sources is None:
        train = open_source(config.data, train=True)
        sources = train, open_source(config.data, train=False) if evaluate else None
    parts = _prepare(config, mesh, *sources, origin, evaluate)
    workdir = _make_workdir(Path(workdir))
    with RunCheckpoints(workdir, config.checkpoint.keep) as checkpoints:
        start, state, notes = _first_state(parts, checkpoints, initial)
        with Progress(workdir, parts.plan, start=start, batch_size=config.train.batch_size) as progress:
            for note in notes:
                progress.note(note)
            if start:
                progress.saved(checkpoints.directory / str(start))
            # Not earlier: a configuration that does not fit the run must not replace the run's own.
            (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
            if start >= parts.plan.total:
                progress.note(f"nothing to train: the run has {start} of {parts.plan.total} steps")
                results = parts.evaluate(state) if parts.evaluate else {}
                skipped = 0
            else:
                sizes = {"batch_size": config.train.batch_size, "seed": config.seed, "start_step": start}
                with (
                    closing(train_batches(sources[0], config.data, **sizes)) as batches,
                    watch_for_termination() as stop_requested,
                ):
                    state, results = _train(
                        parts, state, start, batches, checkpoints, progress, stop_requested
                    )
                skipped = batches.skipped
                if skipped:
                    first = "\n  ".join(batches.first_skipped)
                    progress.note(
                        f"{skipped} training images could not be read and were replaced:\n  {first}"
                    )
    card = dataclasses.replace(parts.card, step=max(start, parts.plan.total))
    return Summary(workdir, card, parts.module, state.evaluated(), results, skipped)
