"""Compares blocks of alias-free ResNets, ConvNeXts and XCiTs on validation images.

python -m experiments.blocks --data=CIFAR.tar.xz             two seeds of every candidate, 5 minutes each
python -m experiments.blocks --data=CIFAR.tar.xz --seeds=1   one seed: start one command per core

The candidates are trained as in the reduced protocol. Networks of full depth are trained as in the accurate
protocol, for 1.5 or 4 epochs of 20,000 images. The validation images are 5,000 training images of CIFAR-10
that no candidate is trained on. The test images are not used.

Results are written to experiments/results/blocks/<candidate>-<seed>.json. Existing results are skipped.
`python -m experiments --page` writes the tables of docs/experiments.md from them.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

import jax
import jax.numpy as jnp
from absl import flags, logging
from flax import linen as nn
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import PyTree, abstract_variables
from aliasfree_jax.commands import program, refuse
from aliasfree_jax.errors import DataError, NotFiniteError
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.report import Rows
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.layers import Layer, SpatialNorm, UpGate, UpPolynomial
from aliasfree_jax.models import create_model, register_part
from aliasfree_jax.ops.activation import GELU_QUADRATIC
from aliasfree_jax.training import optimizer
from aliasfree_jax.training.loop import run as train
from aliasfree_jax.training.progress import read_events
from aliasfree_jax.training.setup import model_options
from benchmarks.timing import machine
from experiments.matrix import TRAINING_IMAGES, VARIANTS, XCIT, Row, Run
from experiments.measuring import parameter_count
from experiments.protocols import ACCURATE, REDUCED, Protocol, configuration
from experiments.stored import ROOT, write_missing
from experiments.worker import commit, readers, training_seconds

RESULTS = ROOT / "experiments" / "results" / "blocks"
TRAININGS = ROOT / "runs" / "blocks"
SEEDS = (0, 1)
HELD_OUT = 5000  # validation images


class NormedUpPolynomial(Layer):
    """`UpPolynomial` of the sum, after an alias-free norm that bounds the sum."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""
        normed = SpatialNorm(**self.numerics, name="norm")(x)
        y: jax.Array = UpPolynomial(**self.numerics, name="polynomial")(normed)
        return y


class GatedSum(Layer):
    """Adds to the sum its product with a linear map of itself, after a norm that bounds both factors."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""
        normed = SpatialNorm(**self.numerics, name="norm")(x)
        by = nn.Dense(x.shape[-1], **self.numerics, name="linear")(normed)
        product = UpGate(**self.numerics, name="gate")(jnp.concatenate([normed, by], axis=-1))
        return x + product


register_part("activation", "normed_up_polynomial", NormedUpPolynomial)
register_part("activation", "gated_sum", GatedSum)


@contextmanager
def undecayed_coefficients() -> Iterator[None]:
    """Within this context, SGD does not decay the coefficients of polynomials."""
    usual = optimizer.sgd_decay_mask

    def mask(params: PyTree) -> PyTree:
        def decayed(path: tuple[Any, ...], of_sgd: bool) -> bool:
            return of_sgd and str(path[-1].key) != "coefficients"

        return jax.tree_util.tree_map_with_path(decayed, usual(params))

    with mock.patch.object(optimizer, "sgd_decay_mask", mask):
        yield


@dataclass(frozen=True)
class Budget:
    """How long candidates are trained. Candidates with equal budgets share a table.

    Attributes:
      protocol: The protocol of the training.
      images: Training images, including the validation images.
      epochs: Length of the training; None: that of the protocol.
      warmup_epochs: Length of the warm-up; None: that of the protocol.
    """

    protocol: Protocol
    images: int
    epochs: float | None = None
    warmup_epochs: float | None = None


SMALL = Budget(REDUCED, 10_000)
SHORT = Budget(ACCURATE, 25_000, epochs=1.5, warmup_epochs=0.3)
MIDDLE = Budget(ACCURATE, 25_000, epochs=4.0, warmup_epochs=0.8)


@dataclass(frozen=True)
class Candidate:
    """A network to compare.

    Attributes:
      name: Name in the table.
      variant: Key of the variant of the family that it changes.
      options: Options of the network.
      context: Context of the training.
      family: Family of the network.
      budget: Length of the training.
      augmentation: What moves the training images.
      optimizer: Fields of `config.optimizer` that it changes.
    """

    name: str
    variant: str = "afc"
    options: Mapping[str, Any] = field(default_factory=dict)
    context: Callable[[], AbstractContextManager[None]] = nullcontext
    family: str = "ResNet-20"
    budget: Budget = SMALL
    augmentation: str = "none"
    optimizer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name, with the training images if they are moved."""
        return (
            self.name if self.augmentation == "none" else f"{self.name}, {TRAINING_IMAGES[self.augmentation]}"
        )


