"""Tests of the presets of segmentation and regression against the original computations, written in NumPy."""

import numpy as np
import pytest
from mapping import SIDE, classes, images_of, smoothing, strided, target_scenes

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.image_pairs import CompareImages
from aliasfree_jax.evaluation.pixel_classes import CompareClasses
from aliasfree_jax.evaluation.presets import PresetConfig, maps
from aliasfree_jax.evaluation.selection import preset

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)


def batches_of(images, label, *ends):
    """Batches that are split at `ends`."""
    parts = zip(np.split(images, ends), np.split(label, ends), strict=True)
    return [{"image": x, "label": y, "mask": np.ones(len(x))} for x, y in parts]


def run(name, network, batches, compare, config, *, paper=True):
    chosen = preset(name, config, paper=paper)
    results = evaluate(network, batches, chosen.measurements, compare=compare)
    return chosen.published(results) or results


def masscs(network, parts, seed, reach, way):
    """mASSC of five shifts in percent, `[5]`. All images have the same weight."""
    stream = np.random.RandomState(seed)
    same, count = np.zeros(5), 0
    for images in parts:
        predicted = np.asarray(network(images)).argmax(-1)
        side = images.shape[1]
        for k in range(5):
            s0, s1 = stream.randint(-reach, reach + 1), stream.randint(-reach, reach + 1)
            if way == "circular":
                moved = np.asarray(network(np.roll(images, (s0, s1), (1, 2))))
                back = np.roll(moved, (-s0, -s1), (1, 2)).argmax(-1)
                same[k] += (back == predicted).mean() * len(images)
            else:
                wide = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
                window = wide[:, reach + s0 : reach + s0 + side, reach + s1 : reach + s1 + side]
                moved = np.asarray(network(window)).argmax(-1)
                rows, columns = (slice(max(0, s), side + min(0, s)) for s in (s0, s1))
                there = slice(max(0, -s0), side + min(0, -s0)), slice(max(0, -s1), side + min(0, -s1))
                same[k] += (predicted[:, rows, columns] == moved[:, *there]).mean() * len(images)
        count += len(images)
    return 100 * same / count


@pytest.mark.parametrize(("network", "exact"), [(classes, True), (strided(classes), False)])
def test_massc_to_the_letter(network, exact, monkeypatch):
    """Shifts up to 6 pixels, so that images of 16 pixels suffice. Ignored pixels count."""
    monkeypatch.setattr(maps, "REACH", 6)
    images, label = target_scenes(5)
    found = run(
        "lps_massc", network, batches_of(images, label, 3), CompareClasses(), PresetConfig(SIDE, seed=7)
    )
    for way in ("circular", "linear"):
        expected = masscs(network, (images[:3], images[3:]), 7, 6, way)
        # Percent. Tolerance: the shares of pixels are computed in float32.
        assert found[way] == pytest.approx(expected.mean(), abs=1e-4)
        assert found[f"{way}_variance"] == pytest.approx(expected.var(), abs=1e-3)
    assert found["linear"] < 100  # the border has other content
    assert (found["circular"] == 100) == exact and (found["circular_variance"] == 0) == exact


def test_massc_reaches_32_pixels():
    config = PresetConfig(40, seed=3)
    circular, linear = preset("lps_massc", config, paper=True).measurements
    stream = np.random.RandomState(3)
    expected = stream.randint(-32, 33, (5, 2))
    for measurement, sign in ((circular, 1), (linear, -1)):
        drawn = np.concatenate([part.draw(np.arange(2)) for part in measurement.sets.values()])
        np.testing.assert_array_equal(drawn[:, 0], sign * expected)
        np.testing.assert_array_equal(drawn[:, 1], sign * expected)  # the whole batch has the same shifts
    images, label = target_scenes(1)
    with pytest.raises(
        ConfigError, match="a shift of .* pixels is too large: the shorter side .* has 16 pixels"
    ):
        run("lps_massc", classes, batches_of(images, label), CompareClasses(), PresetConfig(SIDE))


def test_massc_with_shifts_of_each_image():
    images, label = target_scenes(4)
    for network, exact in ((classes, True), (strided(classes), False)):
        whole, parts = (
            run("lps_massc", network, batches, CompareClasses(), PresetConfig(SIDE), paper=False)
            for batches in (batches_of(images, label), batches_of(images, label, 1, 3))
        )
        circular = whole["lps_massc_circular"]
        assert circular["pairs"] == 20 and (circular["consistency"] == 1) == exact
        for name in ("lps_massc_circular", "lps_massc_linear"):  # for any batches
            assert parts[name]["consistency"] == pytest.approx(whole[name]["consistency"], rel=1e-6)
            assert whole[name]["worst_consistency"] <= whole[name]["consistency"]
            assert "up to 15 pixels on each axis" in whole[name]["about"]  # a roll by 16 would change nothing


def unit(x):
    return np.asarray(x, np.float64) * STD + MEAN


@pytest.mark.parametrize(
    ("name", "peak"), [("aps_equivariance", np.ptp), ("aps_equivariance_mri", np.max)], ids=["ct", "mri"]
)
def test_aps_equivariance(name, peak):
    images, network = images_of(3, MEAN, STD), strided(smoothing)
    stream = np.random.RandomState(0)
    psnr, nmse = [], []
    for image in images:
        shift = tuple(stream.randint(-16, 16, 2))
        first = unit(np.roll(np.asarray(network(image[None])), shift, (1, 2)))
        second = unit(network(np.roll(image, shift, (0, 1))[None]))
        psnr.append(10 * np.log10(peak(first) ** 2 / np.square(first - second).mean()))
        nmse.append(np.square(first - second).sum() / np.square(first).sum())
    config, compare = PresetConfig(SIDE), CompareImages(MEAN, STD)
    for ends in ((), (1,)):  # one shift per image, for any batches
        found = run(name, network, batches_of(images, images, *ends), compare, config)
        assert found["PSNR"] == pytest.approx(np.mean(psnr), abs=1e-3)  # dB; float32
        assert found["NMSE"] == pytest.approx(np.mean(nmse), rel=1e-4) and found["NMSE"] > 1e-3
        assert 0 < found["SSIM"] < 1
    exact = run(name, smoothing, batches_of(images, images), compare, config)
    assert exact == {"NMSE": 0, "PSNR": 400, "SSIM": pytest.approx(1, abs=1e-6)}
    improved = run(name, network, batches_of(images, images), compare, config, paper=False)[name]
    assert improved["pairs"] == 3 and improved["mean_moved_nmse"] > 1e-3


def test_aps_psnr_shift():
    images = images_of(2, MEAN, STD)
    changes = []
    stream = np.random.RandomState(1)
    network = strided(smoothing)
    quality = lambda t, f: 10 * np.log10(np.ptp(t) ** 2 / np.square(t - f).mean())  # noqa: E731
    for image in images:
        before = quality(unit(image), unit(network(image[None]))[0])
        shifts = stream.randint(-16, 16, (10, 2))
        rolled = [np.roll(image, tuple(shift), (0, 1)) for shift in shifts]
        after = [quality(unit(x), unit(network(x[None]))[0]) for x in rolled]
        changes.append(np.abs(np.array(after) - before).max())
    config, compare = PresetConfig(SIDE, seed=1), CompareImages(MEAN, STD)
    found = run("aps_psnr_shift", network, batches_of(images, images), compare, config)
    assert found == {
        "mean": pytest.approx(np.mean(changes), abs=1e-3),
        "max": pytest.approx(max(changes), abs=1e-3),
    }
