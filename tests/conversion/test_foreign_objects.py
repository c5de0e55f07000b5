"""Sound files with unknown objects beside the weights: entries that are not needed may hold anything."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import io
import itertools
import pathlib
import pickle
import types
import uuid
import zipfile

import numpy as np
import pytest
from pickles import Code, code, name, numbers, tensor, zip_file

from aliasfree_jax.conversion.weight_files import read_entry, read_state_dict, read_torch_file
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import Description

FLOATS = np.arange(6, dtype=np.float32).tobytes()
WEIGHT = tensor(numbers(6), 0, (6,), (1,))


class Mode(enum.Enum):
    FAST = 1


class Kind(str, enum.Enum):  # noqa: UP042, the form of Python 3.10
    A = "a"


class Flags(enum.IntFlag):
    X = 1


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


class Config:
    class Inner(enum.Enum):
        A = 1

    def __init__(self):
        self.lr, self.mode = 0.1, Mode.FAST


class Words(dict):
    pass


class Numbers(list):
    pass


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


class WithKeywords:
    def __new__(cls, *, a=1):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"a": 2}


NESTED = [1]
NESTED.append(NESTED)
OBJECTS = {
    "set": {1, "a"},
    "frozenset": frozenset([1, (2, 3)]),
    "frozen key": {frozenset([1]): 1, (1, (2, "a")): 2},
    "bytes": b"\xff\x00",
    "bytearray": bytearray(b"x\xff"),
    "complex": 1 + 2j,
    "large integer": -(2**300),
    "range": range(3),
    "slice": slice(1, 2),
    "deque": collections.deque([1, {}], maxlen=3),
    "OrderedDict": collections.OrderedDict(a=1),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "Counter": collections.Counter("aab"),
    "ChainMap": collections.ChainMap({"a": 1}),
    "datetime": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "timedelta": datetime.timedelta(1),
    "date": datetime.date(2024, 1, 1),
    "uuid": uuid.UUID(int=1),
    "Decimal": decimal.Decimal("1.5"),
    "Fraction": fractions.Fraction(1, 3),
    "enum": Mode.FAST,
    "str enum": Kind.A,
    "flag": Flags.X,
    "enum as key": {Mode.FAST: 1, Kind.A: 2},
    "namedtuple": Point(1, 2),
    "SimpleNamespace": types.SimpleNamespace(a=1),
    "Namespace": argparse.Namespace(a=pathlib.Path("x")),
    "path": pathlib.PurePosixPath("a/b"),
    "object": Config(),
    "dict of its own kind": Words(a=1),
    "list of its own kind": Numbers([1, 2]),
    "slots": Slots(),
    "keywords": WithKeywords(),
    "class": Config,
    "function": code,
    "exception": ValueError("x"),
    "buffer": io.BytesIO(b"x"),
    "np.str_": np.str_("x"),
    "np.int64 as key": {np.int64(1): 1},
    "np.datetime64": np.datetime64("2024-01-01"),
    "numbers": np.arange(3, dtype=">f4"),
    "Fortran order": np.ones((2, 3), order="F"),
    "array of strings": np.array(["a", "b"]),
    "array of objects": np.array(["a", None], dtype=object),
    "records": np.zeros(2, [("a", "f4")]),
    "masked array": np.ma.masked_array([1, 2], [0, 1]),
    "Generator": np.random.default_rng(0),
    "RandomState": np.random.RandomState(0),
    "None's type": type(None),
    "list within itself": NESTED,
}


def file_with(path, value, protocol):
    """Writes {"state_dict": weights, "other": value} with this pickle protocol."""
    dumped = pickle.dumps(value, protocol)
    start = 2 if protocol >= 2 else 0
    # First, because MEMOIZE counts the entries before it.
    content = b"}(X\x05\0\0\0other" + dumped[start:-1] + code("state_dict") + code({"w": WEIGHT}) + b"u"
    return zip_file(path, Code(content), [FLOATS])


@pytest.mark.parametrize("protocol", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_beside_the_weights(kind, protocol, tmp_path):
    if kind == "keywords" and protocol == 2 or (protocol == 1 and kind in ("keywords", "slots", "buffer")):
        pytest.skip("pickle cannot write it, or only by calling a bound function")
    path = file_with(tmp_path / "a.pth", OBJECTS[kind], protocol)
    np.testing.assert_array_equal(read_state_dict(path)["w"], np.arange(6, dtype=np.float32))
    read_torch_file(path)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_views_of_arrays_in_every_order(axes, tmp_path):
    """numpy 2.4 writes them with the permutation of their axes, in protocol 5."""
    view = np.arange(24.0).reshape(2, 3, 4).transpose(axes)
    np.testing.assert_array_equal(read_entry(file_with(tmp_path / "a.pth", view, 5), "other"), view)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_class_within_a_class(protocol, tmp_path):
    path = file_with(tmp_path / "a.pth", Config.Inner.A, protocol)
    (found,) = [read_entry(path, "other")]
    assert found.name.endswith("test_foreign_objects.Config.Inner") and found.arguments == (1,)


def test_descriptions_keep_what_they_were_made_of(tmp_path):
    def other(value):
        return read_entry(file_with(tmp_path / "a.pth", value, 4), "other")

    config = other(Config())
    assert type(config) is Description and config.state["lr"] == 0.1
    assert config.state["mode"].arguments == (1,)
    assert other(Words(a=1)).items == [("a", 1)]
    assert other(collections.deque([1, 2])).items == [1, 2]
    assert other(WithKeywords()).arguments == ({"a": 2},)
    assert other({1, 2}) == [1, 2] and other(bytearray(b"x")) == b"x"


def test_weights_in_a_dictionary_of_the_programs_own_kind(tmp_path):
    content = Code(name("easydict", "EasyDict") + b")\x81(" + code("w") + WEIGHT + b"u")
    path = zip_file(tmp_path / "a.pth", {"state_dict": content}, [FLOATS])
    assert list(read_state_dict(path)) == ["w"]


@pytest.mark.parametrize(
    "pair",
    [
        ("omegaconf.dictconfig", "DictConfig"),
        ("typing", "Any"),
        ("omegaconf.base", "ContainerMetadata"),
        ("torch.torch_version", "TorchVersion"),
        ("__main__", "Config"),
    ],
)
def test_names_that_training_programs_leave(pair, tmp_path):
    path = zip_file(tmp_path / "a.pth", {"w": WEIGHT, "other": name(*pair)}, [FLOATS])
    assert read_torch_file(path)["other"] == ".".join(pair)


def without_checksums(path):
    """Sets every CRC-32 of a zip archive to 0, like torch.serialization.set_crc32_options(False)."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 16), (b"PK\x03\x04", 14)):
        start = -1
        while (start := data.find(signature, start + 1)) >= 0:
            data[start + offset : start + offset + 4] = bytes(4)
    path.write_bytes(data)
    return path


def test_files_without_checksums(tmp_path):
    path = without_checksums(zip_file(tmp_path / "a.pth", {"w": WEIGHT}, [FLOATS]))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is not None  # for zipfile, the checksums are wrong
    assert list(read_state_dict(path)) == ["w"]
    assert list(read_torch_file(path)) == ["w"]


def test_one_checksum_of_zero_is_an_error(tmp_path):
    path = zip_file(tmp_path / "a.pth", {"w": WEIGHT}, [FLOATS])
    data = bytearray(path.read_bytes())
    start = data.rfind(b"PK\x01\x02")  # of the storage
    data[start + 16 : start + 20] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(ConversionError, match="cut short or damaged"):
        read_state_dict(path)


@pytest.mark.parametrize("rounds", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_with_foreign_objects(rounds, tmp_path):
    """Any byte of the pickle is changed, dropped or doubled: the result is a value or a clean error."""
    random = np.random.default_rng(0)
    made = {(kind, protocol): None for kind in OBJECTS for protocol in (2, 4, 5) if kind != "keywords"}
    bodies = [pickle.dumps(OBJECTS[kind], protocol)[2:-1] for kind, protocol in made]
    path, refused = tmp_path / "a.pth", 0
    for number in range(rounds):
        body = bytearray(bodies[number % len(bodies)])
        for _ in range(random.integers(1, 4)):
            position = int(random.integers(len(body)))
            action = random.integers(3)
            if action == 0:
                body[position] = random.integers(256)
            elif action == 1:
                body[position : position + int(random.integers(4))] = b""
            else:
                body[position:position] = body[position : position + int(random.integers(1, 9))]
            body = body or bytearray(b"N")
        content = b"}(X\x05\0\0\0other" + bytes(body) + code("w") + WEIGHT + b"u"
        try:
            read_torch_file(zip_file(path, Code(content), [FLOATS]))
        except ConversionError:
            refused += 1
    assert rounds // 10 < refused < rounds
