"""Harmless replacements for objects in a pickle: records, descriptions, numpy's numbers.

This package's own constructors make each object from checked data. So a file can describe values, but it
cannot call constructors of numpy or Python.
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

REFUSED = "this was refused, and nothing in the file was executed"
MAX_DIMENSIONS = 32  # the limit of all versions of numpy
MAX_LENGTH = sys.maxsize // 16  # of elements with up to 16 bytes, so that numpy can count their bytes
_NUMPY_DTYPES = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 c8 c16".split()


@dataclass(frozen=True, slots=True)
class Constructor:
    """The replacement for a name in the file: our own function, which is called with data from the file."""

    name: str
    build: Callable[..., object]


class Stateful:
    """Base class of objects that the file completes after it made them (pickle's BUILD)."""

    __slots__ = ()

    def set_state(self, state: object) -> None:
        """Sets the state from data of the file. Raises `ConversionError` if it does not fit."""
        raise ConversionError(f"the file sets the state of a {type(self).__name__}; {REFUSED}")


class Record(Stateful):
    """The attributes of an `argparse.Namespace` in the file. `vars(record)` is their dictionary."""

    def set_state(self, state: object) -> None:
        """Sets the attributes from a dictionary. Python's special names (`__...`) are refused."""
        if type(state) is not dict:
            raise ConversionError(
                f"the state of a Namespace in the file is a {type(state).__name__}, expected a dictionary"
            )
        if bad := [key for key in state if type(key) is not str or key.startswith("__")]:
            raise ConversionError(
                f"a Namespace in the file sets the attribute {reprlib.repr(bad[0])}; {REFUSED}"
            )
        vars(self).update(state)

    def __repr__(self) -> str:
        """The attributes, for error messages and the interactive prompt."""
        return f"Record({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class Description(Stateful):
    """A description of an object of the training program's classes. The object is never made.

    Attributes:
      name: Name of the class or function, with its module.
      arguments: Arguments of its call.
      state: State that pickle would have set on the object, or None. For a `functools.partial`: (function,
        arguments, keywords, attributes).
      items: Items that pickle would have put into the object: values, or pairs of key and value.
    """

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple[object, ...]) -> None:
        """The state follows later in the file."""
        self.name, self.arguments = name, arguments
        self.state: object = None
        self.items: list[object] = []

    def set_state(self, state: object) -> None:
        """Keeps `state` unchanged."""
        self.state = state

    def __repr__(self) -> str:
        """The name, for error messages and the interactive prompt."""
        return f"Description({self.name})"


def described(module: str, name: str) -> Constructor:
    """Returns the replacement for a class of the training program. Calling it makes a `Description`."""
    full = f"{module}.{name}"
    return Constructor(full, lambda *arguments: Description(full, arguments))


def lengths(what: str, value: object) -> tuple[int, ...]:
    """Returns `value` if it is a tuple of at most 32 integers >= 0, else raises `ConversionError`."""
    if type(value) is not tuple or any(type(n) is not int or n < 0 for n in value):
        raise ConversionError(
            f"it holds a {what} that is not a tuple of integers >= 0: {reprlib.repr(value)}"
        )
    if len(value) > MAX_DIMENSIONS or max(value, default=0) > MAX_LENGTH:
        raise ConversionError(f"it holds a {what} that is too large: {reprlib.repr(value)}")
    return value


class NumpyDtype(Stateful):
    """A numeric numpy dtype. Its state is the byte order."""

    __slots__ = ("_dtype", "code")

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        """Has numpy's pickled arguments: `code` without byte order, and two flags without effect."""
        self.code = code
        self._dtype = np.dtype(code) if type(code) is str and code in _NUMPY_DTYPES else None

    @property
    def dtype(self) -> np.dtype:
        """The dtype. Raises `ConversionError` if its values are not numbers."""
        if self._dtype is None:
            raise ConversionError(
                f"it holds a numpy value of dtype {reprlib.repr(self.code)}, expected one of "
                f"{' '.join(_NUMPY_DTYPES)}; {REFUSED}"
            )
        return self._dtype

    def is_numeric(self) -> bool:
        """Whether arrays of this dtype hold numbers. Others become descriptions."""
        return self._dtype is not None

    def set_state(self, state: object) -> None:
        """Sets the byte order from numpy's tuple (version, byte order, ...)."""
        if self._dtype is None:
            return
        if type(state) is not tuple or state[1:2] not in (("<",), (">",), ("|",), ("=",)):
            raise ConversionError("it holds a damaged numpy dtype. Download the file again")
        self._dtype = self.dtype.newbyteorder(state[1])


class NumpyArray(Stateful):
    """An array. `value` is empty before the state is set, and a description if the array is not numeric."""

    __slots__ = ("value",)
    value: "np.ndarray | Description"

    def __init__(self) -> None:
        """Starts without elements."""
        self.value = np.empty(0, np.float64)

    def set_state(self, state: object) -> None:
        """Sets the array from numpy's tuple (version, shape, dtype, is Fortran order, bytes)."""
        if type(state) is not tuple or len(state) != 5:
            raise ConversionError("it holds a damaged numpy array. Download the file again")
        _, shape, dtype, fortran, data = state
        if type(dtype) is NumpyDtype and not dtype.is_numeric():
            self.value = Description("numpy.ndarray", (shape, dtype.code))
            return
        self.value = _numbers(dtype, data, lengths("numpy shape", shape), fortran is True)


def _numbers(dtype: object, data: object, shape: tuple[int, ...], fortran: bool = False) -> np.ndarray:
    """Converts bytes to an array in this machine's byte order. The number of bytes must fit exactly."""
    if type(data) is str:  # bytes of Python 2 that happen to be UTF-8
        data = data.encode("utf-8", "surrogatepass")
    if type(dtype) is not NumpyDtype or type(data) is not bytes:
        raise ConversionError("it holds a numpy value that is not numeric")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise ConversionError(f"it holds a numpy array of shape {shape} with {len(data)} bytes of data")
    flat = np.frombuffer(data, dtype.dtype)
    native = flat.astype(flat.dtype.newbyteorder("="))
    return native.reshape(shape[::-1]).T.copy() if fortran else native.reshape(shape)


def _ordered_dict(pairs: object = ()) -> OrderedDict[object, object]:
    """Makes an empty dictionary, which the file fills. Python 2 passed a list of [name, value]."""
    result: OrderedDict[object, object] = OrderedDict()
    for pair in pairs if type(pairs) is list else ():
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            raise ConversionError("it holds a damaged OrderedDict. Download the file again")
        result[pair[0]] = pair[1]
    return result


def _latin1(text: object, encoding: object) -> bytes:
    """`_codecs.encode`, which pickle uses for bytes."""
    if type(text) is not str or encoding != "latin1":
        raise ConversionError(f"the file calls for the text encoding {reprlib.repr(encoding)}; {REFUSED}")
    return text.encode("latin-1")


def _array(kind: object, shape: object, code: object) -> Stateful:
    """`_reconstruct`: makes an empty array, which the state completes."""
    if type(kind) is Constructor and kind.name.startswith("numpy."):  # a subclass of numpy
        return Description(kind.name, (shape, code))
    if kind != "numpy.ndarray":
        raise ConversionError(f"it holds a numpy array of the class {reprlib.repr(kind)}; {REFUSED}")
    return NumpyArray()


def _complex(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ConversionError("it holds a damaged complex number. Download the file again")
    return complex(real, imaginary)


def _bytes(content: object = b"", encoding: object = "latin-1") -> bytes:
    """`bytearray` of bytes, or of text before protocol 3."""
    if type(content) is str and encoding == "latin-1":
        return content.encode("latin-1")
    if type(content) is not bytes:
        raise ConversionError("it holds damaged bytes. Download the file again")
    return content


def _container(kind: type, what: str) -> Callable[..., Any]:
    """Returns a constructor that replaces a `what` in the file by its plain `kind`."""

    def build(content: object = None) -> object:
        if content is not None and type(content) is not kind:
            raise ConversionError(f"it holds a damaged {what}. Download the file again")
        return content or kind()

    return build


def _buffer_array(data: object, dtype: object, shape: object, order: object, axes: Any = None) -> object:
    """`numpy._core.numeric._frombuffer`, which protocol 5 uses for arrays.

    numpy 2.4 stores views of other orders with their permutation of `axes`; `shape` is that of the bytes.
    """
    if type(dtype) is NumpyDtype and not dtype.is_numeric():
        return Description("numpy.ndarray", (shape, dtype.code))
    made = NumpyArray()
    made.set_state((1, shape, dtype, order == "F", data))
    if axes is not None and isinstance(made.value, np.ndarray):
        made.value = np.ascontiguousarray(made.value.transpose(axes))
    return made


def _attribute(owner: object, name: object) -> Constructor:
    """`getattr`, which protocol 2 uses for a class within a class."""
    if type(owner) is not Constructor or type(name) is not str or not name.isidentifier():
        raise ConversionError(f"the file tries to run code: it asks for an attribute {name!r}; {REFUSED}")
    return described(owner.name, name)


def _object(kind: object, base: object = None, state: object = None) -> object:
    """`copyreg._reconstructor`, which protocols 0 and 1 use for objects of Python classes."""
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
    """Returns the replacement for each (module, name): a `Constructor` or a plain value."""
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
        ("__builtin__", "bytes"): lambda: b"",  # pickle's form of empty bytes
    }
    for module in ("builtins", "__builtin__"):
        calls[module, "complex"] = _complex
        calls[module, "bytearray"] = _bytes
        calls[module, "set"] = _container(list, "set")  # a list: the file's elements may not be hashable
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
    """Wraps each function of `calls` in a `Constructor` with its name."""
    return {pair: Constructor(".".join(pair), build) for pair, build in calls.items()}
