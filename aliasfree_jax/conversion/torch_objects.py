"""The names that a PyTorch checkpoint may use, and harmless replacements for PyTorch's objects.

Each name maps to a constructor of this package or to a plain value. A tensor's description is checked against
its storage when it is made. `weight_files` reads the bytes later.
"""

import math
import reprlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import MAX_LENGTH, constructors, described, lengths, plain_names

STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "UntypedStorage": np.dtype(np.uint8),
    "QInt8Storage": np.dtype(np.int8),
    "QUInt8Storage": np.dtype(np.uint8),
    "QInt32Storage": np.dtype(np.int32),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
}
_DTYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 complex64 complex128 "
    "int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex32 quint8 qint8 qint32 "
    "float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
).split()


@dataclass(frozen=True, slots=True)
class Storage:
    """`size` elements from element `start` on. The stored bytes `key` hold `total` elements."""

    key: str
    dtype: np.dtype
    total: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A strided view within a storage. `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def storage(identifier: object) -> Storage:
    """Returns the storage that a persistent id names.

    Args:
      identifier: ("storage", type, key, location, length). In the older format, None or (key of the view,
        offset, length) follows.

    Raises:
      ConversionError: The id has another form.
    """
    if type(identifier) is not tuple or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise ConversionError(f"it refers to something other than stored numbers: {reprlib.repr(identifier)}")
    _, dtype, key, _, total = identifier[:5]
    if not isinstance(dtype, np.dtype) or type(key) is not str:
        raise ConversionError(f"it refers to stored numbers of an unknown kind: {reprlib.repr(identifier)}")
    (total,) = lengths("storage length", (total,))
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
        return Storage(key, dtype, total, 0, total)
    if type(view) is not tuple or len(view) != 3:
        raise ConversionError(f"it has a damaged view of a storage: {reprlib.repr(view)}")
    start, size = lengths("view of a storage", view[1:])
    if start + size > total:
        raise ConversionError(f"it has a view of elements {start} to {start + size} of a storage of {total}")
    return Storage(key, dtype, total, start, size)


def _tensor(source: object, offset: object, size: object, stride: object, *unused: object) -> Tensor:
    """`torch._utils._rebuild_tensor`, and `_v2` with requires_grad, hooks and metadata."""
    if type(source) is not Storage:
        raise ConversionError(f"it makes a tensor from a {type(source).__name__}, expected stored numbers")
    if len(unused) > 3 or (len(unused) == 3 and unused[2]):
        raise ConversionError(
            f"it has a tensor with the metadata {reprlib.repr(unused[2:])}, which is not supported"
        )
    (first,) = lengths("tensor offset", (offset,))
    shape, strides = lengths("tensor shape", size), lengths("tensor stride", stride)
    if len(shape) != len(strides) or math.prod(max(n, 1) for n in shape) > MAX_LENGTH:
        raise ConversionError(f"it has a tensor of the impossible shape {shape} with strides {strides}")
    last = first + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= source.size:
        raise ConversionError(
            f"it has a tensor of shape {shape}, strides {strides}, offset {first} that reaches outside its "
            f"storage of {source.size} elements. The file is damaged or hostile"
        )
    return Tensor(source, source.start + first, shape, strides)


def _parameter(data: object, requires_grad: object, hooks: object) -> Tensor:
    if type(data) is not Tensor:
        raise ConversionError(f"it makes a parameter from a {type(data).__name__}, expected a tensor")
    return data


def _size(sizes: object) -> tuple[int, ...]:
    return lengths("torch.Size", sizes)


def _device(kind: object, index: object = None) -> str:
    if type(kind) is not str or (index is not None and type(index) is not int):
        raise ConversionError("it holds a damaged torch.device. Download the file again")
    return kind if index is None else f"{kind}:{index}"


def _names() -> dict[tuple[str, str], object]:
    calls: dict[tuple[str, str], Callable[..., object]] = {
        ("torch", "Size"): _size,
        ("torch", "device"): _device,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
    }
    dtypes: dict[tuple[str, str], object] = {("torch", name): f"torch.{name}" for name in _DTYPES}
    storages = {(m, name): dtype for m in ("torch", "torch.cuda") for name, dtype in STORAGES.items()}
    return plain_names() | constructors(calls) | dtypes | storages


_NAMES = _names()
# Functions of these packages can do harm, so only the listed parts are described: a file made to attack is
# then refused. All objects of other packages are described. Nothing is ever imported or called.
_GUARDED = {*sys.stdlib_module_names, "numpy", "torch", "aliasfree_jax"} - {"__main__"}
_GUARDED |= {"", "__builtin__", "commands", "cPickle", "copy_reg", "popen2", "urllib2"}
_DESCRIBED = (
    "torch.nn torch.optim torch.amp torch.cuda.amp torch.distributed torch.utils.data numpy.random numpy.ma "
    "numpy.rec typing datetime decimal fractions uuid ipaddress zoneinfo logging enum dataclasses random "
    "string"
).split()
_DESCRIBED_NAMES = {
    "builtins": "dict list int str float tuple bool type range slice Ellipsis NotImplemented",
    "__builtin__": "dict list int str float tuple bool type range xrange slice object unicode long",
    "collections": "deque ChainMap UserDict UserList UserString",
    "types": "SimpleNamespace",
    "functools": "partial",
    "operator": "itemgetter attrgetter methodcaller",
    "_io": "BytesIO StringIO",
    "array": "_array_reconstructor array",
    "re": "_compile",
    "time": "struct_time",
    "http": "HTTPStatus",
    "platform": "uname_result",
    "numpy": "matrix recarray record bool_ float16 float32 float64 int8 int16 int32 int64 uint8 str_ bytes_",
    "torch": "Generator Tensor preserve_format contiguous_format channels_last channels_last_3d "
    "per_tensor_affine per_channel_affine per_tensor_symmetric per_channel_symmetric",
    "torch._utils": "_rebuild_tensor_v3 _rebuild_sparse_tensor _rebuild_qtensor _rebuild_nested_tensor "
    "_rebuild_meta_tensor_no_storage _rebuild_parameter_with_state _rebuild_device_tensor_from_numpy "
    "_rebuild_device_tensor_from_cpu_tensor",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch.torch_version": "TorchVersion",
    "torch.serialization": "_get_layout",
}
_EXCEPTIONS = ("Error", "Exception", "Warning")


def look_up(module: str, name: str) -> object | None:
    """Returns the replacement for a name: a `Constructor` or a plain value. None if the name is refused."""
    if (module, name) in _NAMES:
        return _NAMES[module, name]
    exception = module in ("builtins", "exceptions") and name.isidentifier() and name.endswith(_EXCEPTIONS)
    if exception or name in _DESCRIBED_NAMES.get(module, "").split():
        return described(module, name)
    if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
        return None
    plain = name.isidentifier() and any(f"{module}.".startswith(f"{package}.") for package in _DESCRIBED)
    foreign = module.split(".")[0] not in _GUARDED
    return described(module, name) if plain or foreign else None
