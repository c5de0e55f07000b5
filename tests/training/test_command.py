"""train.py: its call of the loop, and its final output."""

import importlib.util
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags

from aliasfree_jax.config import base_config
from aliasfree_jax.conversion import pretrained
from aliasfree_jax.data import ArraySource
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.training.resuming import TerminatedError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The module train.py with separate flags and without training. `calls` records the loop's arguments."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for define in ("DEFINE", "DEFINE_list"):  # (parser,) name, default, text
        monkeypatch.setattr(flags, define, lambda *arguments: SimpleNamespace(value=arguments[-2]))
    spec = importlib.util.spec_from_file_location("train_under_test", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.calls = []

    def run(config, workdir, **arguments):
        module.calls.append({"workdir": workdir, **arguments})
        workdir.mkdir(parents=True, exist_ok=True)
        card = SimpleNamespace(
            to_json=lambda: {"model": "tiny"}, image_size=32, step=9, outputs=lambda: ("a",)
        )
        return SimpleNamespace(module=None, variables={}, card=card)

    def open_source(data, *, train, task):
        return ArraySource(np.zeros((250, 1, 1, 1)), np.zeros(250, int))

    monkeypatch.setattr(module.loop, "run", run)
    monkeypatch.setattr(module, "config_file", lambda: "somewhere/mine.py:small")
    monkeypatch.setattr(module, "open_source", open_source)
    monkeypatch.setattr(module, "fit_classes", lambda source, known, **how: source)
    monkeypatch.setattr(module.cli, "ACCEPT_CLASS_NAMES", SimpleNamespace(value=False))
    monkeypatch.setattr(module, "own_eval_batches", lambda source, data, batch_size: [])
    monkeypatch.setattr(module, "predictor", lambda module, variables, devices: None)
    monkeypatch.setattr(
        module,
        "shift_report",
        lambda predict, batches, kinds, compare, images, devices: (
            {"images": images} | {kind.name: True for kind in kinds}
        ),
    )
    monkeypatch.setattr(module, "format_table", lambda results: f"TABLE of {results['images']} images")
    monkeypatch.chdir(tmp_path)
    return module


def test_a_run_is_named_after_its_configuration_and_ends_with_a_table(command, capsys, tmp_path):
    command.main(base_config())
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("mine-2") and command.calls[0]["origin"] == "somewhere/mine.py:small"
    assert "TABLE of 250 images" in capsys.readouterr().out
    results = json.loads((run / "results.json").read_text())
    assert results["card"] == {"model": "tiny"} and results["integer"] and results["fractional"]
    assert results["data"]["source"] == "digits" and results["command"] and results["machine"]


def test_names_of_classes_are_accepted_on_request_alone(command):
    command.main(base_config())
    command.cli.ACCEPT_CLASS_NAMES.value = True
    command._WORKDIR.value = "mine"
    command.main(base_config())
    assert [call["accept_class_names"] for call in command.calls] == [False, True]


def test_initial_weights_come_from_a_run_or_a_file(command, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "load_pretrained", lambda reference, tell: ("file", None, reference))
    monkeypatch.setattr(command, "load_variables", lambda path: ("run", path))
    config = base_config()
    assert command.pretrained_weights(config, tmp_path) is None
    (tmp_path / "w.pth").touch()
    (tmp_path / "other").mkdir()
    for reference in (str(tmp_path / "w.pth"), "hf://owner/name", "antialiased-cnns/resnet50_lpf4"):
        config.init_from = reference
        assert command.pretrained_weights(config, tmp_path / "run") == ("file", reference)
    config.init_from = str(tmp_path / "other")
    assert command.pretrained_weights(config, tmp_path / "run") == ("run", config.init_from)
    # A resumed run does not need them any more, even if they are deleted.
    (tmp_path / "run/checkpoints/10").mkdir(parents=True)
    assert command.pretrained_weights(config, tmp_path / "run") is None


@pytest.mark.parametrize(
    ("steps", "said"), [([], "There is no checkpoint yet"), ([10, 20], "The checkpoint of step 20 is kept")]
)
def test_interrupt_says_how_to_go_on(command, monkeypatch, tmp_path, capsys, steps, said):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    for step in steps:
        (tmp_path / f"mine/checkpoints/{step}").mkdir(parents=True)
    monkeypatch.setattr(command.loop, "run", interrupted)
    command._WORKDIR.value = "mine"
    with pytest.raises(SystemExit) as end:
        command.main(base_config())
    assert end.value.code == 130
    assert f"{said}; go on with: python train.py --workdir=mine" in capsys.readouterr().err


def test_jobs_of_the_same_second_get_directories_of_their_own(command, monkeypatch, tmp_path):
    monkeypatch.setattr(command.time, "strftime", lambda form, *when: "20260101-000000")
    for _ in range(3):
        command.main(base_config())
    names = ["mine-20260101-000000", "mine-20260101-000000-2", "mine-20260101-000000-3"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert [str(call["workdir"]) for call in command.calls] == [f"runs/{name}" for name in names]


def test_a_run_that_cannot_begin_leaves_no_directory(command, monkeypatch, tmp_path):
    def refused(*arguments, **options):
        raise ConfigError("invalid")

    monkeypatch.setattr(command.loop, "run", refused)
    with pytest.raises(ConfigError):
        command.main(base_config())
    assert not list((tmp_path / "runs").iterdir())
    (tmp_path / "runs").rmdir()
    (tmp_path / "runs").touch()
    with pytest.raises(ConfigError, match="cannot make the run directory runs/mine-.*exists"):
        command.main(base_config())


@pytest.mark.parametrize("workdir", ["x", "x/"])
def test_a_dry_run_never_touches_the_run(command, tmp_path, workdir):
    config = base_config()
    config.dry_run = True
    command._WORKDIR.value = workdir
    (tmp_path / "x/checkpoints/7").mkdir(parents=True)
    command.main(config)
    command.main(config)
    names = ["x-dry-run", "x-dry-run-2"]
    assert [call["workdir"] for call in command.calls] == [tmp_path / name for name in names]
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["checkpoints"]


def test_accepted_changes_reach_the_loop(command):
    command._ACCEPT.value = ["seed"]
    command.main(base_config())
    assert (
        command.calls[0]["accept_changes"] == ["seed"]
        and command.calls[0]["origin"] == "somewhere/mine.py:small"
    )


def test_sigterm_ends_the_last_report(command, monkeypatch, tmp_path, capsys):
    seen = []

    def report(predict, batches, kinds, compare, images, devices):
        for batch in batches:
            seen.append(batch)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(command, "own_eval_batches", lambda *arguments: iter(range(5)))
    monkeypatch.setattr(command, "shift_report", report)
    command._WORKDIR.value = "mine"
    with pytest.raises(SystemExit) as end:
        command.main(base_config())
    assert end.value.code == 143 and seen == [0]
    assert "terminated after step 9 and saved its checkpoint; go on with" in capsys.readouterr().err


def test_termination_has_a_status_of_its_own(command, monkeypatch, capsys):
    def terminated(*args, **options):
        raise TerminatedError(7)

    monkeypatch.setattr(command.loop, "run", terminated)
    command._WORKDIR.value = "mine"
    with pytest.raises(SystemExit) as end:
        command.main(base_config())
    assert end.value.code == 143
    said = "terminated after step 7 and saved its checkpoint; go on with: python train.py --workdir=mine"
    assert said in capsys.readouterr().err


def test_a_run_goes_on_with_its_own_configuration(command, tmp_path):
    config = base_config()
    config.train.total_epochs = 77.0
    config.model.options.drop_path_rate = 0.25
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text(json.dumps(config.to_dict()))
    command._WORKDIR.value = "mine"
    assert command.default_config().to_dict() == config.to_dict()
    command._WORKDIR.value = "other"
    assert command.default_config().train.total_epochs != 77.0


def test_a_missing_initial_checkpoint(command, tmp_path):
    config = base_config()
    config.init_from = "nowhere"
    with pytest.raises(CheckpointError, match="no checkpoint at nowhere"):
        command.main(config)