def _small(name: str, **options: Any) -> Candidate:
    """A ResNet-20 of the reduced protocol with polynomials and, by default, a batch norm."""
    return Candidate(name, options={"norm": "batch", **options})


def _full(
    name: str, variant: str = "afc", optimizer: Mapping[str, Any] | None = None, **options: Any
) -> Candidate:
    """A ResNet-20 of full depth. Alias-free ones have standardised kernels and, by default, a batch norm."""
    options = {"conv": "standardised", "norm": "batch", **options} if variant == "afc" else options
    how: Any = {"budget": SHORT, "augmentation": "crops", "optimizer": optimizer or {}}
    return Candidate(name, variant, options, **how)


def _reflected(*args: Any, **kwargs: Any) -> Candidate:
    return replace(_full(*args, **kwargs), augmentation="reflected")


def _middle(*args: Any, **kwargs: Any) -> Candidate:
    return replace(_reflected(*args, **kwargs), budget=MIDDLE)


def _xcit(name: str, variant: str = "afg", **options: Any) -> Candidate:
    """An XCiT. The stem of gated ones gates after sampling if the options name no other."""
    stem = {"patch_stem": "sampled", "stem_first_activation": None} if variant == "afg" else {}
    return Candidate(name, variant, stem | options, family=XCIT)


def _gates(in_scale: float, out_scale: float) -> dict[str, Any]:
    """Gates in the MLPs and in the local patch interaction with other initial scales, which are learned."""
    scales = {"in_scale": in_scale, "out_scale": out_scale, "train_scale": True}
    return {"activation": {"name": "up_gate", **scales}}


