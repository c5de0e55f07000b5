"""Inert stand-ins for what a pickle may hold besides plain data: records, descriptions, numpy's numbers.

Each is made by a constructor of our own from data that it checks, so a file can describe values but
reach neither NumPy's constructors nor Python's.
"""

import math
import reprlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aliasfree_jax.errors import ConversionError

REFUSED = "this was refused, and nothing of the file has been executed"
MAX_DIMENSIONS = 32  # what every version of numpy can hold
MAX_LENGTH = sys.maxsize // 16  # elements of up to 16 bytes whose bytes numpy can still count
_NUMPY_DTYPES = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 c8 c16".split()


@dataclass(frozen=True, slots=True)
class Constructor:
    """What a name in the file stands for: our own function, to be called with data from the file."""

    name: str
    build: Callable[..., object]


class Stateful:
    """Base of our objects that the file completes after making them (pickle's BUILD)."""

    __slots__ = ()

    def set_state(self, state: object) -> None:
        """Take over `state`, data of the file; ConversionError if it does not fit."""
        raise ConversionError(f"a {type(self).__name__} of the file gets a state; {REFUSED}")


class Record(Stateful):
    """The attributes of an `argparse.Namespace` of the file; `vars(record)` is their dictionary."""

    def set_state(self, state: object) -> None:
        """Take the attributes from a dictionary; names of Python's own (`__...`) are refused."""
        if type(state) is not dict:
            raise ConversionError(f"a Namespace of the file gets a {type(state).__name__} as its state")
        if bad := [key for key in state if type(key) is not str or key.startswith("__")]:
            raise ConversionError(
                f"a Namespace of the file sets the attribute {reprlib.repr(bad[0])}; {REFUSED}"
            )
        vars(self).update(state)

    def __repr__(self) -> str:
        """The attributes, for error messages and the interactive prompt."""
        return f"Record({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class Description(Stateful):
    """An object of the training program's own classes: what it was to be made of, never made.

    Attributes:
      name: of the class or function, with its module.
      arguments: of its call.
      state: what pickle would have set on the object, or None. That of a `functools.partial` is
        (function, arguments, keywords, attributes).
      items: what pickle would have put into the object: values, or pairs of key and value.
    """

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple[object, ...]) -> None:
        """Before its state has arrived."""
        self.name, self.arguments = name, arguments
        self.state: object = None
        self.items: list[object] = []

    def set_state(self, state: object) -> None:
        """Keep `state` as it is."""
        self.state = state

    def __repr__(self) -> str:
        """The name, for error messages and the interactive prompt."""
        return f"Description({self.name})"


def described(module: str, name: str) -> Constructor:
    """A class of the training program: calling it makes a `Description`."""
    full = f"{module}.{name}"
    return Constructor(full, lambda *arguments: Description(full, arguments))


def lengths(what: str, value: object) -> tuple[int, ...]:
    """`value`, a `what`, if it is a tuple of at most 32 integers >= 0, else ConversionError."""
    if type(value) is not tuple or any(type(n) is not int or n < 0 for n in value):
        raise ConversionError(
            f"it holds a {what} that is not a tuple of integers >= 0: {reprlib.repr(value)}"
        )
    if len(value) > MAX_DIMENSIONS or max(value, default=0) > MAX_LENGTH:
        raise ConversionError(f"it holds a {what} that is too large: {reprlib.repr(value)}")
    return value


