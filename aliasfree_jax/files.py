"""Files that others rely on: paths as people write them, whole files or none, and one writer a directory."""

import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aliasfree_jax.errors import AliasFreeError, ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Weights that are downloaded: from the Hugging Face hub, and under their authors' names.
HUB = "hf://"
_PUBLISHED = re.compile(r"antialiased-cnns/\w+_lpf\d\w*")
LOCK = "lock"  # in a directory that one process at a time may write to


class PathError(ConfigError):
    """No path of this machine."""


class UnwritableError(AliasFreeError, OSError):
    """A file cannot be written, for instance because the disk is full."""


class OccupiedError(ConfigError):
    """Another live process writes to the directory."""


def elsewhere(reference: str | Path) -> bool:
    """Whether `reference` names weights that are downloaded, and no path of this machine."""
    text = str(reference)
    return text.startswith(HUB) or bool(_PUBLISHED.fullmatch(text) and not Path(text).exists())


def local_path(text: str | Path, name: str = "the path") -> Path:
    """`text` as a path on this machine: `~` is expanded, as a shell does it.

    Args:
      text: what the user wrote.
      name: of the flag or field, for the message.

    Raises:
      PathError: an address such as gs://bucket/run.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(text))
    if scheme:
        raise PathError(
            f"{name} is {str(text)!r}, an address: {scheme[1]}:// is not supported. Pass a path of this "
            "machine, for instance where the bucket is mounted."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~somebody
        raise PathError(f"{name} is {str(text)!r}: {error}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that at any moment, also after a crash, it is the old one or the new one, whole.

    Raises:
      UnwritableError: it cannot be written; the old one is still there.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with new.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise UnwritableError(
            f"cannot write {path}: {error.strerror or error}. Make room or mend the file system."
        ) from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Within the block, a new file to write and check.

    It becomes `path` at the end. After an error it is removed.

    Raises:
      UnwritableError: the file cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.checked")
    try:
        yield new
        new.replace(path)
    except UnwritableError:
        raise
    except OSError as error:
        raise UnwritableError(
            f"cannot write {path}: {error.strerror or error}. Make room or mend the file system."
        ) from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Within the block, a directory to fill: it becomes `path` at the end; after an error nothing is left.

    Raises:
      UnwritableError: it cannot be made, or `path` is there already and not empty.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        new.rename(path)
    except UnwritableError:  # of a file in it, which says all
        raise
    except OSError as error:
        raise UnwritableError(
            f"cannot write {path}: {error.strerror or error}. Make room or mend the file system."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """`value` as JSON, by `write_whole`."""
    write_whole(path, json.dumps(value, indent=indent) + "\n")


def new_directory(path: Path) -> Path:
    """Makes `path`, or `path-2`, `path-3`, ...: the first that no other process made before; returns it.

    Raises:
      OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made, number = path, 1
    while True:
        try:
            made.mkdir()
            return made
        except FileExistsError:
            number += 1
            made = path.with_name(f"{path.name}-{number}")


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Within the block, no other process that asks for the same is let into `directory`, which exists.

    The lock is the operating system's (flock): it ends with the process, however that ends. On a shared file
    system it holds between machines as far as that file system passes such locks on (NFS 4 and Lustre with
    `flock` do), and between the processes of one machine always.

    Raises:
      OccupiedError: another live process is in.
      OSError: the lock file cannot be made.
    """
    with (directory / LOCK).open("a+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise OccupiedError(
                    f"another process writes to {directory} ({file.read().strip()}): wait until it has "
                    "ended, or take another directory."
                ) from error
            except OSError:  # a file system without locks: nothing is promised there
                pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield
