"""The errors this package promises: what was wrong, what was expected, the likely fix."""

import difflib
import functools
import importlib
import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType, TracebackType

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # by Ctrl-C

# The modules of other projects that this one imports, and what pip installs for each: first the dependencies
# in pyproject.toml, then what single functions need.
REQUIRED = {
    "PIL": "pillow",
    "absl": "absl-py",
    "array_record": "array-record",
    "flatbuffers": "flatbuffers",
    "flax": "flax",
    "grain": "grain",
    "importlib_resources": "importlib-resources",
    "jax": "jax",
    "ml_collections": "ml-collections",
    "ml_dtypes": "ml-dtypes",
    "numpy": "numpy",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
    "tqdm": "tqdm",
}
OPTIONAL = {
    "cykooz_resizer": "aliasfree_jax[fast]",
    "huggingface_hub": "aliasfree_jax[hub]",
    "jax2onnx": "aliasfree_jax[onnx]",
    "matplotlib": "aliasfree_jax[figures]",
    "onnxruntime": "aliasfree_jax[onnx]",
    "simplejpeg": "aliasfree_jax[fast]",
    "tensorboardX": "tensorboardX",
    "wandb": "wandb",
}


class AliasFreeError(Exception):
    """Base class of every error raised on purpose by this package."""


class ConfigError(AliasFreeError, ValueError):
    """A name, option or configuration field that cannot be used."""


class ShapeError(AliasFreeError, ValueError):
    """An array or image whose shape an operation or network cannot take."""


class DataError(AliasFreeError):
    """Data that is missing, unreadable or not what its source promised."""


class CheckpointError(AliasFreeError):
    """A checkpoint that is missing, damaged or belongs to another model."""


class ConversionError(AliasFreeError, ValueError):
    """Foreign weights that cannot be read or do not fit the network."""


class MissingPackageError(AliasFreeError, ImportError):
    """A package that is not installed, or cannot be imported."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Text for an unknown `name` of some `kind`: the near names first, then all known ones."""
    known = sorted(known)
    words = {word.lower(): word for word in known}
    near = [words[word] for word in difflib.get_close_matches(str(name).lower(), words, n=3)]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many there are in all if that is more than `most`."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _installed(module: str) -> bool:
    try:
        return bool(sys.modules.get(module) or importlib.util.find_spec(module))
    except ImportError:
        return False


def _missing(purpose: str, module: str, reason: ImportError) -> MissingPackageError:
    """Says that `purpose` needs `module`; if that is a dependency, names all others that are missing too."""
    others = [m for m in REQUIRED if m != module and not _installed(m)] if module in REQUIRED else []
    asked = [(REQUIRED | OPTIONAL)[module]]
    if others:  # the package itself: pip completes it
        repository = Path(__file__).parents[1]
        asked = ["-e", str(repository)] if (repository / "pyproject.toml").exists() else ["aliasfree_jax"]
    line = shlex.join(["pip", "install", *asked])
    return MissingPackageError(f"{purpose} needs {', '.join([module, *others])} ({reason}): {line}")


def needed(module: str, purpose: str) -> ModuleType:
    """Imports `module`, of a package that only `purpose` needs, e.g. "data.source = 'tfds'".

    Raises:
      MissingPackageError: it is missing; the message has the line for pip.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(purpose, module.partition(".")[0], error) from error


def typed_start() -> list[str]:
    """What was typed between `python` and the program's arguments: Python's options and the program."""
    return sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]


def _tell(error: BaseException) -> int | None:
    """Says on stderr what the user can do about `error`; returns the exit status, None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module in REQUIRED | OPTIONAL:
            error = _missing(" ".join(["python", *typed_start()]), module, error)
    if isinstance(error, AliasFreeError):
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return None


def command(main: Callable[[list[str]], None]) -> Callable[[list[str]], int]:
    """`main(arguments)` as a program: returns 0, or 2 and says why on stderr, if the user can mend it.

    Ctrl-C is one line on stderr and 130.
    """

    @functools.wraps(main)
    def program(arguments: list[str]) -> int:
        try:
            main(arguments)
        except BaseException as error:
            status = _tell(error)
            if status is None:
                raise
            return status
        return 0

    return program


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook` of programs: what their imports raise ends them as `command` ends them."""
    status = _tell(error)
    if status is not None:
        sys.exit(status)
    sys.__excepthook__(kind, error, trace)
