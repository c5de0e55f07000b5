"""Masks and target images stay aligned with their image, in every step and every kind of stream."""

import itertools
import zlib
from contextlib import closing

import numpy as np
import pytest

from aliasfree_jax.config import CROPS
from aliasfree_jax.data import ArraySource, DigitsSource, eval_batches, hold_out, limit, train_batches
from aliasfree_jax.data.class_names import ClassNamesError, fit_classes
from aliasfree_jax.data.examples import DecodeOnce
from aliasfree_jax.data.masks import resize_nearest
from aliasfree_jax.data.paired_files import OwnTargets
from aliasfree_jax.data.sources import IGNORED, Example, task_of
from aliasfree_jax.errors import ConfigError, DataError

PLAIN = {"mean": (0.0,), "std": (1.0,)}
EVERYTHING = {"flip": True, "circular_shift": 3, "zero_pad": 2}


def coded(count: int = 5, height: int = 16, width: int = 16) -> ArraySource:
    """Images whose values (of 255) are 10 times the classes of their pixels, in 1..19."""
    classes = np.random.default_rng(0).integers(1, 20, (count, height, width))
    return ArraySource((classes * 10).astype(np.uint8)[..., None], classes, list(map(str, range(20))))


def blocks(count: int = 4, height: int = 40, width: int = 52) -> ArraySource:
    """Like `coded`, but with one class in each quarter, so that the inside survives resizing."""
    quarters = np.random.default_rng(0).integers(1, 20, (count, 2, 2))
    classes = quarters.repeat(height // 2, 1).repeat(width // 2, 2)
    return ArraySource((classes * 10).astype(np.uint8)[..., None], classes, list(map(str, range(20))))


def take(source, data, count, **options):
    with closing(train_batches(source, data, **{"batch_size": 4, "seed": 3, **options})) as stream:
        return list(itertools.islice(stream, count))


def encoded_classes(batch) -> np.ndarray:
    return batch["image"][..., 0] * 25.5


def test_a_batch_of_masks_has_the_promised_form(data_config):
    (batch,) = take(coded(), data_config(image_size=16, **PLAIN), 1)
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((4, 16, 16, 1), "float32"),
        "label": ((4, 16, 16), "int32"),
        "mask": ((4,), "float32"),
    }


@pytest.mark.parametrize("crop", ["none", "padded", "random"])
def test_unresized_pixels_keep_their_class(crop, data_config):
    """Every pixel of the image encodes its class. Black pixels come from outside and are ignored."""
    data = data_config(image_size=16, crop=crop, **EVERYTHING, **PLAIN)
    for batch in take(coded(), data, 6):
        outside = batch["label"] == IGNORED
        np.testing.assert_array_equal(outside, encoded_classes(batch) == 0)
        # float32 rounding of numbers below 20
        np.testing.assert_allclose(encoded_classes(batch)[~outside], batch["label"][~outside], atol=1e-4)
        assert outside.mean() < 0.7  # 16 of 20 pixels per side, minus 4 of the padding


@pytest.mark.parametrize("crop", CROPS)
def test_resized_pixels_keep_their_class_away_from_borders(crop, data_config):
    """Interpolation blends only near a border of two classes. Elsewhere image and mask agree."""
    data = data_config(image_size=24, crop=crop, crop_scale=(0.3, 1.0), **EVERYTHING, **PLAIN)
    for batch in take(blocks(), data, 6):
        labels, agree = batch["label"], abs(encoded_classes(batch) - batch["label"]) < 0.05
        inside = labels != IGNORED
        assert set(np.unique(labels[inside])) <= set(range(1, 20))  # no blended numbers
        seen = (agree & inside).sum() / inside.sum()
        assert seen > 0.6  # a few pixels on both sides of the borders differ, and more if views are small


def test_colours_and_erasing_change_the_image_only(data_config):
    plain = data_config(image_size=16, flip=True, **PLAIN)
    coloured = data_config(image_size=16, flip=True, color_jitter=0.5, erase_probability=1.0, **PLAIN)
    with_both = zip(take(coded(3), plain, 4), take(coded(3), coloured, 4), strict=True)
    for one, other in with_both:
        np.testing.assert_array_equal(one["label"], other["label"])
        assert not np.array_equal(one["image"], other["image"])


def test_what_lies_outside_a_scaled_crop_is_the_mean_colour_and_ignored(data_config):
    data = data_config(image_size=16, crop="random_scaled", scale_range=(0.5, 0.5), mean=(0.3,), std=(0.2,))
    (batch,) = take(coded(), data, 1)
    outside = batch["label"] == IGNORED
    np.testing.assert_array_equal(outside.sum((1, 2)), 16 * 16 - 8 * 8)
    # the mean colour is rounded to a byte: by at most half of one, divided by the standard deviation
    assert abs(batch["image"][..., 0][outside]).max() <= 0.5 / 255 / 0.2 + 1e-6
    corners = {tuple(np.argwhere(~label)[0]) for label in outside}
    assert len(corners) > 1  # at several places in the crop


