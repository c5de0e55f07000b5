"""Tests of networks whose outputs are maps: every number is compared with plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import smooth_noise
from mapping import LEVELS, SIDE, classes, images_of, smoothing, strided, target_scenes

from aliasfree_jax.config import RESULTS, base_config
from aliasfree_jax.errors import AliasFreeError, ConfigError, DataError, ShapeError
from aliasfree_jax.evaluation.equivariance import decibels
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate, shift_report
from aliasfree_jax.evaluation.image_pairs import CompareImages
from aliasfree_jax.evaluation.image_quality import ssim
from aliasfree_jax.evaluation.measurements import crop_shifts
from aliasfree_jax.evaluation.pixel_classes import CompareClasses
from aliasfree_jax.evaluation.selection import PRESETS_OF, evaluation_while_training, random_shifts, select
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.evaluation.shifting import Bilinear, Circular, Crop, Warp, ZeroFilled
from aliasfree_jax.evaluation.tasks import comparison
from aliasfree_jax.ops.shift import fractional_shift

IGNORED = 255
SHIFTS = [(3, -2), (-1, 5)]
ROUND = Circular()
NAMES = ("ground", "low", "high")


def ious_ref(found, label, classes=LEVELS):
    """Intersection over union of each class; nan for a class that does not occur."""
    kept, values = label != IGNORED, []
    for k in range(len(classes)):
        union = (((found == k) | (label == k)) & kept).sum()
        values.append(((found == k) & (label == k) & kept).sum() / union if union else np.nan)
    return np.array(values)


def batch(images, label, padding=0):
    """A batch with `padding` additional images, which must not change results."""
    more = lambda x: np.concatenate([x, np.full_like(x[:1], 1).repeat(padding, 0)])  # noqa: E731
    mask = np.arange(len(images) + padding) < len(images)
    return {"image": more(images), "label": more(label), "mask": mask.astype(np.float32)}


def run(predict, batches, shifts, way=ROUND, compare=None):
    wanted = Measurement("it", Grid(shifts), way)
    return evaluate(predict, batches, [wanted], compare=compare or CompareClasses(NAMES))


@pytest.mark.parametrize("padding", [0, 1])
def test_segmentation_without_a_shift(padding):
    images, label = target_scenes(3)
    found = run(classes, [batch(images, label, padding), batch(images[:1], label[:1], padding)], [(1, 0)])
    images, label = (np.concatenate([x, x[:1]]) for x in (images, label))
    given = np.asarray(classes(images)).argmax(-1)
    kept = label != IGNORED
    expected = ious_ref(given, label)
    assert 0 < np.nanmean(expected) < 1  # not a trivial case
    assert found["images"] == 4
    assert found["mean_iou"] == pytest.approx(np.nanmean(expected), rel=1e-12)  # counts are exact
    assert found["pixel_accuracy"] == pytest.approx((given == label)[kept].mean(), rel=1e-12)
    shares = [(given == k)[label == k].mean() for k in range(3)]
    assert found["mean_accuracy"] == pytest.approx(np.mean(shares), rel=1e-12)
    assert found["class_iou"] == pytest.approx(dict(zip(NAMES, expected, strict=True)), rel=1e-12)


def test_classes_that_do_not_occur_count_nowhere():
    images, label = target_scenes(2)
    four = lambda x: jnp.pad(classes(x), ((0, 0),) * 3 + ((0, 1),), constant_values=-9)  # noqa: E731
    found = run(four, [batch(images, label)], [(1, 0)], compare=CompareClasses())
    assert found["class_iou"]["3"] is None
    assert found["mean_iou"] == pytest.approx(np.mean([found["class_iou"][str(k)] for k in range(3)]))


def test_what_ignored_pixels_hold_changes_nothing():
    images, label = target_scenes(2)
    ignored = np.where(np.arange(SIDE) < 3, IGNORED, label)
    expected = (np.asarray(classes(images)).argmax(-1) == label)[ignored != IGNORED].mean()
    found = run(classes, [batch(images, ignored)], [(0, 4)])
    assert found["pixel_accuracy"] == pytest.approx(expected, rel=1e-12)
    # After moving back, the ignored pixels are at their old positions. The network commutes with rolls.
    assert found["it"]["accuracy"] == pytest.approx(expected, rel=1e-12)
    assert found["it"]["consistency"] == 1  # includes all pixels
    with pytest.raises(DataError, match="no pixel has a label: all have the value 255"):
        run(classes, [batch(images, np.full_like(label, IGNORED))], [(1, 0)])


def rolled_ref(predict, images, label, shifts):
    """Consistency and accuracy of rolled images, [K, N], and classes; error and energy of logits."""
    still = np.asarray(predict(images))
    same, right, given, error = [], [], [], 0.0
    for shift in shifts:
        moved = np.asarray(predict(np.roll(images, shift, (1, 2))))
        back = np.roll(moved, [-s for s in shift], (1, 2))
        same.append((back.argmax(-1) == still.argmax(-1)).mean((1, 2)))
        right.append([(b.argmax(-1) == y)[y != IGNORED].mean() for b, y in zip(back, label, strict=True)])
        given.append(back.argmax(-1))
        error += np.square(back - still, dtype=np.float64).sum((1, 2, 3))
    energy = np.square(still, dtype=np.float64).sum((1, 2, 3))
    return np.array(same), np.array(right), np.stack(given), error, energy


@pytest.mark.parametrize(("network", "exact"), [(classes, True), (strided(classes), False)])
def test_segmentation_under_rolls(network, exact):
    images, label = target_scenes(3)
    found = run(network, [batch(images, label, 1)], SHIFTS)["it"]
    same, right, given, error, energy = rolled_ref(network, images, label, SHIFTS)
    assert found["pairs"] == 6
    # Shares of a few hundred pixels, computed in float32.
    assert found["consistency"] == pytest.approx(same.mean(), rel=1e-6)
    assert found["worst_consistency"] == pytest.approx(same.min(0).mean(), rel=1e-6)
    assert found["worst_case_accuracy"] == pytest.approx(right.min(0).mean(), rel=1e-6)
    iou = ious_ref(given.reshape(-1, SIDE, SIDE), np.concatenate([label, label]))
    assert found["mean_iou"] == pytest.approx(np.nanmean(iou), rel=1e-12)
    if exact:
        assert found["consistency"] == 1 and found["equivariance_db"] == -400
    else:
        assert found["consistency"] < 0.99
        whole = 10 * np.log10(error.sum() / (2 * energy.sum()))  # every image counts twice
        assert found["equivariance_db"] == pytest.approx(whole, abs=1e-4)  # dB; sums in float32
        assert whole < found["worst_equivariance_db"] < 10


@pytest.mark.parametrize("way", [ZeroFilled(), Crop(6)])
def test_only_the_overlap_counts(way):
    """The network adds the position to its answer, so that answers differ between positions."""
    images, label = target_scenes(2)
    down, right = 3, -2
    margin = way.margin
    wide = np.pad(images, ((0, 0), (margin,) * 2, (margin,) * 2, (0, 0)))
    wide_label = np.pad(label, ((0, 0), (margin,) * 2, (margin,) * 2), constant_values=7)  # must not be used
    place = np.arange(SIDE**2).reshape(1, SIDE, SIDE) % 3
    network = lambda x: jax.nn.one_hot((jnp.rint(x[..., 0] * 4).astype(int) + place) % 3, 3)  # noqa: E731
    found = run(network, [batch(wide, wide_label)], [(down, right)], way)
    given = np.asarray(network(images)).argmax(-1)
    # The content of [:-down, -right:] moves to [down:, :right].
    shifted = np.zeros_like(images)
    shifted[:, down:, :right] = images[:, :-down, -right:]
    moved = np.asarray(network(shifted)).argmax(-1)[:, down:, :right]
    still, wanted = given[:, :-down, -right:], label[:, :-down, -right:]
    assert found["it"]["consistency"] == pytest.approx((moved == still).mean(), rel=1e-6)
    assert found["it"]["accuracy"] == pytest.approx((moved == wanted)[wanted != IGNORED].mean(), rel=1e-12)
    assert found["pixel_accuracy"] == pytest.approx((given == label)[label != IGNORED].mean(), rel=1e-12)
    expected = 10 * np.log10((moved != still).sum() * 2 / still.size)  # the outputs are one-hot vectors
    assert found["it"]["equivariance_db"] == pytest.approx(expected, abs=1e-4)


def test_fractional_shifts_move_logits():
    images, label = smooth_noise(2, SIDE), np.zeros((2, SIDE, SIDE), int)
    shifts = [(0.5, 0.25), (1 / 3, -2.137)]
    linear = jax.jit(lambda x: x + jnp.roll(x, 1, 1))  # commutes with every shift
    exact = run(linear, [batch(images, label)], shifts)["it"]
    # Tolerance: float32 rounding. Two logits of size 1 would be tied if they differ by 1e-6.
    assert exact["consistency"] == 1 and exact["equivariance_db"] < -120
    jagged = lambda x: jnp.abs(x + jnp.roll(x, 1, 1))  # noqa: E731  commutes with rolls only
    found = run(jagged, [batch(images, label)], shifts)["it"]
    same, error = [], 0.0
    for shift in shifts:
        expected = np.asarray(fractional_shift(jagged(images), shift))
        given = np.asarray(jagged(fractional_shift(jnp.asarray(images), shift)))
        same.append((expected.argmax(-1) == given.argmax(-1)).mean())
        error += np.square(given - expected).sum()
    assert found["consistency"] == pytest.approx(np.mean(same), abs=1e-3) and np.mean(same) < 1  # near ties
    energy = 2 * np.square(np.asarray(jagged(images))).sum()
    assert found["equivariance_db"] == pytest.approx(10 * np.log10(error / energy), abs=1e-3)
    # Moving twice may lose the Nyquist frequency.
    back = [
        np.asarray(fractional_shift(jagged(fractional_shift(jnp.asarray(images), s)), (-s[0], -s[1])))
        for s in shifts
    ]
    assert found["accuracy"] == pytest.approx((np.stack(back).argmax(-1) == 0).mean(), abs=1e-3)


def test_results_do_not_depend_on_devices():
    images, label = target_scenes(5)
    whole, parts = (
        shift_report(
            strided(classes),
            [batch(images, label)],
            [Measurement("it", Grid(SHIFTS))],
            images=5,
            compare=CompareClasses(),
            devices=devices,
            progress=False,
        )
        for devices in (1, 2)
    )
    assert whole["mean_iou"] == parts["mean_iou"] and whole["it"]["mean_iou"] == parts["it"]["mean_iou"]
    assert parts["it"]["consistency"] == pytest.approx(whole["it"]["consistency"], rel=1e-6)


def psnr_ref(target, found, peak):
    return 10 * np.log10(peak**2 / np.square(target - found).mean())


def ssim_ref(target, found, peak):
    """Computes one window after the other, as in the definition."""
    values = []
    for channel in range(target.shape[-1]):
        for i in range(target.shape[0] - 6):
            for j in range(target.shape[1] - 6):
                x, y = (a[i : i + 7, j : j + 7, channel].ravel() for a in (target, found))
                c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
                covariance = np.cov(x, y, ddof=1)
                values.append(
                    (2 * x.mean() * y.mean() + c1)
                    * (2 * covariance[0, 1] + c2)
                    / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2))
                )
    return np.mean(values)


MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)


def test_image_quality_is_that_of_images_in_0_to_1():
    images = images_of(3, MEAN, STD)
    noise = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    denoise = lambda x: x + 0.2 * noise[: len(x)]  # noqa: E731
    found = run(denoise, [batch(images, images)], [(0, 1)], compare=CompareImages(MEAN, STD))
    target, given = (np.asarray(x, np.float64) * STD + MEAN for x in (images, denoise(images)))
    assert 0 <= target.min() < target.max() <= 1
    spans = [t.max() - t.min() for t in target]
    pairs = list(zip(target, given, spans, strict=True))
    # Tolerance: float32 rounding, 1e-7 of values of size 1, relative to errors of 1e-2.
    assert found["psnr"] == pytest.approx(np.mean([psnr_ref(*pair) for pair in pairs]), abs=1e-3)
    assert found["ssim"] == pytest.approx(np.mean([ssim_ref(*pair) for pair in pairs]), abs=1e-4)
    nmse = np.square(target - given).sum((1, 2, 3)) / np.square(target).sum((1, 2, 3))
    assert found["nmse"] == pytest.approx(nmse.mean(), rel=1e-4)


def test_ssim_of_bright_images_is_not_lost_in_rounding():
    target = 100 + smooth_noise(1, 9)
    found = target + 0.1 * smooth_noise(1, 9, seed=1)
    inside = np.ones((1, 9, 9), bool)
    given = float(ssim(jnp.asarray(target), jnp.asarray(found), jnp.ones(1), inside)[0])
    expected = ssim_ref(target[0].astype(np.float64), found[0].astype(np.float64), 1.0)
    assert given == pytest.approx(expected, abs=1e-5) and expected < 0.999


def test_ssim_counts_whole_windows_only():
    target, found = smooth_noise(1, 12), smooth_noise(1, 12, seed=1)
    inside = np.zeros((1, 12, 12), bool)
    inside[:, 2:, :10] = True
    given = ssim(jnp.asarray(target), jnp.asarray(found), jnp.ones(1), inside)[0]
    assert float(given) == pytest.approx(ssim_ref(target[0, 2:, :10], found[0, 2:, :10], 1.0), abs=1e-4)
    inside[:, :, 5] = False
    assert np.isnan(ssim(jnp.asarray(target), jnp.asarray(found), jnp.ones(1), inside)[0])


def test_images_of_one_colour_have_no_psnr():
    images = images_of(2, MEAN, STD)
    images[1] = (0.3 - np.array(MEAN)) / STD  # grey
    shrink = lambda x: 0.9 * x  # noqa: E731
    compare = CompareImages(MEAN, STD)
    both, first = (run(shrink, [batch(x, x)], [(0, 1)], compare=compare) for x in (images, images[:1]))
    assert both["psnr"] == pytest.approx(first["psnr"], abs=1e-3) and both["nmse"] != first["nmse"]
    with pytest.raises(DataError, match="every target is constant, so psnr is not defined"):
        run(shrink, [batch(images[1:], images[1:])], [(0, 1)], compare=compare)


@pytest.mark.parametrize(("network", "exact"), [(smoothing, True), (strided(smoothing), False)])
def test_regression_under_rolls(network, exact):
    images = images_of(2, MEAN, STD)
    found = run(network, [batch(images, images, 1)], SHIFTS, compare=CompareImages(MEAN, STD))["it"]
    unit = lambda x: np.asarray(x, np.float64) * STD + MEAN  # noqa: E731
    still, target = unit(network(images)), unit(images)
    before = [psnr_ref(t, s, np.ptp(t)) for t, s in zip(target, still, strict=True)]
    error, psnrs, moved = np.zeros((2, 2)), np.zeros((2, 2)), []
    for k, shift in enumerate(SHIFTS):
        given = unit(network(np.roll(images, shift, (1, 2))))
        expected, wanted = (np.roll(x, shift, (1, 2)) for x in (still, target))
        error[k] = np.square(given - expected).sum((1, 2, 3))
        psnrs[k] = [psnr_ref(t, g, np.ptp(t)) for t, g in zip(wanted, given, strict=True)]
        with np.errstate(divide="ignore"):
            moved += [psnr_ref(e, g, np.ptp(e)) for e, g in zip(expected, given, strict=True)]
    assert found["psnr"] == pytest.approx(psnrs.mean(), abs=1e-3)
    changes = np.abs(psnrs - before).max(0)
    assert found["psnr_change"]["mean"] == pytest.approx(changes.mean(), abs=1e-3)
    assert found["psnr_change"]["max"] == pytest.approx(changes.max(), abs=1e-3)
    if exact:
        assert found["equivariance_db"] == found["worst_equivariance_db"] == -400
        assert found["moved_psnr"] == 400
    else:
        energy = np.square(still).sum((1, 2, 3))
        whole, worst = error.sum() / (2 * energy.sum()), (error / energy).max()
        assert found["equivariance_db"] == pytest.approx(10 * np.log10(whole), abs=1e-3) and whole > 1e-4
        assert found["worst_equivariance_db"] == pytest.approx(10 * np.log10(worst), abs=1e-3)
        mean = np.mean(10 ** (-np.array(moved) / 10))
        assert found["moved_psnr"] == pytest.approx(-10 * np.log10(mean), abs=1e-3)


def test_shifts_that_cannot_be_undone_are_refused():
    images, label = target_scenes(1)
    for way, point in ((Warp(), [0.0, 0, 10, 0]), (Bilinear(), [0.5, 0])):
        with pytest.raises(ConfigError, match=f"maps cannot be moved back after {type(way).__name__}"):
            run(classes, [batch(images, label)], [point], way)


def test_outputs_and_labels_that_do_not_fit():
    images, label = target_scenes(1)
    pictures = images_of(1, MEAN, STD)
    of_images = CompareImages(MEAN, STD)
    for network, x, y, compare, error, words in (
        (lambda x: x.mean((1, 2)), images, label, None, ShapeError, r"a map of logits .*, got \[1, 3\]"),
        (classes, images, label[:, 0, 0], None, ShapeError, r"one class per pixel.*got labels \[1\]"),
        (
            lambda x: classes(x)[:, ::2],
            images,
            label,
            None,
            ShapeError,
            "output has 8 x 16 pixels, but the labels have",
        ),
        (classes, images, label + 1, None, DataError, "labels of pixels reach from .* the network has 3"),
        (lambda x: classes(x) / 0, images, label, None, AliasFreeError, "logits of 1 of 1 images are not"),
        (smoothing, pictures, label, of_images, ShapeError, "expected images .* as targets"),
        (
            lambda x: x[..., :1],
            pictures,
            pictures,
            of_images,
            ShapeError,
            "16 x 16 x 1, but the target has 16 x",
        ),
        (
            smoothing,
            pictures,
            pictures,
            CompareImages((0,), (1,)),
            ShapeError,
            "has 3 output channels, but data.m",
        ),
        (
            smoothing,
            pictures[:, :6],
            pictures[:, :6],
            of_images,
            ShapeError,
            "SSIM compares windows of 7 x 7",
        ),
    ):
        with pytest.raises(error, match=words):
            run(network, [batch(x, y)], [(0, 1)], compare=compare)


def test_decibels_have_a_floor():
    assert decibels(0.0) == -400 and decibels(np.float32(0.01)) == pytest.approx(-20)


def configuration(task, channels=3):
    config = base_config()
    config.task, config.data.image_size = task, SIDE
    config.data.mean, config.data.std = (0.5,) * channels, (0.25,) * channels
    config.eval.shifts, config.eval.max_shift = 2, 4
    return config


@pytest.mark.parametrize(("task", "network"), [("segmentation", classes), ("regression", smoothing)])
def test_evaluation_while_training_gives_the_results_of_the_task(task, network):
    config = configuration(task)
    config.eval.during = ("integer", "zero_filled")
    images, label = target_scenes(2)
    label = images if task == "regression" else label
    found = evaluation_while_training(config)(network, [batch(images, label)])
    metrics, of_shifts = RESULTS[task]
    assert list(found) == ["images", *metrics, of_shifts.format("integer"), of_shifts.format("zero_filled")]
    assert all(isinstance(value, int | float) for value in found.values())
    assert found[of_shifts.format("integer")] == (1 if task == "segmentation" else -400)


def test_what_is_not_for_maps_is_refused_by_name():
    config = configuration("segmentation")
    with pytest.raises(ConfigError) as told:
        select(
            config,
            SIDE,
            random=["integer", "bilinear"],
            adversarial=["continuous"],
            spatial=True,
            presets=["aps_consistency", "lps_massc"],
        )
    text = str(told.value)
    assert text.startswith(
        "--bilinear_shifts, --adversarial=continuous, --spatial_attack, --presets=aps_consistency: "
        "not available for task = 'segmentation'. Available: --integer_shifts"
    )
    assert text.endswith("--presets=lps_massc.")
    for name in PRESETS_OF["regression"]:
        with pytest.raises(ConfigError, match=f"--presets={name}: not available for task = 'segmentation'"):
            select(config, SIDE, presets=[name])
    with pytest.raises(ConfigError, match="lps_massc: not available for task = 'classification'"):
        select(configuration("classification"), SIDE, presets=["lps_massc"])
    with pytest.raises(ConfigError, match="unknown preset 'lps_masc'. Did you mean 'lps_massc'"):
        select(config, SIDE, presets=["lps_masc"])
    config.task = "segmenting"
    with pytest.raises(ConfigError, match="unknown task 'segmenting'. Did you mean 'segmentation'"):
        comparison(config)


def test_grids_are_worst_cases_of_maps():
    config = configuration("segmentation")
    config.eval.worst_case_radius = config.eval.finest_fraction = 2
    (measurements,) = select(config, SIDE, adversarial=["integer", "fraction"], pictures=True).views.values()
    images, label = target_scenes(2)
    found = evaluate(strided(classes), [batch(images, label)], measurements, compare=comparison(config))
    assert set(found) >= {"adversarial_integer", "adversarial_fraction"} and "shift_plane" not in found
    same = rolled_ref(
        strided(classes), images, label, [(i, j) for i in range(-2, 3) for j in range(-2, 3) if i or j]
    )[0]
    assert found["adversarial_integer"]["pairs"] == 2 * 24
    assert found["adversarial_integer"]["worst_consistency"] == pytest.approx(same.min(0).mean(), rel=1e-6)


def test_windows_have_labels_with_their_margin():
    images, label = target_scenes(2)
    measurement = crop_shifts(shifts=2, margin=2, seed=0)
    found = evaluate(classes, [batch(images, label)], [measurement], compare=CompareClasses(NAMES))
    inner = (slice(None), slice(2, -2), slice(2, -2))
    given, wanted = np.asarray(classes(images[inner])).argmax(-1), label[inner]
    assert found["pixel_accuracy"] == pytest.approx((given == wanted)[wanted != IGNORED].mean(), rel=1e-12)
    assert 0.9 < found["crop"]["consistency"] < 1  # the border has other content


def test_random_shifts_of_maps_are_those_of_classifiers():
    """The draws are equal. Only the reductions differ."""
    config = configuration("segmentation")
    one = random_shifts("integer", config, SIDE)
    config.task = "classification"
    other = random_shifts("integer", config, SIDE)
    np.testing.assert_array_equal(one.sets[""].draw(np.arange(3)), other.sets[""].draw(np.arange(3)))
    assert one.about == other.about
