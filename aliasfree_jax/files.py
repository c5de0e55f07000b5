"""Paths as users type them, files that are written completely or not at all, and locks of directories."""

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

# Weights that are downloaded: references to the Hugging Face hub, and names given by the authors.
HUB = "hf://"
_PUBLISHED = re.compile(r"antialiased-cnns/\w+_lpf\d\w*")
PACKAGED = Path(__file__).parent / "weights"  # weights of this package: a published directory for each name
LOCK = "lock"  # lock file of a directory that only one process at a time may write to


class PathError(ConfigError):
    """A text that is not a path on this machine."""


class UnwritableError(AliasFreeError, OSError):
    """A file that cannot be written, for instance because the disk is full."""


class OccupiedError(ConfigError):
    """A directory that another running process writes to."""


def packaged() -> list[str]:
    """Names of the weights in this package, such as "resnet20_cifar_aps"."""
    return sorted(path.parent.name for path in PACKAGED.glob("*/config.json"))


def elsewhere(reference: str | Path) -> bool:
    """Whether `reference` names weights to download or weights of this package, and is not a path."""
    text = str(reference)
    named = _PUBLISHED.fullmatch(text) or text in packaged()
    return text.startswith(HUB) or bool(named and not Path(text).exists())


def local_path(text: str | Path, name: str = "the path") -> Path:
    """Converts `text` to a path on this machine and expands `~`, like a shell.

    Args:
      text: The path as the user typed it.
      name: Name of the flag or field, for the message.

    Raises:
      PathError: The text is an address such as gs://bucket/run.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(text))
    if scheme:
        raise PathError(
            f"{name} is {str(text)!r}, an address: {scheme[1]}:// is not supported. Pass a path on this "
            "machine, for instance the directory where the bucket is mounted."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~somebody
        raise PathError(f"{name} is {str(text)!r}: {error}") from error


def output_file(text: str | Path, name: str, beside: tuple[str, ...] = ()) -> Path:
    """Returns the path of a file to write, and makes its directory. Call it before the work for the file.

    Args:
      text: The path as the user typed it.
      name: Name of the flag or argument, for messages.
      beside: Endings of other files that will be written beside it.

    Raises:
      PathError: The text is an address such as gs://bucket/run.
      ConfigError: The path is a directory, or has the name of a file beside it, or its directory cannot be
        made or written to.
    """
    path = local_path(text, name)
    if path.suffix in beside:
        raise ConfigError(
            f"{name} is {path}, a file that is written beside it. Pass {path.with_suffix('.json')} for the "
            "results."
        )
    if path.is_dir():
        raise ConfigError(f"{name} is {path}, a directory. Pass the name of a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{name} is {path}, but its directory cannot be made: {error}") from error
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{name} is {path}, but you may not write into {path.parent}.")
    return path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: at any moment, even after a crash, it is the complete old or new file.

    Raises:
      UnwritableError: The file cannot be written. The old file is unchanged.
    """
    with whole_file(path) as new, new.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Within the block, a new file to write and check.

    It becomes `path` at the end. After an error it is removed.

    Raises:
      UnwritableError: The file cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield new
        new.replace(path)
    except UnwritableError:
        raise
    except OSError as error:
        raise UnwritableError(
            f"cannot write {path}: {error.strerror or error}. Free disk space or repair the file system."
        ) from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Context that yields a new directory to fill; it becomes `path` at the end, or is deleted on an error.

    Raises:
      UnwritableError: The directory cannot be made, or `path` exists and is not empty.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        new.rename(path)
    except UnwritableError:  # of a file in the directory: its message is complete
        raise
    except OSError as error:
        raise UnwritableError(
            f"cannot write {path}: {error.strerror or error}. Free disk space or repair the file system."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Writes `value` as JSON, with `write_whole`."""
    write_whole(path, json.dumps(value, indent=indent) + "\n")


def new_directory(path: Path) -> Path:
    """Makes `path`, or the first of `path-2`, `path-3`, ... that does not exist, and returns it.

    Two processes never get the same directory.

    Raises:
      OSError: The directory cannot be made.
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
    """Context that locks an existing directory: only one process at a time can enter it.

    The lock is a `flock` of the operating system, so it ends when the process ends for any reason. It always
    works between processes of one machine. On a shared file system it works between machines if the file
    system supports such locks, as NFS 4 and Lustre with `flock` do.

    Raises:
      OccupiedError: Another running process holds the lock.
      OSError: The lock file cannot be made.
    """
    with (directory / LOCK).open("a+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise OccupiedError(
                    f"another process writes to {directory} ({file.read().strip()}): wait until it has "
                    "ended, or use another directory."
                ) from error
            except OSError:  # a file system without locks: continue without protection
                pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield
