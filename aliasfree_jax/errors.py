"""Error classes of the package and their messages: what was wrong, what was expected, the likely fix."""

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

# Imported modules of other projects, with the name of each for pip. REQUIRED: the dependencies in
# pyproject.toml. OPTIONAL: needed only by single functions.
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
    """Base class of all errors that this package raises on purpose."""


class ConfigError(AliasFreeError, ValueError):
    """A name, option or configuration field that cannot be used."""


class ShapeError(AliasFreeError, ValueError):
    """An array or image with a shape that an operation or network cannot use."""


class DataError(AliasFreeError):
    """Data that is missing, unreadable or different from its description."""


class CheckpointError(AliasFreeError):
    """A checkpoint that is missing, damaged or belongs to another model."""


class ConversionError(AliasFreeError, ValueError):
    """Foreign weights that cannot be read or do not fit the network."""


class NotFiniteError(AliasFreeError, ArithmeticError):
    """A loss or an output of a network that is infinite or not a number."""


class MissingPackageError(AliasFreeError, ImportError):
    """A package that is not installed or cannot be imported."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Message for an unknown `name` of some `kind`: lists similar names first, then all known names."""
    known = sorted(known)
    words = {word.lower(): word for word in known}
    near = [words[word] for word in difflib.get_close_matches(str(name).lower(), words, n=3)]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


def listed(names: Sequence[str], most: int) -> str:
    """Joins the first `most` names; if there are more, adds the total number."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _installed(module: str) -> bool:
    try:
        return bool(sys.modules.get(module) or importlib.util.find_spec(module))
    except ImportError:
        return False


def _missing(purpose: str, module: str, reason: ImportError) -> MissingPackageError:
    """Error: `purpose` needs `module`. If that is a dependency, all other missing ones are listed too."""
    others = [m for m in REQUIRED if m != module and not _installed(m)] if module in REQUIRED else []
    asked = [(REQUIRED | OPTIONAL)[module]]
    if others:  # the package itself: pip completes it
        repository = Path(__file__).parents[1]
        asked = ["-e", str(repository)] if (repository / "pyproject.toml").exists() else ["aliasfree_jax"]
    line = shlex.join(["pip", "install", *asked])
    return MissingPackageError(f"{purpose} needs {', '.join([module, *others])} ({reason}): {line}")


def needed(module: str, purpose: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
      module: Dotted name of the module.
      purpose: The feature that needs it, for the message, e.g. "data.source = 'tfds'".

    Raises:
      MissingPackageError: The package is missing. The message contains the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(purpose, module.partition(".")[0], error) from error


def typed_start() -> list[str]:
    """The words typed between `python` and the program's arguments: Python's options and the program."""
    return sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]


def _tell(error: BaseException) -> int | None:
    """Prints the message of `error` on stderr. Returns the exit status, or None for a bug."""
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
    """Makes a program of `main(arguments)` that returns the exit status.

    The status is 0, or 2 for an error that the user can correct, which is printed on stderr. Ctrl-C prints
    one line and returns 130.
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
    """`sys.excepthook` of programs: reports errors of their imports in the same way as `command`."""
    status = _tell(error)
    if status is not None:
        sys.exit(status)
    sys.__excepthook__(kind, error, trace)
