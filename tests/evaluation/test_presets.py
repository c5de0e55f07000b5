"""Tests of the papers' metrics: shifts, forward passes, and results against direct computations."""

from dataclasses import replace

import numpy as np
import pytest
from classifiers import WEIGHTS, labelled, smooth_noise, strided

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.adversarial import distinct_factors
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.presets import PresetConfig
from aliasfree_jax.evaluation.presets.worst_cases import original_warp
from aliasfree_jax.evaluation.reductions import ATTACKED_ACCURACY
from aliasfree_jax.evaluation.selection import PRESETS_OF, preset
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.evaluation.shifting import Warp
from aliasfree_jax.evaluation.table import Table
from aliasfree_jax.evaluation.trial import moved_rows
from aliasfree_jax.ops.resample import ideal_resample

SIDE = 32


class Constant:
    """Predicts class 0 for every image; counts its forward passes."""

    calls = 0

    def __call__(self, images):
        self.calls += 1
        return np.tile(np.float32([1, 0]), (len(images), 1))


@pytest.mark.parametrize(
    ("name", "options", "forwards"),
    [
        ("afc_fraction", {"finest": 4}, 14),
        ("afc_fraction", {"finest": 6}, 1 + 9 + 16 + 25),
        ("afc_full", {}, 1923),
        ("afc_integer", {}, 962),
        ("afc_integer_rand10", {}, 11),
        ("afc_consistency", {}, 3),
        ("afc_evaluate", {}, 2),
        ("afc_rand_shift", {"finest": 3}, 2),
        ("afc_crop_shift", {"margin": 2}, 4**2 + 1),
        ("blurpool_diagonal", {"margin": 16}, 1 + 33),
        # The images with and without the black border.
        ("afc_spatial_grid", {}, 2 + 31 * 5 * 5),
        ("aft_consistency", {}, 3),
        # Rings 1 ... m of 8 s shifts each, and the unshifted image.
        ("aft_cyclic_shift", {"radius": 3}, 1 + 8 * (1 + 2 + 3)),
        ("aft_cyclic_half_shift", {"radius": 3}, 1 + 8 * (1 + 2 + 3)),
        ("aft_crop_shift", {"margin": 2}, 1 + 8 * (1 + 2)),
        ("aft_bilinear_shift", {"margin": 2, "finest": 4}, 1 + 8 * (1 + 2 + 3 + 4)),
    ],
)
def test_forwards_are_counted(name, options, forwards):
    config, predict = PresetConfig(SIDE, **options), Constant()
    chosen = preset(name, config, paper=True)
    margin = chosen.measurements[0].shifting.margin
    images = np.zeros((1, SIDE + 2 * margin, SIDE + 2 * margin, 1), np.float32)
    evaluate(predict, [labelled(Constant(), images, margin)], chosen.measurements)
    assert predict.calls == forwards


BILINEAR = {
    "blurpool_consistency",
    "blurpool_diagonal",
    "aps_consistency",
    "lps_consistency",
    "afc_crop_shift",
}
BILINEAR |= {"afc_spatial_grid", "afc_translation_grid"}


@pytest.mark.parametrize("name", PRESETS_OF["classification"])
def test_the_images_are_resized_as_by_the_original(name):
    """Programs for CIFAR-10 do not resize. AFC and AFT use bicubic resizing, except three metrics of AFC."""
    expected = "" if "cifar" in name else "bilinear" if name in BILINEAR else "bicubic"
    assert preset(name, PresetConfig(SIDE), paper=True).interpolation == expected
    assert (
        preset(name, PresetConfig(SIDE)).interpolation == ""
    )  # the improved variant resizes like the network


def shifts_of(name, config, batches=1):
    """The shifts `[batches, K, 2]` of each measurement."""
    sets = [m.sets.values() for m in preset(name, config, paper=True).measurements]
    drawn = [[s.draw(np.arange(3)) for parts in sets for s in parts] for _ in range(batches)]
    return [np.stack([batch[i][:, 0] for batch in drawn]) for i in range(len(drawn[0]))]


def test_the_factors_of_fractions():
    assert [distinct_factors(n) for n in (2, 4, 5, 6, 8)] == [
        [2], [3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7, 8],
    ]  # fmt: skip


