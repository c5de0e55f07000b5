"""Reads pickles that hold plain data only.

A pickle is a program. `pickle.Unpickler` is not safe, even with restricted names: it calls `__setstate__`,
`append` or `setattr` on any object that the program names, uses a process-wide extension cache, and allocates
the memory that a length field demands. The machine here knows only the instructions that `pickle` writes for
data, in protocols 1 to 5. It never imports anything and never reads attributes of the file's objects. It
calls only the constructors that it was given.
"""

import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import REFUSED, Constructor, Description, Stateful

# Each instruction makes at most one small object, so this limits the memory that a hostile pickle can use. A
# checkpoint of 10,000 tensors needs about 300,000.
MAX_INSTRUCTIONS = 10_000_000
MAX_NAME_LENGTH = 500
MAX_KEY_PARTS = 1000
_KEYS = (str, int, float, bytes, complex, np.generic, Stateful, Constructor)


def load_pickle(
    stream: BinaryIO,
    size: int,
    look_up: Callable[[str, str], object | None],
    load_persistent: Callable[[object], object],
) -> object:
    """Reads one pickle at the position of `stream`. Afterwards the position is after its end.

    Args:
      stream: The stream.
      size: Length of the whole stream, bytes.
      look_up: Returns the replacement for a module and a name: a `Constructor` or a harmless value. None
        refuses the name.
      load_persistent: Converts a persistent id to a value.

    Returns:
      The value of the pickle.

    Raises:
      ConversionError: The pickle asks for a refused name, is damaged or is cut short.
    """
    try:
        return _Machine(stream, size, look_up, load_persistent).run()
    except ConversionError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        # A stack machine and the constructors raise these errors for damaged bytes.
        raise ConversionError(
            f"its pickle is damaged ({type(error).__name__}: {error}). Download the file again"
        ) from error


