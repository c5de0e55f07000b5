"""Tests of the search for worst cases over real-valued shifts."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import alias_free, labelled, smooth_noise, strided

from aliasfree_jax import create_model
from aliasfree_jax.errors import AliasFreeError, ConfigError
from aliasfree_jax.evaluation.adversarial import adversarial_continuous, adversarial_fraction
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate, predictor
from aliasfree_jax.evaluation.reductions import WORST_CASE
from aliasfree_jax.evaluation.search import Ascent, spread_points
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh

SQUARE = (0.0, 0.0), (1.0, 1.0)  # contains the fractions of a pixel


def searched(points=16, starts=2, steps=12, box=SQUARE):
    refine = Ascent(*box, starts=starts, steps=steps)
    return Measurement("search", Grid(spread_points(*box, points)), reductions=(WORST_CASE,), refine=refine)


def worst(predict, batch, *measurements, **options):
    results = evaluate(predict, [batch], measurements, **options)
    return [results[m.name]["worst_case_accuracy"] for m in measurements]


def test_points_fill_the_box_evenly():
    points = spread_points((-2, 0, 5), (2, 1, 7), 64)
    assert points.shape == (64, 3)
    low, high = np.float32([-2, 0, 5]), np.float32([2, 1, 7])
    share = (points - low) / (high - low)
    assert (share >= 0).all() and (share < 1).all()
    for axis in range(3):  # each quarter of an axis has 16 points; random points would deviate by 3.5
        counts, _ = np.histogram(share[:, axis], bins=4, range=(0, 1))
        assert np.abs(counts - 16).mean() <= 2


def test_the_search_finds_a_narrow_failure_between_the_grids():
    # A wave along the rows: cos(2 pi (shift - 0.61) / 8) > 0.9997 only for shifts within 0.03 of 0.61.
    wave = np.cos(2 * np.pi * (np.arange(8) + 0.61) / 8)
    image = np.broadcast_to(wave[None, :, None, None], (1, 8, 8, 1)).astype(np.float32)

    def corner(images):
        value = images[:, 0, 0, 0]
        return jnp.stack([jnp.zeros_like(value), value - 0.9997], axis=-1)

    batch = {"image": image, "label": np.zeros(1, int), "mask": np.ones(1)}
    assert worst(corner, batch, adversarial_fraction(4), searched(points=4, starts=2)) == [1, 0]
    assert worst(corner, batch, searched(points=4, starts=2, steps=1)) == [1]  # only the ascent finds it


def test_it_finds_what_the_grids_miss_and_nothing_where_there_is_nothing():
    batch = labelled(strided, smooth_noise(16, 16))
    grids, search = worst(strided, batch, adversarial_fraction(4), searched())
    assert search < grids < 1
    exact = smooth_noise(9, 15)  # an odd side has no Nyquist frequency
    assert worst(alias_free, labelled(alias_free, exact), searched(), adversarial_continuous(7)) == [1, 1]


def test_what_it_reports_is_true():
    batch = labelled(strided, smooth_noise(16, 16))
    (found,) = worst(strided, batch, searched())
    # A dense grid finds at most the failures of the search, except between the points.
    right = np.ones(16, bool)
    shifted = jax.jit(lambda shift: strided(fractional_shift(batch["image"], shift)).argmax(-1))
    for shift in product(np.linspace(0, 1, 21), repeat=2):
        right &= np.asarray(shifted(np.full((16, 2), shift, np.float32))) == batch["label"]
    assert found <= right.mean() + 1 / 16


@pytest.mark.parametrize("predict", [strided, alias_free])  # most images are fooled, or none
def test_the_progress_bar_moves_during_the_ascent_and_ends_full(predict):
    batch = labelled(predict, smooth_noise(9, 15))
    batch["mask"][-2:] = 0
    wanted, told = searched(points=4, starts=2, steps=6), []
    results = evaluate(predict, [batch], [wanted], advance=told.append)
    assert sum(told) == 7 * (1 + wanted.count) == 7 * (1 + 4 + 2 * 6 + 2)
    assert results["search"]["pairs"] <= 7 * (4 + 2)  # steps of the ascent do not count as evaluated shifts
    if predict is alias_free:
        # Unshifted, four shifts, six steps of two batches, and the ends: 14 pairs need two batches of 9.
        assert [n for n in told if n] == [7, 9, 9, 9, 1, *[9, 5] * 6, 9, 5]


def test_over_devices_and_with_padding():
    batch = labelled(strided, smooth_noise(16, 16))
    expected = worst(strided, batch, searched())
    (divided,) = evaluated_batches([batch], make_mesh())
    assert worst(strided, divided, searched()) == expected
    padded = {name: np.concatenate([values, values[:4]]) for name, values in batch.items()}
    padded["mask"][-4:] = 0
    padded["label"][-4:] = 0
    assert worst(strided, padded, searched()) == expected


def test_networks_that_cannot_be_differentiated_are_refused():
    batch = labelled(alias_free, smooth_noise(2, 15))
    with pytest.raises(ConfigError, match="must be a JAX function"):
        worst(lambda images: np.asarray(alias_free(np.asarray(images))), batch, searched())
    broken = jax.jit(
        lambda x: jnp.where(x[:, :1, 0, 0] == batch["image"][0, 0, 0, 0], 1.0, jnp.nan) * alias_free(x)
    )
    with pytest.raises(AliasFreeError, match="not finite"):
        worst(broken, batch, searched())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exact"), [("convnext_micro", False), ("convnext_afc_micro", True)])
def test_real_networks(name, exact):
    """Random weights that are large enough to have an effect."""
    images = smooth_noise(16 if exact else 48, 32)
    module = create_model(name, num_classes=10, depths=(1,), widths=(16,))
    variables = jax.jit(lambda: module.init(jax.random.key(0), images[:1], train=False))()

    def larger(leaf):
        fan_in = np.prod(leaf.shape[:-1])
        return 0.5 / np.sqrt(fan_in) * jax.random.normal(jax.random.key(leaf.size), leaf.shape)

    variables = jax.tree.map(lambda leaf: larger(leaf) if leaf.ndim > 1 else leaf, variables)
    predict = predictor(module, variables)
    grids, search = worst(predict, labelled(predict, images), adversarial_fraction(4), searched())
    assert (grids == search == 1) if exact else search < grids < 1