def test_the_draws_are_those_of_the_originals():
    # APS: seed 0, two rolls per batch.
    (rolls,) = shifts_of("aps_consistency", PresetConfig(SIDE, seed=0), batches=2)
    assert rolls.tolist() == [[[12, 15], [21, -32]], [[-29, 27], [-29, 7]]]
    # APS on CIFAR-10: the content moves in the opposite direction of the window, and with a roll.
    (rolls,) = shifts_of("aps_cifar_circular", PresetConfig(SIDE, seed=0), batches=2)
    assert rolls.tolist() == [[[1, 2], [-3, 0]], [[0, 0], [-2, 0]]]
    (crops,) = shifts_of("aps_cifar_crop", PresetConfig(SIDE, seed=0))
    assert crops.tolist() == [[[-1, -2], [3, 0]]]
    # LPS: first windows, then rolls, from one stream.
    for seed, windows, rolls in (
        (7, [(15, 4), (25, 22)], [(-29, -13), (-9, 7)]),
        (21, [(9, 15), (24, 4)], [(16, 16), (24, 3)]),
        (42, [(6, 19), (28, 14)], [(10, -25), (28, -12)]),
    ):
        found = shifts_of("lps_consistency", PresetConfig(224, seed=seed))
        np.testing.assert_array_equal(16 - found[0][0], windows)
        np.testing.assert_array_equal(found[1][0], rolls)


def test_the_grids_are_those_of_the_originals():
    (thirds, quarters) = shifts_of("afc_fraction", PresetConfig(SIDE))
    np.testing.assert_allclose(sorted({*thirds.flat}), [-2 / 3, -1 / 3], rtol=1e-6)
    assert thirds.shape == (1, 4, 2) and quarters.shape == (1, 9, 2)
    (rolls,) = shifts_of("afc_integer", PresetConfig(SIDE))
    assert {tuple(s) for s in rolls[0]} == {(i, j) for i in range(1, 32) for j in range(1, 32)}
    rolls, half = shifts_of("afc_full", PresetConfig(SIDE))
    np.testing.assert_array_equal(half, 0.5 - rolls)
    (windows,) = shifts_of("afc_crop_shift", PresetConfig(SIDE, margin=3))
    assert {tuple(3 - s) for s in windows[0]} == {(i, j) for i in range(1, 7) for j in range(1, 7)}
    (windows,) = shifts_of("blurpool_diagonal", PresetConfig(SIDE, margin=16))
    assert (16 - windows[0]).tolist() == [[d, d] for d in range(33)]
    for windows in shifts_of("blurpool_consistency", PresetConfig(SIDE), batches=50):
        assert {*(16 - windows).flat} <= {*range(32)} and len({*windows.flat}) > 20


def test_the_rings_are_those_of_the_original():
    """The rings surround (max_shift, max_shift), because the original rolls by the negative offset."""
    (rolls,) = shifts_of("aft_cyclic_shift", PresetConfig(SIDE, radius=3))
    offsets = {(i, j) for i in range(7) for j in range(7)} - {(3, 3)}
    assert {tuple(-s) for s in rolls[0]} == offsets and len(rolls[0]) == len(offsets)
    rings = np.abs(rolls[0] + 3).max(-1)
    assert rings.tolist() == [1] * 8 + [2] * 16 + [3] * 24  # ring s has 8 s shifts
    # Enlarged by 2 with an odd max_shift: the centre (1.5, 1.5) is a half-pixel shift.
    (rolls,) = shifts_of("aft_cyclic_half_shift", PresetConfig(SIDE, radius=3))
    assert {tuple(-2 * s) for s in rolls[0]} == offsets
    (windows,) = shifts_of("aft_crop_shift", PresetConfig(SIDE, margin=3))
    assert {tuple(3 - s) for s in windows[0]} == offsets
    (parts,) = shifts_of("aft_bilinear_shift", PresetConfig(SIDE, finest=3))
    np.testing.assert_array_equal(sorted({*np.rint(3 * parts).ravel()}), range(-3, 4))
    assert len(parts[0]) == 48 and np.abs(parts).max() == 1
    # The rings of the improved variant surround no shift.
    for name in ("aft_cyclic_shift", "aft_cyclic_half_shift"):
        (wanted,) = preset(name, PresetConfig(SIDE, radius=3)).measurements
        assert {tuple(s) for s in wanted.shifts.points * (2 if "half" in name else 1)} == {
            (i - 3, j - 3) for i, j in offsets
        }


