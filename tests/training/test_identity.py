"""A run is resumed only with its configuration."""

import json

import pytest

from aliasfree_jax.config import base_config, fields
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.files import OccupiedError, sole_writer
from aliasfree_jax.stored_config import read_config, to_store
from aliasfree_jax.training import loop
from aliasfree_jax.training.resuming import check_identity

CHANGES = {
    "model.name": "other",
    "model.options.sampler": "aps",
    "model.options.norm": {"name": "spatial"},
    "data.source": "folder",
    "data.path": "/elsewhere",
    "data.flip": True,
    "data.crop_scale": (0.5, 1.0),
    "data.image_size": 64,
    "data.mean": (0.1, 0.2, 0.3),
    "data.train_limit": 7,
    "train.batch_size": 32,
    "train.accumulation_steps": 2,
    "train.total_epochs": 11.0,
    "train.mixing.mixup": 0.5,
    "train.ema_decay": 0.5,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 1.0,
    "seed": 1,
}
SILENT = {
    "data.workers": 3,
    "log.every_steps": 1,
    "log.wandb": "project",
    "train.devices": 1,
    "train.parameter_shards": 2,
    "eval.batch_size": 7,
    "eval.attack.rotation": 3.0,
    "checkpoint.keep": 9,
    "checkpoint.best": "",
    "init_from": "weights.pth",
    "dry_run": True,
}
TOLD = {
    "train.precision": "bfloat16",
    "train.remat": "block",
    "data.image_backend": "fast",
    "data.corrupt": "skip",
    "data.eval_limit": 7,
}


def changed(field, value):
    config = base_config()
    section = config
    *sections, name = field.split(".")
    for part in sections:
        section = section[part]
    section[name] = value
    return config


@pytest.fixture
def workdir(tmp_path):
    """A run of the default configuration."""
    (tmp_path / "config.json").write_text(json.dumps(base_config().to_dict()))
    return tmp_path


@pytest.mark.parametrize("field", CHANGES)
def test_what_changes_the_result_is_refused_until_it_is_accepted(workdir, field):
    config = changed(field, CHANGES[field])
    named = field if field != "model.options.norm" else f"{field}.name"
    with pytest.raises(ConfigError) as error:
        check_identity(workdir, config, 4, [])
    value = "spatial" if isinstance(CHANGES[field], dict) else CHANGES[field]
    was = json.dumps(fields(base_config().to_dict()).get(field, "(not set)"))
    assert f"\n  {named}: {was}, {json.dumps(value)}\n" in str(error.value)
    assert f"--accept_changes={named}" in str(error.value)
    accepted, notes = check_identity(workdir, config, 4, [named])
    assert [(a["field"], a["step"]) for a in accepted] == [(named, 4)] and len(notes) == 1
    # From the second time on, it belongs to the run.
    (workdir / "config.json").write_text(json.dumps(to_store(config, accepted)))
    assert check_identity(workdir, config, 8, []) == (json.loads(json.dumps(accepted)), [])
    again, notes = check_identity(workdir, config, 8, [named])  # as when a scheduler starts it again
    assert again == json.loads(json.dumps(accepted))
    assert notes == [f"--accept_changes: {named} has not changed"]


@pytest.mark.parametrize("field", SILENT)
def test_what_changes_nothing_goes_on_silently(workdir, field):
    assert check_identity(workdir, changed(field, SILENT[field]), 4, []) == ([], [])


@pytest.mark.parametrize("field", TOLD)
def test_what_hardly_changes_anything_goes_on_with_a_word(workdir, field):
    accepted, (note,) = check_identity(workdir, changed(field, TOLD[field]), 4, [])
    assert accepted == [] and note.startswith(f"{field}: ") and json.dumps(TOLD[field]) in note


def test_a_float32_run_goes_on_in_the_networks_own_precision_with_a_word(workdir):
    before = changed("train.precision", "float32")
    (workdir / "config.json").write_text(json.dumps(before.to_dict()))
    assert check_identity(workdir, before, 4, []) == ([], [])
    accepted, (note,) = check_identity(workdir, base_config(), 4, [])
    assert accepted == []
    assert note == 'train.precision: "float32", "default": from now on, numbers are rounded differently'


