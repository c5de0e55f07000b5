"""Files that try to run code, to reach outside their bytes or to exhaust the memory or the clock.

Each is made by hand, from pickle instructions. Those that would do harm make a directory when they
are opened by `pickle`; `test_the_attacks_work_on_pickle` shows that they are live.
"""

import copyreg
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from aliasfree_jax.conversion.inert import Record
from aliasfree_jax.conversion.torch_file import read_state_dict, read_torch_file
from aliasfree_jax.errors import ConversionError

EXTENSION = 0x7A
NOT_EXECUTED = "refused, and nothing of the file has been executed"


class Code(bytes):
    """Pickle instructions that push one value."""


def code(value):
    """Instructions that push `value`; containers may hold `Code`."""
    if isinstance(value, Code):
        return value
    if type(value) is tuple:
        return Code(pickle.MARK + b"".join(map(code, value)) + pickle.TUPLE)
    if type(value) is dict:
        return Code(b"}(" + b"".join(code(key) + code(part) for key, part in value.items()) + b"u")
    return Code(pickle.dumps(value, 2)[2:-1])


def name(module, attribute):
    return Code(f"c{module}\n{attribute}\n".encode())


def call(function, *arguments):
    return Code(function + code(arguments) + pickle.REDUCE)


def build(target, state):
    return Code(code(target) + code(state) + pickle.BUILD)


def numbers(total, key="0", kind="FloatStorage", *extra):
    identifier = ("storage", name("torch", kind), key, "cpu", total, *extra)
    return Code(code(identifier) + pickle.BINPERSID)


def tensor(source, offset, shape, strides, *more):
    more = more or (False, call(name("collections", "OrderedDict")))
    return call(name("torch._utils", "_rebuild_tensor_v2"), source, offset, shape, strides, *more)


