"""Makes all parts of a run from a configuration. The configuration is read only here."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import (
    PREPARATION,
    ModelCard,
    PyTree,
    network_of,
    newest_card,
)
from aliasfree_jax.config import PRECISIONS, RAW
from aliasfree_jax.data import BatchStream, Source, hold_out, open_source, train_batches
from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.data.class_names import ClassNamesError, fit_classes
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.foreign import Adapted, check_unchanged, file_sha256
from aliasfree_jax.processes import total
from aliasfree_jax.references import located
from aliasfree_jax.training.adapting import check_call, check_outputs
from aliasfree_jax.training.mesh import check_batch, evaluated_batches, make_mesh, own_eval_batches, own_part
from aliasfree_jax.training.mixing import Mixing, write_contact_sheet
from aliasfree_jax.training.objective import make_objective
from aliasfree_jax.training.optimizer import make_optimizer
from aliasfree_jax.training.resuming import until_termination
from aliasfree_jax.training.schedules import Plan, learning_rate, make_plan, temperature
from aliasfree_jax.training.state import StateBuilder, TrainState
from aliasfree_jax.training.step import Predict, TrainStep, make_predict, make_train_step
from aliasfree_jax.transform import what_is_left
from aliasfree_jax.validation import validate

# (images -> logits, batches) -> named results. It is passed in, so that training does not import evaluation.
Evaluate = Callable[[Callable[[Any], jax.Array], Iterable[Mapping[str, Any]]], Mapping[str, float]]
OF_IMAGES = ("images", "skipped")  # results that do not depend on the weights
VALIDATION, TEST = "validation", "test"  # images held out of the training split, or the evaluation split


def model_options(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    """The keyword arguments of `create_model` for a configuration and a number of classes."""
    return {
        **PRECISIONS[config.train.precision],
        # Only ConvNeXts have the option.
        **({} if config.train.remat == "auto" else {"remat": config.train.remat}),
        **config.model.options.to_dict(),
        "num_classes": num_classes,
    }


def make_card(config: ConfigDict, class_names: Iterable[str], origin: str) -> ModelCard:
    """The card, at step 0, of the network that `config` trains."""
    names = tuple(class_names)
    preparation = {name: config.data[name] for name in PREPARATION}
    model = located(config.model.name)
    return ModelCard(
        model=model,
        options=model_options(config, len(names)),
        class_names=names,
        image_size=Preprocessing.from_config(config.data, config.task).input_size,
        channels=len(config.data.mean),
        step=0,
        origin=origin,
        task=config.task,
        shift_invariant=config.model.shift_invariant.to_dict(),
        file_sha256=file_sha256(model),
        **preparation | {name: tuple(preparation[name]) for name in ("mean", "std")},
    )


def check_network(config: ConfigDict) -> None:
    """Checks the network's options, task and image size before any data are read.

    Warns if the network has an exact sampler, but something else breaks its invariance.

    Raises:
      AliasFreeError: the options, the task or the image size do not fit the network.
    """
    card = make_card(config, ["a class"], "")
    network = network_of(card)
    if isinstance(network, Adapted):
        constant = config.train.temperature.schedule == "constant"
        now = {} if constant else {"temperature": jax.ShapeDtypeStruct((), jax.numpy.float32)}
        check_call(network, card, **now)
    elif left := what_is_left(card.model, network, card.options):
        warnings.warn(left, stacklevel=1)
    if isinstance(network, Adapted):
        return  # its output is checked when the number of classes is known
    image = jax.ShapeDtypeStruct((1, card.image_size, card.image_size, card.channels), jax.numpy.float32)
    outputs, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), image)
    dense = outputs.ndim == image.ndim
    if dense == (config.task == "classification"):
        given, others = (
            ("a map", "'segmentation' or 'regression', or model.name to a classifier")
            if dense
            else ("one vector", "'classification', or model.name to a U-Net or DeepLabV3+ (unet_*, deeplab*)")
        )
        raise ConfigError(
            f"model.name = {card.model!r} returns {given} for each image, which does not fit task = "
            f"{config.task!r}: set task to {others}."
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of a network during training.

    Attributes:
      measure: the function that evaluates.
      batches: makes the batches of all images, with this process's rows.
      skips: whether unreadable images are left out and counted.
      images: name of the images: VALIDATION or TEST.
      best: the best network by this result is kept; "": none.
    """

    measure: Evaluate
    batches: Callable[[], BatchStream]
    skips: bool
    images: str
    best: str


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its two functions, each compiled at its first use."""

    module: nn.Module
    train_step: TrainStep
    predict: Predict


@dataclasses.dataclass(frozen=True)
class Setup:
    """All decisions that a configuration makes about a run. They do not change during training.

    Attributes:
      mesh: the devices.
      plan: the durations.
      keep: number of checkpoints to keep.
      batches: (start_step=...) -> training batches with this process's rows.
      draw_batch: writes a picture of images as the network sees them.
      card: describes the network.
      network: the network and its functions.
      states: makes the initial state.
      evaluation: the evaluation during training; None: none.
      notes: lines for the user.
    """

    mesh: Mesh
    plan: Plan
    keep: int
    batches: Callable[..., BatchStream]
    draw_batch: Callable[[Path, np.ndarray], None]
    card: ModelCard
    network: Network
    states: StateBuilder
    evaluation: Evaluation | None
    notes: list[str]

    def evaluate(self, state: TrainState, stop_requested: Callable[[], bool]) -> dict[str, float]:
        """The results of the evaluation; {} if there is none.

        If the state has averages, the results are those of the averages. Names that start with `RAW` are
        results of the raw weights.

        Raises:
          TerminatedError: SIGTERM came.
        """
        evaluation, step = self.evaluation, int(state.step)
        if evaluation is None:
            return {}

        def results_of(variables: PyTree) -> dict[str, float]:
            compute = functools.partial(self.network.predict, variables)
            batches = evaluation.batches()
            placed = until_termination(evaluated_batches(batches, self.mesh), step, stop_requested)
            found = dict(evaluation.measure(compute, placed))
            skipped = total(batches.skipped) if evaluation.skips else 0
            return found | ({"skipped": skipped} if skipped else {})

        found = results_of(state.evaluated())
        if state.ema is not None:
            raw = results_of(state.raw())
            found |= {f"{RAW}{name}": value for name, value in raw.items() if name not in OF_IMAGES}
        return found


def fit_sources(
    train: Source, held_out: Source | None, stored: ModelCard | None, *, accept_class_names: bool
) -> tuple[Source, Source | None, list[str]]:
    """Makes labels mean the same in both splits, and in the run that is resumed.

    Args:
      train: the training split.
      held_out: the evaluation split; None if there is none.
      stored: the card of the run that is resumed; None for a new run.
      accept_class_names: see `data.class_names`.

    Returns:
      Both splits, and notes for the user.

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


