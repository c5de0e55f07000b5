"""Files of safetensors and of `torch.save` as this package writes them, and hostile headers."""

import json
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from aliasfree_jax.conversion import load_pretrained
from aliasfree_jax.conversion.safetensors import DTYPES, safetensors_file
from aliasfree_jax.conversion.to_files import torch_file
from aliasfree_jax.conversion.torch_objects import STORAGES
from aliasfree_jax.conversion.weight_files import read_state_dict, read_torch_file
from aliasfree_jax.errors import ConversionError


def some_tensors(dtypes):
    tensors = {f"of {name}": (np.arange(6).reshape(2, 3) % 2).astype(dtype) for name, dtype in dtypes.items()}
    extra = {"scalar": np.array(7), "empty": np.empty((0, 3), np.float32), "é": np.ones((2, 1), np.float16)}
    return tensors | extra


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def test_all_dtypes_go_through_both_formats(tmp_path):
    file = tmp_path / "all.safetensors"
    tensors = some_tensors(DTYPES)
    file.write_bytes(safetensors_file(tensors))
    assert_same(read_state_dict(file), tensors)
    tensors = some_tensors({str(dtype): dtype for dtype in STORAGES.values()})
    file.write_bytes(torch_file(tensors))  # recognised by its content, whatever its name
    assert_same(read_state_dict(file), tensors)
    file.write_bytes(torch_file(tensors, "state_dict"))
    assert_same(read_torch_file(file)["state_dict"], tensors)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_header_is_that_of_the_format(tmp_path):
    content = safetensors_file({"w": np.ones((2, 2), np.float32), "n": np.array(3)})
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    assert header["__metadata__"] == {"format": "pt"} and length % 8 == 0
    assert header["n"] == {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}  # the widest first
    assert header["w"] == {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}
    assert len(content) == 8 + length + 24


def file_of(header, data=bytes(8), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin, end, dtype="F32", shape=None):
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (file_of({"a": tensor(0, 8)}, length=1 << 40), "its header should have 1099511627776 bytes"),
        (file_of({"a": tensor(0, 8)}, length=2**64 - 1), "its header should have"),
        (file_of({"a": tensor(0, 8)}, bytes(7)), "its tensors take 8 bytes, 7 are there"),
        (file_of({"a": tensor(0, 8)}, bytes(9)), "its tensors take 8 bytes, 9 are there"),
        (file_of({"a": tensor(0, 4), "b": tensor(0, 8)}), "'b' overlaps the one before"),
        (file_of({"a": tensor(0, 8), "b": tensor(4, 8)}), "'b' overlaps the one before"),
        (file_of({"a": tensor(4, 8)}), "'a' leaves a hole before it"),
        (file_of({"a": tensor(8, 0, shape=[2])}), "takes 8 bytes, not -8"),
        (file_of({"a": tensor(0, 8, "F31")}), "unknown dtype of its tensor 'a' 'F31'.*F32"),
        (file_of({"a": tensor(0, 8, ["F32"])}), "unknown dtype"),
        (file_of({"a": tensor(0, 8, shape=[3])}), "takes 12 bytes, not 8"),
        (file_of({"a": tensor(0, 8, shape=[-1, -2])}), "not up to 32 whole numbers"),
        (file_of({"a": tensor(0, 8, shape=[True, 2])}), "not up to 32 whole numbers"),
        (file_of({"a": tensor(0, 8, shape=[2.0])}), "not up to 32 whole numbers"),
        (file_of({"a": tensor(0, 8, shape=[1 << 70, 0])}), "not up to 32 whole numbers"),
        (file_of({"a": tensor(0, 8, shape=[1] * 40 + [2])}), "not up to 32 whole numbers"),
        (file_of({"a": {**tensor(0, 8), "data_offsets": [0, 4, 8]}}), "not two whole numbers"),
        (file_of({"a": {**tensor(0, 8), "more": 1}}), "is not an object of dtype, shape and data_offsets"),
        (file_of({"a": 3}), "is not an object of dtype"),
        (file_of({"a": tensor(0, 8), "__metadata__": {"n": 1}}), "__metadata__ is not an object of strings"),
        (file_of(b'{"a": 1, "a": 1}'), "a name occurs twice"),
        (file_of(b'{"a": NaN}'), "NaN is no number of JSON"),
        (file_of(b'{"a": ' + b"[" * 100_000), "not sound JSON"),
        (file_of(b'{"a": ' + b"9" * 10_000 + b"}"), "not sound JSON|not an object"),
        (file_of(b"{\xff}"), "not sound JSON"),
        (file_of(b"{}", b""), "holds no tensors"),
    ],
    ids=range(26),
)
def test_hostile_headers_are_refused(tmp_path, content, message):
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        load_pretrained(file)


def test_mutated_files_are_read_or_refused(tmp_path):
    file, rng = tmp_path / "w.safetensors", np.random.default_rng(0)
    sound = safetensors_file({"a": np.ones(3, np.float32), "b": np.zeros((1, 2), ml_dtypes.bfloat16)})
    refused = 0
    for _ in range(500):
        content = bytearray(sound)
        for place in rng.integers(len(sound), size=2):
            content[place] = rng.integers(256)
        file.write_bytes(bytes(content[: rng.integers(len(sound) - 3, len(sound) + 1)]))
        try:
            tensors = read_state_dict(file)
            assert sum(array.nbytes for array in tensors.values()) <= len(sound)
        except ConversionError:
            refused += 1
    assert refused > 250
