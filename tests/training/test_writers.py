"""The values passed to TensorBoard and Weights & Biases, with stand-ins for the packages."""

import sys
from types import SimpleNamespace

import pytest

from aliasfree_jax.config import base_config
from aliasfree_jax.errors import ConfigError, MissingPackageError
from aliasfree_jax.training import loop
from aliasfree_jax.training.progress import make_writers
from aliasfree_jax.training.schedules import make_plan
from aliasfree_jax.validation import validate


class Recorder:
    """Replaces both packages and their objects, and remembers all calls."""

    def __init__(self, *arguments, **options):
        self.arguments, self.options, self.calls = arguments, options, []

    def __getattr__(self, name):
        return lambda *arguments, **options: self.calls.append((name, arguments, options))


@pytest.fixture
def packages(monkeypatch):
    """`tensorboard` and `wandb`: the recorders of the last run."""
    made = SimpleNamespace()

    def make(name):
        def start(*arguments, **options):
            setattr(made, name, Recorder(*arguments, **options))
            return getattr(made, name)

        return start

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=make("tensorboard")))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=make("wandb")))
    return made


def test_a_run_writes_its_numbers_to_both(packages, world, config, tmp_path):
    config.log.tensorboard, config.log.wandb = True, "shifts"
    loop.run(config, tmp_path / "mine", evaluate=lambda predict, batches: {"accuracy": 0.5})
    *scalars, end = packages.tensorboard.calls
    assert end[0] == "close" and packages.tensorboard.arguments == (f"{tmp_path}/mine/tensorboard",)
    named = [(arguments[0], arguments[2]) for name, arguments, _ in scalars if name == "add_scalar"]
    assert [step for name, step in named if name == "train/loss"] == [1, 2, 3, 4]
    assert [step for name, step in named if name == "test/accuracy"] == [2, 4]
    *logs, end = packages.wandb.calls
    assert end[0] == "finish"
    assert packages.wandb.options["project"] == "shifts" and packages.wandb.options["name"] == "mine"
    assert packages.wandb.options["config"]["train"]["batch_size"] == 12
    assert [options["step"] for _, (values,), options in logs if "train/loss" in values] == [1, 2, 3, 4]


def test_a_resumed_run_replaces_what_is_done_again(packages, world, config, tmp_path):
    make_writers(base_config(), tmp_path, 7)
    assert not vars(packages)  # nothing unless requested
    config.log.tensorboard = True
    make_writers(config, tmp_path, 7)
    assert packages.tensorboard.options == {"purge_step": 8}


def test_runs_of_equal_names_are_runs_of_their_own_that_go_on(packages, config, tmp_path):
    config.log.wandb = "shifts"
    ids = []
    for workdir in (tmp_path / "a/seed0", tmp_path / "b/seed0", tmp_path / "a/seed0"):
        workdir.mkdir(parents=True, exist_ok=True)
        make_writers(config, workdir, 0)
        ids.append(packages.wandb.options["id"])
        assert packages.wandb.options["name"] == "seed0" and packages.wandb.options["resume"] == "allow"
    assert ids[0] == ids[2] != ids[1] and all(ids)


@pytest.mark.parametrize(
    ("package", "field", "value"), [("tensorboardX", "tensorboard", True), ("wandb", "wandb", "p")]
)
def test_a_missing_package(package, field, value, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    config = base_config()
    config.log[field] = value
    with pytest.raises(MissingPackageError, match=f"log.{field} needs {package} .*pip install {package}"):
        make_writers(config, tmp_path, 0)


def test_some_steps_are_profiled(world, config, tmp_path, capfd):
    config.log.profile_steps = (3, 9)
    loop.run(config, tmp_path)
    assert list(tmp_path.glob("profile/**/*.xplane.pb"))
    assert f"profile of steps 3 to 4: {tmp_path}/profile" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("steps", "start", "profiled"),
    [((), 0, None), ((5, 6), 0, None), ((2, 3), 2, None), ((2, 3), 1, (2, 3)), ((3, 9), 0, (3, 4))],
)
def test_a_profile_is_whole_or_not_begun(config, steps, start, profiled):
    config.log.profile_steps = steps
    plan = make_plan(config, 24)
    assert plan.total == 4 and plan.profiled(start) == profiled


@pytest.mark.parametrize("steps", [(1, 2), (3, 2), (5,)])
def test_steps_that_cannot_be_profiled(steps):
    config = base_config()
    config.log.profile_steps = steps
    with pytest.raises(ConfigError, match=r"log.profile_steps must be \(first, last\) steps, from 2 on"):
        validate(config)
