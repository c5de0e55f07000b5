"""Recognises image files by their names, and collects the files that are ignored."""

import functools
from collections import Counter

from PIL import Image, ImageFile

# Folders that file managers, network storage, archivers and Python create. See also `is_byproduct`.
BYPRODUCTS = frozenset(
    "__macosx __pycache__ @eadir @recycle @recently-snapshot @tmp #recycle #snapshot lost+found "
    "$recycle.bin".split()
) | {"system volume information"}
# Pillow opens these formats, but they hold no pixels: films, and pages that Ghostscript draws.
NO_IMAGES = frozenset({"MPEG", "EPS"})

# Kinds of ignored files and folders, besides extensions.
HIDDEN = "hidden"
OUTSIDE = "outside class folders"
BYPRODUCT = "by-product folders"
EMPTY = "class folders without images, which are not classes"


@functools.cache
def extensions() -> frozenset[str]:
    """Extensions of the image files that this version of Pillow opens: lower case, with the dot."""
    registered = Image.registered_extensions()
    opened = {name for name, (kind, _) in Image.OPEN.items() if not _is_stub(kind)} - NO_IMAGES
    opened.add("MPO")  # opened as JPEG
    return frozenset(suffix for suffix, name in registered.items() if name in opened)


def _is_stub(kind: object) -> bool:
    """Whether Pillow knows only the name of the format, such as HDF5."""
    return isinstance(kind, type) and issubclass(kind, ImageFile.StubImageFile)


def is_byproduct(name: str) -> bool:
    """Whether a folder of this name is not part of the data. Hidden folders are by-products too."""
    return name.startswith(".") or name.lower() in BYPRODUCTS


def extension(path: str) -> str:
    """The extension of a file in lower case, with its dot. "" for hidden files and files without one."""
    name = path[path.rfind("/") + 1 :]
    return name[name.rfind(".") :].lower() if "." in name and name[0] != "." else ""


def is_image(path: str) -> bool:
    """Whether a file has the extension of an image."""
    return extension(path) in extensions()


class Ignored:
    """Counts the files and folders that a source ignores, by kind, and keeps one example of each kind."""

    def __init__(self) -> None:
        """Starts with nothing ignored."""
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, kind: str, path: str) -> None:
        """Counts one file or folder. The example of a kind is its first path in alphabetical order."""
        self._counts[kind] += 1
        self._first[kind] = min(path, self._first.get(kind, path))

    def add_file(self, path: str) -> None:
        """Counts a file that is not an image, by its extension."""
        name = path.rpartition("/")[2]
        if name.startswith("."):
            self.add(HIDDEN, path)
        else:
            self.add(extension(name) or "without extension", path)

    def __str__(self) -> str:
        """Number, kinds and examples. Empty if only hidden files are ignored, which nobody misses."""
        if not set(self._counts) - {HIDDEN}:
            return ""
        kinds = (f"{kind} ({n}, first {self._first[kind]})" for kind, n in sorted(self._counts.items()))
        return f"{self._counts.total()} files or folders: {', '.join(kinds)}"