def zip_file(path, content, entries=()):
    """A zip checkpoint of `content` (Code) and the bytes of storages 0, 1, ..."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + code(content) + b".")
        for key, data in enumerate(entries):
            archive.writestr(f"archive/data/{key}", data)
    return path


def legacy_file(path, content, storages=()):
    """A checkpoint of the older format; `storages`: (number of elements, bytes) of 0, 1, ..."""
    pickles = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    data = b"".join(pickle.dumps(value, 2) for value in pickles) + b"\x80\x02" + code(content) + b"."
    data += pickle.dumps([str(key) for key in range(len(storages))], 2)
    for count, stored in storages:
        data += struct.pack("<q", count) + stored
    path.write_bytes(data)
    return path


WRITERS = {"zip": zip_file, "legacy": legacy_file}
MKDIR = name("os", "mkdir")
GETATTR = name("builtins", "getattr")


# Each takes the path of the directory to make. The second member: what the message must name.
ATTACKS = {
    "os.system": (lambda t: call(name("os", "system"), f"mkdir {t}"), "'os.system'"),
    "posix.system": (lambda t: call(name("posix", "system"), f"mkdir {t}"), "'posix.system'"),
    "eval": (
        lambda t: call(name("builtins", "eval"), f"__import__('os').mkdir({t!r})"),
        "'builtins.eval'",
    ),
    "python 2's eval": (
        lambda t: call(name("__builtin__", "eval"), f"__import__('os').mkdir({t!r})"),
        "'__builtin__.eval'",
    ),
    "getattr": (
        lambda t: call(call(GETATTR, call(name("importlib", "import_module"), "os"), "mkdir"), t),
        "'builtins.getattr'",
    ),
    "nested": (lambda t: code({"model": {"weight": (1, [], call(MKDIR, t))}}), "'os.mkdir'"),
    "INST": (lambda t: Code(b"(" + code(t) + b"ios\nmkdir\n"), "'os.mkdir'"),
    "OBJ": (
        lambda t: Code(b"(" + name("pathlib", "Path") + code(t) + b"o0" + call(MKDIR, t)),
        "'pathlib.Path'",
    ),
    "STACK_GLOBAL": (lambda t: Code(code("os") + code("mkdir") + b"\x93" + code((t,)) + b"R"), "'os.mkdir'"),
    "partial": (lambda t: call(call(name("functools", "partial"), MKDIR, t)), "'functools.partial'"),
    "build with code": (
        lambda t: build(call(name("argparse", "Namespace")), {"a": call(MKDIR, t)}),
        "'os.mkdir'",
    ),
    "value thrown away": (lambda t: Code(b"(" + call(MKDIR, t) + b"1" + code({})), "'os.mkdir'"),
    "numpy's runner": (
        lambda t: call(
            name("numpy.testing._private.utils", "runstring"), f"__import__('os').mkdir({t!r})", {}
        ),
        "'numpy.testing._private.utils.runstring'",
    ),
}


class Harm:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attacks_work_on_pickle(attack, tmp_path):
    target = tmp_path / "harm"
    make, _ = ATTACKS[attack]
    pickle.loads(b"\x80\x02" + make(str(target)) + b".")
    assert target.is_dir()


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused(attack, container, tmp_path):
    target = tmp_path / "harm"
    make, named = ATTACKS[attack]
    path = WRITERS[container](tmp_path / "evil.pth", make(str(target)))
    for read in (read_torch_file, read_state_dict):
        with pytest.raises(ConversionError, match=named) as error:
            read(path)
        assert str(path) in str(error.value)
        assert "tries to run code" in str(error.value) and NOT_EXECUTED in str(error.value)
    assert not target.exists()


def test_numpy_array_of_objects(tmp_path):
    target = tmp_path / "harm"
    attack = pickle.dumps(np.array([Harm(str(target))], dtype=object), 2)
    pickle.loads(attack)
    target.rmdir()
    path = zip_file(tmp_path / "evil.pth", Code(attack[2:-1]))
    with pytest.raises(ConversionError, match=f"numpy value of dtype 'O8'.*{NOT_EXECUTED}"):
        read_torch_file(path)
    assert not target.exists()


def test_attack_in_the_magic_number(tmp_path):
    target = tmp_path / "harm"
    path = tmp_path / "evil.pth"
    path.write_bytes(b"\x80\x02" + call(MKDIR, str(target)) + b".")
    with pytest.raises(ConversionError, match=f"'os.mkdir'.*{NOT_EXECUTED}"):
        read_torch_file(path)
    assert not target.exists()


def test_extension_registry_is_not_consulted(tmp_path):
    """EXT1 takes what any library has registered, and once cached it by-passes `find_class`."""
    target = tmp_path / "harm"
    attack = Code(pickle.EXT1 + bytes([EXTENSION]) + code((str(target),)) + pickle.REDUCE)
    copyreg.add_extension("os", "mkdir", EXTENSION)
    try:
        pickle.loads(b"\x80\x02" + attack + b".")
        assert target.is_dir()
        target.rmdir()
        with pytest.raises(ConversionError, match=f"instruction EXT1, .*{NOT_EXECUTED}"):
            read_torch_file(zip_file(tmp_path / "evil.pth", attack))
    finally:
        copyreg.remove_extension("os", "mkdir", EXTENSION)
    assert not target.exists()


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("collections", "OrderedDict.__init__.__globals__"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "namedtuple"),
        ("argparse", "Namespace.__init__"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_import_dotted_name"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "_rebuild_wrapper_subclass"),
        ("torch.serialization", "load"),
        ("torch.hub", "load"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy.core.multiarray", "fromfile"),
        ("_codecs", "decode"),
        ("builtins", "object"),
        ("aliasfree_jax.conversion.inert", "Record"),
        ("models.resnet", "ResNet"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("instruction", ["GLOBAL", "STACK_GLOBAL"])
def test_names_off_the_list(module, attribute, instruction, tmp_path):
    by_stack = Code(code(module) + code(attribute) + pickle.STACK_GLOBAL)
    wanted = by_stack if instruction == "STACK_GLOBAL" else name(module, attribute)
    with pytest.raises(ConversionError, match=f"'{module}.{attribute}'.*{NOT_EXECUTED}"):
        read_torch_file(zip_file(tmp_path / "evil.pth", wanted))


@pytest.mark.parametrize(
    "content",
    [
        Code(name("torch", "float32") + code(("os",)) + b"R"),
        Code(name("torch", "FloatStorage") + code(()) + b"R"),
        Code(name("numpy", "ndarray") + code(()) + b"\x81"),
        Code(code("posix.system") + code(("true",)) + b"R"),
        call(call(name("argparse", "Namespace"))),
        Code(name("collections", "OrderedDict") + code([]) + b"R"),
    ],
    ids=["dtype", "storage type", "ndarray", "text", "record", "list of arguments"],
)
def test_only_constructors_can_be_called(content, tmp_path):
    with pytest.raises(ConversionError, match=f"tries to run code: it calls a .*{NOT_EXECUTED}"):
        read_torch_file(zip_file(tmp_path / "evil.pth", content))


NAMESPACE = call(name("argparse", "Namespace"))
ORDERED = call(name("collections", "OrderedDict"))
FLOAT64 = call(name("numpy", "dtype"), "f8", False, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (build(NAMESPACE, {"__class__": name("collections", "OrderedDict")}), "the attribute '__class__'"),
        (build(NAMESPACE, {"__dict__": {}}), "the attribute '__dict__'"),
        (build(NAMESPACE, {1: 2}), "the attribute 1"),
        (build(NAMESPACE, (None, {"__class__": 1})), "gets a tuple as its state"),
        (build(ORDERED, (None, {"__class__": 1})), "attributes of a value of type OrderedDict"),
        (build(name("argparse", "Namespace"), {"set_state": 1}), "attributes of a value of type Constructor"),
        (build(name("torch._utils", "_rebuild_tensor"), {}), "attributes of a value of type Constructor"),
        (build(tensor(numbers(1), 0, (1,), (1,)), {"shape": (9,)}), "attributes of a value of type Tensor"),
        (build(numbers(1), {"total": 9}), "attributes of a value of type Storage"),
        (build({}, {"a": 1}), "attributes of a value of type dict"),
        (build(FLOAT64, (3, "O", None)), "damaged numpy dtype"),
        (build(FLOAT64, {"dtype": 1}), "damaged numpy dtype"),
    ],
)
def test_states_cannot_change_objects(content, message, tmp_path):
    before = dict(vars(Record))
    with pytest.raises(ConversionError, match=message):
        read_torch_file(zip_file(tmp_path / "evil.pth", content, [b"1234"]))
    assert dict(vars(Record)) == before


def test_attributes_of_a_record_do_not_shadow_its_class(tmp_path):
    """A second BUILD must not run what the first has put under the method's name."""
    content = build(build(NAMESPACE, {"set_state": name("torch", "Size")}), {"a": 1})
    args = read_torch_file(zip_file(tmp_path / "odd.pth", content))
    assert vars(args) == {"set_state": "torch.Size", "a": 1}


