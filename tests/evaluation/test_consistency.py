"""The measures, against classifiers whose answers are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import AliasFreeError, ConfigError, DataError, ShapeError
from aliasfree_jax.evaluation.consistency import compare, evaluate, largest_shift
from aliasfree_jax.evaluation.shifts import integer_shifts
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh

SIDE = 8


def batch(images, labels=None, padding=0):
    """A batch with `padding` more images, whose content must not matter."""
    labels = np.zeros(len(images), int) if labels is None else np.asarray(labels)
    extra = np.full((padding, *images.shape[1:]), 1e3, np.float32)
    mask = np.arange(len(images) + padding) < len(images)
    return {
        "image": np.concatenate([images, extra]).astype(np.float32),
        "label": np.concatenate([labels, np.zeros(padding, int)]),
        "mask": mask.astype(np.float32),
    }


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, SIDE, SIDE, 3)).astype(np.float32)


def one_dot(count):
    """Black images with a white pixel at (0, 0)."""
    images = np.zeros((count, SIDE, SIDE, 1), np.float32)
    images[:, 0, 0] = 1
    return images


def corner_pixel(images):
    """Class 1 where the pixel at (0, 0) is above 1/2, else class 0."""
    value = images[:, 0, 0, 0]
    return jnp.stack([0.5 - value, value - 0.5], axis=-1)


WEIGHTS = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


@jax.jit
def global_mean(images):
    """Exactly invariant for every shift, up to the rounding of the mean."""
    return images.mean((1, 2)) @ WEIGHTS


@jax.jit
def strided(images):
    """Reads every fourth sample: aliases, so no shift is safe."""
    return jax.nn.gelu(images[:, ::4, ::4]).mean((1, 2)) @ WEIGHTS


def own_predictions(predict, images):
    return np.asarray(predict(images)).argmax(-1)


def test_a_dot_that_leaves_its_place_always_changes_the_class():
    # No drawn shift is zero, so the dot always leaves (0, 0): no pair agrees, but class 0 is right
    # for every shifted image.
    result = evaluate(corner_pixel, [batch(one_dot(5), [1, 1, 1, 0, 0])], integer=True, shifts=4, max_shift=3)
    assert result["images"] == 5 and result["accuracy"] == 3 / 5
    integer = result["integer"]
    assert integer["pairs"] == 20
    assert integer["consistency"] == 0
    assert integer["accuracy"] == 2 / 5
    assert integer["worst_case_accuracy"] == 0
    # Logits (-1/2, 1/2) become (1/2, -1/2): probabilities of class 1 from 1 / (1 + 1/e) to 1 / (1 + e).
    expected = 1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(1))
    assert integer["probability_change"] == pytest.approx({"mean": expected, "max": expected})
    assert integer["logit_change"] == pytest.approx({"mean": 2.0, "max": 2.0})


def test_consistency_counts_exactly_the_pairs_that_agree():
    # A bright first row: the corner stays bright exactly when the vertical shift is 0 (mod the side).
    images = np.zeros((60, SIDE, SIDE, 1), np.float32)
    images[:, 0] = 1
    seed, shifts = 5, 2
    batches = [batch(images, np.ones(60, int))]
    result = evaluate(corner_pixel, batches, integer=True, shifts=shifts, max_shift=1, seed=seed)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), 0)
    stays = np.asarray(integer_shifts(key, shifts, 60, 1))[..., 0] == 0
    assert 0 < stays.all(0).mean() < stays.mean() < 1  # the case is not trivial
    assert result["integer"]["consistency"] == stays.mean()
    assert result["integer"]["accuracy"] == stays.mean()
    assert result["integer"]["worst_case_accuracy"] == stays.all(0).mean()


def test_worst_case_needs_every_shift_and_the_image_itself():
    # Flat images never change class; the second is labelled wrongly; the third has a dot that leaves.
    images = np.concatenate([np.zeros((2, SIDE, SIDE, 1)), one_dot(1), np.ones((1, SIDE, SIDE, 1))])
    result = evaluate(corner_pixel, [batch(images, [0, 1, 0, 1])], integer=True, shifts=3, max_shift=2)[
        "integer"
    ]
    assert result["consistency"] == 3 / 4
    assert result["accuracy"] == 3 / 4  # images 0, 2 and 3: the dot of image 2 is gone
    assert result["worst_case_accuracy"] == 2 / 4  # image 2 is wrong unshifted


@pytest.mark.parametrize("kind", ["integer", "fractional"])
def test_an_invariant_classifier_is_consistent_to_rounding(kind):
    images = noise(12)
    labels = own_predictions(global_mean, images)
    result = evaluate(global_mean, [batch(images, labels)], **{kind: True}, shifts=8, max_shift=8)
    assert result["accuracy"] == 1
    assert result[kind]["consistency"] == result[kind]["worst_case_accuracy"] == result[kind]["accuracy"] == 1
    # Means of 64 float32 numbers of size 1, near 0.1: relative rounding about 1e-6.
    assert result[kind]["logit_change"]["max"] < 1e-5
    assert result[kind]["probability_change"]["max"] < 1e-6


@pytest.mark.parametrize("kind", ["integer", "fractional"])
def test_an_aliasing_classifier_is_not(kind):
    images = noise(24)
    labels = own_predictions(strided, images)
    result = evaluate(strided, [batch(images, labels)], **{kind: True}, shifts=8, max_shift=8)
    assert result["accuracy"] == 1
    assert result[kind]["worst_case_accuracy"] < result[kind]["consistency"] < 0.95
    assert result[kind]["logit_change"]["mean"] > 0.1
    parts = result[kind].get("grids", {}).values()
    assert all(part["consistency"] < 1 for part in parts)


def test_padding_and_batch_size_change_nothing():
    images, labels = noise(10), np.arange(10) % 5
    options = {"integer": True, "fractional": True, "shifts": 4, "max_shift": 3}
    whole = evaluate(strided, [batch(images, labels)], **options)
    pieces = [batch(images[:6], labels[:6]), batch(images[6:], labels[6:], padding=2)]
    found = evaluate(strided, pieces, **options)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    # float32 sums may be taken in another order for another batch size.
    np.testing.assert_allclose(jax.tree.leaves(found), jax.tree.leaves(whole), rtol=1e-5)


def test_padding_in_the_middle_of_a_batch_is_left_out():
    images = np.concatenate([one_dot(2), np.zeros((2, SIDE, SIDE, 1), np.float32)])
    masked = batch(images, [0, 0, 0, 0]) | {"mask": np.array([0, 0, 1, 1])}
    result = evaluate(corner_pixel, [masked], integer=True, shifts=2, max_shift=2)
    assert (result["images"], result["accuracy"]) == (2, 1)
    assert (result["integer"]["pairs"], result["integer"]["consistency"]) == (4, 1)
    assert result["integer"]["logit_change"]["max"] == 0


def test_fractional_draws_take_turns_on_the_grids():
    result = evaluate(global_mean, [batch(noise(3))], fractional=True, shifts=6, max_shift=2)["fractional"]
    assert {grid: part["pairs"] for grid, part in result["grids"].items()} == {
        "1/2": 6, "1/3": 6, "1/4": 3, "real": 3,
    }  # fmt: skip
    assert result["pairs"] == 18
    few = evaluate(global_mean, [batch(noise(3))], fractional=True, shifts=1, max_shift=2)["fractional"]
    assert [*few["grids"]] == ["1/2"]


def test_without_shifts_there_is_plain_accuracy():
    images = noise(7)
    labels = own_predictions(strided, images)
    labels[:2] += 1
    assert evaluate(strided, [batch(images, labels)]) == {"images": 7, "accuracy": 5 / 7}


def test_numpy_functions_and_divided_batches_can_be_measured():
    images = noise(8)

    def in_numpy(shown):
        return np.asarray(shown).mean((1, 2)) @ WEIGHTS

    result = evaluate(in_numpy, [batch(images)], integer=True, shifts=2, max_shift=3)
    assert result["integer"]["consistency"] == 1
    for shown in (images, images[:5]):  # 5 images are filled up to 8 on 4 devices
        placed = list(evaluated_batches([batch(shown)], make_mesh()))
        assert len(placed[0]["image"].sharding.device_set) == jax.local_device_count()
        divided = evaluate(strided, placed, integer=True, fractional=True, shifts=4)
        single = evaluate(strided, [batch(shown)], integer=True, fractional=True, shifts=4)
        assert divided["images"] == len(shown)
        np.testing.assert_allclose(jax.tree.leaves(divided), jax.tree.leaves(single), rtol=1e-5)  # float32


def test_the_largest_shift_is_below_the_shorter_side():
    assert largest_shift(32, (4, 16, 24, 3)) == 15  # a shift by 16 would be none
    assert largest_shift(5, (4, 16, 24, 3)) == 5


def test_logits_that_are_all_zero_have_not_changed():
    zeros = np.zeros((2, 3))
    same = compare(zeros, zeros, np.array([0, 1]))
    np.testing.assert_array_equal(same.logit_change, 0)
    np.testing.assert_array_equal(same.correct, [True, False])
    assert np.isfinite(compare(zeros, zeros + 1, np.array([0, 1])).logit_change).all()


def test_unusable_networks_and_data_are_refused():
    images = noise(2)
    with pytest.raises(DataError, match="no image"):
        evaluate(global_mean, [])
    with pytest.raises(DataError, match="no image"):
        evaluate(global_mean, [batch(images) | {"mask": np.zeros(2)}])
    with pytest.raises(ShapeError, match=r"\[2, classes\], got shape \[2, 8, 8\]"):
        evaluate(lambda x: x[..., 0], [batch(images)])
    with pytest.raises(AliasFreeError, match="logits of 2 of 2 images are not finite"):
        evaluate(lambda x: x.mean((1, 2)) * np.nan, [batch(images)])
    with pytest.raises(ConfigError, match="shifts must be at least 1"):
        evaluate(global_mean, [batch(images)], integer=True, shifts=0)
    with pytest.raises(ConfigError, match="max_shift of at least 1"):
        evaluate(global_mean, [batch(images)], integer=True, max_shift=0)