_ADAMW: Mapping[str, Any] = {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05}
_GATED: Mapping[str, Any] = {"norm": "spatial", **_gates(7.0, 7.0)}
_LINEAR: Mapping[str, Any] = {**_GATED, **_gates(1.0, 1.0)}  # gates that start almost linear
_GATES: Mapping[str, Any] = {"optimizer": _ADAMW, **_GATED}
_BATCH: Mapping[str, Any] = {**_LINEAR, "norm": "bounded_batch"}
_SMALL_QUADRATIC = {"name": "up_polynomial", "initial": (*GELU_QUADRATIC[:2], GELU_QUADRATIC[2] / 3)}
CANDIDATES: Mapping[str, Candidate] = {
    "circular": Candidate("circular, ReLU (not alias-free)", "circular"),
    "sum": _small("no activation on the sum"),
    "normed": _small("activation on the normed sum", sum_activation="normed_up_polynomial"),
    "instance": _small("instance norm", norm="instance"),
    "standardised": _small("weight standardisation", conv="standardised"),
    "undecayed": replace(_small("no weight decay on coefficients"), context=undecayed_coefficients),
    "small": _small("a third of the initial quadratic term", activation=_SMALL_QUADRATIC),
    "full-circular": _full("circular, ReLU (not alias-free)", "circular"),
    "full-batch": _full("batch norm"),
    "full-spatial": _full("alias-free layer norm", norm="spatial"),
    "full-spatial-adamw": _full("alias-free layer norm, AdamW", optimizer=_ADAMW, norm="spatial"),
    "full-gate": _full("gates, AdamW", **_GATES),
    "reflected-circular": _reflected("circular, ReLU (not alias-free)", "circular"),
    "reflected-batch": _reflected("batch norm"),
    "reflected-spatial": _reflected("alias-free layer norm", norm="spatial"),
    "reflected-spatial-adamw": _reflected("alias-free layer norm, AdamW", optimizer=_ADAMW, norm="spatial"),
    "reflected-gate": _reflected("gates, AdamW", **_GATES),
    "reflected-gate-sum": _reflected(
        "gates, AdamW, gates on the normed sums", **_GATES, sum_activation="gated_sum"
    ),
    "reflected-gate-zero": _reflected("gates, AdamW, branches start at 0", **_GATES, zero_init_residual=True),
    "reflected-gate-zero-plain": _reflected(
        "gates, AdamW, branches start at 0, kernels not standardised",
        **_GATES,
        zero_init_residual=True,
        conv="plain",
    ),
    "middle-circular": _middle("circular, ReLU (not alias-free)", "circular"),
    "middle-circular-adamw": _middle("circular, ReLU, AdamW (not alias-free)", "circular", optimizer=_ADAMW),
    "middle-gate": _middle("gates, AdamW", **_GATES),
    "middle-gate-sgd": _middle("gates, SGD", **_GATED),
    "middle-gate-scales1": _middle("gates, AdamW, initial scales 1", optimizer=_ADAMW, **_LINEAR),
    "middle-gate-scales1-sgd": _middle("gates, SGD, initial scales 1", **_LINEAR),
    "middle-gate-group-sgd": _middle(
        "gates, SGD, initial scales 1, group norm of 8 groups",
        **{**_LINEAR, "norm": {"name": "group", "num_groups": 8}},
    ),
    "middle-gate-batch": _middle(
        "gates, AdamW, initial scales 1, bounded batch norm", optimizer=_ADAMW, **_BATCH
    ),
    "middle-gate-batch-plain": _middle(
        "gates, AdamW, initial scales 1, bounded batch norm, kernels not standardised",
        optimizer=_ADAMW,
        conv="plain",
        **_BATCH,
    ),
    "middle-gate-batch-sgd": _middle("gates, SGD, initial scales 1, bounded batch norm", **_BATCH),
    "middle-polynomial-batch": _middle("polynomials, SGD, bounded batch norm", norm="bounded_batch"),
    "middle-polynomial-batch-plain": _middle(
        "polynomials, SGD, bounded batch norm, kernels not standardised", norm="bounded_batch", conv="plain"
    ),
    "xcit-circular": _xcit("circular, GELU (not alias-free)", "circular"),
    "xcit-aft": _xcit("Alias-Free ViT (not alias-free)", "aft"),
    "xcit-afg": _xcit("gates, initial scales 1, not learned"),
    "xcit-scales71": _xcit("gates, initial scales 7 (inner) and 1", **_gates(7.0, 1.0)),
    "xcit-scales77": _xcit("gates, initial scales 7", **_gates(7.0, 7.0)),
    "xcit-mlp77": _xcit(
        "gates, initial scales 7 in the MLPs and 1 in the local interaction",
        local_activation="up_gate",
        **_gates(7.0, 7.0),
    ),
    "xcit-activated-last": _xcit("gates on a finer grid before sampling in all stages of the stem", "afgs"),
    "xcit-first-activated": _xcit(
        "gates before sampling in the first stage of the stem, with one low-passed half",
        patch_stem="first_activated",
    ),
    "xcit-activated-lowpass": _xcit(
        "gates before sampling in all stages of the stem, with one low-passed half",
        patch_stem="activated",
        stem_last_activation=None,
    ),
    "xcit-activated-lowpass-narrow": _xcit(
        "gates before sampling in all stages of the stem, with one low-passed half, MLPs of 3/4 of the width",
        patch_stem="activated",
        stem_last_activation=None,
        mlp_ratio=3.0,
    ),
    "xcit-bandlimited": _xcit(
        "gates before sampling in all stages of the stem, with two low-passed halves",
        patch_stem="activated",
        stem_activation="bandlimited_gate",
        stem_last_activation=None,
    ),
    "xcit-first-bandlimited": _xcit(
        "gates before sampling in the first stage of the stem, with two low-passed halves",
        patch_stem="first_activated",
        stem_first_activation="bandlimited_gate",
    ),
    "xcit-one-bandlimited": _xcit(
        "gates with two low-passed halves in the stem, before sampling in its first stage only",
        patch_stem="first_activated",
        stem_activation="bandlimited_gate",
    ),
    "xcit-stem-up-last": _xcit(
        "gates on a finer grid after sampling in all stages of the stem",
        stem_activation="up_gate",
        stem_last_activation=None,
    ),
    "xcit-pooled": _xcit("mean pooling instead of a class token", class_attention=None),
    "xcit-pooled77": _xcit(
        "mean pooling, gates with initial scales 7", class_attention=None, **_gates(7.0, 7.0)
    ),
    "convnext-lowpass": Candidate("gates, the stem's with one low-passed half", "afg", family="ConvNeXt"),
    "convnext-bandlimited": Candidate(
        "gates, the stem's with two low-passed halves",
        "afg",
        {"stem_activation": {**_gates(7.0, 7.0)["activation"], "name": "bandlimited_gate"}},
        family="ConvNeXt",
    ),
}


