import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.data import FolderSource, TfdsSource, eval_batches, open_source
from aliasfree_jax.data.decode import decode
from aliasfree_jax.errors import DataError, MissingPackageError

tfds = pytest.importorskip("tensorflow_datasets")


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


class AliasfreeTiny(tfds.core.GeneratorBasedBuilder):
    """12 training and 6 validation images of one colour."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12, 0), "validation": self._generate_examples(6, 100)}

    def _generate_examples(self, count, first):
        for i in range(count):
            file = png(np.full((5, 6, 3), first + 10 * i, np.uint8))
            yield i, {"image": file, "label": i % 3, "file_name": f"{first + 10 * i}.png"}


class AliasfreeTwoLabels(tfds.core.GeneratorBasedBuilder):
    """The features of cifar100: `label` for the fine classes, and a coarse label."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=["apple", "aquarium_fish", "baby", "bear"]),
            "coarse_label": tfds.features.ClassLabel(names=["living", "eaten"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(8), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            file = png(np.full((32, 32, 3), i, np.uint8))
            yield i, {"id": f"train_{i}", "image": file, "label": i % 4, "coarse_label": int(i % 4 == 0)}


class AliasfreeMasks(tfds.core.GeneratorBasedBuilder):
    """4 training and 2 test images with masks, whose classes have no names, as in Oxford's pets."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % (i + 2)
            image = png(np.stack([mask] * 3, -1))
            yield i, {"image": image, "label": i % 2, "segmentation_mask": png(mask)}


class AliasfreeNamedMasks(AliasfreeMasks):
    """4 training and 2 test images whose `label` is a mask with class names."""

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.LabeledImage(labels=["a", "b", "c", "d", "e", "f"], shape=(None, None, 1)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count):
        for key, example in super()._generate_examples(count):
            yield key, {"image": example["image"], "label": example["segmentation_mask"]}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tfds")
    for builder in (AliasfreeTiny, AliasfreeTwoLabels, AliasfreeMasks, AliasfreeNamedMasks):
        builder(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def test_reads_encoded_images_without_tensorflow(data_dir):
    source = TfdsSource("aliasfree_tiny", "train", str(data_dir))
    assert len(source) == 12 and source.class_names == ("ant", "bee", "cow")
    for i in range(12):
        example = source[i]
        colour = int(decode(example.image, example.name)[0, 0, 0])
        assert example.label == colour // 10 % 3
        assert example.name == f"aliasfree_tiny/train[{i}] {colour}.png"
    assert "tensorflow" not in sys.modules


def test_of_two_labels_the_fine_one_is_taken(data_dir, data_config):
    source = TfdsSource("aliasfree_two_labels", "val", str(data_dir))
    assert source.split == "test" and source.class_names == ("apple", "aquarium_fish", "baby", "bear")
    assert [source[i].label for i in range(4)] == [
        int(decode(source[i].image, "")[0, 0, 0]) % 4 for i in range(4)
    ]
    assert source[0].name.startswith("aliasfree_two_labels/test[0] train_")
    data = data_config(source="tfds", name="aliasfree_two_labels", path=str(data_dir), image_size=32)
    batch = next(eval_batches(open_source(data, train=False), data, batch_size=4))
    assert sorted(batch["label"]) == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100), ("imagenet2012", 1000)])
def test_the_papers_data_sets_have_the_features_that_are_read(name, classes, tmp_path):
    features = tfds.builder(name, data_dir=tmp_path, file_format="array_record").info.features
    assert "image" in features and features["label"].num_classes == len(features["label"].names) == classes


def test_val_is_validation_and_slices_work(data_dir):
    val = TfdsSource("aliasfree_tiny", "val", str(data_dir))
    assert (val.split, len(val)) == ("validation", 6)
    assert len(TfdsSource("aliasfree_tiny", "val[:50%]", str(data_dir))) == 3
    assert len(TfdsSource("aliasfree_tiny", "train[2:5]", str(data_dir))) == 3


def test_pickles(data_dir):
    source = TfdsSource("aliasfree_tiny", "train", str(data_dir))
    assert pickle.loads(pickle.dumps(source))[7] == source[7]


def test_open_source(data_dir, data_config):
    data = data_config(source="tfds", name="aliasfree_tiny", path=str(data_dir), train_limit=4)
    source = open_source(data, train=True)
    assert len(source) == 4 and not isinstance(source, FolderSource)


def test_unknown_split(data_dir):
    with pytest.raises(DataError, match="unknown split of aliasfree_tiny 'trian'.*Did you mean 'train'"):
        TfdsSource("aliasfree_tiny", "trian", str(data_dir))
    with pytest.raises(DataError, match="no split 'train"):
        TfdsSource("aliasfree_tiny", "train[oops]", str(data_dir))


def test_not_prepared_tells_where_it_looked_and_how_to_prepare(tmp_path):
    with pytest.raises(
        DataError, match=r"cifar10 is not prepared: looked in .*array_record.*download_and_prepare"
    ):
        TfdsSource("cifar10", "train", str(tmp_path))


def test_unknown_data_set(tmp_path):
    with pytest.raises(DataError, match="no data set 'cifra10' in"):
        TfdsSource("cifra10", "train", str(tmp_path))


def test_tfrecord_is_refused_with_the_way_out(data_dir, tmp_path):
    # Without TensorFlow no tfrecord can be written, so these files only claim to be tfrecord.
    shutil.copytree(data_dir / "aliasfree_tiny", tmp_path / "aliasfree_tiny")
    info_path = tmp_path / "aliasfree_tiny/1.0.0/dataset_info.json"
    info = json.loads(info_path.read_text())
    info["fileFormat"] = "tfrecord"
    info_path.write_text(json.dumps(info))
    with pytest.raises(DataError, match="as tfrecord, which has no random access.*array_record"):
        TfdsSource("aliasfree_tiny", "train", str(tmp_path))


def test_package_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(MissingPackageError, match="'tfds' needs tensorflow_datasets .*pip install tens"):
        TfdsSource("cifar10", "train", "")


@pytest.mark.parametrize(
    ("name", "classes"), [("aliasfree_masks", "01234"), ("aliasfree_named_masks", "abcdef")]
)
def test_masks(name, classes, data_dir, data_config):
    """Without names, the classes are numbers up to the largest in the training split."""
    fields = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    data = data_config(source="tfds", name=name, path=str(data_dir), eval_split="test", **fields)
    source = open_source(data, train=False, task="segmentation")
    assert source.class_names == tuple(classes) and pickle.loads(pickle.dumps(source))[1] == source[1]
    (batch,) = eval_batches(source, data, batch_size=2)
    np.testing.assert_array_equal(batch["label"], np.rint(batch["image"][..., 0] * 255))
    assert "tensorflow" not in sys.modules


def test_images_are_their_own_targets(data_dir, data_config):
    fields = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    data = data_config(source="tfds", name="aliasfree_tiny", path=str(data_dir), **fields)
    source = open_source(data, train=True, task="regression")
    batch = next(eval_batches(source, data, batch_size=12))
    np.testing.assert_array_equal(batch["label"], batch["image"])
    assert source.class_names == ("red", "green", "blue")


def test_no_masks(data_dir):
    with pytest.raises(
        DataError, match="features image, label.*expected image and a mask .segmentation_mask"
    ):
        TfdsSource("aliasfree_tiny", "train", str(data_dir), "segmentation")
    with pytest.raises(DataError, match="features image, label; expected image and label.$"):
        TfdsSource("aliasfree_named_masks", "train", str(data_dir))
