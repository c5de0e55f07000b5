"""Files that try to run code.

Each is written by hand from pickle instructions. Harmful ones make a directory when `pickle` opens them.
`test_the_attacks_work_on_pickle` shows that the attacks work.
"""

import copyreg
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from pickles import ORDERED, WRITERS, Code, build, call, code, name, numbers, tensor, zip_file

from aliasfree_jax.conversion.weight_files import read_state_dict, read_torch_file
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import Record

EXTENSION = 0x7A
NOT_EXECUTED = "refused, and nothing in the file was executed"


MKDIR = name("os", "mkdir")
GETATTR = name("builtins", "getattr")


# Functions of the directory to make, and the name in the error message.
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
    "partial": (lambda t: call(call(name("functools", "partial"), MKDIR, t)), "'os.mkdir'"),
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
    with pytest.raises(ConversionError, match=f"'(posix|nt).mkdir'.*{NOT_EXECUTED}"):
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
    """EXT1 uses objects that any library has registered. Cached ones bypass `find_class`."""
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
        ("aliasfree_jax.pickles.inert", "Record"),
        ("functools", "reduce"),
        ("functools.partial", "__call__"),
        ("modelsx", "ResNet"),
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
FLOAT64 = call(name("numpy", "dtype"), "f8", False, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (build(NAMESPACE, {"__class__": name("collections", "OrderedDict")}), "the attribute '__class__'"),
        (build(NAMESPACE, {"__dict__": {}}), "the attribute '__dict__'"),
        (build(NAMESPACE, {1: 2}), "the attribute 1"),
        (build(NAMESPACE, (None, {"__class__": 1})), "is a tuple, expected a dictionary"),
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
    """A second BUILD must not call an object that the first BUILD stored under the method's name."""
    content = build(build(NAMESPACE, {"set_state": name("torch", "Size")}), {"a": 1})
    args = read_torch_file(zip_file(tmp_path / "odd.pth", content))
    assert vars(args) == {"set_state": "torch.Size", "a": 1}


def test_state_of_an_ordered_dict_is_dropped(tmp_path):
    content = build(ORDERED, {"_metadata": {"": 1}, "keys": 1})
    value = read_torch_file(zip_file(tmp_path / "odd.pth", content))
    assert type(value) is OrderedDict and not value and vars(value) == {}