def subpixel_shift(images, up, rows, columns):
    """As in the original: enlarge, roll against the shift, subsample."""
    side = images.shape[1]
    large = np.asarray(ideal_resample(images, (up * side, up * side)))
    return np.roll(large, (-rows, -columns), (1, 2))[:, ::up, ::up]


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def run(name, batches, config, predict=strided):
    chosen = preset(name, config, paper=True)
    results = evaluate(predict, batches, chosen.measurements)
    return chosen.published(results)


@pytest.fixture(scope="module")
def batch():
    images = smooth_noise(40, SIDE)
    found = labelled(strided, images)
    found["label"][::5] = (found["label"][::5] + 1) % 5
    return found


@pytest.mark.parametrize("name", ["afc_consistency", "aft_consistency"])
def test_alias_free_consistency_by_hand(name, batch):
    images, label = batch["image"], batch["label"]
    rows, columns = np.random.RandomState(3).randint(-32, 32, size=2)
    before = np.asarray(strided(images))
    expected = {}
    for prefix, key, moved in (
        ("shift", "shift", np.roll(images, (rows, columns), (1, 2))),
        ("sub_pix_shift", "subpix_shift", subpixel_shift(images, 2, 2 * rows + 1, 2 * columns + 1)),
    ):
        after = np.asarray(strided(moved))
        clean, accuracy = ((x.argmax(-1) == label).mean() for x in (before, after))
        chosen = np.arange(len(label)), before.argmax(-1)
        expected |= {
            f"{prefix}_consistency": (before.argmax(-1) == after.argmax(-1)).mean(),
            f"{prefix}_accuracy": 100 * accuracy,
            f"{prefix}_mac": np.abs(softmax(before)[chosen] - softmax(after)[chosen]).mean(),
            f"{key}_accuracy_degredation": 100 * (clean - accuracy) / clean,
        }
    if name == "aft_consistency":
        losses = -np.log(softmax(before.astype(float))[np.arange(len(label)), label])
        expected |= {"loss": losses.mean(), "acc1": 100 * (before.argmax(-1) == label).mean(), "acc5": 100}
    found = run(name, [batch], PresetConfig(SIDE, seed=3))
    assert found == pytest.approx(expected, rel=1e-4)  # float32 interpolation
    assert 0 < found["shift_consistency"] < 1 and found["shift_mac"] > 1e-3  # the case is not trivial


def test_afc_fraction_by_hand(batch):
    images, label = batch["image"], batch["label"]
    right = np.asarray(strided(images)).argmax(-1) == label
    clean = right.mean()
    for up in (3, 4):
        for rows in range(1, up):
            for columns in range(1, up):
                moved = subpixel_shift(images, up, rows, columns)
                right &= np.asarray(strided(moved)).argmax(-1) == label
    found = run("afc_fraction", [batch], PresetConfig(SIDE, finest=4))
    assert found == {"sub_shift_robust_score": right.mean()}
    assert 0 < right.mean() < clean


@pytest.mark.parametrize(("name", "up"), [("aft_cyclic_shift", 1), ("aft_cyclic_half_shift", 2)])
def test_aft_cyclic_by_hand(name, up, batch):
    images, label, most = batch["image"], batch["label"], 3
    right = np.asarray(strided(images)).argmax(-1) == label
    clean = right.mean()
    expected = {
        f"adversarial_cyclic_shift_acc1_{up}": 100 * clean,
        f"adversarial_cyclic_shift_acc5_{up}": 100,
    }
    for radius in range(1, most + 1):
        for i in range(-radius, radius + 1):
            for j in range(-radius, radius + 1):
                if max(abs(i), abs(j)) == radius:
                    moved = subpixel_shift(images, up, most + i, most + j)
                    right &= np.asarray(strided(moved)).argmax(-1) == label
        expected[f"adversarial_cyclic_shift_shift_robust_score_{radius}_{up}"] = 100 * right.mean()
    assert run(name, [batch], PresetConfig(SIDE, radius=most)) == expected
    assert len({*expected.values()}) > 3  # the case is not trivial


def test_aft_windows_by_hand():
    margin, side = 2, 16
    images = smooth_noise(24, side + 2 * margin)
    batch = labelled(strided, images, margin)
    right = np.ones(24, bool)
    expected = {"adversarial_crop_shift_acc1": 100, "adversarial_crop_shift_acc5": 100}
    for radius in range(1, margin + 1):
        for i in range(margin - radius, margin + radius + 1):
            for j in range(margin - radius, margin + radius + 1):
                window = images[:, i : i + side, j : j + side]
                right &= np.asarray(strided(window)).argmax(-1) == batch["label"]
        expected[f"adversarial_crop_shift_shift_robust_score_{radius}"] = 100 * right.mean()
    assert run("aft_crop_shift", [batch], PresetConfig(side, margin=margin)) == expected