def _network(
    config: ConfigDict, card: ModelCard, plan: Plan, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Network:
    """The network, and its training step as configured."""
    module = network_of(card)
    heat = temperature(config.train.temperature, plan)
    step = make_train_step(
        module,
        optimizer,
        learning_rate(config.optimizer, plan),
        mesh,
        scheduled={} if heat is None else {"temperature": heat},
        objective=make_objective(config.task, config.train.loss, config.train.label_smoothing),
        mixing=Mixing.from_config(config.train.mixing),
        accumulation_steps=config.train.accumulation_steps,
        ema_decay=config.train.ema_decay,
    )
    return Network(module, step, make_predict(module, mesh))


def _open_data(
    config: ConfigDict,
    evaluate: Evaluate | None,
    sources: tuple[Source, Source | None] | None,
    stored: ModelCard | None,
    accept_class_names: bool,
) -> tuple[Source, Evaluation | None, list[str]]:
    """The training images, the evaluation, and notes.

    The arguments are those of `set_up`; `stored` is the card of the run that is resumed.
    """
    if sources is None:
        train = open_source(config.data, train=True, task=config.task)
        sources = train, open_source(config.data, train=False, task=config.task) if evaluate else None
    train, held_out = sources if evaluate else (sources[0], None)
    train, held_out, notes = fit_sources(train, held_out, stored, accept_class_names=accept_class_names)
    images, whole = TEST, len(train)
    if config.data.validation:
        images, (train, held_out) = VALIDATION, hold_out(train, config.data.validation)
        notes.append(
            f"validation: {whole - len(train)} of {whole} training images are held out (data.validation)"
        )
    elif held_out is not None and config.checkpoint.best:
        notes.append(
            "best by test images: data.validation=0, so the network in best/ is chosen on the evaluation "
            "split, and its results there are too good; data.validation=0.1 chooses on held-out training "
            "images"
        )
    evaluation = None
    if evaluate is not None and held_out is not None:
        # Unreadable images are skipped if they come from the training split, but never in a test set.
        skips = images == VALIDATION and config.data.corrupt == "skip"
        batches = functools.partial(
            own_eval_batches, held_out, config.data, config.eval.batch_size, skip=skips
        )
        evaluation = Evaluation(evaluate, batches, skips, images, config.checkpoint.best)
    return train, evaluation, notes


def set_up(
    config: ConfigDict,
    *,
    evaluate: Evaluate | None = None,
    sources: tuple[Source, Source | None] | None = None,
    origin: str = "",
    workdir: Path | None = None,
    accept_class_names: bool = False,
) -> Setup:
    """Makes all decisions that `config` makes about a run.

    Args:
      config: the configuration.
      evaluate: see `loop.run`.
      sources: see `loop.run`.
      origin: see `loop.run`.
      workdir: directory of the run. If the run is resumed, it keeps its classes.
      accept_class_names: see `loop.run`.

    Raises:
      AliasFreeError: the configuration is invalid, or does not fit the devices or the data.
    """
    validate(config)
    mesh = make_mesh(config.train.devices, config.train.parameter_shards)
    check_batch(config.train.batch_size, config.train.accumulation_steps, mesh)
    stored = newest_card(workdir) if workdir else None
    if stored and stored.file_sha256 and stored.model == located(config.model.name):
        check_unchanged(stored.model, stored.file_sha256)
    check_network(config)
    train, evaluation, notes = _open_data(config, evaluate, sources, stored, accept_class_names)
    plan = make_plan(config, len(train))
    card = make_card(config, train.class_names, origin)
    optimizer = make_optimizer(config.optimizer, learning_rate(config.optimizer, plan))
    network = _network(config, card, plan, optimizer, mesh)
    if isinstance(network.module, Adapted):
        check_outputs(network.module, card)
    shape = card.image_size, card.image_size, card.channels
    average = config.train.ema_decay > 0
    return Setup(
        mesh=mesh,
        plan=plan,
        keep=config.checkpoint.keep,
        batches=functools.partial(
            train_batches,
            train,
            config.data,
            batch_size=config.train.batch_size,
            seed=config.seed,
            part=own_part(),
        ),
        draw_batch=functools.partial(write_contact_sheet, config),
        card=card,
        network=network,
        states=StateBuilder(network.module, optimizer, shape, mesh, average, config.seed),
        evaluation=evaluation,
        notes=notes,
    )
