"""CIFAR-10 and CIFAR-100 in their original files: pickles of Python 2, written instruction by instruction."""

import os
import pickle
import shutil
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aliasfree_jax.__main__ import main
from aliasfree_jax.config import base_config
from aliasfree_jax.data import FolderSource, eval_batches, open_source
from aliasfree_jax.data.cifar import CifarSource
from aliasfree_jax.data.opening import open_images
from aliasfree_jax.errors import ConfigError, DataError

NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
PER_BATCH = 3


def text(data: bytes | str) -> bytes:
    """A `str` of Python 2: SHORT_BINSTRING, or BINSTRING if it is long."""
    data = data.encode() if isinstance(data, str) else data
    return (b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))) + data


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return b"M" + struct.pack("<H", value) if 0 <= value < 65536 else b"J" + struct.pack("<i", value)


def listed(values: list[bytes]) -> bytes:
    return b"](" + b"".join(values) + b"e"


def array(shape: tuple[int, ...], raw: bytes, dtype: str = "u1") -> bytes:
    """A numpy array, pickled as by numpy 1 under Python 2, with its bytes as a plain string."""
    sizes = b"".join(map(number, shape))
    lengths = sizes + b"\x86" if len(shape) == 2 else b"(" + sizes + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t"
    kind = b"cnumpy\ndtype\nq\n" + text(dtype) + b"K\x00K\x01\x87Rq\x0b"
    order = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return made + b"(K\x01" + lengths + kind + order + b"\x89" + text(raw) + b"tb"


def dictionary(**parts: bytes) -> bytes:
    return b"\x80\x02}q\x01(" + b"".join(text(key) + value for key, value in parts.items()) + b"u."


def batch(images: np.ndarray, classes: list[int], key: str = "labels", **changed: bytes) -> bytes:
    parts = {
        "batch_label": text("training batch 1 of 5"),
        key: listed([number(label) for label in classes]),
        "data": array((len(images), 3072), images.transpose(0, 3, 1, 2).tobytes()),
        "filenames": listed([text(f"{k}.png") for k in range(len(images))]),
    }
    return dictionary(**(parts | changed))


def pictures(seed: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (PER_BATCH, 32, 32, 3), np.uint8), rng.integers(0, 10, PER_BATCH).tolist()


@pytest.fixture
def cifar(tmp_path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for seed, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        (folder / name).write_bytes(batch(*pictures(seed)))
    meta = dictionary(num_cases_per_batch=number(3), label_names=listed([text(n) for n in NAMES]))
    (folder / "batches.meta").write_bytes(meta)
    (folder / "readme.html").write_text("<html>")
    return folder


def test_the_files_written_here_are_what_pickle_reads(cifar):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy 2 warns about its older names
        value = pickle.loads((cifar / "data_batch_2").read_bytes(), encoding="bytes")
    images, labels = pictures(1)
    assert set(value) == {b"batch_label", b"labels", b"data", b"filenames"} and value[b"labels"] == labels
    np.testing.assert_array_equal(value[b"data"], images.transpose(0, 3, 1, 2).reshape(PER_BATCH, -1))


def packed(folder: Path, kind: str) -> Path:
    path = folder.parent / f"cifar-10-python.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"{folder.name}/{file.name}")
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("place", ["directory", "parent", "tar", "tar.gz", "zip"])
def test_all_images_and_labels(cifar, place):
    path = {"directory": cifar, "parent": cifar.parent}.get(place) or packed(cifar, place)
    with pytest.raises(DataError, match="unknown split of .*'trian'. Did you mean 'train'"):
        open_images(path, "trian")
    for split, seeds in (("train", range(5)), ("val", [5]), ("test", [5])):
        source = open_images(path, split)
        assert isinstance(source, CifarSource) and source.class_names == tuple(NAMES)
        images, labels = (np.concatenate(parts) for parts in zip(*map(pictures, seeds), strict=True))
        np.testing.assert_array_equal(source.labels, labels)
        np.testing.assert_array_equal([source[k].image for k in range(len(source))], images)
    assert f"{source.split}[0]" in source[0].name and str(path) in source[0].name


def test_by_the_configuration(cifar):
    data = base_config().data
    data.update({"source": "folder", "path": str(cifar), "image_size": 32, "eval_crop_ratio": 1.0})
    batches = list(eval_batches(open_source(data, train=False), data, batch_size=3))
    assert batches[0]["image"].shape == (3, 32, 32, 3)
    assert batches[0]["label"].tolist() == pictures(5)[1]


def test_pickled_again_by_python_3(cifar):
    """Some copies of the data set have bytes as keys and protocol 2 or 4."""
    images, labels = pictures(5)
    rows = images.transpose(0, 3, 1, 2).reshape(PER_BATCH, -1)
    for protocol in (2, 4):
        (cifar / "test_batch").write_bytes(pickle.dumps({b"data": rows, b"labels": labels}, protocol))
        np.testing.assert_array_equal(open_images(cifar, "test")[2].image, images[2])


def test_numbers_that_happen_to_be_text(cifar):
    images = np.full((PER_BATCH, 32, 32, 3), 65, np.uint8)
    (cifar / "test_batch").write_bytes(batch(images, [0, 1, 2]))
    np.testing.assert_array_equal(open_images(cifar, "test")[0].image, images[0])


def test_cifar_100(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    coarse = listed([number(0)] * PER_BATCH)
    for seed, name in enumerate(("train", "test")):
        (folder / name).write_bytes(batch(*pictures(seed), key="fine_labels", coarse_labels=coarse))
    fine = listed([text(f"class {k}") for k in range(100)])
    (folder / "meta").write_bytes(dictionary(fine_label_names=fine, coarse_label_names=listed([text("all")])))
    for path in (folder, tmp_path, packed(folder, "tar.gz")):
        source = open_images(path, "val")
        assert source.labels.tolist() == pictures(1)[1] and len(source.class_names) == 100
        np.testing.assert_array_equal(source[1].image, pictures(1)[0][1])


class Hostile:
    def __reduce__(self):
        return os.system, ("touch HACKED",)


HOSTILE = {
    "system": (pickle.dumps({"data": Hostile()}, 2), "tries to run code: it asks for '(posix|nt).system'"),
    "instance": (b"(S'touch HACKED'\nios\nsystem\n.", "which plain data does not need|tries to run code"),
    "inst": (b"(ios\nsystem\n.", "tries to run code"),
    "object": (b"\x80\x02cos\nsystem\nU\x0ctouch HACKED\x85R.", "tries to run code"),
    "builtin": (b"\x80\x02c__builtin__\neval\nU\x011\x85R.", "tries to run code"),
    "extension": (b"\x80\x02\x82\x01.", "the instruction EXT1, which plain data does not need"),
    "state": (b"\x80\x02}}U\x01aK\x01sb.", "tries to set attributes of a value of type dict"),
    "persistent": (b"\x80\x02U\x01aQ.", "refers to values outside the file"),
    "list": (pickle.dumps([1], 2), "contains a list, not a dictionary"),
    "keys": (dictionary(labels=listed([])), "has no 'data', only labels"),
    "none": (b"\x80\x02}.", "has no 'labels', only nothing"),
    "text": (b"<html>404</html>", "instruction"),
    "nothing": (b"", "cut short or damaged"),
    "huge": (b"\x80\x02T\xff\xff\xff\x7f", "cut short or damaged"),
    "negative": (b"\x80\x02T\xff\xff\xff\xff", "cut short or damaged"),
}  # fmt: skip
IMAGES, LABELS = pictures(0)
RAW = IMAGES.tobytes()
WRONG = {
    "cut": (batch(IMAGES, LABELS)[:5000], "cut short or damaged"),
    "fewer labels": (batch(IMAGES, LABELS[:2]), r"expected 'data' of uint8\[2, 3072\]"),
    "narrow": (batch(IMAGES, LABELS, data=array((9, 1024), RAW)), r"got uint8\[9, 1024\]"),
    "flat": (batch(IMAGES, LABELS, data=array((9216,), RAW)), r"got uint8\[9216\]"),
    "shape": (batch(IMAGES, LABELS, data=array((4, 3072), RAW)), r"shape \(4, 3072\) with 9216 bytes"),
    "dtype": (batch(IMAGES, LABELS, data=array((3, 1536), RAW, "i2")), r"got int16\[3, 1536\]"),
    "objects": (batch(IMAGES, LABELS, data=array((3, 3072), RAW, "O8")), "'data' is not an array of numbers"),
    "no array": (batch(IMAGES, LABELS, data=text("abc")), "'data' is not an array of numbers"),
    "above": (batch(IMAGES, [0, 10, 1]), r"labels must be in 0\.\.9, got 10"),
    "below": (batch(IMAGES, [0, -1, 1]), r"labels must be in 0\.\.9, got -1"),
    "no number": (batch(IMAGES, LABELS, labels=listed([text("a")] * 3)), "'labels' is not a list of int"),
    "no list": (batch(IMAGES, LABELS, labels=text("abc")), "'labels' is not a list of int"),
}


@pytest.mark.parametrize("fault", [*HOSTILE, *WRONG])
def test_files_that_are_hostile_or_damaged(cifar, fault, monkeypatch):
    data, message = (HOSTILE | WRONG)[fault]
    monkeypatch.chdir(cifar)
    for name, split in (("test_batch", "test"), ("data_batch_3", "train")):
        (cifar / name).write_bytes(data)
        for path in (cifar, packed(cifar, "tar.gz")):
            with pytest.raises(DataError, match=f"{name}.*({message})"):
                open_images(path, split)
    assert not (cifar / "HACKED").exists()


@pytest.mark.parametrize("fault", HOSTILE)
def test_names_of_the_classes_that_are_hostile_or_damaged(cifar, fault, monkeypatch):
    monkeypatch.chdir(cifar)
    (cifar / "batches.meta").write_bytes(HOSTILE[fault][0])
    with pytest.raises(DataError, match="batches.meta"):
        open_images(cifar, "test")
    assert not (cifar / "HACKED").exists()


def test_files_that_are_missing(cifar):
    (cifar / "data_batch_4").unlink()
    (cifar / "batches.meta").unlink()
    for path in (cifar, packed(cifar, "tar.gz")):
        with pytest.raises(DataError, match="incomplete cifar-10-.* lacks data_batch_4, batches.meta"):
            open_images(path, "test")


def test_other_data_beside_it(cifar, encoded):
    """Class folders come first. If there are two such data sets, neither is chosen."""
    shutil.copytree(cifar, cifar.parent / "copy")
    with pytest.raises(DataError, match="several data sets: cifar-10-batches-py/, copy/. Set data.path"):
        open_images(cifar.parent, "train")
    image = cifar.parent / "val/a/0.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(encoded(np.zeros((4, 4, 3), np.uint8)))
    assert isinstance(open_images(cifar.parent, "val"), FolderSource)
    with pytest.raises(ConfigError, match="an address"):
        open_images("gs://bucket/cifar-10-batches-py", "val")


def test_it_needs_no_packing(cifar, capsys):
    for path in (cifar, packed(cifar, "tar.gz")):
        assert main(["prepare", str(path), str(cifar.parent / "out")]) == 2
        assert "need no packing: train with --config.data.source=folder" in capsys.readouterr().err
    assert not (cifar.parent / "out").exists()