def test_aft_bilinear_by_hand():
    side, parts = 16, 3
    images = smooth_noise(24, side + 2)
    batch = labelled(strided, images, 1)
    right = np.ones(24, bool)
    prefix = "adversarial_fractional_shift_"
    expected = {f"{prefix}acc1": 100, f"{prefix}acc5": 100}
    for radius, name in ((1, "0.333"), (2, "0.667"), (3, "1.000")):
        for i in range(-radius, radius + 1):
            for j in range(-radius, radius + 1):
                # Interpolates between four windows: first axis, then second.
                padded = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
                at = np.array([1 - i / parts, 1 - j / parts]) + 1e-9
                (top, left), (low, far) = np.floor(at).astype(int), at % 1
                rows = (1 - low) * padded[:, top : top + side] + low * padded[:, top + 1 : top + 1 + side]
                moved = (1 - far) * rows[:, :, left : left + side]
                moved += far * rows[:, :, left + 1 : left + 1 + side]
                right &= np.asarray(strided(moved)).argmax(-1) == batch["label"]
        expected[f"{prefix}shift_frac_robust_{name}"] = 100 * right.mean()
    assert run("aft_bilinear_shift", [batch], PresetConfig(side, finest=parts)) == expected
    assert len({*expected.values()}) > 2


def grid_sample(images, degrees, x, y):
    """The original's warp of images `[n, N, N, C]` in [0, 1]: bilinear, black outside; x, y in sides."""
    count, side = images.shape[:2]
    line = np.linspace(-1, 1, side)
    column, row = np.meshgrid(line, line)
    sin, cos = np.sin(degrees * 0.01745327778), np.cos(degrees * 0.01745327778)
    sources = column * sin + row * cos + 2 * y, column * cos - row * sin + 2 * x
    rows, columns = (((source + 1) * side - 1) / 2 for source in sources)
    moved = np.zeros_like(images)
    for i in (0, 1):
        for j in (0, 1):
            at, across = np.floor(rows).astype(int) + i, np.floor(columns).astype(int) + j
            weight = (1 - np.abs(rows - at)) * (1 - np.abs(columns - across))
            inside = (at >= 0) & (at < side) & (across >= 0) & (across < side)
            moved += (weight * inside)[..., None] * images[:, at % side, across % side]
    return moved


@pytest.mark.parametrize(
    ("degrees", "x", "y", "place"),
    [(0, 1, 0, (2, 5)), (0, 0, 1, (1, 6)), (90, 0, 0, (1, 2)), (90, 1, 0, (2, 2))],
)
def test_where_the_spatial_grid_moves_a_point(degrees, x, y, place):
    """The original's formula for a point at (2, 6) of 8 x 8."""
    image = np.zeros((1, 8, 8, 1), np.float32)
    image[0, 2, 6] = 1
    where = original_warp(*np.float32([[degrees], [x], [y]]))
    moved = moved_rows(Warp(stretched=True), None, image, np.arange(1), where.astype(np.float32))
    moved = np.asarray(moved)[0, ..., 0]
    assert np.unravel_index(moved.argmax(), moved.shape) == place
    np.testing.assert_allclose(moved, grid_sample(image, degrees, x / 8, y / 8)[0, ..., 0], atol=1e-5)


