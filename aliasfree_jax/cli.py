"""What train.py and eval.py share: parsing `--config`, and errors as one message instead of a traceback.

`run(main)` replaces `absl.app.run(main)`. It defines the flag `--config`, checks the names of all
`--config.field=value` overrides against `base_config()` and ends with exit status 2 and a single
message on stderr when the user can mend what went wrong. Errors of the program itself keep their
traceback. Where several processes run the program as one (`aliasfree_jax.processes`), the first speaks.
"""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from aliasfree_jax.config import base_config
from aliasfree_jax.errors import EXIT_USER_ERROR, AliasFreeError, CheckpointError, ConfigError, unknown
from aliasfree_jax.processes import LAUNCHERS, connect, is_first

_LAUNCHER = flags.DEFINE_enum(
    "launcher", "auto", LAUNCHERS, "what started this process as one of several; auto: look for traces"
)
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of the first of several processes")
_PROCESS_COUNT = flags.DEFINE_integer("process_count", 0, "number of processes that no launcher started")
_PROCESS_INDEX = flags.DEFINE_integer("process_index", -1, "of this one of them, from 0")


def _reason(error: BaseException) -> str:
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


def read_config(path: Path) -> ConfigDict:
    """The configuration stored as JSON at `path`, as a run writes it.

    Raises:
      ConfigError: unreadable, not JSON, or with fields that this version does not know.
    """
    config = base_config()
    try:
        config.update(_tuples(json.loads(path.read_text())))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"cannot read the stored configuration {path}: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} was not written by this version of aliasfree_jax: {_reason(error)} "
            "Pass the configuration file with --config=configs/....py instead."
        ) from error
    return config


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


def stored_config(checkpoint: Path) -> ConfigDict:
    """The configuration of the run that `checkpoint` belongs to.

    Raises:
      ConfigError: it belongs to no run, or the run's configuration is missing or unreadable.
    """
    run = run_directory(checkpoint)
    if run is None and checkpoint.exists():
        raise ConfigError(
            f"{checkpoint} is not part of a run, so no stored configuration says what to evaluate on: "
            "pass one with --config=configs/....py, and --config.data.path=... for images of your own."
        )
    if run is None:
        raise CheckpointError(f"no checkpoint at {checkpoint}: there is no such file or directory.")
    return read_config(run / "config.json")


def _fault(field: str) -> str | None:
    """What is wrong with the name of an overridden field, e.g. "data.pth"; None if nothing is."""
    section, prefix = base_config(), ""
    for key in field.split("."):
        known = [prefix + k for k in section]
        section, prefix = section.get(key), f"{prefix}{key}."
        if section is None or (not isinstance(section, ConfigDict) and prefix != f"{field}."):
            return unknown("field", field, known)
        if prefix == "model.options.":
            return None  # free: whatever the model's constructor takes
    return None


def check_overrides(argv: Sequence[str]) -> None:
    """Raises one `ConfigError` for all `--config.field` in `argv` that no configuration has."""
    names = [m[1] for m in (re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv) if m]
    faults = [fault for fault in map(_fault, names) if fault]
    if faults:
        raise ConfigError("\n".join(faults))


def _config_file(argv: Sequence[str]) -> str | None:
    """The value of `--config`, "" where it has none; None if the flag is not given."""
    for i, argument in enumerate(argv):
        match = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if match:
            following = argv[i + 1] if i + 1 < len(argv) else ""
            return following if match[1] is None else match[1]
    return None


def _check_file(value: str) -> None:
    if not value:
        raise ConfigError(
            "--config has no value: pass a configuration file, e.g. --config=configs/quickstart.py"
        )
    path = Path(value.split(":", 1)[0])
    if not path.is_file():
        near = [
            str(p) for p in sorted((path.parent if path.parent.is_dir() else Path("configs")).glob("*.py"))
        ]
        raise ConfigError(unknown("configuration file", str(path), near))


def _define_config(argv: list[str], default: Callable[[], ConfigDict] | None) -> None:
    value = _config_file(argv)
    wants_help = any(re.fullmatch(r"--?help\w*", argument) for argument in argv)
    # Overrides of model.options may name new keys; check_overrides has refused all other new ones.
    options = {"lock_config": False, "accept_new_attributes": True, "sys_argv": argv}
    if value is None and not wants_help:
        if default is None:
            raise ConfigError(
                "--config is missing: pass a configuration file, e.g. --config=configs/quickstart.py"
            )
        flags.FLAGS(argv, known_only=True)  # the default may depend on the other flags
        config_flags.DEFINE_config_dict("config", default(), **options)
        return
    if value is not None:
        _check_file(value)
    config_flags.DEFINE_config_file(
        "config", None, "configuration file; --config.field=value overrides", **options
    )
    flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS["config"])  # so that --help lists it


def _mistake_in(path: str, error: Exception) -> ConfigError:
    """Says where in the configuration file at `path` the `error` of running it arose."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    text = _reason(error)
    return ConfigError(f"{path}:{lines[-1]}: {text}" if lines else f"{path}: {text}")


def _own(error: BaseException) -> AliasFreeError | None:
    """The error that a configuration file raised, which ml_collections and absl wrap with a traceback."""
    found, inner = None, error.__cause__ or error.__context__
    while inner is not None:
        found = inner if isinstance(inner, AliasFreeError) else found
        inner = inner.__cause__ or inner.__context__
    return found


def parse(argv: list[str], default: Callable[[], ConfigDict] | None = None) -> list[str]:
    """Defines `--config`, parses all absl flags and returns the positional arguments.

    Args:
      argv: command line, the program's name first.
      default: gives the configuration where `--config` is not passed; it may read the other flags.

    Raises:
      ConfigError: anything the user mistyped.
    """
    check_overrides(argv)
    try:
        _define_config(argv, default)
        positional = flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:  # a field that the configuration file misspells
        raise _mistake_in((_config_file(argv) or "").split(":", 1)[0], error) from error
    except flags.Error as error:
        raise _own(error) or ConfigError(f"{error} (--help lists the flags)") from error
    if len(positional) > 1:
        raise ConfigError(f"unexpected argument {positional[1]!r}: every argument is a flag, --name=value.")
    return positional


def run(main: Callable[[ConfigDict], None], *, default: Callable[[], ConfigDict] | None = None) -> None:
    """Parses the command line, calls `main(config)` and exits; user errors become one message, status 2.

    Args:
      main: receives the configuration with its overrides applied, not yet validated.
      default: gives the configuration where `--config` is not passed; None: the flag is required.
    """

    def quietly(_: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells all it does at the level INFO
        connect(
            _LAUNCHER.value,
            coordinator=_COORDINATOR.value,
            count=_PROCESS_COUNT.value,
            index=_PROCESS_INDEX.value,
        )
        with nullcontext() if is_first() else redirect_stdout(open(os.devnull, "w")):
            main(flags.FLAGS.config)

    try:
        app.run(quietly, flags_parser=lambda argv: parse(argv, default))
    except AliasFreeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
