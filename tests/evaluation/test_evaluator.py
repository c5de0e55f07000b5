"""Tests of the evaluator with classifiers whose outputs are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import AliasFreeError, ConfigError, DataError, NotFiniteError, ShapeError
from aliasfree_jax.evaluation import evaluator
from aliasfree_jax.evaluation.comparison import CompareFeatures, compare_logits
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.measurements import fractional_shifts, integer_shifts, largest_shift
from aliasfree_jax.evaluation.reductions import (
    ACCURACY,
    CONSISTENCY,
    PAIR_CONSISTENCY,
    UNSHIFTED,
    WORST_CASE,
    Change,
    MeanOfBatches,
    PerShift,
    WorstCaseByRadius,
)
from aliasfree_jax.evaluation.shift_sets import Grid, random_integer, square
from aliasfree_jax.evaluation.shifting import Crop
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh

SIDE = 8


def evaluate(predict, batches, *, integer=False, fractional=False, **draws):
    """Measures random circular shifts of both kinds."""
    draws = {"shifts": 8, "max_shift": 32, "seed": 0} | draws
    wanted = [make for make, on in ((integer_shifts, integer), (fractional_shifts, fractional)) if on]
    measurements = [make(SIDE, **draws) for make in wanted]
    results = evaluator.evaluate(predict, batches, measurements)
    for measurement in measurements:
        assert results[measurement.name].pop("about").startswith(f"{draws['shifts']} random shifts per image")
    return results


def batch(images, labels=None, padding=0):
    """A batch with `padding` additional images, which must not change results."""
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
    """Class 1 if the pixel at (0, 0) is above 1/2, otherwise class 0."""
    value = images[:, 0, 0, 0]
    return jnp.stack([0.5 - value, value - 0.5], axis=-1)


WEIGHTS = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


@jax.jit
def global_mean(images):
    """Invariant to every shift, up to rounding of the mean."""
    return images.mean((1, 2)) @ WEIGHTS


@jax.jit
def strided(images):
    """Reads every fourth sample. It aliases, so every shift may change its output."""
    return jax.nn.gelu(images[:, ::4, ::4]).mean((1, 2)) @ WEIGHTS


def own_predictions(predict, images):
    return np.asarray(predict(images)).argmax(-1)


def test_a_dot_that_leaves_its_place_always_changes_the_class():
    # No drawn shift is zero, so the dot always leaves (0, 0). The class always changes, and class 0 is
    # correct for every shifted image.
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
    # The first row is bright: the corner stays bright only if the vertical shift is 0 (modulo the side).
    images = np.zeros((60, SIDE, SIDE, 1), np.float32)
    images[:, 0] = 1
    seed, shifts = 5, 2
    batches = [batch(images, np.ones(60, int))]
    result = evaluate(corner_pixel, batches, integer=True, shifts=shifts, max_shift=1, seed=seed)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), 0)
    stays = random_integer(shifts, 1, key).draw(np.arange(60))[..., 0] == 0
    assert 0 < stays.all(0).mean() < stays.mean() < 1  # the case is not trivial
    assert result["integer"]["consistency"] == stays.mean()
    assert result["integer"]["accuracy"] == stays.mean()
    assert result["integer"]["worst_case_accuracy"] == stays.all(0).mean()


def test_worst_case_needs_every_shift_and_the_image_itself():
    # Constant images never change class. The second has a wrong label. The third has a dot that leaves.
    images = np.concatenate([np.zeros((2, SIDE, SIDE, 1)), one_dot(1), np.ones((1, SIDE, SIDE, 1))])
    result = evaluate(corner_pixel, [batch(images, [0, 1, 0, 1])], integer=True, shifts=3, max_shift=2)[
        "integer"
    ]
    assert result["consistency"] == 3 / 4
    assert result["accuracy"] == 3 / 4  # images 0, 2 and 3: the dot of image 2 has left
    assert result["worst_case_accuracy"] == 2 / 4  # image 2 is wrong without a shift


@pytest.mark.parametrize("kind", ["integer", "fractional"])
def test_an_invariant_classifier_is_consistent_to_rounding(kind):
    images = noise(12)
    labels = own_predictions(global_mean, images)
    result = evaluate(global_mean, [batch(images, labels)], **{kind: True}, shifts=8, max_shift=8)
    assert result["accuracy"] == 1
    assert result[kind]["consistency"] == result[kind]["worst_case_accuracy"] == result[kind]["accuracy"] == 1
    # Means of 64 float32 numbers of size 1 are near 0.1: the relative rounding is about 1e-6.
    assert result[kind]["logit_change"]["max"] < 1e-5
    assert result[kind]["probability_change"]["max"] < 1e-6


@pytest.mark.parametrize("kind", ["integer", "fractional"])
def test_an_aliasing_classifier_is_not(kind):
    images = noise(12)
    labels = own_predictions(strided, images)
    result = evaluate(strided, [batch(images, labels)], **{kind: True}, shifts=8, max_shift=8)
    assert result["accuracy"] == 1
    assert result[kind]["worst_case_accuracy"] < result[kind]["consistency"] < 0.95
    assert result[kind]["logit_change"]["mean"] > 0.1
    parts = result[kind].get("parts", {}).values()
    assert all(part["consistency"] < 1 for part in parts)


def test_padding_and_batch_size_change_nothing():
    images, labels = noise(12), np.arange(12) % 5
    options = {"integer": True, "fractional": True, "shifts": 8, "max_shift": 3}
    whole = evaluate(strided, [batch(images, labels)], **options)
    pieces = [batch(images[:8], labels[:8]), batch(images[8:], labels[8:], padding=4)]
    found = evaluate(strided, pieces, **options)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    # The order of float32 sums may depend on the batch size.
    np.testing.assert_allclose(jax.tree.leaves(found), jax.tree.leaves(whole), rtol=1e-5)


def test_padding_in_the_middle_of_a_batch_is_left_out():
    images = np.concatenate([one_dot(2), np.zeros((2, SIDE, SIDE, 1), np.float32)])
    masked = batch(images, [0, 0, 0, 0]) | {"mask": np.array([0, 0, 1, 1])}
    result = evaluate(corner_pixel, [masked], integer=True, shifts=2, max_shift=2)
    assert (result["images"], result["accuracy"]) == (2, 1)
    assert (result["integer"]["pairs"], result["integer"]["consistency"]) == (4, 1)
    assert result["integer"]["logit_change"]["max"] == 0


def test_padding_need_not_give_finite_outputs():
    """A network that divides each image by its deviation has 0 / 0 for an image of one colour."""

    def divided(images):
        return strided(images / images.std((1, 2, 3), keepdims=True))

    images, alone = noise(5), {"integer": True, "shifts": 2}
    expected = evaluate(divided, [batch(images)], **alone)
    for predict in (divided, lambda shown: np.asarray(divided(shown))):
        assert evaluate(predict, [batch(images, padding=3)], **alone) == expected
    with pytest.raises(NotFiniteError, match="the logits of 1 of 6 images"):
        evaluate(divided, [batch(np.concatenate([images, np.ones_like(images[:1])]))], **alone)


def test_fractional_draws_take_turns_on_the_grids():
    images = batch(noise(3), padding=5)
    result = evaluate(global_mean, [images], fractional=True, shifts=6, max_shift=2)["fractional"]
    assert {grid: part["pairs"] for grid, part in result["parts"].items()} == {
        "1/2": 6, "1/3": 6, "1/4": 3, "real": 3,
    }  # fmt: skip
    assert result["pairs"] == 18
    few = evaluate(global_mean, [images], fractional=True, shifts=1, max_shift=2)["fractional"]
    assert [*few["parts"]] == ["1/2"]


def test_without_shifts_there_is_plain_accuracy():
    images = noise(7)
    labels = own_predictions(strided, images)
    labels[:2] = (labels[:2] + 1) % 5
    assert evaluate(strided, [batch(images, labels)]) == {"images": 7, "accuracy": 5 / 7}


def test_numpy_functions_and_divided_batches_can_be_measured():
    images = noise(8)

    def in_numpy(shown):
        return np.asarray(shown).mean((1, 2)) @ WEIGHTS

    result = evaluate(in_numpy, [batch(images)], integer=True, max_shift=3)
    assert result["integer"]["consistency"] == 1
    for shown in (images, images[:5]):  # 5 images are padded to 8 on 4 devices
        placed = list(evaluated_batches([batch(shown)], make_mesh()))
        assert len(placed[0]["image"].sharding.device_set) == jax.local_device_count()
        seen = []

        def noted(moved, seen=seen):
            seen.append(moved.sharding.shard_shape(moved.shape)[0])
            return strided(moved)

        divided = evaluate(noted, placed, integer=True, fractional=True)
        assert {*seen} == {2}  # every device computes its part, with and without shifts
        single = evaluate(strided, [batch(shown, padding=8 - len(shown))], integer=True, fractional=True)
        assert divided["images"] == len(shown)
        np.testing.assert_allclose(jax.tree.leaves(divided), jax.tree.leaves(single), rtol=1e-5)  # float32


def test_the_largest_shift_is_below_the_shorter_side():
    assert largest_shift(32, 16) == 15  # a shift by 16 would change nothing
    assert largest_shift(5, 16) == 5


def test_logits_that_are_all_zero_have_not_changed():
    zeros = np.zeros((2, 3))
    same = compare_logits(zeros, zeros, np.array([0, 1]))
    np.testing.assert_array_equal(same["logit_change"], 0)
    np.testing.assert_array_equal(same["correct"], [True, False])
    assert np.isfinite(compare_logits(zeros, zeros + 1, np.array([0, 1]))["logit_change"]).all()


class Counting:
    """A classifier that counts its forward passes."""

    def __init__(self, predict):
        self.predict, self.calls = predict, 0

    def __call__(self, images):
        self.calls += 1
        return self.predict(images)


def reduced(predict, batches, shifts, *reductions, **options):
    """The results of one measurement."""
    wanted = Measurement("it", shifts, reductions=reductions)
    return evaluator.evaluate(predict, batches, [wanted], **options)["it"]


def test_the_worst_case_is_that_of_all_shifts_and_stops_early():
    # Class 1 if the corner is bright. Image 0 is a dot, which each of the 8 shifts moves away. Image 1 has
    # two bright rows: after shifts by 0 or 1 down, one of them covers the corner. Image 2 is bright, image 3
    # is wrong.
    images = np.zeros((4, SIDE, SIDE, 1), np.float32)
    images[0, 0, 0] = images[1, 0] = images[1, -1] = images[2] = 1
    labels = [1, 1, 1, 1]
    for wanted in ([WORST_CASE], [WORST_CASE, ACCURACY]):
        predict, told = Counting(corner_pixel), []
        result = reduced(predict, [batch(images, labels)], square(1), *wanted, advance=told.append)
        assert result["worst_case_accuracy"] == 1 / 4
        assert sum(told) == 4 * (1 + 8)  # counts evaluated and skipped pairs
        if len(wanted) == 2:
            assert result["accuracy"] == (0 + 5 + 8 + 0) / 32
            assert predict.calls == 1 + 8 and result["pairs"] == 32
        else:
            assert predict.calls < 1 + 8 and 8 < result["pairs"] < 32


def test_early_exit_changes_no_result():
    images = noise(24)
    labels = own_predictions(strided, images)
    batches = [batch(images[:16], labels[:16]), batch(images[16:], labels[16:], padding=8)]
    predict = Counting(strided)
    every = Change("margin")  # needs every pair
    grid = square(4, SIDE)
    complete = reduced(predict, batches, grid, WORST_CASE, WorstCaseByRadius(4), every)
    assert predict.calls == 2 + 63 + 32 and complete["pairs"] == 24 * 63  # 8 images fill half a batch
    predict.calls = 0
    early = reduced(predict, batches, grid, WORST_CASE, WorstCaseByRadius(4))
    assert predict.calls < 30
    for name in ("worst_case_accuracy", "worst_case_by_radius"):
        assert early[name] == complete[name]
    assert (
        reduced(strided, batches, grid.scattered(), WORST_CASE)["worst_case_accuracy"]
        == (complete["worst_case_accuracy"])
    )
    by_radius = complete["worst_case_by_radius"]
    assert by_radius[0] == 1 > by_radius[1] and by_radius == sorted(by_radius, reverse=True)
    assert by_radius[-1] == complete["worst_case_accuracy"]
    assert reduced(strided, batches, square(1), WORST_CASE)["worst_case_accuracy"] == by_radius[1]


def test_radii_need_an_order():
    with pytest.raises(ConfigError, match="ordered from the inside out"):
        reduced(corner_pixel, [batch(one_dot(2))], square(2).scattered(), WorstCaseByRadius(2))


def test_parts_are_reduced_for_themselves_and_together():
    images = np.zeros((2, SIDE, SIDE, 1), np.float32)
    images[:, 0] = 1  # keeps class 1 only for shifts to the right
    sets = {"right": Grid([[0, 1], [0, 2]]), "down": Grid([[1, 0]])}
    result = reduced(corner_pixel, [batch(images, [1, 1])], sets, WORST_CASE, CONSISTENCY)
    assert result == {
        "pairs": 6,
        "worst_case_accuracy": 0,
        "consistency": 2 / 3,
        "parts": {
            "right": {"pairs": 4, "worst_case_accuracy": 1, "consistency": 1},
            "down": {"pairs": 2, "worst_case_accuracy": 0, "consistency": 0},
        },
    }


def test_results_by_shift_are_those_of_each_shift_alone():
    images = noise(7)
    labels = own_predictions(strided, images)
    batches = [batch(images[:4], labels[:4]), batch(images[4:], labels[4:], padding=1)]
    points = [[0, 0], [4, 0], [1, 2]]
    found = reduced(strided, batches, Grid(points), PerShift())["per_shift"]
    assert found["shifts"] == points
    assert found["consistency"][:2] == [1, 1] > found["consistency"][2:]  # 4 is the stride
    for point, share, accuracy in zip(points, found["consistency"], found["accuracy"], strict=True):
        alone = reduced(strided, batches, Grid([point]), CONSISTENCY, ACCURACY)
        assert (share, accuracy) == (alone["consistency"], alone["accuracy"])
    with pytest.raises(ConfigError, match="same shifts for all images"):
        reduced(strided, batches, random_integer(2, 2, jax.random.key(0)), PerShift())


def test_agreement_of_random_pairs_leaves_the_unshifted_view_out():
    # Both shifts move the dot away. The shifted views agree with each other, but not with the unshifted view.
    result = reduced(corner_pixel, [batch(one_dot(3))], Grid([[1, 0], [0, 1]]), PAIR_CONSISTENCY, CONSISTENCY)
    assert (result["pair_consistency"], result["consistency"]) == (1, 0)
    result = reduced(corner_pixel, [batch(one_dot(3))], Grid([[0, 0], [0, 1]]), PAIR_CONSISTENCY)
    assert result["pair_consistency"] == 0


def test_the_mean_of_batches_weighs_a_small_batch_like_a_full_one():
    dots = [batch(one_dot(3), [1, 1, 1]), batch(np.zeros((1, SIDE, SIDE, 1)), [0], padding=2)]
    grid = Grid([[1, 0]])
    assert reduced(corner_pixel, dots, grid, CONSISTENCY)["consistency"] == 1 / 4
    assert reduced(corner_pixel, dots, grid, MeanOfBatches(CONSISTENCY)) == {
        "pairs": 4,
        "mean_of_batches_consistency": 1 / 2,
    }


def test_of_the_unshifted_images_there_is_the_loss_too():
    found = reduced(corner_pixel, [batch(one_dot(2), [1, 0])], Grid([[1, 0]]), *UNSHIFTED)
    p = 1 / (1 + np.exp(-1))
    assert found == pytest.approx(
        {
            "pairs": 1,  # the shift of an image that is already wrong is skipped
            "unshifted_accuracy": 1 / 2,
            "unshifted_top5_accuracy": 1,
            "unshifted_loss": -(np.log(p) + np.log(1 - p)) / 2,
        }
    )


def test_feature_maps_are_moved_back():
    wave = np.cos(2 * np.pi * np.arange(SIDE) / SIDE)
    images = (noise(2)[:, :1, :1] * wave[None, :, None, None]).astype(np.float32) + np.zeros((1, 1, SIDE, 1))
    grid = Grid([[0.5, 0], [1, 3]])
    for features, least, most in (
        (lambda x: x[:, ::2, ::2] * 2, 0, 1e-5),  # sampled at more than twice its frequency
        (lambda x: jnp.abs(x[:, ::2, ::2]), 1e-3, 1),
        (lambda x: x.mean((1, 2)), 0, 1e-5),
    ):
        found = evaluator.evaluate(
            features,
            [batch(images)],
            [Measurement("it", grid, reductions=(Change("feature_error"), Change("feature_change")))],
            compare=CompareFeatures(SIDE),
        )
        assert "accuracy" not in found
        error, change = (found["it"][name] for name in ("feature_error", "feature_change"))
        assert least <= error["mean"] <= error["max"] < most and change["max"] >= change["mean"] >= 0
    with pytest.raises(ConfigError, match="use CompareLogits, not features"):
        reduced(jnp.asarray, [batch(images)], grid, WORST_CASE, compare=CompareFeatures(SIDE))
    with pytest.raises(ConfigError, match="no column 'correct'"):
        reduced(jnp.asarray, [batch(images)], grid, ACCURACY, compare=CompareFeatures(SIDE))


def test_windows_and_rolls_of_larger_images_are_measured_in_one_pass():
    images = noise(6)
    labels = np.asarray(global_mean(images[:, 2:-2, 2:-2])).argmax(-1)
    crop = Measurement("crop", Grid([[0, 0], [1, 2]]), Crop(2))
    found = evaluator.evaluate(global_mean, [batch(images, labels)], [crop, integer_shifts(8, **DRAWS)])
    assert found["accuracy"] == 1  # accuracy of the first measurement's unshifted view
    assert found["integer"]["consistency"] == 1 > found["crop"]["worst_case_accuracy"]


DRAWS = {"shifts": 3, "max_shift": 3, "seed": 0}


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
    with pytest.raises(DataError, match="labels reach from 0 to 7, but the network has 5 classes"):
        evaluate(global_mean, [batch(images, [0, 7])])
    with pytest.raises(ShapeError, match="more than 8 pixels a side"):
        reduced_crop = Measurement("crop", Grid([[1, 0]]), Crop(4))
        evaluator.evaluate(global_mean, [batch(images)], [reduced_crop])
    with pytest.raises(ConfigError, match="a shift of 9 pixels is too large"):
        reduced(global_mean, [batch(images)], Grid([[0, 9]]), CONSISTENCY)
    with pytest.raises(ConfigError, match="Circular needs 2 numbers per shift, got 3"):
        reduced(global_mean, [batch(images)], Grid([[0, 9, 1]]), CONSISTENCY)
    with pytest.raises(ConfigError, match="two measurements have the same name: a, a"):
        evaluator.evaluate(global_mean, [], [Measurement("a", square(1))] * 2)
