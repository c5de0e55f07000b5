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
from aliasfree_jax.data import Source
from aliasfree_jax.data.class_names import ClassNamesError, fit_classes
from aliasfree_jax.models import create_model
from aliasfree_jax.models.convnext import ConvNeXt
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

# (images -> logits, batches) -> named results; passed in, so that training knows no evaluation.
Evaluate = Callable[[Callable[[Any], jax.Array], Iterable[Mapping[str, Any]]], Mapping[str, float]]
Initial = tuple[ModelCard, PyTree]  # weights to start from


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of a run that do not change while it trains."""

    config: ConfigDict
    mesh: Mesh
    plan: Plan
    module: nn.Module
    card: ModelCard
    optimizer: optax.GradientTransformation
    train_step: TrainStep
    blended: ConvNeXt | None  # the network of the first `plan.blend` updates
    blended_step: TrainStep | None
    evaluate: Callable[[TrainState], dict[str, float]] | None

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
) -> Callable[[TrainState], dict[str, float]]:
    """Binds `evaluate` to the evaluation split and to the variables of a state.

    A network that blends is evaluated as it is at the state's step; the results say with which `share`.
    """
    predict, predict_blended = make_predict(module, mesh), make_predict(blended or module, mesh)

    def results(state: TrainState) -> dict[str, float]:
        step = int(state.step)
        now = {"share": step / plan.blend} if step < plan.blend else {}
        compute = functools.partial(predict_blended if now else predict, state.evaluated(), **now)
        batches = own_eval_batches(source, config.data, config.eval.batch_size)
        return dict(evaluate(compute, evaluated_batches(batches, mesh))) | now

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

    Raises:
      AliasFreeError: they do not fit each other, or the data.
    """
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
        config, mesh, plan, module, card, optimizer, make_step(module), blended, blended_step, evaluator
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