@pytest.mark.parametrize("size", [(7, 5), (20, 31), (10, 10)])
def test_nearest_takes_the_value_at_the_centre(size):
    mask = np.random.default_rng(0).integers(0, 255, (10, 10, 1)).astype(np.uint8)
    rows, columns = (np.floor((np.arange(new) + 0.5) * 10 / new).astype(int) for new in size)
    np.testing.assert_array_equal(resize_nearest(mask, *size), mask[np.ix_(rows, columns)])


@pytest.mark.parametrize("size", [24, 400])
def test_evaluation_crops_the_centre_of_both_at_every_size(size, data_config):
    """From 384 pixels on, images for classification are squeezed; images with masks are not."""
    source = blocks(1, 200, 300)
    data = data_config(image_size=size, eval_crop_ratio=1.0, **PLAIN)
    (batch,) = eval_batches(source, data, batch_size=1)
    assert batch["label"].shape == (1, size, size)
    agree = abs(encoded_classes(batch) - batch["label"]) < 0.05
    assert (
        agree.mean() > 0.65
    )  # at 24 pixels four rows and columns next to the borders are blended: (20 / 24)^2
    # the quarters of the centre crop, 200 of 300 pixels wide, are 100 wide each: half of the view
    assert (batch["label"][0, 0] == batch["label"][0, 0, 0]).sum() == pytest.approx(size / 2, abs=1)


def test_the_last_batch_is_filled_with_ignored_pixels(data_config):
    *_, last = eval_batches(coded(5), data_config(image_size=16, **PLAIN), batch_size=4)
    assert last["mask"].tolist() == [1, 0, 0, 0] and (last["label"][1:] == IGNORED).all()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_streams_depend_on_the_seed_and_the_step_only(workers, data_config):
    fields = {"image_size": 16, "crop": "random_scaled", **EVERYTHING, **PLAIN}
    whole = take(blocks(), data_config(**fields), 4)
    later = take(blocks(), data_config(workers=workers, **fields), 2, start_step=2)
    for a, b in zip(whole[2:], later, strict=True):
        for key in ("image", "label"):
            np.testing.assert_array_equal(a[key], b[key])


def test_targets_are_moved_and_normalised_as_their_images(data_config):
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 26, 3)).astype(np.uint8)
    means = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    for crop in CROPS:
        data = data_config(image_size=16, crop=crop, **EVERYTHING, **means)
        for source in (ArraySource(images, images), OwnTargets(ArraySource(images, np.arange(4)))):
            assert task_of(source) == "regression" and source.class_names == ("red", "green", "blue")
            batches = [*take(source, data, 2), *eval_batches(source, data, batch_size=3)]
            for batch in batches:
                np.testing.assert_array_equal(batch["image"], batch["label"])
            assert batch["label"].shape == (3, 20, 20, 3) and batch["mask"].tolist() == [1, 0, 0]


def test_noise_is_new_in_training_and_fixed_in_evaluation(data_config):
    source = OwnTargets(DigitsSource("val", 16))
    data = data_config(image_size=16, noise=0.1, mean=(0.5,), std=(0.25,))
    clean = data_config(image_size=16, mean=(0.5,), std=(0.25,))
    first, again = (next(eval_batches(source, data, batch_size=50)) for _ in range(2))
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_array_equal(first["label"], next(eval_batches(source, clean, batch_size=50))["image"])
    noise = (first["image"] - first["label"]) * 0.25
    assert abs(noise.std() - 0.1) < 0.004  # 4 standard errors of 12,800 draws
    assert not np.array_equal(noise[0], noise[1])
    batches = take(limit(source, 1), data, 2, batch_size=1)
    assert not np.array_equal(batches[0]["image"], batches[1]["image"])
    np.testing.assert_array_equal(batches[0]["label"], batches[1]["label"])


def test_a_reduced_image_lacks_the_high_frequencies(data_config):
    source = OwnTargets(ArraySource(np.random.default_rng(0).random((1, 15, 15, 1), np.float32), [0]))
    (batch,) = eval_batches(source, data_config(image_size=15, reduction=3, **PLAIN), batch_size=1)
    spectra = {key: np.fft.fft2(batch[key][0, :, :, 0]) for key in ("image", "label")}
    kept = abs(np.fft.fftfreq(15, 1 / 15)) <= 2  # frequencies that 5 samples can represent
    kept = kept[:, None] & kept[None]
    # float32 rounding of sums of 225 numbers up to 1
    np.testing.assert_allclose(spectra["image"], np.where(kept, spectra["label"], 0), atol=1e-3)


def test_fields_of_other_tasks_are_refused(data_config):
    with pytest.raises(
        ConfigError, match="rand_augment.*moves images without their masks.*data.rand_augment = ''"
    ):
        train_batches(coded(), data_config(rand_augment="rand-m9-inc1", **PLAIN), batch_size=1, seed=0)
    with pytest.raises(ConfigError, match="data.noise = 0.1 .*'regression', but the task is segmentation"):
        eval_batches(coded(), data_config(noise=0.1, **PLAIN), batch_size=1)
    with pytest.raises(ConfigError, match="data.reduction = 2 are only.*task is classification"):
        eval_batches(DigitsSource("val", 8), data_config(reduction=2, **PLAIN), batch_size=1)


