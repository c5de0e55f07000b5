"""Measures a trained network: all figures of the tables."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.data import Source, eval_batches, limit, open_source
from aliasfree_jax.evaluation.adversarial import adversarial_continuous, adversarial_integer
from aliasfree_jax.evaluation.alignment import equivariance_error, tolerance
from aliasfree_jax.evaluation.evaluator import Measurement, Results, evaluate, predictor
from aliasfree_jax.evaluation.reductions import WORST_CASE
from aliasfree_jax.evaluation.shift_sets import fractions, random_fraction, random_integer
from aliasfree_jax.evaluation.shifting import Circular, ZeroFilled
from aliasfree_jax.evaluation.trial import Predict
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift, integer_shift
from experiments.protocols import Measuring

GRIDS = (2, 3, 4)  # worst cases over multiples of 1/2, 1/3, 1/4 of a pixel


def random_shifts(side: int, how: Measuring) -> list[Measurement]:
    """Random shifts of every image: circular by whole and half pixels, and with zeros at the border."""
    keys = jax.random.split(jax.random.key(0), 3)  # equal shifts for all networks
    return [
        Measurement("integer", random_integer(how.draws, side - 1, keys[0])),
        Measurement("half_pixel", random_fraction(how.draws, side - 1, 2, keys[1])),
        Measurement("crop", random_integer(how.draws, how.largest_crop, keys[2]), ZeroFilled()),
    ]


def worst_cases(side: int, how: Measuring) -> list[Measurement]:
    """All integer shifts, all multiples of some fractions, and a search over real-valued shifts."""
    radius = side // 2
    grids = {f"1/{n}": fractions(n).scattered() for n in GRIDS}
    search = {"points": how.points, "starts": how.starts, "steps": how.steps}
    return [
        adversarial_integer(side, radius),
        Measurement("adversarial_fraction", grids, Circular(), (WORST_CASE,)),
        adversarial_continuous(radius, **search),
    ]


def map_errors(module: nn.Module, variables: PyTree, images: np.ndarray) -> dict[str, float]:
    """Equivariance error of the last feature map for a shift by one pixel and by half a pixel on both axes.

    It is the largest difference to the shifted map, relative to the largest value. The map may also move by
    the pixels that adaptive samplers choose (see `evaluation.alignment`).
    """

    @jax.jit
    def features(variables: PyTree, images: jax.Array) -> jax.Array:
        _, sown = module.apply(variables, images, train=False, mutable=["intermediates"])
        found: jax.Array = sown["intermediates"]["features"][0]
        return found

    def maps(images: jax.Array) -> np.ndarray:
        return np.asarray(features(variables, images))

    exact, still = tolerance(np.float32), remove_nyquist(jnp.asarray(images))
    reference = maps(still)
    moved = {
        "integer": integer_shift(still, jnp.full((len(images), 2), 1)),
        "half_pixel": fractional_shift(still, jnp.full((len(images), 2), 0.5)),
    }
    errors = {}
    for (name, shifted), by in zip(moved.items(), (1.0, 0.5), strict=True):
        errors[name], _ = equivariance_error(reference, maps(shifted), (by, by), images.shape, exact)
    return errors


def measure(
    module: nn.Module, variables: PyTree, config: ConfigDict, how: Measuring, source: Source | None = None
) -> dict[str, Any]:
    """Measures a network on the test images of its configuration, or on those of `source`.

    Returns:
      Results of `evaluate` for random shifts of all images. "worst" has the worst cases of the searched
      images, and "map" the equivariance errors.
    """
    source = open_source(config.data, train=False) if source is None else source
    predict = predictor(module, variables)
    searched = limit(source, how.worst_images)
    mapped = limit(source, how.mapped_images)
    images = next(iter(eval_batches(mapped, config.data, batch_size=len(mapped))))["image"]
    side = images.shape[1]
    return {
        **_evaluated(predict, source, config, random_shifts(side, how)),
        "worst": _evaluated(predict, searched, config, worst_cases(side, how)),
        "map": {"images": len(mapped), **map_errors(module, variables, images)},
    }


def _evaluated(
    predict: Predict, source: Source, config: ConfigDict, measurements: list[Measurement]
) -> Results:
    batches = eval_batches(source, config.data, batch_size=config.eval.batch_size)
    return evaluate(predict, batches, measurements)


def parameter_count(variables: Mapping[str, Any]) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
