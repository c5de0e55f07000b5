"""Files that reach outside their bytes, exhaust memory or time, or contradict themselves."""

import pickle
import struct

import numpy as np
import pytest
from pickles import ORDERED, WRITERS, Code, build, call, code, legacy_file, name, numbers, tensor, zip_file

from aliasfree_jax.conversion.weight_files import read_state_dict, read_torch_file
from aliasfree_jax.errors import ConversionError

EXTENSION = 0x7A
NOT_EXECUTED = "refused, and nothing in the file was executed"


FLOAT64 = call(name("numpy", "dtype"), "f8", False, True)
FLOATS = np.arange(6, dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (0, (7,), (1,), "reaches outside its storage of 6 elements"),
        (1, (6,), (1,), "reaches outside"),
        (6, (1,), (1,), "reaches outside"),
        (6, (), (), "reaches outside"),
        (0, (2, 3), (4, 1), "reaches outside"),
        (0, (2,), (2**58,), "reaches outside"),
        (0, (2,), (2**64,), "tensor stride that is too large"),
        (2**63, (1,), (1,), "tensor offset that is too large"),
        (0, (2**40, 2**40), (0, 0), "impossible shape"),
        (0, (0, 2**40, 2**40), (0, 0, 0), "impossible shape"),
        (0, (1,) * 33, (1,) * 33, "tensor shape that is too large"),
        (-1, (1,), (1,), "tensor offset that is not a tuple of integers >= 0"),
        (0, (-1,), (1,), "tensor shape that is not"),
        (5, (6,), (-1,), "tensor stride that is not"),
        (0, (2, 3), (1,), "impossible shape"),
        (0, (True,), (1,), "tensor shape that is not"),
        (0, (2.0,), (1,), "tensor shape that is not"),
        (0, "ab", (1, 1), "tensor shape that is not"),
        (0, 6, 1, "tensor shape that is not"),
        (0.0, (1,), (1,), "tensor offset that is not"),
    ],
)
@pytest.mark.parametrize("container", WRITERS)
def test_tensors_stay_within_their_storage(container, offset, shape, strides, message, tmp_path):
    stored = [FLOATS] if container == "zip" else [(6, FLOATS)]
    source = numbers(6) if container == "zip" else numbers(6, "0", "FloatStorage", None)
    content = {"w": tensor(source, offset, shape, strides)}
    path = WRITERS[container](tmp_path / "evil.pth", code(content), stored)
    with pytest.raises(ConversionError, match=message):
        read_torch_file(path)


def test_the_whole_storage_can_be_used(tmp_path):
    """The bounds are exact: one more element is refused (previous test)."""
    content = {"a": tensor(numbers(6), 5, (1,), (1,)), "b": tensor(numbers(6), 0, (2, 3), (3, 1))}
    value = read_torch_file(zip_file(tmp_path / "good.pth", content, [FLOATS]))
    np.testing.assert_array_equal(value["a"], np.float32([5]))
    np.testing.assert_array_equal(value["b"], np.arange(6, dtype=np.float32).reshape(2, 3))


def test_two_tensors_of_one_whole_storage_are_two_arrays(tmp_path):
    """Tied weights: writing to one array must not change the other."""
    content = {"a": tensor(numbers(6), 0, (6,), (1,)), "b": tensor(numbers(6), 0, (6,), (1,))}
    value = read_torch_file(zip_file(tmp_path / "tied.pth", content, [FLOATS]))
    value["a"][:] = -1
    np.testing.assert_array_equal(value["b"], np.arange(6, dtype=np.float32))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (("v", 2, 4), None),
        (("v", 3, 4), "view of elements 3 to 7 of a storage of 6"),
        (("v", -1, 4), "view of a storage that is not"),
        (("v", 2), "damaged view"),
        ((), "damaged view"),
    ],
)
def test_legacy_views_of_storages(view, message, tmp_path):
    source = numbers(6, "0", "FloatStorage", view)
    path = legacy_file(tmp_path / "a.pth", {"w": tensor(source, 1, (3,), (1,))}, [(6, FLOATS)])
    if message is None:
        np.testing.assert_array_equal(read_torch_file(path)["w"], np.float32([3, 4, 5]))
    else:
        with pytest.raises(ConversionError, match=message):
            read_torch_file(path)


@pytest.mark.parametrize("total", [5, 7, 2**40, 2**58])
def test_declared_and_present_bytes_must_agree(total, tmp_path):
    path = zip_file(tmp_path / "a.pth", {"w": tensor(numbers(total), 0, (1,), (1,))}, [FLOATS])
    with pytest.raises(ConversionError, match=f"should have {4 * total} bytes but has 24. Download it again"):
        read_torch_file(path)
    source = numbers(total, "0", "FloatStorage", None)
    path = legacy_file(tmp_path / "b.pth", {"w": tensor(source, 0, (1,), (1,))}, [(6, FLOATS)])
    with pytest.raises(ConversionError, match=f"cut short|does not have the stated {total} elements"):
        read_torch_file(path)


def test_one_storage_with_two_descriptions(tmp_path):
    content = {"a": numbers(6), "b": numbers(3, "0", "DoubleStorage")}
    with pytest.raises(ConversionError, match="describes its storage '0' in two different ways"):
        read_torch_file(zip_file(tmp_path / "a.pth", content, [FLOATS]))


def test_repeated_elements_cannot_exhaust_the_memory(tmp_path):
    path = zip_file(tmp_path / "a.pth", {"w": tensor(numbers(6), 0, (2**36,), (0,))}, [FLOATS])
    with pytest.raises(ConversionError, match="repeat elements .* over 8 times the"):
        read_torch_file(path)


def test_many_views_cannot_exhaust_the_memory(tmp_path):
    """100 views of 1 MB are 100 MB. The limit is 64 MiB plus 8 times the file."""
    one = tensor(numbers(2**20, "0", "ByteStorage"), 0, (2**20,), (1,))
    path = zip_file(tmp_path / "a.pth", {number: one for number in range(100)}, [bytes(2**20)])
    with pytest.raises(ConversionError, match="repeat elements"):
        read_torch_file(path)


def test_key_that_never_finishes_hashing(tmp_path):
    """Tuples that each hold one tuple twice, 200 levels deep, have 2**200 parts to hash."""
    deep = Code(code(()) + b"q\x00h\x00\x86" * 200)
    with pytest.raises(ConversionError, match="dictionary key of <class 'tuple'>"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(b"}" + deep + b"Ns")))
    # Printing it in an error would not finish either.
    with pytest.raises(ConversionError, match="torch.Size that is not"):
        read_torch_file(zip_file(tmp_path / "b.pth", call(name("torch", "Size"), deep)))


@pytest.mark.parametrize(
    "content",
    [
        b"}]Ns",
        b"]Na}Na",
        b"]NNs",
        b"N)u",
        b"}(Nu",
        b"}(NNNu",
        b"R",
        b"\x87",
        b"h\x07",
        b"t",
        b"a",
        b"",
        b"\x93",
    ],
)
def test_instructions_that_do_not_fit_together(content, tmp_path):
    with pytest.raises(ConversionError, match="damaged|dictionary key"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(content)))


@pytest.mark.parametrize(
    "content",
    [
        b"N" + pickle.LONG_BINPUT + b"\xff\xff\xff\xff",  # CPython's memo would need 32 GB
        b"N" + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f",
    ],
)
def test_memo_of_huge_index_costs_nothing(content, tmp_path):
    assert read_torch_file(zip_file(tmp_path / "a.pth", Code(content))) is None


@pytest.mark.parametrize(
    "content",
    [
        pickle.BINBYTES8 + struct.pack("<Q", 2**62),
        pickle.BINUNICODE8 + struct.pack("<Q", 2**40),
        pickle.BINSTRING + struct.pack("<i", -5),
        pickle.BINUNICODE + struct.pack("<I", 2**32 - 1) + b"abc",
    ],
)
def test_lengths_beyond_the_file(content, tmp_path):
    with pytest.raises(ConversionError, match="cut short or damaged: expected .* bytes"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(content)))


def test_too_many_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr("aliasfree_jax.pickles.unpickling.MAX_INSTRUCTIONS", 100)
    with pytest.raises(ConversionError, match="more than 100 instructions"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(b"N" * 101)))


def test_values_that_contain_themselves(tmp_path):
    value = read_torch_file(zip_file(tmp_path / "a.pth", Code(b"]q\x00h\x00a")))
    assert value[0] is value


def test_values_nested_too_deeply(tmp_path):
    with pytest.raises(ConversionError, match="nested too deeply"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(b"]" * 20_000 + b"a" * 19_999)))
    dictionaries = b"}X\x01\0\0\0a" * 20_000 + b"}" + b"s" * 20_000
    with pytest.raises(ConversionError, match="nested too deeply"):
        read_state_dict(zip_file(tmp_path / "b.pth", Code(dictionaries)))


@pytest.mark.parametrize(
    "identifier", [("module", "a", "b", "c"), "0", 5, (), ("storage",), ("storage",) * 5]
)
def test_other_persistent_ids(identifier, tmp_path):
    content = Code(code(identifier) + pickle.BINPERSID)
    with pytest.raises(ConversionError, match="it refers to"):
        read_torch_file(zip_file(tmp_path / "a.pth", content))


RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
SCALAR = name("numpy._core.multiarray", "scalar")
ARRAY = call(RECONSTRUCT, name("numpy", "ndarray"), (0,), "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (call(name("torch", "Size"), (1, -2)), "torch.Size that is not"),
        (call(name("torch", "Size"), ("a",)), "torch.Size that is not"),
        (call(name("torch", "Size")), "damaged .TypeError"),
        (call(name("torch", "device"), 5), "damaged torch.device"),
        (call(name("argparse", "Namespace"), 5), "damaged .TypeError"),
        (call(name("collections", "OrderedDict"), [[[], 1]]), "damaged OrderedDict"),
        (call(name("_codecs", "encode"), "abc", "rot13"), f"text encoding 'rot13'; .*{NOT_EXECUTED}"),
        (call(name("_codecs", "encode"), "\u20ac", "latin1"), "damaged .UnicodeEncodeError"),
        (call(name("_codecs", "encode"), 5, "latin1"), "text encoding"),
        (call(name("numpy", "dtype"), "O8", False, True), "numpy value of dtype 'O8', expected one of"),
        (call(name("numpy", "dtype"), "f8,f8"), ", expected one of f2 "),
        (call(name("numpy", "dtype"), "U3"), ", expected one of f2 "),
        (call(name("numpy", "dtype"), [("a", "O")]), ", expected one of f2 "),
        (call(SCALAR, FLOAT64, Code(b"C\x03abc")), "with 3 bytes"),
        (call(SCALAR, "f8", Code(b"C\x08abcdefgh")), "not numeric"),
        (call(SCALAR, FLOAT64, 5), "not numeric"),
        (call(RECONSTRUCT, name("argparse", "Namespace"), (0,), "b"), "numpy array of the class"),
        (build(ARRAY, (1, (2**40,), FLOAT64, False, Code(b"C\x08abcdefgh"))), "with 8 bytes"),
        (build(ARRAY, (1, (-1,), FLOAT64, False, Code(b"C\x08abcdefgh"))), "numpy shape that is not"),
        (build(ARRAY, (1, (1,), FLOAT64, False, [1])), "not numeric"),
        (build(ARRAY, (1, (1,))), "damaged numpy array"),
        (build(ARRAY, 7), "damaged numpy array"),
        (tensor(5, 0, (1,), (1,)), "makes a tensor from a int"),
        (tensor(numbers(1), 0, (1,), (1,), False, ORDERED, {"neg": True}), "the metadata .* not supported"),
        (tensor(numbers(1), 0, (1,), (1,), False, ORDERED, {}, 1), "the metadata"),
        (call(name("torch._utils", "_rebuild_tensor"), numbers(1)), "damaged .TypeError"),
        (call(name("torch._utils", "_rebuild_parameter"), 5, True, ORDERED), "makes a parameter from a int"),
        (numbers(-1), "storage length that is not"),
        (numbers(1, 5), "stored numbers of an unknown kind"),
    ],
)
def test_constructors_check_what_they_get(content, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_torch_file(zip_file(tmp_path / "evil.pth", content, [b"1234"]))


def test_bytes_that_are_no_truth_values(tmp_path):
    """numpy accepts any byte as a bool, but True of byte 2 does not equal True of byte 1."""
    content = {"w": tensor(numbers(3, "0", "BoolStorage"), 0, (3,), (1,))}
    array = read_torch_file(zip_file(tmp_path / "a.pth", content, [b"\x00\x01\x02"]))["w"]
    np.testing.assert_array_equal(array.view(np.uint8), [0, 1, 1])


def test_python_2_strings_and_ordered_dicts(tmp_path):
    """Python 2's form of a state dict: names are byte strings, and the pairs are an argument."""
    pair = Code(b"](" + b"U\x01w" + tensor(numbers(6), 0, (6,), (1,)) + b"e")
    content = call(name("collections", "OrderedDict"), Code(b"](" + pair + b"e"))
    weights = read_state_dict(zip_file(tmp_path / "old.pth", content, [FLOATS]))
    np.testing.assert_array_equal(weights["w"], np.arange(6, dtype=np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (code([1]), "holds a list, not a dictionary of weights"),
        (code({}), "its content is an empty dictionary"),
        (code({"model": {}}), "entry 'model' is an empty dictionary"),
        (code({"a": 1, "b": "w"}), "Its 2 entries are 'a', 'b'"),
        (code({5: tensor(numbers(6), 0, (6,), (1,))}), "Its 1 entries are 5"),
    ],
)
def test_what_is_no_state_dict(content, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_state_dict(zip_file(tmp_path / "a.pth", content, [FLOATS]))


def test_entries_are_preferred_in_order(tmp_path):
    order = ("model_ema", "model", "module", "state_dict")
    for first in range(4):
        content = {
            key: {"w": tensor(numbers(6), number, (1,), (1,))}
            for number, key in reversed(list(enumerate(order)))
            if number >= first
        }
        weights = read_state_dict(zip_file(tmp_path / "a.pth", content, [FLOATS]))
        np.testing.assert_array_equal(weights["w"], np.float32([first]))


def test_entry_that_is_not_a_dictionary_is_passed_over(tmp_path):
    content = {"model_ema": None, "model": {"w": tensor(numbers(6), 0, (1,), (1,))}}
    assert list(read_state_dict(zip_file(tmp_path / "a.pth", content, [FLOATS]))) == ["w"]


def test_prefix_stays_unless_most_names_have_it(tmp_path):
    one = tensor(numbers(6), 0, (1,), (1,))
    for names, expected in (
        (("module.a", "module.b"), ["a", "b"]),
        (("module.a", "b"), ["module.a", "b"]),
        (("module.module.a",), ["a"]),
        (("module.a", "module.c", "b"), ["a", "c"]),
    ):
        content = dict.fromkeys(names, one)
        assert list(read_state_dict(zip_file(tmp_path / "a.pth", content, [FLOATS]))) == expected