def config_of(candidate: Candidate, seed: int, data: str) -> ConfigDict:
    """The configuration of a candidate: its protocol, evaluated on held-out training images."""
    budget = candidate.budget
    known = {v.key: v for v in VARIANTS[candidate.family]}
    row = Row(candidate.family, known[candidate.variant], candidate.augmentation)
    config = configuration(budget.protocol, Run(row, seed), data)
    config.model.options.update(candidate.options)
    config.data.train_limit, config.data.validation = budget.images, HELD_OUT / budget.images
    config.train.total_epochs = budget.epochs or config.train.total_epochs
    config.optimizer.warmup_epochs = budget.warmup_epochs or config.optimizer.warmup_epochs
    config.optimizer.update(candidate.optimizer)
    return config


def perform(key: str, seed: int, data: str) -> dict[str, Any]:
    """Trains a candidate, and returns the result to store."""
    candidate, code = CANDIDATES[key], commit()
    config, workdir = config_of(candidate, seed, data), TRAININGS / f"{key}-{seed}"
    config.data.workers = readers()
    try:
        with candidate.context():
            summary = train(config, workdir, evaluate=evaluate, accept_changes=("data.path",))
        accuracy = summary.results["accuracy"]
    except NotFiniteError:
        accuracy = None
    about = machine()
    return {
        "accuracy": accuracy,
        "parameters": _parameters(config),
        "seconds": training_seconds(read_events(workdir), config.train.batch_size),
        "code": code,
        "command": f"python -m experiments.blocks --data={Path(data).name} --only={key} --seeds={seed}",
        "processor": about["device"],
        "load": about["load"],
    }


def _parameters(config: ConfigDict) -> int:
    network = create_model(config.model.name, **model_options(config, num_classes=10))
    return parameter_count(abstract_variables(network, config.data.image_size, len(config.data.mean)))


def path_of(key: str, seed: int) -> Path:
    """The file of a result."""
    return RESULTS / f"{key}-{seed}.json"


def table(family: str, budget: Budget = SMALL) -> Rows:
    """The stored results of a family and budget: the accuracy for every seed, and the mean.

    Raises:
      DataError: There are no results.
    """
    rows = list[list[str]]()
    for key, candidate in CANDIDATES.items():
        if (candidate.family, candidate.budget) != (family, budget):
            continue
        paths = [path for seed in SEEDS if (path := path_of(key, seed)).exists()]
        if runs := [json.loads(path.read_text()) for path in paths]:
            shares = [run["accuracy"] for run in runs]
            finite = [share for share in shares if share is not None]
            texts = ", ".join("not finite" if s is None else percent(s).rstrip("%") for s in shares)
            average = f"{100 * fmean(finite):.1f}" if finite == shares else ""
            rows.append([candidate.title, f"{runs[0]['parameters']:,}", texts, average])
    if not rows:
        raise DataError(f"{RESULTS} has no results. Run python -m experiments.blocks.")
    return [["block", "parameters", "accuracy of each seed, %", "mean"], *rows]


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", required=True, flag_values=values)
    flags.DEFINE_list("only", [], "candidates; default: all", flag_values=values)
    flags.DEFINE_list("seeds", [], "seeds; default: all", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    logging.set_verbosity(logging.WARNING)  # Orbax logs a lot at level INFO
    for seed in map(int, values.seeds or SEEDS):
        for key in values.only or CANDIDATES:
            write_missing(path_of(key, seed), partial(perform, key, seed, values.data))


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))
