"""Configurations as runs and results keep them: reading one back, and in what two differ."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.config import FIELDS, OPEN, base_config, fields, nested
from aliasfree_jax.errors import ConfigError

CONFIG = "config.json"  # in a run's directory
ACCEPTED = "accepted"  # key beside the fields: the changes that a run went on with
FORMAT_KEY, FORMAT = "format", 1  # another one beside them; a file without is of the first format
NOT_SET = "(not set)"  # stands for the value of an option of a network that is not named
# Fields that earlier versions had, with the default that they had: it is what every run does today.
REMOVED = {"train.blend.epochs": 0.0, "train.blend.start": "convnext"}


def run_directory(checkpoint: Path) -> Path | None:
    """The run that a path (of a run, its checkpoints or one of them) belongs to; None if to no run."""
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
    """The text of an error of ml_collections, which wraps one in the other and lists whole sections."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = str(error.args[0] if error.args else error)
    return re.sub(r' Other fields present: ".*?}"\n?', " ", text, flags=re.DOTALL).strip()


def _tuples(value: Any) -> Any:
    """JSON as a configuration holds it: sequences are tuples, the only ones that flags can override."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _known(
    stored: Mapping[str, Any], base: ConfigDict, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stored fields that `base` has too, nested, and the others by their names."""
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
        raise ConfigError(f"cannot read the stored configuration {path}: it is no JSON object.")
    written = stored.pop(FORMAT_KEY, 1)
    if written != FORMAT:
        raise ConfigError(
            f"the stored configuration {path} has format {written}, this version of aliasfree_jax reads "
            f"format {FORMAT}: use the version that wrote it."
        )
    return stored


def read_config(path: Path) -> ConfigDict:
    """The configuration stored as JSON at `path`, as a run writes it.

    Fields that are missing have their default. Unknown ones are left out, with a warning unless they are
    `REMOVED` and hold their default.

    Raises:
      ConfigError: unreadable, not JSON, or a field has a value of another kind.
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
            f"{path} has fields that this version of aliasfree_jax does not know; they are ignored: "
            f"{', '.join(others)}.",
            stacklevel=2,
        )
    return config


def read_accepted(path: Path) -> list[dict[str, Any]]:
    """The changes that the run whose configuration is at `path` went on with so far."""
    accepted = _read(path).get(ACCEPTED)
    return accepted if isinstance(accepted, list) else []


def read_removed(path: Path) -> dict[str, Any]:
    """The fields that the configuration at `path` sets to what this version can no longer do."""
    return {n: v for n, v in fields(_read(path)).items() if n in REMOVED and v != REMOVED[n]}


def defaults() -> dict[str, Any]:
    """The defaults of all fields, those that are gone too: what counts where a configuration lacks one."""
    return nested({field: default for field, (default, _) in FIELDS.items()} | REMOVED)


def to_store(config: ConfigDict, accepted: list[dict[str, Any]]) -> dict[str, Any]:
    """What `read_config` and `read_accepted` read back, as nested dictionaries."""
    return {FORMAT_KEY: FORMAT} | config.to_dict() | ({ACCEPTED: accepted} if accepted else {})


def differences(
    stored: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """The fields in which two nested dictionaries differ, with both values.

    Tuples and lists, 1 and 1.0 are the same.

    Args:
      defaults: what counts where one of them lacks a field (`defaults()`); where it lacks it too, `NOT_SET`.
    """
    old, new, default = (fields(json.loads(json.dumps(tree))) for tree in (stored, now, defaults))
    pairs = {
        name: tuple(tree.get(name, default.get(name, NOT_SET)) for tree in (old, new)) for name in old | new
    }
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}