def test_state_of_an_ordered_dict_is_dropped(tmp_path):
    content = build(ORDERED, {"_metadata": {"": 1}, "keys": 1})
    value = read_torch_file(zip_file(tmp_path / "odd.pth", content))
    assert type(value) is OrderedDict and not value and vars(value) == {}


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
    """The bounds are exact: what the test before refuses begins one element further."""
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
    with pytest.raises(ConversionError, match=f"cut short|not the stated {total} elements"):
        read_torch_file(path)


def test_one_storage_with_two_descriptions(tmp_path):
    content = {"a": numbers(6), "b": numbers(3, "0", "DoubleStorage")}
    with pytest.raises(ConversionError, match="describes its storage '0' in two ways"):
        read_torch_file(zip_file(tmp_path / "a.pth", content, [FLOATS]))


def test_repeated_elements_cannot_exhaust_the_memory(tmp_path):
    path = zip_file(tmp_path / "a.pth", {"w": tensor(numbers(6), 0, (2**36,), (0,))}, [FLOATS])
    with pytest.raises(ConversionError, match="repeat so many elements .* over 8 times the"):
        read_torch_file(path)


def test_many_views_cannot_exhaust_the_memory(tmp_path):
    """100 views of 1 MB are 100 MB: more than the free 64 MiB and 8 times the file together."""
    one = tensor(numbers(2**20, "0", "ByteStorage"), 0, (2**20,), (1,))
    path = zip_file(tmp_path / "a.pth", {number: one for number in range(100)}, [bytes(2**20)])
    with pytest.raises(ConversionError, match="repeat so many elements"):
        read_torch_file(path)


def test_key_that_never_finishes_hashing(tmp_path):
    """A tuple that holds one tuple twice, 200 levels deep, has 2**200 parts to hash."""
    deep = Code(code(()) + b"q\x00h\x00\x86" * 200)
    with pytest.raises(ConversionError, match="dictionary key of <class 'tuple'>"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(b"}" + deep + b"Ns")))
    # Nor does it finish printing, in an error.
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
        b"N" + pickle.LONG_BINPUT + b"\xff\xff\xff\xff",  # CPython's memo would become 32 GB
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
    with pytest.raises(ConversionError, match="cut short or damaged: .* bytes wanted"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(content)))


def test_too_many_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr("aliasfree_jax.conversion.unpickling.MAX_INSTRUCTIONS", 100)
    with pytest.raises(ConversionError, match="more than 100 instructions"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(b"N" * 101)))


