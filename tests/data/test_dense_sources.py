"""Scenes, and pairs of images and masks or targets in files."""

import os
import pickle
import shutil
import tarfile
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.config import SOURCES, TASKS
from aliasfree_jax.data import eval_batches, open_source, train_batches
from aliasfree_jax.data.opening import SOURCE_TASKS
from aliasfree_jax.data.prepare import open_sources
from aliasfree_jax.data.scenes import DigitScenesSource
from aliasfree_jax.data.segmentation_sets import VOC_CLASSES, trained_numbers
from aliasfree_jax.data.sources import IGNORED, task_of
from aliasfree_jax.errors import ConfigError, DataError

RGB = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
SIZES = {"2007_000032": (30, 41), "2007_000039": (33, 28), "2007_000063": (21, 50)}  # some odd sizes


def save(path, pixels, palette=False, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("L")
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(path, **options)


def mask_of_sides(sides, seed=0) -> np.ndarray:
    """Two objects with borders of 255, as in Pascal VOC."""
    mask = np.zeros(sides, np.uint8)
    rng = np.random.default_rng(seed)
    for _ in range(2):
        top, left = rng.integers(0, sides[0] - 12), rng.integers(0, sides[1] - 12)
        mask[top : top + 12, left : left + 12] = IGNORED
        mask[top + 2 : top + 10, left + 2 : left + 10] = rng.integers(1, 21)
    return mask


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "data/VOCdevkit/VOC2012"
    for seed, (name, sides) in enumerate(SIZES.items()):
        mask = mask_of_sides(sides, seed)
        save(root / f"SegmentationClass/{name}.png", mask, palette=True)
        save(root / f"SegmentationClassAug/{name}.png", mask)  # grey, as in the original files
        save(root / f"JPEGImages/{name}.jpg", np.stack([mask] * 3, -1), quality=95)
    save(root / "JPEGImages/2007_000001.jpg", np.zeros((9, 9, 3), np.uint8))  # without a mask, and in no list
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    names = list(SIZES)
    (lists / "train.txt").write_text(f"{names[0]}\n{names[1]}\n")
    (lists / "val.txt").write_text(f"{names[2]}\n")
    (lists / "trainval.txt").write_text("\n".join(names))
    pairs = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in names]
    (lists / "train_aug.txt").write_text("\n".join(pairs))
    return root


@pytest.fixture
def voc_config(voc, data_config):
    return data_config(source="voc", path=str(voc), image_size=16, **RGB)


def opened(data, train=True, task="segmentation"):
    return open_source(data, train=train, task=task)


def read_all(data, train=True, task="segmentation"):
    return list(eval_batches(opened(data, train, task), data, batch_size=1))


@pytest.mark.parametrize("above", [0, 1, 2])
def test_voc_is_found_and_its_masks_are_those_written(above, voc, voc_config):
    voc_config.path = str([voc, *voc.parents][above])
    source = opened(voc_config)
    assert source.class_names == tuple(VOC_CLASSES) and len(VOC_CLASSES) == 21
    assert len(source) == 2 and len(opened(voc_config, train=False)) == 1
    assert pickle.loads(pickle.dumps(source))[1] == source[1]
    # At the batch's size nothing is resized: the mask is the stored one, with or without palette.
    mask = mask_of_sides((16, 16), 7)
    for name in SIZES:
        save(voc / f"SegmentationClass/{name}.png", mask, palette=True)
        save(voc / f"JPEGImages/{name}.jpg", np.zeros((16, 16, 3), np.uint8))
    for batch in read_all(voc_config):
        np.testing.assert_array_equal(batch["label"][0], mask)


def test_voc_of_odd_sizes_trains_and_evaluates(voc_config):
    classes = {
        int(k) for seed, sides in enumerate(SIZES.values()) for k in np.unique(mask_of_sides(sides, seed))
    }
    for batch in read_all(voc_config):
        assert batch["label"].shape == (1, 16, 16) and set(np.unique(batch["label"])) <= classes
    voc_config.update({"crop": "random_scaled", "flip": True, "train_split": "trainval"})
    with closing(train_batches(opened(voc_config), voc_config, batch_size=15, seed=0)) as stream:
        assert set(np.unique(next(stream)["label"]).tolist()) == classes


def test_the_augmented_list_goes_with_its_masks(voc, voc_config):
    voc_config.train_split = "train_aug"
    source = opened(voc_config)
    assert len(source) == 3
    assert source[0].label_name.endswith("VOC2012/SegmentationClassAug/2007_000032.png")
    (voc / "ImageSets/Segmentation/train_aug.txt").write_text("2007_000039\n")
    assert opened(voc_config)[0].label_name.endswith("SegmentationClassAug/2007_000039.png")