@dataclass
class _Machine:
    """The stack machine. `stack` holds the values since the last mark, `marks` the stacks below."""

    stream: BinaryIO
    size: int
    look_up: Callable[[str, str], object | None]
    load_persistent: Callable[[object], object]
    stack: list[object] = field(default_factory=list)
    marks: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def run(self) -> object:
        """Executes instructions up to STOP, and returns the value on top of the stack."""
        for _ in range(MAX_INSTRUCTIONS):
            code = self.read(1)
            if code == pickle.STOP:
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise ConversionError(_unsupported(code))
            instruction(self)
        raise ConversionError(
            f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions, so it was refused"
        )

    def read(self, count: int) -> bytes:
        """Returns the next `count` bytes. Allocates nothing if the file is too short."""
        data = self.stream.read(count) if 0 <= count <= self.size else b""
        if len(data) != count:
            raise ConversionError(
                f"its pickle is cut short or damaged: expected {count} bytes, found {len(data)}. "
                "Download the file again"
            )
        return data

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def line(self) -> str:
        line = self.stream.readline(MAX_NAME_LENGTH)
        if not line.endswith(b"\n"):
            raise ConversionError("its pickle is cut short or damaged in a name. Download the file again")
        return line[:-1].decode("utf-8")

    def push_name(self, module: object, name: object) -> None:
        found = self.look_up(module, name) if type(module) is str and type(name) is str else None
        if found is None:
            raise ConversionError(refused(f"{module}.{name}"))
        self.stack.append(found)

    def refuse_instance(self) -> None:
        raise ConversionError(refused(f"{self.line()}.{self.line()}"))

    def construct(self) -> None:
        arguments, constructor = self.stack.pop(), self.stack.pop()
        if type(constructor) is not Constructor or type(arguments) is not tuple:
            raise ConversionError(
                f"the file tries to run code: it calls a {type(constructor).__name__}; {REFUSED}"
            )
        self.stack.append(constructor.build(*arguments))

    def construct_with_keywords(self) -> None:
        keywords = self.stack.pop()
        if type(keywords) is not dict:
            raise TypeError(f"keywords of type {type(keywords).__name__}")
        if keywords:  # our constructors have no keywords; a described class keeps them
            self.stack[-1] = (*self.stack[-1], keywords)  # type: ignore[misc]
        self.construct()

    def set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Stateful):
            # Called on the class, because a Record may have an attribute "set_state".
            type(target).set_state(target, state)
        elif not (type(target) is OrderedDict and type(state) is dict):
            # The state of an OrderedDict is the state dict's `_metadata`: version numbers, which are not
            # needed.
            raise ConversionError(
                f"the file tries to set attributes of a value of type {type(target).__name__}; {REFUSED}"
            )

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[object]:
        values, self.stack = self.stack, self.marks.pop()
        return values

    def push_tuple(self, count: int) -> None:
        values = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def extend(self, values: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is Description:
            target.items.extend(values)
        elif type(target) is list:
            target.extend(values)
        else:
            raise TypeError(f"append to a {type(target).__name__}")

    def update(self, values: list[object]) -> None:
        target = self.stack[-1]
        pairs = zip(map(_checked_key, values[::2]), values[1::2], strict=True)
        if type(target) is Description:
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update(pairs)
        else:
            raise TypeError(f"{len(values)} keys and values for a {type(target).__name__}")

    def push_dictionary(self) -> None:
        values = self.pop_mark()
        self.stack.append({})
        self.update(values)


def _checked_key(key: object) -> object:
    """Returns `key` if it can be hashed in bounded time.

    Legal keys are scalars, descriptions, class names and tuples of them.

    Hashing nested tuples that each contain one tuple twice needs exponential time.
    """
    if type(key) is Constructor:
        return key.name
    parts = [key]
    for count in range(MAX_KEY_PARTS):
        if not parts:
            return key
        part = parts.pop()
        if type(part) is tuple and count + len(part) < MAX_KEY_PARTS:
            parts.extend(part)
        elif part is not None and not isinstance(part, _KEYS):
            break
    raise ConversionError(f"its pickle has a dictionary key of {type(key)}, so it was refused")


def refused(name: str) -> str:
    """Returns the message for a file that asks for a refused function or class."""
    return (
        f"the file tries to run code: it asks for {name[:MAX_NAME_LENGTH]!r}, which plain data does not "
        f"need; {REFUSED}. If you trust its origin, load it in a sandbox with the program that wrote it, and "
        "save plain data only. For a model, save its state_dict()"
    )


def _unsupported(code: bytes) -> str:
    known = {op.code: op.name for op in pickletools.opcodes}
    name = known.get(code.decode("latin-1"), repr(code))
    return f"its pickle has the instruction {name}, which plain data does not need; {REFUSED}"


def _truth_or_integer(line: str) -> object:
    return line == "01" if line in ("00", "01") else int(line)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _text_or_bytes(data: bytes) -> str | bytes:
    """Decodes a `str` of Python 2: text, or bytes such as the numbers of an array."""
    try:
        return _text(data)
    except UnicodeDecodeError:
        return data


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _push_number(layout: str) -> Callable[[_Machine], object]:
    return lambda m: m.push(m.number(layout))


def _push_counted(layout: str, convert: Callable[[bytes], object]) -> Callable[[_Machine], object]:
    return lambda m: m.push(convert(m.read(m.number(layout))))


_NUMBERS = {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BINFLOAT: ">d"}
# Instruction byte -> layout of the count, conversion of the bytes.
_COUNTED: dict[bytes, tuple[str, Callable[[bytes], object]]] = {
    pickle.LONG1: ("<B", _integer),
    pickle.LONG4: ("<I", _integer),
    pickle.BYTEARRAY8: ("<Q", bytes),
    pickle.SHORT_BINUNICODE: ("<B", _text),
    pickle.BINUNICODE: ("<I", _text),
    pickle.BINUNICODE8: ("<Q", _text),
    pickle.SHORT_BINBYTES: ("<B", bytes),
    pickle.BINBYTES: ("<I", bytes),
    pickle.BINBYTES8: ("<Q", bytes),
    pickle.SHORT_BINSTRING: ("<B", _text_or_bytes),
    pickle.BINSTRING: ("<i", _text_or_bytes),
}


# Instruction byte -> its effect on the machine.
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], object]] = {
    pickle.PROTO: lambda m: m.read(1),
    pickle.FRAME: lambda m: m.read(8),
    pickle.MARK: _Machine.mark,
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.EMPTY_SET: lambda m: m.push([]),  # a list: the file's elements may not be hashable
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_mark())),
    pickle.LIST: lambda m: m.push(m.pop_mark()),
    pickle.FROZENSET: lambda m: m.push(tuple(m.pop_mark())),
    pickle.DICT: _Machine.push_dictionary,
    pickle.TUPLE1: lambda m: m.push_tuple(1),
    pickle.TUPLE2: lambda m: m.push_tuple(2),
    pickle.TUPLE3: lambda m: m.push_tuple(3),
    pickle.APPEND: lambda m: m.extend([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.extend(m.pop_mark()),
    pickle.ADDITEMS: lambda m: m.extend(m.pop_mark()),
    pickle.SETITEM: lambda m: m.update([m.stack.pop(), m.stack.pop()][::-1]),
    pickle.SETITEMS: lambda m: m.update(m.pop_mark()),
    pickle.GLOBAL: lambda m: m.push_name(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.push_name(*[m.stack.pop(), m.stack.pop()][::-1]),
    pickle.INST: _Machine.refuse_instance,
    pickle.REDUCE: _Machine.construct,
    pickle.NEWOBJ: _Machine.construct,
    pickle.NEWOBJ_EX: _Machine.construct_with_keywords,
    pickle.BUILD: _Machine.set_state,
    pickle.POP: lambda m: m.stack.pop() if m.stack else m.pop_mark(),
    pickle.POP_MARK: _Machine.pop_mark,
    pickle.INT: lambda m: m.push(_truth_or_integer(m.line())),
    pickle.LONG: lambda m: m.push(int(m.line().removesuffix("L"))),
    pickle.READONLY_BUFFER: lambda m: None,
    pickle.BINPERSID: lambda m: m.push(m.load_persistent(m.stack.pop())),
    pickle.BINGET: lambda m: m.push(m.memo[m.number("<B")]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.number("<I")]),
    pickle.BINPUT: lambda m: m.memo.update({m.number("<B"): m.stack[-1]}),
    pickle.LONG_BINPUT: lambda m: m.memo.update({m.number("<I"): m.stack[-1]}),
    pickle.MEMOIZE: lambda m: m.memo.update({len(m.memo): m.stack[-1]}),
    **{code: _push_number(layout) for code, layout in _NUMBERS.items()},
    **{code: _push_counted(*how) for code, how in _COUNTED.items()},
}
