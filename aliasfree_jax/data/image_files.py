"""Which files of a data set are images, by their names; and what is said of all others."""

import functools
from collections import Counter

from PIL import Image, ImageFile

# Folders that file managers, network storage, archivers and Python leave behind, and what begins with a dot.
BYPRODUCTS = frozenset(
    "__macosx __pycache__ @eadir @recycle @recently-snapshot @tmp #recycle #snapshot lost+found "
    "$recycle.bin".split()
) | {"system volume information"}
# Pillow opens these, but they are no pixels: films, and pages that Ghostscript draws.
NO_IMAGES = frozenset({"MPEG", "EPS"})

# Kinds of what is ignored, besides extensions.
HIDDEN = "hidden"
OUTSIDE = "outside class folders"
BYPRODUCT = "by-product folders"
EMPTY = "class folders without images, which are no classes"


@functools.cache
def extensions() -> frozenset[str]:
    """Extensions, in small letters with their dot, of the image files that this Pillow opens."""
    registered = Image.registered_extensions()
    opened = {name for name, (kind, _) in Image.OPEN.items() if not _is_stub(kind)} - NO_IMAGES
    opened.add("MPO")  # opened as JPEG
    return frozenset(suffix for suffix, name in registered.items() if name in opened)


def _is_stub(kind: object) -> bool:
    """Whether Pillow knows the format by name only, such as HDF5."""
    return isinstance(kind, type) and issubclass(kind, ImageFile.StubImageFile)


def is_byproduct(name: str) -> bool:
    """Whether a folder of this name is no part of the data, whatever is in it."""
    return name.startswith(".") or name.lower() in BYPRODUCTS


def extension(path: str) -> str:
    """The extension of a file in small letters, with its dot; "" without one and for hidden files."""
    name = path[path.rfind("/") + 1 :]
    return name[name.rfind(".") :].lower() if "." in name and name[0] != "." else ""


def is_image(path: str) -> bool:
    """Whether a file is an image by the last part of its path."""
    return extension(path) in extensions()


class Ignored:
    """What a source leaves out, counted by kind, each with the first example."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, kind: str, path: str) -> None:
        """Counts one file or folder; the first example is the first in the order of the text."""
        self._counts[kind] += 1
        self._first[kind] = min(path, self._first.get(kind, path))

    def add_file(self, path: str) -> None:
        """Counts a file that is no image, by its extension."""
        name = path.rpartition("/")[2]
        if name.startswith("."):
            self.add(HIDDEN, path)
        else:
            self.add(extension(name) or "without extension", path)

    def __str__(self) -> str:
        """Number, kinds and examples; empty if there are hidden files at most, which nobody misses."""
        if not set(self._counts) - {HIDDEN}:
            return ""
        kinds = (f"{kind} ({n}, first {self._first[kind]})" for kind, n in sorted(self._counts.items()))
        return f"{self._counts.total()} files or folders: {', '.join(kinds)}"
