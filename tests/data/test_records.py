"""Damaged prepared data: one sentence for each case."""

import io
import json
import shutil

import numpy as np
import pytest
from packing import SIZES, in_process

from aliasfree_jax.data import prepare as module
from aliasfree_jax.data.prepare import prepare
from aliasfree_jax.data.records import RecordSource, pack, unpack
from aliasfree_jax.data.sources import Example
from aliasfree_jax.errors import DataError


def test_directories_that_hold_no_records(packed, tmp_path):
    with pytest.raises(DataError, match="no prepared data set in .* python -m aliasfree_jax prepare"):
        RecordSource(tmp_path, "train")
    with pytest.raises(DataError, match="unknown split of .*'tran'. Did you mean 'train'"):
        RecordSource(packed, "tran")
    (tmp_path / "info.json").write_text(json.dumps({"format": 2, "shards": []}))
    with pytest.raises(DataError, match="has format 2, but this version reads only format 1"):
        RecordSource(tmp_path, "train")
    with pytest.raises(DataError, match="no data at"):
        prepare(tmp_path / "nowhere", tmp_path / "out", **SIZES)


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "copy")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "splits": {"train": {}}, "class_names": []}']
    + ['{"format": 1, "splits": {"train": {"shards": [{"file": 1}]}}, "class_names": []}', "\0\0", "\udcff"],
)
def test_a_damaged_info_is_one_sentence(folders, copy, text):
    (copy / "info.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = r"info.json is damaged \(.*\). Remove info.json, and prepare the images again."
    for act in (
        lambda: RecordSource(copy, "train"),
        lambda: module.verify(copy),
        lambda: prepare(folders, copy, **SIZES),
    ):
        with pytest.raises(DataError, match=message):
            act()


def test_the_advice_for_a_damaged_info_works(folders, copy, monkeypatch):
    in_process(monkeypatch)
    (copy / "info.json").unlink()
    prepare(folders, copy, **SIZES)
    assert len(RecordSource(copy, "train")) == 9


def stored(values) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "is missing or damaged"),
        (b"", "is missing or damaged"),
        (b"PK\3\4", "is missing or damaged"),
        (stored(np.zeros(9, np.int32))[:-3], "is missing or damaged"),
        (stored(np.array([print] * 9)), "is missing or damaged"),
        (stored(np.zeros(8, np.int32)), r"does not contain 9 labels in 0\.\.1"),
        (stored(np.zeros(9)), "does not contain 9 labels"),
        (stored(np.full(9, 2)), "does not contain 9 labels"),
        (stored(np.full(9, -1)), "does not contain 9 labels"),
    ],
)
def test_damaged_labels_are_one_sentence(copy, data, message):
    path = copy / "train-labels.npy"
    path.unlink() if data is None else path.write_bytes(data)
    for act in (lambda: RecordSource(copy, "train"), lambda: module.verify(copy)):
        with pytest.raises(DataError, match=f"train-labels.npy {message}.*Remove info.json, and prepare"):
            act()


def test_other_labels_are_found_by_verifying(copy):
    (copy / "train-labels.npy").write_bytes(stored(np.ones(9, np.int32)))
    with pytest.raises(DataError, match="train-labels.npy is damaged"):
        module.verify(copy)


@pytest.mark.parametrize("length", [0, 100, 70_000, -5])
def test_a_damaged_shard_is_one_sentence(copy, length):
    shard = copy / "val-00000-of-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(DataError, match="damaged .*check it with .* --verify"):
        source = RecordSource(copy, "val")
        _ = [source[k] for k in range(3)]


@pytest.mark.parametrize("record", [b"", b"123", b"\0\0\0\0\6\0\xff\xff\xff\xff\xff"])
def test_damaged_records(record):
    with pytest.raises(DataError, match=f"a record of {len(record)} bytes is damaged"):
        unpack(record)


@pytest.mark.parametrize("name", ["", "train/café.jpg", "train/caf\udce9.jpg"])
def test_names_of_files_may_be_any_bytes(name):
    """Python reads a name that is not UTF-8 with surrogates: the last one was written in Latin-1."""
    example = Example(b"image", 3, name)
    assert unpack(pack(example)) == example
