"""Tests of the command line: accepted arguments and messages for mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from aliasfree_jax import cli
from aliasfree_jax.config import base_config
from aliasfree_jax.errors import CheckpointError, ConfigError, command
from aliasfree_jax.evaluation.stored import results_path
from aliasfree_jax.files import elsewhere, write_json
from aliasfree_jax.stored_config import read_config, run_directory

# ml_collections loads configuration files with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIG = """
from aliasfree_jax.config import base_config

def get_config(name="digits"):
    config = base_config()
    config.data.path = name
    return config
"""


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Makes configs/own.py and returns a function that parses arguments. Removes --config afterwards."""
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/own.py").write_text(CONFIG)
    Path("configs/wrong.py").write_text(CONFIG.replace("data.path = name", "data.pth = name"))

    def parse(*arguments, default=None):
        _forget()
        cli.parse(["program", *arguments], default)
        return flags.FLAGS.config

    yield parse
    _forget()


def _forget():
    for name in [name for name in flags.FLAGS if name.split(".")[0] == "config"]:
        delattr(flags.FLAGS, name)


def test_overrides_reach_the_configuration(parse):
    config = parse(
        "--config=configs/own.py:abc", "--config.seed=7", "--config.data.mean=0.5", "--config.data.flip"
    )
    assert (config.data.path, config.seed, config.data.mean, config.data.flip) == ("abc", 7, (0.5,), True)
    config = parse(
        "--config", "configs/own.py", "--config.seed", "8", "--config.model.options.widths=(8, 16)"
    )
    assert (config.data.path, config.seed, config.model.options.widths) == ("digits", 8, (8, 16))


def test_the_fields_that_are_overridden_by_name_are_known(parse):
    """Includes fields that repeat the configuration's value, and flags without a value."""
    size = base_config().data.image_size
    given = [
        f"--config.data.image_size={size}",
        "--config.seed",
        "8",
        "--noconfig.data.exif",
        "--config.data.flip",
    ]
    parse("--config=configs/own.py", *given)
    assert cli.overridden() == {"data.image_size", "seed", "data.exif", "data.flip"}
    parse("--config.data.mean=0.5", default=base_config)
    assert cli.overridden() == {"data.mean"}
    parse("--config=configs/own.py")
    assert not cli.overridden()


def test_the_default_configuration_takes_overrides_too(parse):
    config = parse("--config.eval.shifts=3", default=base_config)
    assert config.eval.shifts == 3 and config.seed == base_config().seed
    with pytest.raises(ConfigError, match="--config is missing: pass .*configs/quickstart.py"):
        parse("--config.eval.shifts=3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/own.py", "--config.data.pth=x"],
            r"unknown field 'data.pth'. Did you mean 'data.path'",
        ),
        (
            ["--config=configs/own.py", "--config.dta.path=x"],
            "unknown field 'dta.path'.* 'data'|Known: .*data",
        ),
        (["--config=configs/own.py", "--config.data.path.x=1"], "unknown field 'data.path.x'"),
        (["--config=configs/own.py", "--config.seed=a"], "--config.seed=a: invalid literal"),
        (["--config.seed=1", "--config=configs/own.py"], "before a value for --config"),
        (["--config=configs/own.py", "--confg=1"], "Unknown command line flag 'confg'"),
        (["--config=configs/own.py", "data"], "unexpected argument 'data'"),
        (
            ["--config=configs/onw.py"],
            "unknown configuration file 'configs/onw.py'. Did you mean 'configs/own.py'",
        ),
        (["--config"], "--config has no value"),
        (["--config=configs/wrong.py"], r'configs/wrong.py:6: Key "pth" does not exist.*Did you mean "path"'),
    ],
)
def test_mistakes_are_explained(parse, arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(*arguments)


def test_a_configuration_files_own_error_is_the_whole_message(parse):
    lines = (
        "def get_config(word):",
        "    from aliasfree_jax.errors import ConfigError",
        "    raise ConfigError(word)",
    )
    Path("configs/raising.py").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"\Awrong word\Z"):
        parse("--config=configs/raising.py:wrong word")


def test_all_misspelt_fields_are_named_at_once():
    with pytest.raises(ConfigError, match="(?s)'sed'.*'data.pth'"):
        cli.check_overrides(
            ["x", "--config.sed=1", "--noconfig.data.pth", "--config.model.options.anything=1"]
        )


