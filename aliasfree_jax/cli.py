"""Shared by train.py and eval.py: parses `--config`, and shows user errors as one message without traceback.

`run(main)` replaces `absl.app.run(main)`. It defines the flag `--config` and checks the field names of all
`--config.field=value` overrides. An error that the user can correct prints one message on stderr and exits
with status 2. Ctrl-C prints one line and exits with status 130. Errors of the program keep their traceback.
If several processes run the program together (`aliasfree_jax.processes`), only the first one prints.
"""

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from aliasfree_jax.commands import mistake, refuse
from aliasfree_jax.errors import AliasFreeError, CheckpointError, ConfigError, command, unknown
from aliasfree_jax.files import PathError, elsewhere, local_path
from aliasfree_jax.processes import LAUNCHERS, connect, is_first
from aliasfree_jax.references import located
from aliasfree_jax.stored_config import CONFIG, read_config, reason, run_directory
from aliasfree_jax.validation import field_fault

PATHS = ("init_from", "data.path")  # fields of a configuration


class LocalPath(flags.ArgumentParser[str]):
    """Parses a flag whose value is a path on this machine: `flags.DEFINE(LocalPath(), ...)`."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        """Expands `~` and refuses addresses such as gs://bucket."""
        return str(local_path(argument)) if argument else ""


class Weights(LocalPath):
    """Parses a flag whose value is a path or the name of weights to download."""

    syntactic_help = "a path or hf://owner/name"

    def parse(self, argument: str) -> str:
        """Returns names of weights unchanged, and paths as `LocalPath` does."""
        return argument if elsewhere(argument) else super().parse(argument)


_LAUNCHER = flags.DEFINE_enum(
    "launcher", "auto", LAUNCHERS, "launcher that started several processes; auto: detect it"
)
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of the first of several processes")
_PROCESS_COUNT = flags.DEFINE_integer("process_count", 0, "number of processes, if no launcher started them")
_PROCESS_INDEX = flags.DEFINE_integer("process_index", -1, "index of this process, from 0")
ACCEPT_CLASS_NAMES = flags.DEFINE_bool(
    "accept_class_names", False, "match classes by position if the data's class names differ"
)


def stored_config(reference: str) -> ConfigDict:
    """Reads the configuration of the run that a checkpoint belongs to.

    Raises:
      ConfigError: The checkpoint is not part of a run, or the run's configuration is missing or unreadable.
      CheckpointError: The checkpoint does not exist.
    """
    checkpoint = Path(reference)
    run = run_directory(checkpoint)
    if run is None and (elsewhere(reference) or checkpoint.exists()):
        raise ConfigError(
            f"{reference} is not part of a run, so there is no stored configuration that names the data. "
            "Pass a configuration: --config=configs/....py, and --config.data.path=... for your images."
        )
    if run is None:
        raise CheckpointError(f"no checkpoint at {checkpoint}: there is no such file or directory.")
    return read_config(run / CONFIG)


def check_overrides(argv: Sequence[str]) -> None:
    """Raises one `ConfigError` that lists every unknown `--config.field` in `argv`."""
    names = [m[1] for m in (re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv) if m]
    faults = [fault for fault in map(field_fault, names) if fault]
    if faults:
        raise ConfigError("\n".join(faults))


def overridden() -> frozenset[str]:
    """Fields that the command line sets, e.g. "data.image_size"."""
    return frozenset(config_flags.get_override_values(flags.FLAGS["config"]))


def _find_config(argv: Sequence[str]) -> tuple[slice, str] | None:
    """Position of `--config` with its value, and the value ("" if missing); None if the flag is not given."""
    for i, argument in enumerate(argv):
        if match := re.fullmatch(r"--?config(?:=(.*))?", argument):
            following = argv[i + 1] if i + 1 < len(argv) else ""
            return (slice(i, i + 2), following) if match[1] is None else (slice(i, i + 1), match[1])
    return None


def _expand_paths(config: ConfigDict) -> None:
    """Expands `~` in fields that are paths, refuses addresses, and makes the path of a network absolute."""
    for field in PATHS:
        *sections, name = field.split(".")
        section = functools.reduce(getattr, sections, config)
        if section[name] and not (field == "init_from" and elsewhere(section[name])):
            section[name] = str(local_path(section[name], f"--config.{field}"))
    # The run may be resumed or evaluated from another directory.
    config.model.name = located(config.model.name)


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


def _define_config(argv: list[str], value: str | None, default: Callable[[], ConfigDict] | None) -> None:
    wants_help = any(re.fullmatch(r"--?help\w*", argument) for argument in argv)
    # Overrides may add new keys to model.options. check_overrides has refused all other unknown keys.
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
    for name in ("config", ACCEPT_CLASS_NAMES.name):  # so that --help lists them
        flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS[name])


def _mistake_in(path: str, error: Exception) -> ConfigError:
    """Adds the line of the configuration file at `path` that raised `error` to its message."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    text = reason(error)
    return ConfigError(f"{path}:{lines[-1]}: {text}" if lines else f"{path}: {text}")


def _own(error: BaseException) -> AliasFreeError | None:
    """Returns the error of this package that a configuration file raised and ml_collections or absl wrapped.

    Errors of path flags are left out: absl's message names the flag.
    """
    found: AliasFreeError | None = None
    inner = error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, AliasFreeError) and not isinstance(inner, PathError):
            found = inner
        inner = inner.__cause__ or inner.__context__
    return found


def parse(argv: list[str], default: Callable[[], ConfigDict] | None = None) -> list[str]:
    """Defines `--config`, parses all absl flags and returns the positional arguments.

    Args:
      argv: Command line, beginning with the program's name.
      default: Returns the configuration if `--config` is not passed. It may read the other flags.

    Raises:
      ConfigError: The command line has a mistake.
    """
    check_overrides(argv)
    argv, found = list(argv), _find_config(argv)
    value = found[1] if found else None
    if found and value:  # the shell does not expand a `~` after "="
        value = str(local_path(value, "--config"))
        argv[found[0]] = [f"--config={value}"]
    try:
        _define_config(argv, value, default)
        positional = flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:  # a misspelt field in the configuration file
        raise _mistake_in((value or "").split(":", 1)[0], error) from error
    except flags.Error as error:
        raise _own(error) or mistake(error) from error
    refuse(positional[1:])
    _expand_paths(flags.FLAGS.config)
    return positional


def run(main: Callable[[ConfigDict], None], *, default: Callable[[], ConfigDict] | None = None) -> None:
    """Parses the command line, calls `main(config)` and exits. User errors: one message and status 2.

    Args:
      main: Receives the configuration. Overrides are applied, but it is not validated yet.
      default: Returns the configuration if `--config` is not passed; None: the flag is required.
    """

    def quietly(_: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax logs each of its steps at the level INFO
        connect(
            _LAUNCHER.value,
            coordinator=_COORDINATOR.value,
            count=_PROCESS_COUNT.value,
            index=_PROCESS_INDEX.value,
        )
        with nullcontext() if is_first() else redirect_stdout(open(os.devnull, "w")):
            main(flags.FLAGS.config)

    def program(arguments: list[str]) -> None:
        app.run(quietly, arguments, flags_parser=lambda argv: parse(argv, default))

    sys.exit(command(program)(sys.argv))
