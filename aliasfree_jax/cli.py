"""What train.py and eval.py share: parsing `--config`, and errors as one message instead of a traceback.

`run(main)` replaces `absl.app.run(main)`. It defines the flag `--config`, checks the names of all
`--config.field=value` overrides against the fields that there are and ends with exit status 2 and a single
message on stderr when the user can mend what went wrong; Ctrl-C is one line and status 130. Errors of the
program itself keep their traceback. Where several processes run the program as one
(`aliasfree_jax.processes`), the first speaks.
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
from aliasfree_jax.config import field_fault
from aliasfree_jax.errors import AliasFreeError, CheckpointError, ConfigError, command, unknown
from aliasfree_jax.files import PathError, elsewhere, local_path
from aliasfree_jax.processes import LAUNCHERS, connect, is_first
from aliasfree_jax.references import located
from aliasfree_jax.stored_config import CONFIG, read_config, reason, run_directory

PATHS = ("init_from", "data.path")  # fields of a configuration


class LocalPath(flags.ArgumentParser[str]):
    """Parses the value of a flag that is a path of this machine: `flags.DEFINE(LocalPath(), ...)`."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        """With `~` expanded; an address is refused."""
        return str(local_path(argument)) if argument else ""


class Weights(LocalPath):
    """Parses the value of a flag that is a path, or names weights that are downloaded."""

    syntactic_help = "a path or hf://owner/name"

    def parse(self, argument: str) -> str:
        """A path as `LocalPath` has it."""
        return argument if elsewhere(argument) else super().parse(argument)


_LAUNCHER = flags.DEFINE_enum(
    "launcher", "auto", LAUNCHERS, "what started this process as one of several; auto: look for traces"
)
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of the first of several processes")
_PROCESS_COUNT = flags.DEFINE_integer("process_count", 0, "number of processes that no launcher started")
_PROCESS_INDEX = flags.DEFINE_integer("process_index", -1, "of this one of them, from 0")
ACCEPT_CLASS_NAMES = flags.DEFINE_bool(
    "accept_class_names", False, "take labels by position where the data's classes have other names"
)


def stored_config(reference: str) -> ConfigDict:
    """The configuration of the run that a checkpoint belongs to.

    Raises:
      ConfigError: it belongs to no run, or the run's configuration is missing or unreadable.
    """
    checkpoint = Path(reference)
    run = run_directory(checkpoint)
    if run is None and (elsewhere(reference) or checkpoint.exists()):
        raise ConfigError(
            f"{reference} is not part of a run, so no stored configuration says what to evaluate on: "
            "pass one with --config=configs/....py, and --config.data.path=... for images of your own."
        )
    if run is None:
        raise CheckpointError(f"no checkpoint at {checkpoint}: there is no such file or directory.")
    return read_config(run / CONFIG)


def check_overrides(argv: Sequence[str]) -> None:
    """Raises one `ConfigError` for all `--config.field` in `argv` that no configuration has."""
    names = [m[1] for m in (re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv) if m]
    faults = [fault for fault in map(field_fault, names) if fault]
    if faults:
        raise ConfigError("\n".join(faults))


def overridden() -> frozenset[str]:
    """The fields that the command line names, e.g. "data.image_size", whatever value it gives them."""
    return frozenset(config_flags.get_override_values(flags.FLAGS["config"]))


def _find_config(argv: Sequence[str]) -> tuple[slice, str] | None:
    """Where `--config` and its value stand, and the value, "" without one; None if the flag is not given."""
    for i, argument in enumerate(argv):
        if match := re.fullmatch(r"--?config(?:=(.*))?", argument):
            following = argv[i + 1] if i + 1 < len(argv) else ""
            return (slice(i, i + 2), following) if match[1] is None else (slice(i, i + 1), match[1])
    return None


def _expand_paths(config: ConfigDict) -> None:
    """Expands `~` in the fields that are paths, refuses addresses, and completes the path of a network."""
    for field in PATHS:
        *sections, name = field.split(".")
        section = functools.reduce(getattr, sections, config)
        if section[name] and not (field == "init_from" and elsewhere(section[name])):
            section[name] = str(local_path(section[name], f"--config.{field}"))
    config.model.name = located(config.model.name)  # the run may go on, and is evaluated, from elsewhere


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
    for name in ("config", ACCEPT_CLASS_NAMES.name):  # so that --help lists them
        flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS[name])


def _mistake_in(path: str, error: Exception) -> ConfigError:
    """Says where in the configuration file at `path` the `error` of running it arose."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    text = reason(error)
    return ConfigError(f"{path}:{lines[-1]}: {text}" if lines else f"{path}: {text}")


def _own(error: BaseException) -> AliasFreeError | None:
    """The error that a configuration file raised, which ml_collections and absl wrap with a traceback.

    A flag's own, of a path, is not meant: absl's message names the flag.
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
      argv: command line, the program's name first.
      default: gives the configuration where `--config` is not passed; it may read the other flags.

    Raises:
      ConfigError: anything the user mistyped.
    """
    check_overrides(argv)
    argv, found = list(argv), _find_config(argv)
    value = found[1] if found else None
    if found and value:  # `~` in it, which the shell leaves as it is
        value = str(local_path(value, "--config"))
        argv[found[0]] = [f"--config={value}"]
    try:
        _define_config(argv, value, default)
        positional = flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:  # a field that the configuration file misspells
        raise _mistake_in((value or "").split(":", 1)[0], error) from error
    except flags.Error as error:
        raise _own(error) or mistake(error) from error
    refuse(positional[1:])
    _expand_paths(flags.FLAGS.config)
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

    def program(arguments: list[str]) -> None:
        app.run(quietly, arguments, flags_parser=lambda argv: parse(argv, default))

    sys.exit(command(program)(sys.argv))