class NumpyDtype(Stateful):
    """A numeric numpy dtype; its byte order arrives as its state."""

    __slots__ = ("_dtype", "code")

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        """As numpy pickles it: `code` without byte order, and two flags without effect."""
        self.code = code
        self._dtype = np.dtype(code) if type(code) is str and code in _NUMPY_DTYPES else None

    @property
    def dtype(self) -> np.dtype:
        """The dtype; ConversionError if its values are no numbers."""
        if self._dtype is None:
            raise ConversionError(
                f"it holds a numpy value of dtype {reprlib.repr(self.code)}, none of "
                f"{' '.join(_NUMPY_DTYPES)}; {REFUSED}"
            )
        return self._dtype

    def is_numeric(self) -> bool:
        """Whether arrays of this dtype hold numbers; others are described."""
        return self._dtype is not None

    def set_state(self, state: object) -> None:
        """`state`: numpy's tuple (version, byte order, ...)."""
        if self._dtype is None:
            return
        if type(state) is not tuple or state[1:2] not in (("<",), (">",), ("|",), ("=",)):
            raise ConversionError("it holds a damaged numpy dtype. Download the file again")
        self._dtype = self.dtype.newbyteorder(state[1])


class NumpyArray(Stateful):
    """An array; `value` is empty until its state has arrived, a description if that holds no numbers."""

    __slots__ = ("value",)
    value: "np.ndarray | Description"

    def __init__(self) -> None:
        """An array without elements."""
        self.value = np.empty(0, np.float64)

    def set_state(self, state: object) -> None:
        """`state`: numpy's tuple (version, shape, dtype, is Fortran order, bytes)."""
        if type(state) is not tuple or len(state) != 5:
            raise ConversionError("it holds a damaged numpy array. Download the file again")
        _, shape, dtype, fortran, data = state
        if type(dtype) is NumpyDtype and not dtype.is_numeric():
            self.value = Description("numpy.ndarray", (shape, dtype.code))
            return
        self.value = _numbers(dtype, data, lengths("numpy shape", shape), fortran is True)


def _numbers(dtype: object, data: object, shape: tuple[int, ...], fortran: bool = False) -> np.ndarray:
    """`data` as an array in this machine's byte order; ConversionError unless it fits exactly."""
    if type(data) is str:  # of Python 2, whose numbers happen to be UTF-8
        data = data.encode("utf-8", "surrogatepass")
    if type(dtype) is not NumpyDtype or type(data) is not bytes:
        raise ConversionError("it holds a numpy value that is not made of numbers")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise ConversionError(f"it holds a numpy array of shape {shape} with {len(data)} bytes of data")
    flat = np.frombuffer(data, dtype.dtype)
    native = flat.astype(flat.dtype.newbyteorder("="))
    return native.reshape(shape[::-1]).T.copy() if fortran else native.reshape(shape)


def _ordered_dict(pairs: object = ()) -> OrderedDict[object, object]:
    """Empty, to be filled by the file; Python 2 passed a list of [name, value] instead."""
    result: OrderedDict[object, object] = OrderedDict()
    for pair in pairs if type(pairs) is list else ():
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            raise ConversionError("it holds a damaged OrderedDict. Download the file again")
        result[pair[0]] = pair[1]
    return result


def _latin1(text: object, encoding: object) -> bytes:
    """`_codecs.encode`, which pickle writes for bytes, as far as pickle uses it."""
    if type(text) is not str or encoding != "latin1":
        raise ConversionError(f"the file calls for the text encoding {reprlib.repr(encoding)}; {REFUSED}")
    return text.encode("latin-1")


def _array(kind: object, shape: object, code: object) -> Stateful:
    """`_reconstruct`: always an empty array of the plain class, completed by its state."""
    if type(kind) is Constructor and kind.name.startswith("numpy."):  # a subclass of numpy's
        return Description(kind.name, (shape, code))
    if kind != "numpy.ndarray":
        raise ConversionError(f"it holds a numpy array of the class {reprlib.repr(kind)}; {REFUSED}")
    return NumpyArray()


