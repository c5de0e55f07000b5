"""Reads and writes the configuration of a run as JSON, and compares two configurations."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.config import FIELDS, OPEN, base_config, fields, nested
from aliasfree_jax.errors import ConfigError

CONFIG = "config.json"  # file name in a run's directory
ACCEPTED = "accepted"  # additional key: the changes that were accepted when the run was resumed
FORMAT_KEY, FORMAT = "format", 1  # additional key; files without it have format 1
NOT_SET = "(not set)"  # placeholder for the value of a network option that is not set
# Fields of earlier versions, with their defaults. Today every run behaves as with these defaults.
REMOVED = {"train.blend.epochs": 0.0, "train.blend.start": "convnext"}


def run_directory(checkpoint: Path) -> Path | None:
    """Finds the run of a path (run, best network, checkpoints or one checkpoint). None: there is no run."""
    for path in (checkpoint, checkpoint.parent, checkpoint.parent.parent):
        if (path / "checkpoints").is_dir() and checkpoint in (
            path,
            path / "checkpoints",
            path / "best",
            *path.glob("checkpoints/*"),
        ):
            return path
    return None


def reason(error: BaseException) -> str:
    """Shortens an error of ml_collections, which wraps errors in each other and lists whole sections."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = str(error.args[0] if error.args else error)
    return re.sub(r' Other fields present: ".*?}"\n?', " ", text, flags=re.DOTALL).strip()


def _tuples(value: Any) -> Any:
    """Converts lists from JSON to tuples: flags can override only tuples."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _known(
    stored: Mapping[str, Any], base: ConfigDict, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits stored fields into those that `base` has (nested) and the others (by name)."""
    known: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key, value in stored.items():
        name = f"{prefix}{key}"
        if key not in base:
            others |= fields({key: value}, prefix)
        elif name not in OPEN and isinstance(base[key], ConfigDict) and isinstance(value, dict):
            known[key], inner = _known(value, base[key], f"{name}.")
            others |= inner
        else:
            known[key] = value
    return known, others


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the stored configuration {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"cannot read the stored configuration {path}: {error}.") from error
    if not isinstance(stored, dict):
        raise ConfigError(f"cannot read the stored configuration {path}: it must be a JSON object.")
    written = stored.pop(FORMAT_KEY, 1)
    if written != FORMAT:
        raise ConfigError(
            f"the stored configuration {path} has format {written}, but this version of aliasfree_jax reads "
            f"format {FORMAT}. Use the version that wrote it."
        )
    return stored


def read_config(path: Path) -> ConfigDict:
    """Reads the configuration that a run stored as JSON at `path`.

    Missing fields get their default. Unknown fields are ignored with a warning. `REMOVED` fields with their
    old default are ignored without a warning.

    Raises:
      ConfigError: The file is unreadable, not JSON or of another format, or a field has a value of another
        type.
    """
    config = base_config()
    stored = _read(path)
    stored.pop(ACCEPTED, None)
    known, others = _known(stored, config)
    try:
        config.update(_tuples(known))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} was not written by this version of aliasfree_jax: {reason(error)} "
            "Pass the configuration file with --config=configs/....py instead."
        ) from error
    if others := {name: value for name, value in others.items() if REMOVED.get(name, NOT_SET) != value}:
        warnings.warn(
            f"this version of aliasfree_jax does not know these fields of {path} and ignores them: "
            f"{', '.join(others)}.",
            stacklevel=2,
        )
    return config


def read_accepted(path: Path) -> list[dict[str, Any]]:
    """Returns the changes that were accepted so far when the run of `path` was resumed."""
    accepted = _read(path).get(ACCEPTED)
    return accepted if isinstance(accepted, list) else []


def read_removed(path: Path) -> dict[str, Any]:
    """Returns removed fields of the configuration at `path` that do not have their old default."""
    return {n: v for n, v in fields(_read(path)).items() if n in REMOVED and v != REMOVED[n]}


def defaults() -> dict[str, Any]:
    """Returns the defaults of all fields, including removed ones, as nested dictionaries."""
    return nested({field: default for field, (default, _) in FIELDS.items()} | REMOVED)


def to_store(config: ConfigDict, accepted: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the nested dictionaries to store, for `read_config` and `read_accepted`."""
    return {FORMAT_KEY: FORMAT} | config.to_dict() | ({ACCEPTED: accepted} if accepted else {})


def differences(
    stored: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Compares two nested dictionaries and returns the fields that differ, with both values.

    Tuples equal lists, and 1 equals 1.0.

    Args:
      stored: The first dictionary.
      now: The second dictionary.
      defaults: Values for missing fields (`defaults()`). Fields that are missing here too are `NOT_SET`.
    """
    old, new, default = (fields(json.loads(json.dumps(tree))) for tree in (stored, now, defaults))
    pairs = {
        name: tuple(tree.get(name, default.get(name, NOT_SET)) for tree in (old, new)) for name in old | new
    }
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}
