"""From a configuration to the parts of a run, and to the state that it starts from."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard, PyTree, RunCheckpoints
from aliasfree_jax.config import RAW
from aliasfree_jax.data import Source, hold_out
from aliasfree_jax.data.class_names import ClassNamesError, fit_classes
from aliasfree_jax.models import create_model
from aliasfree_jax.models.convnext import ConvNeXt
from aliasfree_jax.processes import total
from aliasfree_jax.training.blending import blended_network, blended_options, starting_network
from aliasfree_jax.training.initial import adopt
from aliasfree_jax.training.mesh import evaluated_batches, own_eval_batches
from aliasfree_jax.training.mixing import Mixing
from aliasfree_jax.training.network import make_card
from aliasfree_jax.training.optimizer import make_optimizer
from aliasfree_jax.training.plan import Plan, make_plan
from aliasfree_jax.training.recipe import learning_rate, share, temperature
from aliasfree_jax.training.state import TrainState, abstract_state, create_state
from aliasfree_jax.training.step import TrainStep, make_predict, make_train_step
from aliasfree_jax.training.stopping import until_termination

# (images -> logits, batches) -> named results; passed in, so that training knows no evaluation.
Evaluate = Callable[[Callable[[Any], jax.Array], Iterable[Mapping[str, Any]]], Mapping[str, float]]
OF_IMAGES = ("images", "skipped")  # results that are the same for all weights
VALIDATION, TEST = "validation", "test"  # images: part of the training split, or the evaluation split
Initial = tuple[ModelCard, PyTree]  # weights to start from


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of a run that do not change while it trains."""

    config: ConfigDict
    mesh: Mesh
    train: Source  # without what is held out of it
    looked_at: str  # which images evaluations see: VALIDATION or TEST
    plan: Plan
    module: nn.Module
    card: ModelCard
    optimizer: optax.GradientTransformation
    train_step: TrainStep
    blended: ConvNeXt | None  # the network of the first `plan.blend` updates
    blended_step: TrainStep | None
    evaluate: Callable[[TrainState, Callable[[], bool]], dict[str, float]] | None  # see `_make_evaluate`

    def step_after(self, done: int) -> TrainStep:
        """The update that follows `done` others."""
        return self.blended_step if self.blended_step and done < self.plan.blend else self.train_step

    def card_after(self, done: int) -> ModelCard:
        """The card of the network that `done` updates leave."""
        card = dataclasses.replace(self.card, step=done)
        if done >= self.plan.blend:
            return card
        options = blended_options(card.options, self.config.train.blend.start, done / self.plan.blend)
        return dataclasses.replace(card, options=options)


def fit_sources(
    train: Source, held_out: Source | None, stored: ModelCard | None, *, accept_class_names: bool
) -> tuple[Source, Source | None, list[str]]:
    """Both splits with labels that mean the same, and what they mean in a run that goes on; notes on it.

    Args:
      stored: the card of the run that goes on; None for a new one.
      accept_class_names: see `data.class_names`.

    Raises:
      ClassNamesError: the run, or the training split, has other classes.
    """
    notes: list[str] = []
    how: dict[str, Any] = {"tell": notes.append, "accept": accept_class_names}
    if stored is not None:
        try:
            train = fit_classes(train, stored.outputs(), owner="the run", data="the training split", **how)
        except ClassNamesError as error:
            raise ClassNamesError(
                f"{error} To train on other classes, use another --workdir, with --config.init_from to start "
                "from the weights of this run."
            ) from error
    if held_out is not None:
        how |= {"owner": "the training split", "data": "the evaluation split", "subset": True}
        held_out = fit_classes(held_out, train.class_names, **how)
    return train, held_out, notes