def test_every_field_that_changes_the_result_is_listed_at_once(workdir):
    config = changed("seed", 1)
    config.data.path, config.log.every_steps = "x", 1
    with pytest.raises(ConfigError) as error:
        check_identity(workdir, config, 4, ["seed"])
    assert "seed: " not in str(error.value) and '  data.path: "", "x"' in str(error.value)
    assert str(error.value).endswith("--accept_changes=seed,data.path")


def test_a_field_that_the_run_does_not_know_has_its_default(workdir):
    fields_then = base_config().to_dict()
    del fields_then["optimizer"]["clip_norm"]
    (workdir / "config.json").write_text(json.dumps(fields_then))
    assert check_identity(workdir, base_config(), 4, []) == ([], [])
    with pytest.raises(ConfigError, match=r"optimizer.clip_norm: 0.0, 1.0"):
        check_identity(workdir, changed("optimizer.clip_norm", 1.0), 4, [])


def with_blending(workdir, epochs):
    """The run of a version that could blend networks."""
    then = base_config().to_dict()
    then["train"]["blend"] = {"epochs": epochs, "start": "convnext"}
    (workdir / "config.json").write_text(json.dumps(then))


def test_a_removed_field_that_had_its_default_is_not_missed(workdir):
    with_blending(workdir, 0.0)
    assert check_identity(workdir, base_config(), 4, []) == (
        [],
        [],
    )  # and no warning, which would be an error


@pytest.mark.filterwarnings("ignore:.*train.blend.epochs")
def test_what_a_removed_field_did_is_refused_until_it_is_accepted(workdir):
    with_blending(workdir, 2.0)
    with pytest.raises(
        ConfigError, match=r"(?s)train.blend.epochs: 2.0, .*this version has no such field.*_changes="
    ):
        check_identity(workdir, base_config(), 4, [])
    accepted, (note,) = check_identity(workdir, base_config(), 4, ["train.blend.epochs"])
    assert accepted[0]["stored"] == 2.0 and note.startswith("accepted change of train.blend.epochs: 2.0")
    (workdir / "config.json").write_text(json.dumps(to_store(base_config(), accepted)))
    again, (note,) = check_identity(workdir, base_config(), 8, ["train.blend.epochs"])
    assert again == accepted and note == "--accept_changes: train.blend.epochs has not changed"


def test_accepting_what_does_not_exist(workdir):
    for step in (None, 4):
        with pytest.raises(ConfigError, match=r"--accept_changes: unknown field 'sed'\. Did you mean 'seed'"):
            check_identity(workdir, base_config(), step, ["sed"])


@pytest.mark.parametrize("content", [None, "", "{"])
def test_checkpoints_without_a_configuration(workdir, content):
    (workdir / "config.json").unlink()
    if content is not None:
        (workdir / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="(?s)cannot read.*config.json.*their configuration is unknown"):
        check_identity(workdir, base_config(), 4, [])
    assert check_identity(workdir, base_config(), None, []) == ([], [])


def test_a_run_is_refused_goes_on_and_remembers(world, config, tmp_path, capfd):
    config.train.total_epochs = 1.0
    loop.run(config, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    config.seed, config.train.total_epochs = 5, 2.0
    with pytest.raises(ConfigError, match=r"(?s)seed: 0, 5.*train.total_epochs: 1.0, 2.0"):
        loop.run(config, tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {k: v for k, v in after.items() if k != "lock"} == {k: v for k, v in before.items() if k != "lock"}
    assert loop.run(config, tmp_path, accept_changes=["seed", "train.total_epochs"]).card.step == 4
    assert "accepted change of seed: 0, 5" in capfd.readouterr().err
    assert read_config(tmp_path / "config.json").seed == 5
    accepted = json.loads((tmp_path / "config.json").read_text())["accepted"]
    assert {"step": 2, "field": "seed", "stored": 0, "now": 5} in accepted and len(accepted) == 2


def test_a_run_at_an_address(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="workdir is 's3://bucket/run', an address"):
        loop.run(config, "s3://bucket/run")
    assert not list(tmp_path.iterdir())


def test_a_directory_in_which_another_job_trains(world, config, tmp_path):
    with sole_writer(tmp_path), pytest.raises(OccupiedError, match="another process writes to .*another dir"):
        loop.run(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    loop.run(config, tmp_path)