def test_values_that_contain_themselves(tmp_path):
    value = read_torch_file(zip_file(tmp_path / "a.pth", Code(b"]q\x00h\x00a")))
    assert value[0] is value


def test_values_nested_too_deeply(tmp_path):
    with pytest.raises(ConversionError, match="nested too deeply"):
        read_torch_file(zip_file(tmp_path / "a.pth", Code(b"]" * 20_000 + b"a" * 19_999)))


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
        (call(name("numpy", "dtype"), "O8", False, True), "numpy value of dtype 'O8', none of"),
        (call(name("numpy", "dtype"), "f8,f8"), ", none of f2 "),
        (call(name("numpy", "dtype"), "U3"), ", none of f2 "),
        (call(name("numpy", "dtype"), [("a", "O")]), ", none of f2 "),
        (call(SCALAR, FLOAT64, Code(b"C\x03abc")), "with 3 bytes"),
        (call(SCALAR, "f8", Code(b"C\x08abcdefgh")), "not made of numbers"),
        (call(SCALAR, FLOAT64, 5), "not made of numbers"),
        (call(RECONSTRUCT, name("argparse", "Namespace"), (0,), "b"), "numpy array of the class"),
        (build(ARRAY, (1, (2**40,), FLOAT64, False, Code(b"C\x08abcdefgh"))), "with 8 bytes"),
        (build(ARRAY, (1, (-1,), FLOAT64, False, Code(b"C\x08abcdefgh"))), "numpy shape that is not"),
        (build(ARRAY, (1, (1,), FLOAT64, False, [1])), "not made of numbers"),
        (build(ARRAY, (1, (1,))), "damaged numpy array"),
        (build(ARRAY, 7), "damaged numpy array"),
        (tensor(5, 0, (1,), (1,)), "makes a tensor of a int"),
        (tensor(numbers(1), 0, (1,), (1,), False, ORDERED, {"neg": True}), "the marks .* not supported"),
        (tensor(numbers(1), 0, (1,), (1,), False, ORDERED, {}, 1), "the marks"),
        (call(name("torch._utils", "_rebuild_tensor"), numbers(1)), "damaged .TypeError"),
        (call(name("torch._utils", "_rebuild_parameter"), 5, True, ORDERED), "makes a parameter of a int"),
        (numbers(-1), "storage length that is not"),
        (numbers(1, 5), "stored numbers of an unknown kind"),
    ],
)
def test_constructors_check_what_they_get(content, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_torch_file(zip_file(tmp_path / "evil.pth", content, [b"1234"]))


def test_bytes_that_are_no_truth_values(tmp_path):
    """numpy takes any byte for a bool; True of byte 2 would not equal True of byte 1."""
    content = {"w": tensor(numbers(3, "0", "BoolStorage"), 0, (3,), (1,))}
    array = read_torch_file(zip_file(tmp_path / "a.pth", content, [b"\x00\x01\x02"]))["w"]
    np.testing.assert_array_equal(array.view(np.uint8), [0, 1, 1])


def test_python_2_strings_and_ordered_dicts(tmp_path):
    """How Python 2 wrote a state dict: names as byte strings, the pairs as argument."""
    pair = Code(b"](" + b"U\x01w" + tensor(numbers(6), 0, (6,), (1,)) + b"e")
    content = call(name("collections", "OrderedDict"), Code(b"](" + pair + b"e"))
    weights = read_state_dict(zip_file(tmp_path / "old.pth", content, [FLOATS]))
    np.testing.assert_array_equal(weights["w"], np.arange(6, dtype=np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (code([1]), "holds a list, not a dictionary of weights"),
        (code({}), "what it holds is an empty dictionary"),
        (code({"model": {}}), "entry 'model' is an empty dictionary"),
        (code({"a": 1, "w": tensor(numbers(6), 0, (6,), (1,))}), "not named tensors are 'a' of its 2"),
        (code({5: tensor(numbers(6), 0, (6,), (1,))}), "not named tensors are 5 of its 1"),
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


def test_prefix_stays_unless_all_names_have_it(tmp_path):
    one = tensor(numbers(6), 0, (1,), (1,))
    for names, expected in (
        (("module.a", "module.b"), ["a", "b"]),
        (("module.a", "b"), ["module.a", "b"]),
        (("module.module.a",), ["module.a"]),
    ):
        content = dict.fromkeys(names, one)
        assert list(read_state_dict(zip_file(tmp_path / "a.pth", content, [FLOATS]))) == expected