def _make_evaluate(
    config: ConfigDict,
    mesh: Mesh,
    module: nn.Module,
    blended: nn.Module | None,
    plan: Plan,
    source: Source,
    evaluate: Evaluate,
) -> Callable[[TrainState, Callable[[], bool]], dict[str, float]]:
    """Binds `evaluate` to the images of `source`; it gets a state, and what tells whether to stop.

    Where the state has averages, the results are theirs, and under names with `RAW` those of the raw weights.
    A network that blends is evaluated as it is at the state's step; the results say with which `share`.
    """
    predict, predict_blended = make_predict(module, mesh), make_predict(blended or module, mesh)
    # Training images that are held out are left out if unreadable as the others are; of a test set none is.
    skip = bool(config.data.validation) and config.data.corrupt == "skip"

    def results_of(
        variables: PyTree, now: Mapping[str, float], step: int, stop_requested: Callable[[], bool]
    ) -> dict[str, float]:
        compute = functools.partial(predict_blended if now else predict, variables, **now)
        batches = own_eval_batches(source, config.data, config.eval.batch_size, skip=skip)
        until = until_termination(evaluated_batches(batches, mesh), step, stop_requested)
        found = dict(evaluate(compute, until))
        skipped = total(batches.skipped) if skip else 0
        return found | ({"skipped": skipped} if skipped else {})

    def results(state: TrainState, stop_requested: Callable[[], bool]) -> dict[str, float]:
        step = int(state.step)
        now = {"share": step / plan.blend} if step < plan.blend else {}
        found = results_of(state.evaluated(), now, step, stop_requested)
        if state.ema is not None:
            raw = results_of(state.raw(), now, step, stop_requested)
            found |= {f"{RAW}{name}": value for name, value in raw.items() if name not in OF_IMAGES}
        return found | now

    return results


def prepare(
    config: ConfigDict,
    mesh: Mesh,
    train: Source,
    held_out: Source | None,
    origin: str,
    evaluate: Evaluate | None,
) -> Parts:
    """The parts of a run over the training source.

    Args:
      train: of which `data.validation` holds out a part.
      held_out: images to evaluate on where nothing is held out of `train`.

    Raises:
      AliasFreeError: they do not fit each other, or the data.
    """
    if config.data.validation:
        train, held_out = hold_out(train, config.data.validation)
    plan = make_plan(config, len(train))
    card = make_card(config, train.class_names, origin)
    module = create_model(card.model, **card.options)
    schedule = learning_rate(config.optimizer, plan)
    optimizer = make_optimizer(config.optimizer, schedule)
    make_step = functools.partial(
        make_train_step,
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
        temperature=temperature(config.train.temperature, plan),
        label_smoothing=config.train.label_smoothing,
        mixing=Mixing.from_config(config.train.mixing),
        accumulation_steps=config.train.accumulation_steps,
        ema_decay=config.train.ema_decay,
    )
    blended = blended_network(card.model, card.options, config.train.blend.start) if plan.blend else None
    blended_step = make_step(blended, share=share(plan)) if blended else None
    evaluator = None
    if evaluate is not None and held_out is not None:
        evaluator = _make_evaluate(config, mesh, module, blended, plan, held_out, evaluate)
    return Parts(
        config,
        mesh,
        train,
        VALIDATION if config.data.validation else TEST,
        plan,
        module,
        card,
        optimizer,
        make_step(module),
        blended,
        blended_step,
        evaluator,
    )


def first_state(
    run: Parts, checkpoints: RunCheckpoints, initial: Initial | None, *, accept_class_names: bool = False
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
    start = starting_network(run.blended, initial[0] if initial else None) if run.blended else None
    if initial is not None:
        card, weights = initial
        notes.append(f"starting from the weights of {card.model} ({card.origin}, step {card.step})")
        how: dict[str, Any] = {"seed": seed, "tell": notes.append, "accept_class_names": accept_class_names}
        variables = adopt(card, weights, run.module, run.card, start=start, **how)
    state = create_state(
        run.module, run.optimizer, shape, run.mesh, seed=seed, average=average, variables=variables
    )
    return 0, state, notes
