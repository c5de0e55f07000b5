"""The papers' metrics: which shifts, how many forwards, and the numbers, against direct computations."""

import numpy as np
import pytest
from classifiers import labelled, smooth_noise, strided

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.measurements import distinct_factors
from aliasfree_jax.evaluation.presets import PRESETS, Setting, preset
from aliasfree_jax.ops.resample import ideal_resample

SIDE = 32


class Constant:
    """Class 0 for every image; counts its forwards."""

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
        ("afc_spatial_grid", {}, 1 + 31 * 5 * 5),
        ("afc_translation_grid", {}, 1 + 64 * 64),
        # Rings 1 ... m of 8 s shifts each, and the unshifted image.
        ("aft_cyclic_shift", {"radius": 3}, 1 + 8 * (1 + 2 + 3)),
        ("aft_cyclic_half_shift", {"radius": 3}, 1 + 8 * (1 + 2 + 3)),
        ("aft_crop_shift", {"margin": 2}, 1 + 8 * (1 + 2)),
        ("aft_bilinear_shift", {"margin": 2, "finest": 4}, 1 + 8 * (1 + 2 + 3 + 4)),
    ],
)
def test_forwards_are_counted(name, options, forwards):
    setting, predict = Setting(SIDE, **options), Constant()
    chosen = preset(name, setting, paper=True)
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


@pytest.mark.parametrize("name", PRESETS)
def test_the_images_are_resized_as_by_the_original(name):
    """The programs for CIFAR-10 do not resize; those of AFC and AFT are bicubic but for three of AFC's."""
    expected = "" if "cifar" in name else "bilinear" if name in BILINEAR else "bicubic"
    assert preset(name, Setting(SIDE), paper=True).interpolation == expected
    assert preset(name, Setting(SIDE)).interpolation == ""  # the sane variant: as the network


def shifts_of(name, setting, batches=1):
    """The shifts [batches, K, 2] of each measurement."""
    sets = [m.sets.values() for m in preset(name, setting, paper=True).measurements]
    drawn = [[s.draw(np.arange(3)) for parts in sets for s in parts] for _ in range(batches)]
    return [np.stack([batch[i][:, 0] for batch in drawn]) for i in range(len(drawn[0]))]


def test_the_factors_of_fractions():
    assert [distinct_factors(n) for n in (2, 4, 5, 6, 8)] == [
        [2], [3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7, 8],
    ]  # fmt: skip


def test_the_draws_are_those_of_the_originals():
    # Specification, A5: seed 0, two rolls a batch.
    (rolls,) = shifts_of("aps_consistency", Setting(SIDE, seed=0), batches=2)
    assert rolls.tolist() == [[[12, 15], [21, -32]], [[-29, 27], [-29, 7]]]
    # A6: content moves against the window; circular the same way.
    (rolls,) = shifts_of("aps_cifar_circular", Setting(SIDE, seed=0), batches=2)
    assert rolls.tolist() == [[[1, 2], [-3, 0]], [[0, 0], [-2, 0]]]
    (crops,) = shifts_of("aps_cifar_crop", Setting(SIDE, seed=0))
    assert crops.tolist() == [[[-1, -2], [3, 0]]]
    # B9: windows first, then rolls, from one stream.
    for seed, windows, rolls in (
        (7, [(15, 4), (25, 22)], [(-29, -13), (-9, 7)]),
        (21, [(9, 15), (24, 4)], [(16, 16), (24, 3)]),
        (42, [(6, 19), (28, 14)], [(10, -25), (28, -12)]),
    ):
        found = shifts_of("lps_consistency", Setting(224, seed=seed))
        np.testing.assert_array_equal(16 - found[0][0], windows)
        np.testing.assert_array_equal(found[1][0], rolls)


def test_the_grids_are_those_of_the_originals():
    (thirds, quarters) = shifts_of("afc_fraction", Setting(SIDE))
    np.testing.assert_allclose(sorted({*thirds.flat}), [-2 / 3, -1 / 3], rtol=1e-6)
    assert thirds.shape == (1, 4, 2) and quarters.shape == (1, 9, 2)
    (rolls,) = shifts_of("afc_integer", Setting(SIDE))
    assert {tuple(s) for s in rolls[0]} == {(i, j) for i in range(1, 32) for j in range(1, 32)}
    rolls, half = shifts_of("afc_full", Setting(SIDE))
    np.testing.assert_array_equal(half, 0.5 - rolls)
    (windows,) = shifts_of("afc_crop_shift", Setting(SIDE, margin=3))
    assert {tuple(3 - s) for s in windows[0]} == {(i, j) for i in range(1, 7) for j in range(1, 7)}
    (windows,) = shifts_of("blurpool_diagonal", Setting(SIDE, margin=16))
    assert (16 - windows[0]).tolist() == [[d, d] for d in range(33)]
    for windows in shifts_of("blurpool_consistency", Setting(SIDE), batches=50):
        assert {*(16 - windows).flat} <= {*range(32)} and len({*windows.flat}) > 20


