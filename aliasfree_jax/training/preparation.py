"""From a configuration to the parts of a run, and to the state that it starts from."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard, PyTree, RunCheckpoints
from aliasfree_jax.data import Source, eval_batches
from aliasfree_jax.errors import DataError
from aliasfree_jax.models import create_model
from aliasfree_jax.training.initial import adopt
from aliasfree_jax.training.mesh import evaluated_batches, even_batch_size, own_share
from aliasfree_jax.training.mixing import Mixing
from aliasfree_jax.training.network import make_card
from aliasfree_jax.training.optimizer import make_optimizer
from aliasfree_jax.training.plan import Plan, make_plan
from aliasfree_jax.training.recipe import learning_rate, temperature
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
    batch_size = even_batch_size(config.eval.batch_size)

    def results(state: TrainState) -> dict[str, float]:
        variables = state.evaluated()
        batches = eval_batches(source, config.data, batch_size=batch_size, share=own_share())
        on_devices = evaluated_batches(batches, mesh)
        return dict(evaluate(lambda images: predict(variables, images), on_devices))

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
    return Parts(config, mesh, plan, module, card, optimizer, train_step, evaluator)


def first_state(
    run: Parts, checkpoints: RunCheckpoints, initial: Initial | None
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