def _complex(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ConversionError("it holds a damaged complex number. Download the file again")
    return complex(real, imaginary)


def _bytes(content: object = b"", encoding: object = "latin-1") -> bytes:
    """`bytearray`, made of bytes or, before protocol 3, of text."""
    if type(content) is str and encoding == "latin-1":
        return content.encode("latin-1")
    if type(content) is not bytes:
        raise ConversionError("it holds damaged bytes. Download the file again")
    return content


def _container(kind: type, what: str) -> Callable[..., Any]:
    """What a `what` of the file becomes: the plain `kind` it was made of."""

    def build(content: object = None) -> object:
        if content is not None and type(content) is not kind:
            raise ConversionError(f"it holds a damaged {what}. Download the file again")
        return content or kind()

    return build


def _buffer_array(data: object, dtype: object, shape: object, order: object) -> object:
    """`numpy._core.numeric._frombuffer`, by which protocol 5 writes arrays."""
    if type(dtype) is NumpyDtype and not dtype.is_numeric():
        return Description("numpy.ndarray", (shape, dtype.code))
    made = NumpyArray()
    made.set_state((1, shape, dtype, order == "F", data))
    return made


def _attribute(owner: object, name: object) -> Constructor:
    """`getattr`, by which protocol 2 refers to a class within a class."""
    if type(owner) is not Constructor or type(name) is not str or not name.isidentifier():
        raise ConversionError(f"the file tries to run code: it asks for an attribute {name!r}; {REFUSED}")
    return described(owner.name, name)


def _object(kind: object, base: object = None, state: object = None) -> object:
    """`copyreg._reconstructor`, by which protocols 0 and 1 make objects of Python classes."""
    if type(kind) is not Constructor:
        raise ConversionError(f"the file makes an object of a {type(kind).__name__}; {REFUSED}")
    return kind.build() if state is None else kind.build(state)


def _path(*parts: object) -> str:
    if any(type(part) is not str for part in parts):
        raise ConversionError("it holds a damaged path. Download the file again")
    return "/".join(map(str, parts)).replace("//", "/")


def _scalar(dtype: object, data: object) -> object:
    if type(dtype) is NumpyDtype and not dtype.is_numeric():
        return Description("numpy.generic", (dtype.code, data))
    return _numbers(dtype, data, ())[()]


def plain_names() -> dict[tuple[str, str], object]:
    """(module, name) -> what the file gets for it: a Constructor, or a plain value."""
    calls: dict[tuple[str, str], Callable[..., object]] = {
        ("collections", "OrderedDict"): _ordered_dict,
        ("argparse", "Namespace"): Record,
        ("numpy", "dtype"): NumpyDtype,
        ("_codecs", "encode"): _latin1,
        ("__builtin__", "getattr"): _attribute,
        ("copyreg", "_reconstructor"): _object,
        ("copy_reg", "_reconstructor"): _object,
        ("collections", "Counter"): _container(dict, "Counter"),
        ("collections", "defaultdict"): lambda factory=None: {},
        ("pytorch_lightning.utilities.parsing", "AttributeDict"): lambda: {},
        ("__builtin__", "bytes"): lambda: b"",  # how pickle writes empty bytes
    }
    for module in ("builtins", "__builtin__"):
        calls[module, "complex"] = _complex
        calls[module, "bytearray"] = _bytes
        calls[module, "set"] = _container(list, "set")  # a list: what the file calls hashable need not be
        calls[module, "frozenset"] = lambda content=(): tuple(_container(list, "set")(content or None))
    for module in ("pathlib", "pathlib._local"):
        calls |= {(module, f"{kind}Path"): _path for kind in ("Posix", "Windows", "PurePosix", "PureWindows")}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        calls[module, "scalar"] = _scalar
        calls[module, "_reconstruct"] = _array
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        calls[module, "_frombuffer"] = _buffer_array
    return constructors(calls) | {("numpy", "ndarray"): "numpy.ndarray"}


def constructors(calls: Mapping[tuple[str, str], Callable[..., object]]) -> dict[tuple[str, str], object]:
    """Each function of `calls` as a Constructor that knows its name."""
    return {pair: Constructor(".".join(pair), build) for pair, build in calls.items()}