def test_the_rings_are_those_of_the_original():
    """results.md, section e: around (max_shift, max_shift), from where the roll is by the negative offset."""
    (rolls,) = shifts_of("aft_cyclic_shift", Setting(SIDE, radius=3))
    offsets = {(i, j) for i in range(7) for j in range(7)} - {(3, 3)}
    assert {tuple(-s) for s in rolls[0]} == offsets and len(rolls[0]) == len(offsets)
    rings = np.abs(rolls[0] + 3).max(-1)
    assert rings.tolist() == [1] * 8 + [2] * 16 + [3] * 24  # ring s has 8 s shifts
    # Enlarged twice, with an odd max_shift: the centre (1.5, 1.5) is a half-pixel point.
    (rolls,) = shifts_of("aft_cyclic_half_shift", Setting(SIDE, radius=3))
    assert {tuple(-2 * s) for s in rolls[0]} == offsets
    (windows,) = shifts_of("aft_crop_shift", Setting(SIDE, margin=3))
    assert {tuple(3 - s) for s in windows[0]} == offsets
    (parts,) = shifts_of("aft_bilinear_shift", Setting(SIDE, finest=3))
    np.testing.assert_array_equal(sorted({*np.rint(3 * parts).ravel()}), range(-3, 4))
    assert len(parts[0]) == 48 and np.abs(parts).max() == 1
    # The sane rings are around no shift.
    for name in ("aft_cyclic_shift", "aft_cyclic_half_shift"):
        (wanted,) = preset(name, Setting(SIDE, radius=3)).measurements
        assert {tuple(s) for s in wanted.shifts.points * (2 if "half" in name else 1)} == {
            (i - 3, j - 3) for i, j in offsets
        }


def subpixel_shift(images, up, rows, columns):
    """As the original does it: enlarged, rolled against the shift, subsampled."""
    side = images.shape[1]
    large = np.asarray(ideal_resample(images, (up * side, up * side)))
    return np.roll(large, (-rows, -columns), (1, 2))[:, ::up, ::up]


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def run(name, batches, setting, predict=strided):
    chosen = preset(name, setting, paper=True)
    results = evaluate(predict, batches, chosen.measurements)
    return chosen.published(results)


@pytest.fixture(scope="module")
def batch():
    images = smooth_noise(40, SIDE)
    found = labelled(strided, images)
    found["label"][::5] = (found["label"][::5] + 1) % 5
    return found


def test_afc_consistency_by_hand(batch):
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
    found = run("afc_consistency", [batch], Setting(SIDE, seed=3))
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
    found = run("afc_fraction", [batch], Setting(SIDE, finest=4))
    assert found == {"sub_shift_robust_score": right.mean()}
    assert 0 < right.mean() < clean


@pytest.mark.parametrize(("name", "up"), [("aft_cyclic_shift", 1), ("aft_cyclic_half_shift", 2)])
def test_aft_cyclic_by_hand(name, up, batch):
    images, label, most = batch["image"], batch["label"], 3
    right = np.asarray(strided(images)).argmax(-1) == label
    expected, clean = {}, right.mean()
    for radius in range(1, most + 1):
        for i in range(-radius, radius + 1):
            for j in range(-radius, radius + 1):
                if max(abs(i), abs(j)) == radius:
                    moved = subpixel_shift(images, up, most + i, most + j)
                    right &= np.asarray(strided(moved)).argmax(-1) == label
        expected[f"radius {radius}"] = right.mean()
    assert run(name, [batch], Setting(SIDE, radius=most)) == expected
    assert clean > expected["radius 1"] > expected["radius 3"]


def test_aft_bilinear_by_hand():
    margin, side, parts = 2, 16, 3
    images = smooth_noise(24, side + 2 * margin)
    batch = labelled(strided, images, margin)
    right, expected = np.ones(24, bool), {}
    for radius in range(1, parts + 1):
        for i in range(-radius, radius + 1):
            for j in range(-radius, radius + 1):
                # Between the four windows around: the first axis, then the second.
                at = np.array([margin - i / parts, margin - j / parts]) + 1e-9
                (top, left), (low, far) = np.floor(at).astype(int), at % 1
                rows = (1 - low) * images[:, top : top + side] + low * images[:, top + 1 : top + 1 + side]
                moved = (1 - far) * rows[:, :, left : left + side] + far * rows[
                    :, :, left + 1 : left + 1 + side
                ]
                right &= np.asarray(strided(moved)).argmax(-1) == batch["label"]
        expected[f"radius {radius}"] = right.mean()
    assert run("aft_bilinear_shift", [batch], Setting(side, margin=margin, finest=parts)) == expected
    assert 1 > expected["radius 1"] > expected["radius 3"]


