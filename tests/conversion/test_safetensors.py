"""Files of safetensors and `torch.save` that this package writes, and hostile headers."""

import itertools
import json
import random
import struct
import zipfile
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from aliasfree_jax.conversion import load_pretrained
from aliasfree_jax.conversion.safetensors import DTYPES, read_safetensors, safetensors_file
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
    file.write_bytes(torch_file(tensors))  # recognised by its content, not by its name
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
    assert header["n"] == {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}  # the widest dtype first
    assert header["w"] == {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}
    assert len(content) == 8 + length + 24


def file_of(header, data=bytes(8), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
TWICE = b"{%b,%b}" % (ONE, ONE)


def tensor(begin, end, dtype="F32", shape=None):
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


CUT_SHORT = "incomplete metadata, file not fully covered"
HOSTILE = [
    (file_of({"a": tensor(0, 8)}, length=1 << 40), "header too large"),
    (file_of({"a": tensor(0, 8)}, length=2**64 - 1), "header too large"),
    (file_of({"a": tensor(0, 8)}, length=9), "invalid JSON in header"),
    (file_of({"a": tensor(0, 8)}, b"", length=90), "invalid header length"),
    (file_of({"a": tensor(0, 8)}, bytes(7)), CUT_SHORT),
    (file_of({"a": tensor(0, 8)}, bytes(9)), CUT_SHORT),
    (file_of({"a": tensor(0, 4), "b": tensor(0, 8)}), "invalid offset for tensor `b`"),
    (file_of({"a": tensor(0, 8), "b": tensor(4, 8)}), "invalid offset for tensor `b`"),
    (file_of({"a": tensor(4, 8)}), "invalid offset for tensor `a`"),
    (file_of({"a": tensor(8, 0, shape=[2])}), "invalid offset for tensor `a`"),
    (file_of({"a": tensor(0, 1 << 63, shape=[1 << 61])}), "overflow|invalid"),
    (file_of({"a": tensor(0, 8, "F31")}), "unknown variant `F31`, expected one of"),
    (file_of({"a": tensor(0, 8, "F" * 100_000)}), "unknown variant `FFF"),
    (file_of({"a": tensor(0, 8, ["F32"])}), "invalid JSON in header"),
    (
        file_of({"a": tensor(0, 8, "F4", [16])}),
        "a tensor has the dtype 'F4', which numpy cannot hold",
    ),
    (file_of({"a": tensor(0, 8, shape=[3])}), "invalid shape, data type, or offset"),
    (file_of({"a": tensor(0, 8, shape=[-1, -2])}), "invalid value: integer `-1`"),
    (file_of({"a": tensor(0, 8, shape=[True, 2])}), "invalid type: boolean"),
    (file_of({"a": tensor(0, 8, shape=[2.0])}), "invalid type: floating point"),
    (file_of({"a": tensor(0, 0, shape=[1 << 70, 0])}, b""), "invalid type: floating point"),
    (file_of({"a": tensor(0, 0, shape=[1 << 63, 0])}, b""), "dimension"),
    (file_of({"a": tensor(0, 8, shape=[1] * 90 + [2])}), "dimension"),
    (file_of({"a": {**tensor(0, 8), "data_offsets": [0, 4, 8]}}), "invalid length 3"),
    (file_of({"a": {"dtype": "F32", "shape": [2]}}), "missing field `data_offsets`"),
    (file_of({"a": 3}), "invalid type: integer `3`"),
    (file_of({"a": tensor(0, 8), "__metadata__": {"n": 1}}), "invalid type: integer `1`, expected a string"),
    (file_of(TWICE), "a name occurs twice"),
    (file_of(TWICE.replace(b'"a"', b'"\\u0061"', 1)), "a name occurs twice"),
    (file_of(TWICE.replace(b"[2]", b"[0]", 1).replace(b"8", b"0", 1)), "a name occurs twice"),
    (file_of(b'{"a":{"dtype":"F32",' + TWICE[6:]), "duplicate field `dtype`"),
    (file_of(b'{"__metadata__":{"n":"1","n":"2"},' + TWICE[1:]), "a name occurs twice"),
    (file_of({"a": tensor(0, 8) | {"more": 7}}, b"").replace(b"7", b"7" * 5000, 1), "header"),
    (file_of(b'{"a": NaN}'), "invalid JSON in header"),
    (file_of(b'{"a": ' + b"[" * 100_000), "recursion limit exceeded"),
    (file_of(b'{"a": ' + b"9" * 10_000 + b"}"), "invalid JSON in header"),
    (file_of(b"{\xff}"), "invalid UTF-8"),
    (file_of(b"{}", b""), "holds no tensors"),
]


@pytest.mark.parametrize(("content", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_headers_are_refused(tmp_path, content, message):
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with pytest.raises(ConversionError, match=message) as caught:
        load_pretrained(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("content", [b"", bytes(7), bytes(8), b"{}", file_of({"a": tensor(0, 8)})[:20]])
def test_what_is_hardly_a_file_is_refused(tmp_path, content):
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    for read in (read_safetensors, load_pretrained):
        with pytest.raises(ConversionError, match=r"w\.safetensors"):
            read(file)
    with pytest.raises(ConversionError, match="cannot be read: Is a directory"):
        read_safetensors(tmp_path)


def mutations(seed: int) -> Iterator[bytes]:
    """Files with a few changed bytes, or a header with a few changed values that is still JSON."""
    draw = random.Random(seed)
    arrays = {"a": np.ones(3, np.float32), "b": np.zeros((1, 2), ml_dtypes.bfloat16), "c": np.array(7)}
    sound = safetensors_file(arrays)
    end = 8 + int.from_bytes(sound[:8], "little")
    numbers = [*range(25), 1 << 31, 1 << 62, 1 << 63, 1 << 64, -1, 0.5, True, None, "1", [2]]
    dtypes = [*DTYPES, "F4", "F6_E2M3", "", None, 3]
    while True:
        content = bytearray(sound)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(sound))] = draw.randrange(256)
        yield bytes(content[: len(sound) - draw.choice([0, 0, 1, 40])])
        header = json.loads(sound[8:end])
        for _ in range(draw.randint(1, 3)):
            fields = header[draw.choice([*arrays])]
            fields["dtype"] = draw.choice([fields["dtype"], draw.choice(dtypes)])
            values = fields[draw.choice(["shape", "data_offsets"])]
            values[: draw.randrange(3)] = draw.choices(numbers, k=draw.randrange(3))
        text = json.dumps(header)
        if draw.randrange(4) == 0:
            text = text.replace('"b":', '"a":')
        yield file_of(text.encode(), sound[end : len(sound) - draw.choice([0, 0, 1])])


def test_mutated_files_are_read_or_refused(tmp_path):
    """Tries 10,000 files. The file stays open, because making and truncating it is the slowest part."""
    path, refused = tmp_path / "w.safetensors", 0
    with path.open("wb", buffering=0) as file:
        for content in itertools.islice(mutations(0), 10_000):
            file.seek(0)
            file.write(content)
            file.truncate()
            try:
                tensors = read_safetensors(path)
            except ConversionError:
                refused += 1
            else:
                assert 0 < sum(array.nbytes for array in tensors.values()) <= len(content)
                assert {array.dtype for array in tensors.values()} <= {*DTYPES.values()}
    assert 9000 < refused < 9990  # most changes matter, but not all
