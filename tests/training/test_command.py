"""train.py: what it asks the loop for, and what it says in the end."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags

from aliasfree_jax.config import base_config
from aliasfree_jax.errors import CheckpointError
from aliasfree_jax.training.stopping import TerminatedError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The module train.py with flags of its own and without training; `calls` holds what the loop got."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(flags, "DEFINE_string", lambda name, default, text: SimpleNamespace(value=default))
    spec = importlib.util.spec_from_file_location("train_under_test", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.calls = []

    def run(config, workdir, **arguments):
        module.calls.append({"workdir": workdir, **arguments})
        workdir.mkdir(parents=True)
        card = SimpleNamespace(to_json=lambda: {"model": "tiny"}, image_size=32)
        return SimpleNamespace(module=None, variables={}, card=card)

    monkeypatch.setattr(module.loop, "run", run)
    monkeypatch.setattr(module, "config_file", lambda: "somewhere/mine.py:small")
    monkeypatch.setattr(module, "open_source", lambda data, train: range(250))
    monkeypatch.setattr(module, "own_eval_batches", lambda source, data, batch_size: [])
    monkeypatch.setattr(module, "predictor", lambda module, variables, devices: None)
    monkeypatch.setattr(
        module,
        "shift_report",
        lambda predict, batches, kinds, images, devices: (
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


def test_initial_weights_come_from_a_run_or_a_file(command, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "load_pth", lambda path: ("pth", None, path.name))
    monkeypatch.setattr(command, "load_model", lambda path: ("run", None, Path(path).name))
    config = base_config()
    assert command.initial_weights(config, tmp_path) is None
    (tmp_path / "w.pth").touch()
    config.init_from = str(tmp_path / "w.pth")
    assert command.initial_weights(config, tmp_path / "run") == ("pth", "w.pth")
    config.init_from = str(tmp_path / "other")
    assert command.initial_weights(config, tmp_path / "run") == ("run", "other")
    # A run that goes on needs them no longer, not even if they are gone.
    (tmp_path / "run/checkpoints/10").mkdir(parents=True)
    assert command.initial_weights(config, tmp_path / "run") is None


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


def test_termination_has_a_status_of_its_own(command, monkeypatch, capsys):
    def terminated(*args, **options):
        raise TerminatedError(7)

    monkeypatch.setattr(command.loop, "run", terminated)
    command._WORKDIR.value = "mine"
    with pytest.raises(SystemExit) as end:
        command.main(base_config())
    assert end.value.code == 143
    said = "terminated after step 7, whose checkpoint is written; go on with: python train.py --workdir=mine"
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