def test_parts_of_dense_sources_keep_the_task_and_are_evenly_spread():
    source = coded(20)
    for part in (limit(source, 5), DecodeOnce(source), *hold_out(source, 0.25)):
        assert task_of(part) == "segmentation" and not hasattr(part, "labels")
    few = limit(source, 5)
    np.testing.assert_array_equal([few[k].label for k in range(5)], [source[4 * k].label for k in range(5)])
    assert list(map(len, hold_out(source, 0.25))) == [15, 5]


class Files:
    """Encoded images and masks."""

    task, class_names = "segmentation", ("a", "b", "c")

    def __init__(self, encoded):
        self.mask = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)
        self._example = Example(
            encoded(self.mask.repeat(3).reshape(2, 3, 3)), encoded(self.mask), "image", "mask"
        )

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self._example


def test_masks_are_decoded_once(encoded):
    source = Files(encoded)
    once = DecodeOnce(source)
    np.testing.assert_array_equal(once[0].label, source.mask)
    assert once[0] is once[0]


def test_classes_in_another_order_are_renumbered_and_ignored_stays(encoded):
    notes = []
    fitted = fit_classes(Files(encoded), ("c", "a", "b"), tell=notes.append)
    assert fitted.class_names == ("c", "a", "b") and task_of(fitted) == "segmentation" and notes
    np.testing.assert_array_equal(fitted[0].label, [[1, 2, 0], [255, 2, 1]])


def test_channels_in_another_order_are_refused():
    source = OwnTargets(ArraySource(np.zeros((1, 4, 4, 3), np.uint8), [0]))
    assert fit_classes(source, source.class_names, tell=print) is source
    with pytest.raises(ClassNamesError, match="has the channels red, green, blue.*same channels"):
        fit_classes(source, ("blue", "green", "red"), tell=print)


@pytest.mark.parametrize(
    ("labels", "names", "match"),
    [
        (np.zeros((2, 4, 5), int), None, r"got int64\[2, 4, 5\]. Masks must be integers \[2, 4, 4\]"),
        (np.zeros((2, 4, 4)), None, "expected 2 integer labels.*got float64"),
        (
            np.full((2, 4, 4), 3),
            ["a", "b"],
            r"labels must lie in 0\.\.1 .*got 3\.\.3.*255 marks ignored",
        ),
        (np.full((2, 4, 4, 1), 200.0), None, "images must be in"),
        (np.zeros((2, 4, 4, 3)), ["a"], "class_names has 1 names, but the targets have 3 channels"),
    ],
)
def test_arrays_that_are_no_labels_of_pixels(labels, names, match):
    with pytest.raises(DataError, match=match):
        ArraySource(np.zeros((2, 4, 4, 1), np.uint8), labels, names)


@pytest.mark.parametrize(
    ("crop", "floats", "crc"),
    [("none", False, 2000188320), ("padded", False, 593210080), ("padded", True, 4193975828)],
)
def test_streams_of_classification_are_what_they_were(crop, floats, crc, data_config):
    """Checksums of batches from before masks were supported. No library resizes anything here."""
    rng = np.random.default_rng(0)
    images = (
        rng.random((5, 8, 8, 1), np.float32)
        if floats
        else rng.integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    )
    fields = {"crop": crop, "flip": True, "circular_shift": 3, "erase_probability": 0.5, "zero_pad": 2}
    data = data_config(mean=(0.4,), std=(0.3,), **fields)
    found = 0
    for batch in take(ArraySource(images, np.arange(5)), data, 3):
        found = zlib.crc32(batch["image"].tobytes() + batch["label"].tobytes(), found)
    for batch in eval_batches(ArraySource(images, np.arange(5)), data, batch_size=4):
        found = zlib.crc32(b"".join(batch[key].tobytes() for key in ("image", "label", "mask")), found)
    assert found == crc


@pytest.mark.parametrize("label", [np.int64(2), 2])
def test_a_source_that_says_no_task_has_classes(label, data_config):
    class Plain:
        class_names = ("a", "b", "c")

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Example(np.zeros((8, 8, 1), np.uint8), label, "image")

    (batch,) = eval_batches(Plain(), data_config(**PLAIN), batch_size=1)
    assert batch["label"].tolist() == [2]
    assert fit_classes(Plain(), ("c", "b", "a"), tell=str)[0].label == 0


def test_masks_without_a_task_are_refused(data_config):
    class Untold:
        class_names = ("a", "b", "c")

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Example(np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), int), "scan 7")

    with pytest.raises(DataError, match="scan 7 has labels of pixels.*set it to 'segmentation'"):
        next(eval_batches(Untold(), data_config(**PLAIN), batch_size=1))
