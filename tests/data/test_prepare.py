"""Packing images into shards: what is kept, resuming, checksums, and the tars of ILSVRC2012."""

import io
import json
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from aliasfree_jax.config import base_config
from aliasfree_jax.data import open_source, train_batches
from aliasfree_jax.data import prepare as module
from aliasfree_jax.data.decode import decode
from aliasfree_jax.data.folder import FolderSource
from aliasfree_jax.data.ilsvrc import DEVKIT, TRAIN, VAL
from aliasfree_jax.data.prepare import main, prepare
from aliasfree_jax.data.records import RecordSource, read_info, unpack
from aliasfree_jax.errors import ConfigError, DataError

SIZES = {"per_shard": 4, "side": 0, "workers": 2}


def jpeg(height=20, width=30, seed=0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two classes; 9 training images, 3 validation images."""
    root = tmp_path_factory.mktemp("folders")
    for split, count in (("train", 9), ("val", 3)):
        for index in range(count):
            path = root / split / ("cat", "dog")[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(seed=index))
    return root


@pytest.fixture(scope="module")
def packed(folders, tmp_path_factory):
    directory = tmp_path_factory.mktemp("packed") / "deep"
    prepare(folders, directory, **SIZES)
    return directory


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_same_images_byte_by_byte(folders, packed, split):
    there, here = FolderSource(folders, split), RecordSource(packed, split)
    assert (len(here), here.class_names) == (len(there), ("cat", "dog"))
    np.testing.assert_array_equal(here.labels, there.labels)
    for index in range(len(there)):
        assert here[index] == there[index]
    assert pickle.loads(pickle.dumps(here))[1] == there[1]


def test_only_shards_labels_and_info_are_left(packed):
    names = {path.name for path in packed.iterdir()}
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


def test_larger_images_are_resized_and_others_kept(tmp_path):
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
def test_packed_images_keep_their_orientation(tmp_path, side):
    """Packing turns nothing: data.exif chooses later."""
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path / "in/train/a/x.jpg"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(path, exif=turned)
    prepare(tmp_path / "in", tmp_path / "out", **SIZES | {"side": side})
    data = RecordSource(tmp_path / "out", "train")[0].image
    height, width = (20, 40) if side else (40, 80)
    assert decode(data, "x").shape == (height, width, 3)
    assert decode(data, "x", exif=True).shape == (width, height, 3)


def test_an_interrupted_run_goes_on(folders, tmp_path, monkeypatch):
    """Died after the first shard and within the second: the first is not written again."""
    directory = tmp_path / "out"
    directory.mkdir()
    monkeypatch.setattr(module, "_sources", {})
    module._begin(module.open_sources(folders))
    first, second, *_ = module.tasks_of(module.open_sources(folders), directory, 4, 0)
    note = module.write_shard(first)
    second.path.with_suffix(".part").write_bytes(b"half a shard")
    before = first.path.stat().st_mtime_ns
    info = prepare(folders, directory, **SIZES)
    assert first.path.stat().st_mtime_ns == before
    assert info["splits"]["train"]["shards"][0]["sha256"] == note["sha256"]
    assert len(RecordSource(directory, "train")) == 9
    assert not list(directory.glob("*.part"))


def test_other_options_are_refused_before_anything_is_lost(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_sources", {})
    module._begin(module.open_sources(folders))
    module.write_shard(module.tasks_of(module.open_sources(folders), tmp_path, 4, 0)[0])
    for changed in ({"side": 16}, {"per_shard": 5}):
        with pytest.raises(DataError, match="holds shards of other images or options"):
            prepare(folders, tmp_path, **SIZES | changed)
    assert len(list(tmp_path.glob("*.array_record"))) == 1


def test_images_that_cannot_be_resized_are_left_out_and_named(tmp_path):
    for name, data in (("good.jpg", jpeg()), ("bad.jpg", b"no image"), ("cut.jpg", jpeg()[:300])):
        path = tmp_path / "in/train/a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    info = prepare(tmp_path / "in", tmp_path / "out", **SIZES | {"side": 10})
    left_out = info["splits"]["train"]["unreadable"]
    assert len(left_out) == 2 and "bad.jpg" in left_out[0] and "cut.jpg" in left_out[1]
    assert len(RecordSource(tmp_path / "out", "train")) == 1


def test_a_split_that_cannot_be_packed_is_told_of(folders, tmp_path, capsys):
    shutil.copytree(folders, tmp_path / "in")
    (tmp_path / "in/val/cow").mkdir()
    (tmp_path / "in/val/cow/0.jpg").write_bytes(jpeg())
    info = prepare(tmp_path / "in", tmp_path / "out", **SIZES)
    assert list(info["splits"]) == ["train"]
    assert "without: " in (told := capsys.readouterr().err) and "train does not have" in told


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def ilsvrc(tmp_path):
    """Three classes whose numbers in the kit are not in the order of their names."""
    root = tmp_path / "ILSVRC2012"
    root.mkdir()
    with tarfile.open(root / TRAIN, "w") as outer:
        for number, name in enumerate(("n02", "n01", "n03")):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for index in range(2):
                    add(archive, f"{name}_{index}.JPEG", jpeg(seed=10 * number + index))
            add(outer, f"{name}.tar", inner.getvalue())
    with tarfile.open(root / VAL, "w") as archive:
        for index in (2, 1, 3):
            add(archive, f"ILSVRC2012_val_{index:08d}.JPEG", jpeg(seed=100 + index))
    ids = np.array([(1, "n03"), (2, "n01"), (3, "n02")], [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    kit = io.BytesIO()
    savemat(kit, {"synsets": ids})
    with tarfile.open(root / DEVKIT, "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", kit.getvalue())
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", b"3\n1\n2\n")
    return root


def test_the_tars_of_imagenet(ilsvrc, tmp_path):
    prepare(ilsvrc, tmp_path / "out", **SIZES)
    train, val = (RecordSource(tmp_path / "out", split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("n01", "n02", "n03")
    seen = {train[i].name: (train[i].label, train[i].image) for i in range(6)}
    assert seen["n02/n02_1.JPEG"] == (1, jpeg(seed=1)) and seen["n01/n01_0.JPEG"] == (0, jpeg(seed=10))
    # Images 1, 2, 3 are of the kit's classes 3, 1, 2: n02, n03, n01.
    assert [(val[i].name[-6], val[i].label) for i in range(3)] == [("1", 1), ("2", 2), ("3", 0)]
    assert val[0].image == jpeg(seed=101)


def test_faults_of_the_tars_are_named(ilsvrc, tmp_path):
    (ilsvrc / DEVKIT).rename(ilsvrc / "kit.tar.gz")
    with pytest.raises(DataError, match="labels of the validation images are in ILSVRC2012_devkit"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / "kit.tar.gz").rename(ilsvrc / DEVKIT)
    (ilsvrc / VAL).rename(ilsvrc / "val.tar")
    with pytest.raises(DataError, match="ILSVRC2012_img_val.tar is missing or damaged"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / "val.tar").rename(ilsvrc / VAL)
    with tarfile.open(ilsvrc / VAL, "a") as archive:
        add(archive, "ILSVRC2012_val_00000004.JPEG", jpeg())
    with pytest.raises(DataError, match="has 4 images, .* has labels of 3"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / TRAIN).write_bytes(jpeg())
    with pytest.raises(DataError, match="is damaged, or no tar of ILSVRC2012"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)


def test_the_command_packs_and_verifies(folders, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(folders), str(out), "--images_per_shard=5", "--workers=1"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "train: 9 images in 2 shards" in told and f"--config.data.path={out}" in told
    assert main(["--verify", str(out)]) == 0
    assert "3 shards are as they were written" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "is prepared already" in capsys.readouterr().err

    shard = out / "train-00001-of-00002.array_record"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (out / "val-00000-of-00001.array_record").unlink()
    assert main(["--verify", str(out)]) == 2
    told = capsys.readouterr().err
    assert "train-00001-of-00002.array_record is damaged" in told
    assert "val-00000-of-00001.array_record is missing" in told
    with pytest.raises(DataError, match="lacks 1 of 1 shards"):
        RecordSource(out, "val")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one"], "expected IMAGES and DIRECTORY"),
        (["a", "b", "--verify"], "expected IMAGES and DIRECTORY"),
        (["a", "b", "--images_per_shard=0"], "must be positive"),
        (["a", "b", "--resize=-1"], "must not be negative"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_directories_that_hold_no_records(packed, tmp_path):
    with pytest.raises(DataError, match="no prepared data set in .* python -m aliasfree_jax.data.prepare"):
        RecordSource(tmp_path, "train")
    with pytest.raises(DataError, match="unknown split of .*'tran'. Did you mean 'train'"):
        RecordSource(packed, "tran")
    (tmp_path / "info.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(DataError, match="has format 2, this version reads 1"):
        RecordSource(tmp_path, "train")
    with pytest.raises(DataError, match="no data at"):
        prepare(tmp_path / "nowhere", tmp_path / "out", **SIZES)


@pytest.mark.parametrize("record", [b"", b"123", b"\0\0\0\0\5\0\xff\xff\xff\xff\xff"])
def test_damaged_records(record):
    with pytest.raises(DataError, match=f"a record of {len(record)} bytes is damaged"):
        unpack(record)