def test_the_spatial_grids_are_those_of_the_original():
    """Section 6: rotations by up to c degrees, translations by up to c / 280 of the side, ends included."""
    (points,) = preset("afc_spatial_grid", Setting(224, constraint=8)).measurements[0].sets.values()
    for axis, most, number in ((0, 6.4, 5), (1, 6.4, 5), (2, 8, 31)):
        np.testing.assert_allclose(
            np.unique(points.points[:, axis]), np.linspace(-most, most, number), rtol=1e-6
        )
    (points,) = preset("afc_translation_grid", Setting(224, constraint=1)).measurements[0].sets.values()
    np.testing.assert_allclose(np.unique(points.points[:, 1]), np.linspace(-0.8, 0.8, 64), rtol=1e-5)
    assert not points.points[:, 2:].any() and np.abs(points.points[:, :2]).min() > 0  # never at rest


def test_afc_translation_grid_by_hand():
    side, count, c, black = 16, 12, 30, 2.0
    images = smooth_noise(count, side)
    batch = labelled(strided, images)
    batch["label"][0] = (batch["label"][0] + 1) % 5  # wrong unshifted
    positions = np.arange(side) * side / (side - 1) - 0.5  # sample i lies at i N / (N - 1) - 1/2
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=black)
    shifts = np.linspace(-c / 280 * side, c / 280 * side, 64)
    distance = np.abs((positions - shifts[:, None] + 4)[..., None] - np.arange(side + 8))
    weights = np.maximum(0, 1 - distance).astype(np.float32)  # bilinear, [64, side, side + 8]
    right = np.ones(count, bool)
    for rows in weights:
        moved = np.einsum("ir,nrck->nick", rows, padded)
        moved = np.einsum("sjc,nick->snijk", weights, moved, optimize=True)
        predicted = np.asarray(strided(moved.reshape(-1, side, side, 3))).argmax(-1)
        right &= (predicted.reshape(64, count) == batch["label"]).all(0)
    found = run("afc_translation_grid", [batch], Setting(side, constraint=c, fill=(black,) * 3))
    assert found == {"natacc": (count - 1) / count, "advacc": right.mean()}
    assert 0 < right.mean() < (count - 1) / count


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
    top1, setting = 100 * (logits.argmax(-1) == label).mean(), Setting(SIDE, seed=0)
    assert run("aps_consistency", batches, setting) == pytest.approx(
        {"top1": top1, "top5": 100, "consistency": 100 * np.concatenate(agree).mean()}
    )
    assert run("afc_evaluate", batches, setting) == pytest.approx(
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
    found = run("aps_cifar_crop", batches, Setting(SIDE, seed=1))
    assert found["consistency"] == pytest.approx(np.mean(means)) and found["consistency"] < 1


def test_windows_by_hand():
    margin, side = 4, 24
    images = smooth_noise(12, side + 2 * margin)
    batch, setting = labelled(strided, images, margin), Setting(side, margin=margin)
    right = np.ones(12, bool)
    for top in range(1, 2 * margin + 1):
        for left in range(1, 2 * margin + 1):
            window = images[:, top : top + side, left : left + side]
            right &= np.asarray(strided(window)).argmax(-1) == batch["label"]
    found = run("afc_crop_shift", [batch], setting)
    assert found == {"adversarial_crop_shift_shift_robust_score": 100 * right.mean()}
    shares = [
        softmax(np.asarray(strided(images[:, d : d + side, d : d + side])))[np.arange(12), batch["label"]]
        for d in range(2 * margin + 1)
    ]
    assert run("blurpool_diagonal", [batch], setting)["Prob"] == pytest.approx(
        100 * np.mean(shares), rel=1e-5
    )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("paper", [True, False])
def test_every_preset_runs_and_finds_nothing_in_a_constant_network(name, paper):
    margin = 2
    setting = Setting(SIDE, margin=margin, radius=2)
    chosen = preset(name, setting, paper=paper)
    images = smooth_noise(4, SIDE + 2 * margin)
    if not any(m.shifting.margin for m in chosen.measurements):
        images = images[:, margin:-margin, margin:-margin]
    fixed = lambda x: np.tile(np.float32([0, 1, 0, 0, 0]), (len(x), 1))  # noqa: E731
    results = evaluate(fixed, [labelled(fixed, images)], chosen.measurements)
    for m in chosen.measurements:
        shares = [v for k, v in results[m.name].items() if k.endswith(("consistency", "case_accuracy"))]
        assert all(share == 1 for share in shares)
    assert bool(chosen.published(results)) == paper


def test_unknown_presets_and_impossible_ones():
    with pytest.raises(ConfigError, match="unknown preset 'afc_fractions'. Did you mean 'afc_fraction'"):
        preset("afc_fractions", Setting(SIDE))
    with pytest.raises(ConfigError, match="1/2 of a pixel or finer"):
        preset("afc_rand_shift", Setting(SIDE, finest=1), paper=True)
    small = {"image": np.zeros((1, 16, 16, 1)), "label": np.zeros(1, int), "mask": np.ones(1)}
    with pytest.raises(ConfigError, match="a shift of 31 pixels is too large: the shorter side .* is 16"):
        evaluate(Constant(), [small], preset("afc_integer", Setting(16), paper=True).measurements)