def test_voc_from_a_tar(voc, voc_config, tmp_path):
    with tarfile.open(tmp_path / "voc.tar", "w") as tar:
        tar.add(voc.parent, "VOCdevkit")
    voc_config.path = str(tmp_path / "voc.tar")
    assert len(read_all(voc_config)) == 2


def faulty(voc, name):
    """Makes one fault in the validation image's files. Returns a pattern of the error message."""
    mask, image = voc / "SegmentationClass/2007_000063.png", voc / "JPEGImages/2007_000063.jpg"
    val = voc / "ImageSets/Segmentation/val.txt"
    match name:
        case "missing mask":
            mask.unlink()
            return (
                r"1 of 1 images have no mask: .*JPEGImages/2007_000063.jpg \(expected .*63.png\). Unpack Segm"
            )
        case "missing image":
            image.unlink()
            return r"names 1 of 1 images that do not exist: VOC2012/JPEGImages/2007_000063.jpg. Unpack"
        case "empty list":
            val.write_text("\n\n")
            return r"val.txt names no images"
        case "no list":
            val.unlink()
            return "unknown split of .*ImageSets/Segmentation 'val'.*Known: train, train_aug, trainval"
        case "no lists":
            shutil.rmtree(val.parent)
            return "unknown split of .*ImageSets/Segmentation 'val'. Known: none"
        case "no masks":
            shutil.rmtree(mask.parent)
            return "1 of 1 images have no mask.*Unpack SegmentationClass"
        case "several years":
            shutil.copytree(voc, voc.parent / "VOC2007")
            return "contains several data sets: VOC2007/, VOC2012/. Set data.path"
        case "other size":
            save(mask, mask_of_sides((22, 50)), palette=True)
            return r"2007_000063.png has 22 x 50 pixels, its image .*2007_000063.jpg 21 x 50.*Make the sizes"
        case "class beyond":
            pixels = mask_of_sides((21, 50), 2)
            pixels[3, 5] = 37
            save(mask, pixels, palette=True)
            return (
                r"63.png has the class 37 at row 3, column 5; expected 0 to 20.*or 255 \(ignored\). Correct"
            )
        case "colours":
            save(mask, np.stack([mask_of_sides((21, 50))] * 3, -1))
            return r"63.png is a colour image \(RGB\), not a mask: expected a PNG.*Replace each colour"
        case "damaged":
            mask.write_bytes(mask.read_bytes()[:60])
            return r"63.png: cannot decode these 60 bytes as a mask"
        case "jpeg":
            save(mask, mask_of_sides((21, 50)), format="JPEG")
            return r"63.png is a JPEG, which changes the numbers"


FAULTS = (
    "missing mask,missing image,empty list,no list,no lists,no masks,several years,other size,class beyond,"
    "colours,damaged,jpeg"
).split(",")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_data_is_named(fault, voc, voc_config):
    message = faulty(voc, fault)
    voc_config.path = str(voc.parent)
    with pytest.raises(DataError, match=message):
        read_all(voc_config, train=False)


def test_a_directory_without_voc_says_what_is_expected(voc_config, tmp_path):
    (tmp_path / "empty").mkdir()
    voc_config.path = str(tmp_path / "empty")
    with pytest.raises(
        DataError, match="does not contain JPEGImages, SegmentationClass and .*host.robots.ox.ac.uk"
    ):
        opened(voc_config)


def test_broken_masks_can_be_skipped_in_training(voc, voc_config):
    faulty(voc, "class beyond")
    voc_config.update({"corrupt": "skip", "train_split": "trainval"})
    with closing(train_batches(opened(voc_config), voc_config, batch_size=6, seed=0)) as stream:
        next(stream)
    assert stream.skipped and "class 37" in stream.first_skipped[0]