@pytest.fixture
def path_flag():
    """Name of a flag that is a path."""
    flags.DEFINE(cli.LocalPath(), "place", "", "of a thing")
    yield "place"
    delattr(flags.FLAGS, "place")


def test_paths_of_flags_and_fields_are_of_this_machine(parse, path_flag, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse(
        "--config=~/configs/own.py:abc", "--place=~/x", "--config.data.path=~/d", "--config.init_from=~/w.pth"
    )
    assert (flags.FLAGS.place, config.data.path) == (f"{tmp_path}/x", f"{tmp_path}/d")
    assert config.init_from == f"{tmp_path}/w.pth"
    assert parse("--config", "~/configs/own.py").data.path == "digits" and not flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("name", ["hf://owner/name@main/w.pth", "antialiased-cnns/resnet50_lpf4_finetune"])
def test_weights_may_be_elsewhere_but_nothing_else(parse, path_flag, name, tmp_path, monkeypatch):
    config = parse("--config=configs/own.py", f"--config.init_from={name}")
    assert config.init_from == name and cli.Weights().parse(name) == name
    with pytest.raises(ConfigError, match="not part of a run.*--config="):
        cli.stored_config(name)
    if name.startswith("hf:"):
        for field in ("place", "config.data.path"):
            with pytest.raises(ConfigError, match=f"{field}.* is not supported"):
                parse("--config=configs/own.py", f"--{field}={name}")
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)  # for example a clone of the original repository
    assert elsewhere(name) == name.startswith("hf:")
    assert str(results_path("hf://owner/name@main/w.pth")) == "owner-name-main-w.pth.eval.json"


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://bucket/x", "https://host/x"])
@pytest.mark.parametrize("name", ["place", "config.data.path", "config.init_from", "config"])
def test_addresses_are_refused_before_anything_starts(parse, path_flag, name, address):
    with pytest.raises(ConfigError, match=f"{name}.* is not supported. Pass a path on this machine"):
        parse(*([] if name == "config" else ["--config=configs/own.py"]), f"--{name}={address}")
    assert not list(Path().glob("*:"))


def test_a_stored_configuration_is_read_back(tmp_path, parse):
    config = base_config()
    config.data.mean = (0.5,)
    config.model.options.widths = (8, 16)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    read = read_config(path)
    assert read.data.mean == (0.5,) and read.model.options.widths == (8, 16)
    again = parse("--config.model.options.widths=(4,)", default=lambda: read_config(path))
    assert again.model.options.widths == (4,)


def test_the_run_of_a_checkpoint_is_found(tmp_path):
    run, converted = tmp_path / "run", tmp_path / "converted"
    (run / "checkpoints" / "20").mkdir(parents=True)
    converted.mkdir()
    for path in (run, run / "best", run / "checkpoints", run / "checkpoints" / "20"):
        assert run_directory(path) == run
    assert run_directory(converted) is None
    (run / "config.json").write_text(json.dumps(base_config().to_dict()))
    assert cli.stored_config(run / "checkpoints" / "20").seed == base_config().seed
    with pytest.raises(ConfigError, match="converted is not part of a run.*--config="):
        cli.stored_config(converted)
    with pytest.raises(CheckpointError, match="no checkpoint at .*nowhere"):
        cli.stored_config(tmp_path / "nowhere")


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app, "run", interrupted)
    with pytest.raises(SystemExit) as end:
        cli.run(print)
    assert end.value.code == command(interrupted)([]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n" * 2


def test_a_full_disk_is_one_sentence(tmp_path, capsys):
    """Every write to /dev/full fails like a write to a full disk."""
    path = tmp_path / "results.json"
    path.with_name(f".results.json.{os.getpid()}.new").symlink_to("/dev/full")
    assert command(lambda _: write_json(path, {"a": 1}))([]) == 2
    said = (
        f"error: cannot write {path}: No space left on device. Free disk space or repair the file system.\n"
    )
    assert capsys.readouterr().err == said and not list(tmp_path.iterdir())


PROGRAM = """
import sys
from aliasfree_jax import cli
from aliasfree_jax.validation import validate
cli.run(validate)
"""


def test_a_program_ends_with_one_message_and_status_2(tmp_path):
    (tmp_path / "own.py").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    command = [sys.executable, "program.py", "--config=own.py", "--config.train.batch_size=-1"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(
        "error: invalid configuration:\n  - train.batch_size must be positive, got -1."
    )
    assert "Traceback" not in ended.stderr