def test_afc_spatial_grid_by_hand():
    """Pads with black, warps, then normalises. The attack uses the first wrong class."""
    side, count, constraint, mean, std = 6, 5, 8.0, np.float32([0.2, 0.3, 0.4]), np.float32([0.5, 0.4, 0.3])
    grey = np.random.default_rng(0).random((count, side, side, 3)).astype(np.float32)
    padded = np.pad(grey, ((0, 0), (16, 16), (16, 16), (0, 0)))

    def predict(images):
        middle = images.shape[1] // 2
        seen = np.asarray(images)[:, middle - 3 : middle + 3 : 2, middle - 2 : middle + 4 : 3]
        return seen.mean((1, 2)) @ WEIGHTS

    still = predict((padded - mean) / std)
    label = still.argmax(-1)
    label[0] = (label[0] + 1) % 5  # wrong without a shift
    wrong, loss = [], []
    turns, shifts = np.linspace(-constraint, constraint, 31), np.linspace(-1, 1, 5) * constraint / 280
    for degrees in turns:
        for x in shifts:
            for y in shifts:
                logits = predict((grid_sample(padded, degrees, x, y) - mean) / std)
                wrong.append(logits.argmax(-1) != label)
                loss.append(-np.log(softmax(logits)[np.arange(count), label]))
    wrong, loss = np.array(wrong), np.array(loss)
    first = wrong.argmax(0)
    clean = -np.log(softmax(still)[np.arange(count), label])
    taken = loss[first, np.arange(count)] > clean
    right = np.where(taken, ~wrong[first, np.arange(count)], still.argmax(-1) == label)
    config = PresetConfig(side, constraint=constraint, fill=tuple(-mean / std))
    batch = {"image": (grey - mean) / std, "label": label, "mask": np.ones(count)}
    found = run("afc_spatial_grid", [batch], config, predict)
    assert found == pytest.approx({"natacc": 100 * (count - 1) / count, "advacc": 100 * right.mean()})
    assert 0 < right.mean() < 0.9 and wrong.any(0).mean() > 0.3


def test_the_attack_takes_the_first_error_only_where_it_costs_more():
    """Columns: wrong from the second shift on with larger loss, or with smaller; never; wrong unshifted."""
    correct = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
    loss = np.array([[0.1, 0.1, 0.3, 0.1], [2, 0.1, 0.1, 0.1], [0.1, 3, 0.1, 3]])
    still = {"correct": np.array([1, 1, 1, 0], bool), "loss": np.array([0.2, 0.2, 0.2, 2])}
    everywhere, mask = np.ones((3, 4), bool), np.ones(4, bool)
    table = Table(np.zeros((3, 4, 2)), everywhere, {"correct": correct, "loss": loss}, still, mask)
    assert ATTACKED_ACCURACY.values(table).tolist() == [False, True, True, False]


def test_the_spatial_grids_are_those_of_the_original():
    """Rotations up to c degrees, translations up to c / 280 of the padded side, including the ends."""
    (points,) = (
        preset("afc_spatial_grid", PresetConfig(224, constraint=8), paper=True).measurements[0].sets.values()
    )
    down, right, degrees, scale = points.points.reshape(31, 5, 5, 4).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(degrees, np.linspace(8, -8, 31)[:, None, None] + np.zeros((5, 5)), rtol=2e-6)
    unturned = np.linspace(-7.314286, 7.314286, 5)
    np.testing.assert_allclose(
        right[15], -unturned[:, None] + np.zeros(5), atol=1e-5
    )  # t_x changes more slowly
    np.testing.assert_allclose(down[15], -unturned[None] + np.zeros((5, 1)), atol=1e-5)
    assert not scale.any()
    (points,) = (
        preset("afc_translation_grid", PresetConfig(224, constraint=1), paper=True)
        .measurements[0]
        .sets.values()
    )
    np.testing.assert_allclose(
        np.unique(points.points[:, 1]), np.linspace(-0.9142857, 0.9142857, 64), rtol=1e-5
    )
    assert points.count == 64 * 64
    assert not points.points[:, 2:].any() and np.abs(points.points[:, :2]).min() > 0  # no point is zero


def test_afc_evaluate_and_aps_by_hand(batch):
    images, label = batch["image"], batch["label"]
    stream, agree, consist = np.random.RandomState(0), [], []
    parts = [slice(0, 30), slice(30, 40)]
    for part in parts:
        pair = [np.roll(images[part], stream.randint(-32, 32, size=2), (1, 2)) for _ in range(2)]
        agree.append(np.equal(*(np.asarray(strided(x)).argmax(-1) for x in pair)))
    stream = np.random.RandomState(0)
    for part in parts:
        moved = np.roll(images[part], stream.randint(-32, 32, size=2), (1, 2))
        consist.append(
            *[np.asarray(strided(moved)).argmax(-1) == np.asarray(strided(images[part])).argmax(-1)]
        )
    batches = [{name: values[part] for name, values in batch.items()} for part in parts]
    logits = np.asarray(strided(images), np.float64)
    losses = -np.log(softmax(logits)[np.arange(40), label])
    top1, config = 100 * (logits.argmax(-1) == label).mean(), PresetConfig(SIDE, seed=0)
    assert run("aps_consistency", batches, config) == pytest.approx(
        {"top1": top1, "top5": 100, "consistency": 100 * np.concatenate(agree).mean()}
    )
    assert run("afc_evaluate", batches, config) == pytest.approx(
        {
            "acc1": top1,
            "acc5": 100,
            "loss": (losses[:30].mean() + losses[30:].mean()) / 2,
            "consist": 100 * np.concatenate(consist).mean(),
        }
    )


