"""Writes checkpoint files by hand, pickle instruction by pickle instruction."""

import pickle
import struct
import zipfile


class Code(bytes):
    """Pickle instructions that push one value."""


def code(value):
    """Returns instructions that push `value`. Containers may hold `Code`."""
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
    """Writes a zip checkpoint of `content` (Code) and the bytes of storages 0, 1, ..."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + code(content) + b".")
        for key, data in enumerate(entries):
            archive.writestr(f"archive/data/{key}", data)
    return path


def legacy_file(path, content, storages=()):
    """Writes a checkpoint of the older format. `storages`: (number of elements, bytes) of each."""
    pickles = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    data = b"".join(pickle.dumps(value, 2) for value in pickles) + b"\x80\x02" + code(content) + b"."
    data += pickle.dumps([str(key) for key in range(len(storages))], 2)
    for count, stored in storages:
        data += struct.pack("<q", count) + stored
    path.write_bytes(data)
    return path


WRITERS = {"zip": zip_file, "legacy": legacy_file}

ORDERED = call(name("collections", "OrderedDict"))