@pytest.mark.parametrize("ids", ["labelIds", "labelTrainIds"])
def test_cityscapes_has_nineteen_classes(ids, tmp_path, data_config):
    numbers = np.arange(34, dtype=np.uint8).repeat(8).reshape(16, 17)
    trained = trained_numbers()[numbers]
    for city in ("aachen", "bochum"):
        stem = f"train/{city}/{city}_000000_000019"
        save(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", np.stack([numbers] * 3, -1))
        save(tmp_path / f"gtFine/{stem}_gtFine_{ids}.png", numbers if ids == "labelIds" else trained)
    data = data_config(source="cityscapes", path=str(tmp_path), image_size=16, eval_crop_ratio=1.0, **RGB)
    source = opened(data)
    assert (
        len(source) == 2 and len(source.class_names) == 19 and source.class_names[::18] == ("road", "bicycle")
    )
    for batch in read_all(data):
        colours = np.rint(batch["image"][0, :, :, 0] * 255).astype(int)
        np.testing.assert_array_equal(batch["label"][0], trained_numbers()[colours])
    assert sorted(set(trained.ravel().tolist())) == [*range(19), IGNORED]
    os.remove(tmp_path / f"gtFine/{stem}_gtFine_{ids}.png")
    with pytest.raises(DataError, match="1 of 2 images have no mask.*gtFine_trainvaltest.zip"):
        opened(data)


LAYOUTS = ["{split}/{kind}", "{kind}/{split}", "deeper/{split}/{kind}"]


def write_pairs(root, layout, labels):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for k in range(count):
            image = rng.integers(0, 20, (16, 16)).astype(np.uint8)
            save(root / layout.format(split=split, kind="images") / f"sub/{k}.png", np.stack([image] * 3, -1))
            label = image % 3 if labels == "masks" else np.stack([2 * image] * 3, -1)
            save(root / layout.format(split=split, kind=labels) / f"sub/{k}.png", label)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_images_and_masks(layout, tmp_path, data_config):
    write_pairs(tmp_path, layout, "masks")
    data = data_config(source="folder", path=str(tmp_path), image_size=16, **RGB)
    root = tmp_path / ("deeper" if "deeper" in layout else "")
    with pytest.raises(DataError, match="classes.txt is missing.*one per line, in the order"):
        opened(data)
    (root / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(DataError, match="has the class 2 .*expected 0 to 1"):
        read_all(data)
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    source = opened(data, train=False)
    assert source.class_names == ("sky", "road", "car") and len(source) == 2
    for batch in read_all(data):
        np.testing.assert_array_equal(batch["label"], np.rint(batch["image"][..., 0] * 255).astype(int) % 3)
    next(path for path in root.rglob("1.png") if "test" in path.parts and "masks" in path.parts).unlink()
    with pytest.raises(
        DataError, match="1 of 2 images have no mask.*name of its image, except for the extension"
    ):
        opened(data, train=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_images_and_targets(layout, tmp_path, data_config):
    write_pairs(tmp_path, layout, "targets")
    data = data_config(source="folder", path=str(tmp_path), image_size=16, **RGB)
    for train, count in ((True, 3), (False, 2)):
        batches = read_all(data, train, "regression")
        assert len(batches) == count
        for batch in batches:
            # float32 rounding of numbers below 1
            np.testing.assert_allclose(batch["label"], 2 * batch["image"], atol=1e-6)


def test_classes_are_named_once_each(tmp_path, data_config):
    write_pairs(tmp_path, LAYOUTS[0], "masks")
    (tmp_path / "classes.txt").write_text("sky\nsky\n\n")
    with pytest.raises(DataError, match="names 2 classes, 1 of them different"):
        opened(data_config(source="folder", path=str(tmp_path)))


def test_two_files_of_one_name(tmp_path, data_config):
    write_pairs(tmp_path, LAYOUTS[0], "masks")
    save(tmp_path / "train/images/sub/1.jpg", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(DataError, match="several images named 'sub/1'"):
        opened(data_config(source="folder", path=str(tmp_path)))


@pytest.mark.parametrize("labels", ["masks", "targets"])
def test_pairs_are_no_classes(labels, tmp_path, data_config):
    write_pairs(tmp_path, LAYOUTS[0], labels)
    data = data_config(source="folder", path=str(tmp_path))
    for reads in (lambda: opened(data, task="classification"), lambda: open_sources(tmp_path)):
        with pytest.raises(
            ConfigError, match=f"contains images and {labels}, which are not classes.*config.task"
        ):
            reads()


def test_images_of_class_folders_are_their_own_targets(tree, data_config):
    data = data_config(source="folder", path=str(tree), noise=0.1, **RGB)
    assert (len(opened(data, True, "regression")), len(opened(data, False, "regression"))) == (5, 3)
    (batch,) = eval_batches(opened(data, False, "regression"), data, batch_size=3)
    np.testing.assert_allclose(batch["label"][:, 0, 0, 0] * 255, [70, 50, 60][1:] + [70], atol=1e-4)
    assert abs((batch["image"] - batch["label"]).std() - 0.1) < 0.012  # 4 standard errors of 576 draws
    data.eval_split = "nowhere"
    with pytest.raises(DataError, match="no split 'nowhere' in .*splits there: train, val"):
        opened(data, False, "regression")


def test_of_images_without_splits_every_tenth_is_for_evaluation(tmp_path, data_config):
    for k in range(21):
        save(tmp_path / f"some/{k:02}.png", np.full((8, 8, 3), k, np.uint8))
    data = data_config(source="folder", path=str(tmp_path), **RGB)
    held_out = opened(data, False, "regression")
    assert [held_out[k].name[-6:-4] for k in range(len(held_out))] == ["09", "19"]
    assert len(opened(data, True, "regression")) == 19
    with pytest.raises(
        DataError, match="has no split 'train' with masks: expected <split>/images and <split>/masks"
    ):
        opened(data)


@pytest.mark.parametrize("name", ["digits", "digit_scenes"])
def test_embedded_images_are_their_own_targets(name, data_config):
    data = data_config(source=name, image_size=16, mean=(0.3,), std=(0.2,), train_limit=3)
    source = opened(data, task="regression")
    assert task_of(source) == "regression" and source.class_names == ("grey",)
    (batch,) = eval_batches(source, data, batch_size=3)
    np.testing.assert_array_equal(batch["image"], batch["label"])


def test_every_source_says_its_tasks():
    assert set(SOURCE_TASKS) == set(SOURCES) and all(
        set(tasks) <= set(TASKS) for tasks in SOURCE_TASKS.values()
    )


@pytest.mark.parametrize(
    ("source", "task"), [(name, task) for name in SOURCES for task in TASKS if task not in SOURCE_TASKS[name]]
)
def test_sources_without_labels_for_a_task(source, task, data_config):
    with pytest.raises(ConfigError, match=f"'{source}' has no labels for task = '{task}', only for .*digit"):
        opened(data_config(source=source, path="/data"), task=task)


def test_scenes_are_the_same_every_time_and_of_other_digits_in_each_split():
    train, val = DigitScenesSource("train", 32), DigitScenesSource("val", 32)
    assert (len(train), len(val)) == (4096, 512) and len(train.class_names) == 11
    again = pickle.loads(pickle.dumps(train))
    for index in (0, 4095):
        np.testing.assert_array_equal(train[index].image, again[index].image)
        np.testing.assert_array_equal(train[index].label, again[index].label)
    assert not np.array_equal(train[0].image, train[1].image)
    assert not np.array_equal(train[0].image, val[0].image)
    digits = {digit.tobytes() for digit in train._digits}
    assert not digits & {digit.tobytes() for digit in val._digits}


def test_scenes_show_every_class_and_the_digits_stand_out():
    source = DigitScenesSource("val", 48)
    scenes = [source[k] for k in range(60)]
    images, masks = np.stack([s.image[..., 0] for s in scenes]), np.stack([s.label for s in scenes])
    assert set(np.unique(masks)) == set(range(11))
    assert 0.04 < (masks > 0).mean() < 0.2
    assert images.dtype == np.float32 and images.min() > -0.5 and images.max() < 2
    assert images[masks > 0].mean() - images[masks == 0].mean() > 0.25  # several deviations of the ground


def test_a_scene_is_band_limited_and_wraps_round():
    """The same scene at two resolutions: the finer one contains no higher frequencies."""
    for index in range(5):
        coarse, fine = (DigitScenesSource("train", size)[index] for size in (48, 96))
        spectrum = np.fft.fft2(fine.image[..., 0])
        high = abs(np.fft.fftfreq(96, 1 / 96)) >= 24
        # float32 rounding of sums of 9216 numbers up to 1; edges would give 1000 times as much
        assert abs(spectrum[high]).max() < 0.02 and abs(spectrum[:, high]).max() < 0.02
        np.testing.assert_allclose(fine.image[::2, ::2], coarse.image, atol=1e-5)
        np.testing.assert_array_equal(fine.label[::2, ::2], coarse.label)


def test_scenes_in_batches(data_config):
    data = data_config(source="digit_scenes", image_size=32, mean=(0.3,), std=(0.2,), eval_limit=6)
    (batch,) = eval_batches(opened(data, train=False), data, batch_size=6)
    assert batch["image"].shape == (6, 32, 32, 1) and batch["label"].shape == (6, 32, 32)
    with pytest.raises(ConfigError, match="unknown split of digits 'nowhere'"):
        opened(data_config(source="digit_scenes", train_split="nowhere"))


def test_images_beside_masks_are_restored_without_these(tmp_path, data_config):
    write_pairs(tmp_path, LAYOUTS[0], "masks")
    source = opened(data_config(source="folder", path=str(tmp_path)), task="regression")
    assert len(source) == 3 and all("/images/" in source[k].name for k in range(3))


def test_several_trees_of_images(tmp_path, data_config):
    for name in ("one/train/0.png", "two/train/0.png"):
        save(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="contains several trees: one/train, two/train. Set data.path"):
        opened(data_config(source="folder", path=str(tmp_path)), task="regression")