def test_cifar_tests_average_the_batches(batch):
    stream, means = np.random.RandomState(1), []
    for part in (slice(0, 30), slice(30, 40)):
        windows = []
        for _ in range(2):
            top, left = stream.randint(-3, 3, size=2) + 3
            padded = np.pad(batch["image"][part], ((0, 0), (3, 3), (3, 3), (0, 0)))
            windows.append(padded[:, top : top + SIDE, left : left + SIDE])
        means.append(np.equal(*(np.asarray(strided(x)).argmax(-1) for x in windows)).mean())
    batches = [{n: v[part] for n, v in batch.items()} for part in (slice(0, 30), slice(30, 40))]
    found = run("aps_cifar_crop", batches, PresetConfig(SIDE, seed=1))
    assert found["consistency"] == pytest.approx(np.mean(means)) and found["consistency"] < 1


def test_windows_by_hand():
    margin, side = 4, 24
    images = smooth_noise(12, side + 2 * margin)
    batch, config = labelled(strided, images, margin), PresetConfig(side, margin=margin)
    right = np.ones(12, bool)
    for top in range(1, 2 * margin + 1):
        for left in range(1, 2 * margin + 1):
            window = images[:, top : top + side, left : left + side]
            right &= np.asarray(strided(window)).argmax(-1) == batch["label"]
    found = run("afc_crop_shift", [batch], config)
    assert found == {"adversarial_crop_shift_shift_robust_score": 100 * right.mean()}
    shares = [
        softmax(np.asarray(strided(images[:, d : d + side, d : d + side])))[np.arange(12), batch["label"]]
        for d in range(2 * margin + 1)
    ]
    assert run("blurpool_diagonal", [batch], config)["Prob"] == pytest.approx(100 * np.mean(shares), rel=1e-5)


def thinned(shifts):
    """Every 16th shift of a large grid, in order."""
    if isinstance(shifts, dict):
        return {name: thinned(part) for name, part in shifts.items()}
    return Grid(shifts.points[::16]) if isinstance(shifts, Grid) and shifts.count > 200 else shifts


@pytest.mark.parametrize("name", PRESETS_OF["classification"])
@pytest.mark.parametrize("paper", [True, False])
def test_every_preset_runs_and_finds_nothing_in_a_constant_network(name, paper):
    margin = 2
    config = PresetConfig(SIDE, margin=margin, radius=2)
    chosen = preset(name, config, paper=paper)
    images = smooth_noise(4, SIDE + 2 * max(m.shifting.margin for m in chosen.measurements))
    fixed = lambda x: np.tile(np.float32([0, 1, 0, 0, 0]), (len(x), 1))  # noqa: E731
    measurements = [replace(m, shifts=thinned(m.shifts)) for m in chosen.measurements]
    results = evaluate(fixed, [labelled(fixed, images)], measurements)
    for m in chosen.measurements:
        shares = [
            v
            for k, v in results[m.name].items()
            if k.endswith(("consistency", "case_accuracy", "attacked_accuracy"))
        ]
        assert all(share == 1 for share in shares)
    assert bool(chosen.published(results)) == paper


def test_unknown_presets_and_impossible_ones():
    with pytest.raises(ConfigError, match="unknown preset 'afc_fractions'. Did you mean 'afc_fraction'"):
        preset("afc_fractions", PresetConfig(SIDE))
    with pytest.raises(ConfigError, match="eval.finest_fraction must be at least 2"):
        preset("afc_rand_shift", PresetConfig(SIDE, finest=1), paper=True)
    small = {"image": np.zeros((1, 16, 16, 1)), "label": np.zeros(1, int), "mask": np.ones(1)}
    with pytest.raises(
        ConfigError, match="a shift of 31 pixels is too large: the shorter side .* has 16 pixels"
    ):
        evaluate(Constant(), [small], preset("afc_integer", PresetConfig(16), paper=True).measurements)
