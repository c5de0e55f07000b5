"""Packing images into shards: what is kept, and the command."""

import pickle
import shutil

import numpy as np
import pytest
from packing import SIZES, in_process, jpeg
from PIL import Image

from aliasfree_jax.__main__ import main
from aliasfree_jax.config import base_config
from aliasfree_jax.data import open_source, train_batches
from aliasfree_jax.data.decode import decode
from aliasfree_jax.data.folder import FolderSource
from aliasfree_jax.data.prepare import prepare
from aliasfree_jax.data.records import RecordSource, read_info
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.files import LOCK


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_same_images_byte_by_byte(folders, packed, split):
    there, here = FolderSource(folders, split), RecordSource(packed, split)
    assert (len(here), here.class_names) == (len(there), ("cat", "dog"))
    np.testing.assert_array_equal(here.labels, there.labels)
    for index in range(len(there)):
        assert here[index] == there[index]
    assert pickle.loads(pickle.dumps(here))[1] == there[1]


def test_only_shards_labels_and_info_are_left(packed):
    names = {path.name for path in packed.iterdir()} - {LOCK}
    shards = {f"train-0000{i}-of-00003.array_record" for i in range(3)} | {"val-00000-of-00001.array_record"}
    assert names == shards | {"info.json", "train-labels.npy", "val-labels.npy"}
    train = read_info(packed)["splits"]["train"]
    assert train["images"] == 9 and [shard["images"] for shard in train["shards"]] == [3, 3, 3]


def test_training_reads_them(packed):
    config = base_config()
    config.data.update({"source": "records", "path": str(packed), "image_size": 16, "eval_crop_ratio": 1.0})
    batches = train_batches(open_source(config.data, train=True), config.data, batch_size=4, seed=0)
    batch = next(batches)
    batches.close()
    assert batch["image"].shape == (4, 16, 16, 3) and set(batch["label"]) <= {0, 1}
    config.data.path = ""
    with pytest.raises(ConfigError, match="'records' needs data.path"):
        open_source(config.data, train=True)


def test_larger_images_are_resized_and_others_kept(tmp_path, monkeypatch):
    in_process(monkeypatch)
    sizes = {"wide": (30, 60), "high": (80, 40), "small": (10, 50)}
    for name, (height, width) in sizes.items():
        path = tmp_path / f"in/train/a/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(height, width))
    prepare(tmp_path / "in", tmp_path / "out", **SIZES | {"side": 20})
    source = RecordSource(tmp_path / "out", "train")
    shapes = {
        e.name.split("/")[-1][:-4]: decode(e.image, "").shape[:2] for e in map(source.__getitem__, range(3))
    }
    assert shapes == {"wide": (20, 40), "high": (40, 20), "small": (10, 50)}
    small = next(e for e in map(source.__getitem__, range(3)) if "small" in e.name)
    assert small.image == jpeg(10, 50)


@pytest.mark.parametrize("side", [0, 20])
def test_packed_images_keep_their_orientation(tmp_path, monkeypatch, side):
    """Packing does not turn images, so data.exif still has an effect."""
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path / "in/train/a/x.jpg"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(path, exif=turned)
    in_process(monkeypatch)
    prepare(tmp_path / "in", tmp_path / "out", **SIZES | {"side": side})
    data = RecordSource(tmp_path / "out", "train")[0].image
    height, width = (20, 40) if side else (40, 80)
    assert decode(data, "x").shape == (height, width, 3)
    assert decode(data, "x", exif=True).shape == (width, height, 3)


def test_images_that_cannot_be_resized_are_left_out_and_named(tmp_path, monkeypatch):
    in_process(monkeypatch)
    for name, data in (("good.jpg", jpeg()), ("bad.jpg", b"no image"), ("cut.jpg", jpeg()[:300])):
        path = tmp_path / "in/train/a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    info = prepare(tmp_path / "in", tmp_path / "out", **SIZES | {"side": 10})
    left_out = info["splits"]["train"]["unreadable"]
    assert len(left_out) == 2 and "bad.jpg" in left_out[0] and "cut.jpg" in left_out[1]
    assert len(RecordSource(tmp_path / "out", "train")) == 1


def test_a_split_that_cannot_be_packed_is_told_of(folders, tmp_path, capsys, monkeypatch):
    in_process(monkeypatch)
    shutil.copytree(folders, tmp_path / "in")
    (tmp_path / "in/val/cow").mkdir()
    (tmp_path / "in/val/cow/0.jpg").write_bytes(jpeg())
    info = prepare(tmp_path / "in", tmp_path / "out", **SIZES)
    assert list(info["splits"]) == ["train"]
    assert "left out: " in (told := capsys.readouterr().err) and "train does not have" in told


def test_the_command_packs_and_verifies(folders, tmp_path, monkeypatch, capsys):
    in_process(monkeypatch)
    out = tmp_path / "out"
    arguments = ["prepare", str(folders), str(out), "--images_per_shard=5", "--workers=1"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "train: 9 images in 2 shards" in told and f"--config.data.path={out}" in told
    assert main(["prepare", "--verify", str(out)]) == 0
    assert "all 3 shards have the right checksums" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "is prepared already" in capsys.readouterr().err

    shard = out / "train-00001-of-00002.array_record"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (out / "val-00000-of-00001.array_record").unlink()
    assert main(["prepare", "--verify", str(out)]) == 2
    told = capsys.readouterr().err
    assert "train-00001-of-00002.array_record is damaged" in told
    assert "val-00000-of-00001.array_record is missing" in told
    with pytest.raises(DataError, match="lacks 1 of 1 shards"):
        RecordSource(out, "val")
