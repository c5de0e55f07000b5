"""A Linen network from a user's file, trained by train.py: as written, and transformed."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from aliasfree_jax import check, cli, foreign
from aliasfree_jax.checkpoint import load_model, load_variables, named_leaves, network_of
from aliasfree_jax.checkpoint.directory import read_stored
from aliasfree_jax.commands import mode
from aliasfree_jax.config import base_config
from aliasfree_jax.conversion.code_bases import original_of
from aliasfree_jax.data import ArraySource
from aliasfree_jax.errors import AliasFreeError, CheckpointError, ConfigError, ConversionError, ShapeError
from aliasfree_jax.training import setup
from aliasfree_jax.training.adopting import Pretrained, adopt
from aliasfree_jax.training.progress import Progress
from aliasfree_jax.transform import Oversample, TransformError

# ml_collections loads configuration files with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
SIDE = 16

NETS = '''
import flax.linen as nn


class Block(nn.Module):
    """With parts of the names that a wrapper might use itself."""

    features: int
    strides: int

    @nn.compact
    def __call__(self, x, train):
        y = nn.Conv(self.features, (3, 3), self.strides, use_bias=False, name="network")(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(y))
        y = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Conv(self.features, (3, 3))(y))
        x = nn.Conv(self.features, (1, 1), self.strides)(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    num_classes: int
    width: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Conv(self.width, (3, 3))(x))
        x = Block(self.width, 2, name="network")(x, train)
        x = Block(2 * self.width, 2)(x, train)
        x = nn.Dropout(0.1, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes)(x)


def make_network(num_classes, width=4):
    return ResNet(num_classes, width)


def of_all_options(**options):
    return ResNet(options["num_classes"], options.get("width", 2))


class Plain(nn.Module):
    """Without batch statistics, and the same in training."""

    classes: int = 10

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, name="head")(nn.relu(nn.Conv(4, (3, 3), 2)(x)).mean((1, 2)))


def plain():
    return Plain()
'''


@contextmanager
def program(name: str):
    """The module of a program at the root. The flags that it adds are removed afterwards."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(f"{name}_under_test", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        for flag in [flag for flag in flags.FLAGS if flag not in before]:
            delattr(flags.FLAGS, flag)


def train(*arguments: str) -> None:
    """train.py with the given arguments."""
    with program("train") as module:
        cli.parse(["train.py", *arguments], module.default_config)
        module.main(flags.FLAGS.config)


def evaluate(*arguments: str) -> None:
    """eval.py with the given arguments."""
    with program("eval") as module:
        cli.parse(["eval.py", *arguments], lambda: cli.stored_config(module.checkpoints()[0]))
        module.main(flags.FLAGS.config)


QUICKSTART = f"--config={ROOT}/configs/quickstart.py"
SMALL = (
    f"--config.data.image_size={SIDE}",
    *("--config.data.train_limit=32", "--config.data.eval_limit=16"),
    *("--config.train.batch_size=16", "--config.train.total_epochs=2", "--config.optimizer.warmup_epochs=0"),
    *("--config.checkpoint.every_epochs=0.5", "--config.eval.every_epochs=0", "--config.train.devices=1"),
    *("--config.eval.shifts=2", "--config.eval.batch_size=16", "--config.eval.max_shift=8"),
)
POLYPHASE = "--config.model.shift_invariant.sampler=polyphase"
NARROW = "--config.model.options.width=2"


@pytest.fixture
def nets(tmp_path, monkeypatch) -> Path:
    """A separate directory with nets.py."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The directory of nets.py and of `run`: four updates of the transformed network."""
    directory = tmp_path_factory.mktemp("whole")
    (directory / "nets.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        name = "--config.model.name=nets.py:make_network"
        train(QUICKSTART, *SMALL, name, NARROW, POLYPHASE, "--workdir=run")
    return directory


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(whole / "run", tmp_path / "copy"))


@pytest.fixture
def changed(whole):
    """The network's file has other content within the test."""
    (whole / "nets.py").write_text(NETS.replace("num_classes, width=4", "num_classes, width=4, depth=1"))
    yield whole / "nets.py"
    (whole / "nets.py").write_text(NETS)


def configured(model: str, transformation=None, **options):
    """A configuration for 10 classes of images with one channel."""
    config = base_config()
    config.model.name, config.model.options = model, options
    config.model.shift_invariant = transformation or {}
    config.data.image_size, config.data.mean, config.data.std = SIDE, (0.5,), (0.5,)
    config.train.devices = 1
    return config


def of_classes(count: int) -> ArraySource:
    images = np.zeros((64, SIDE, SIDE, 1), np.uint8)
    return ArraySource(images, np.arange(64) % count, class_names=tuple(f"class {i}" for i in range(count)))


# From the command line.


def test_it_trains_and_is_shift_invariant(whole):
    results = json.loads((whole / "run/results.json").read_text())
    assert results["integer"]["consistency"] == 1.0 and results["integer"]["pairs"] == 32
    card, module, variables = load_model(whole / "run")
    assert (card.model, card.step) == (f"{whole}/nets.py:make_network", 4)
    assert card.options == {"width": 2, "num_classes": 10} and card.shift_invariant == {
        "sampler": "polyphase"
    }
    assert re.fullmatch("[0-9a-f]{64}", card.file_sha256)
    # The network as written is not.
    images = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE, 1))
    moved = jnp.roll(images, (1, 3), (1, 2))
    written = module.clone(transform=foreign.as_written)
    for network, exact in ((module, True), (written, False)):
        change = np.abs(network.apply(variables, images) - network.apply(variables, moved)).max()
        assert (change < 1e-5) == exact  # sums in another order; strides change about a tenth


def test_it_is_evaluated_from_another_directory(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evaluate(f"--checkpoint={run}", "--integer_shifts", "--config.eval.shifts=3")
    results = json.loads((run / "eval.json").read_text())
    assert results["integer"]["consistency"] == 1.0 and results["integer"]["pairs"] == 48
    assert "shift_invariant {'sampler': 'polyphase'}" in capsys.readouterr().out


def test_it_goes_on_bit_for_bit(whole, tmp_path, monkeypatch, capfd):
    """Stopped after step 2 and resumed from another directory."""
    step = Progress.step

    def step_and_signal(self, metrics):
        step(self, metrics)
        if self._step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    parts = tmp_path / "parts"
    shutil.copy(whole / "nets.py", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.chdir(whole)
        patch.setattr(Progress, "step", step_and_signal)
        name = "--config.model.name=./nets.py:make_network"
        train(QUICKSTART, *SMALL, name, NARROW, POLYPHASE, f"--workdir={parts}")
    monkeypatch.chdir(tmp_path)
    train(f"--workdir={parts}")
    assert "resuming at step 2 of 4" in capfd.readouterr().err
    for item in ("variables", "state"):
        one, other = (named_leaves(read_stored(at / "checkpoints/4", item)) for at in (whole / "run", parts))
        assert list(one) == list(other)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_a_changed_file_is_refused(whole, run, changed):
    said = (
        rf"{changed} has changed since the network was trained \(SHA-256 [0-9a-f]{{12}}\.\.\., now .*"
        r"Put the file back as it was; or .* another --workdir with --config.init_from=RUN"
    )
    for go_on in (
        lambda: train(f"--workdir={run}"),
        lambda: evaluate(f"--checkpoint={run}"),
        lambda: load_model(run),
    ):
        with pytest.raises(CheckpointError, match=said):
            go_on()
    assert load_variables(run)[0].step == 4  # init_from


def test_a_missing_file_is_refused(whole, run, changed):
    changed.unlink()
    said = rf"made by {changed}:make_network, but there is no file {changed}\. Put the file back as it was"
    with pytest.raises(CheckpointError, match=said):
        load_model(run)
    with pytest.raises(CheckpointError, match=said):
        train(f"--workdir={run}")


def test_eval_takes_no_other_network(run):
    with pytest.raises(
        ConfigError, match="model.shift_invariant.sampler: the network .*init_from=CHECKPOINT"
    ):
        evaluate(f"--checkpoint={run}", "--config.model.shift_invariant.sampler=blur")


def test_another_transformation_is_refused(whole, run):
    with pytest.raises(ConfigError, match=r"model.shift_invariant.padding: \"\(not set\)\", null"):
        train(f"--workdir={run}", "--config.model.shift_invariant.padding=None")


@pytest.mark.slow
def test_the_page_shows_what_it_is_for(tmp_path, monkeypatch, capfd):
    """Trained as written, transformed and fine-tuned, evaluated: the commands of docs/training.md."""
    page = (ROOT / "docs/training.md").read_text()
    section = re.search(r"^## Your own network$.*?(?=^## )", page, re.DOTALL | re.MULTILINE)[0]
    python, shell = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)[1] for kind in ("python", "sh"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_file.py").write_text(python)
    commands = [shlex.split(line) for line in shell.replace("\\\n", " ").splitlines()]
    assert [command[1] for command in commands] == ["train.py", "train.py", "eval.py"]
    for _, script, *typed in commands:
        train(*typed, *SMALL) if script == "train.py" else evaluate(*typed)
        # Another file can be the source of initial weights: equal parameter names are enough.
        if "runs/written" in typed[-1]:
            (tmp_path / "my_file.py").write_text(python + "\n# Changed.\n")
    assert "starting from the weights of" in capfd.readouterr().err
    written, invariant = (
        json.loads((tmp_path / "runs" / name / "results.json").read_text())["integer"]
        for name in ("written", "invariant")
    )
    # Zero padding and strides change the logits by about a tenth, float32 sums in another order by 1e-6.
    assert written["logit_change"]["max"] > 1e-3 > 1e-5 > invariant["logit_change"]["max"]
    evaluated = json.loads((tmp_path / "runs/invariant/eval.json").read_text())
    assert evaluated["integer"]["consistency"] == 1.0 == invariant["consistency"]


def test_initial_weights_keep_their_names(nets):
    """The transformed network takes every array. The head for other classes is initialised randomly."""
    plain, tuned = (
        setup.make_card(configured("nets.py:make_network", how, width=2), tuple("abc"), "")
        for how in (None, {"sampler": "polyphase"})
    )
    images = jnp.zeros((1, SIDE, SIDE, 1))
    variables = network_of(plain).init(jax.random.key(1), images)
    told: list[str] = []
    taken = adopt(Pretrained(plain, variables), network_of(tuned), tuned, seed=0, tell=told.append)
    assert not told
    jax.tree.map(np.testing.assert_array_equal, variables, taken)
    wider = setup.make_card(configured("nets.py:make_network", {"sampler": "polyphase"}, width=2), "abcd", "")
    taken = adopt(Pretrained(plain, variables), network_of(wider), wider, seed=0, tell=told.append)
    assert "initialised randomly for 4 classes: params/Dense_0/bias, params/Dense_0/kernel" in told[0]
    kept = taken["params"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(kept, variables["params"]["Conv_0"]["kernel"])


def test_a_head_that_is_not_known_is_not_taken_for_other_classes(nets):
    card = setup.make_card(configured("nets.py:plain"), "abcdefghij", "")
    variables = network_of(card).init(jax.random.key(1), jnp.zeros((1, SIDE, SIDE, 1)))
    mine = setup.make_card(configured("nets.py:plain"), "jihgfedcba", "")
    with pytest.raises(
        CheckpointError, match=r"the head of .*nets.py:plain' cannot be found.*def make_network\("
    ):
        adopt(Pretrained(card, variables), network_of(mine), mine, seed=0, tell=print)


# The module that is trained.


def networks() -> dict[str, nn.Module]:
    namespace: dict = {"__name__": "nets"}
    exec(NETS, namespace)
    return {"with statistics": namespace["ResNet"](3, 2), "without": namespace["Plain"](3)}


@pytest.mark.parametrize("kind", ["with statistics", "without"])
def test_it_is_the_network_itself(kind):
    """Initial values, outputs, statistics and random draws are equal bit for bit."""
    network = networks()[kind]
    adapted, key = foreign.Adapted(network), jax.random.key(3)
    images = jax.random.normal(key, (2, SIDE, SIDE, 1))
    variables = network.init(key, images, **mode(network, train=False))
    jax.tree.map(np.testing.assert_array_equal, variables, adapted.init(key, images, train=False))
    evaluated = network.apply(variables, images, **mode(network, train=False))
    np.testing.assert_array_equal(evaluated, adapted.apply(variables, images))
    mutable = [collection for collection in variables if collection != "params"]  # as in a training step
    how = {"rngs": {"dropout": jax.random.key(5)}, "mutable": mutable}
    trained = network.apply(variables, images, **mode(network, train=True), **how)
    jax.tree.map(np.testing.assert_array_equal, trained, adapted.apply(variables, images, train=True, **how))
    sown = adapted.apply(variables, images, mutable=["intermediates"], capture_intermediates=True)[1]
    assert any("Conv" in name for name in sown["intermediates"])


def test_options_as_the_command_line_has_them():
    """Options from the command line reach `shift_invariant`, also through a stored configuration."""
    with program("train") as module:
        typed = (
            "sampler={'name': 'blur', 'kernel_size': 5}",
            "padding=None",
            "activations={'oversample': 3}",
        )
        options = (f"--config.model.shift_invariant.{option}" for option in typed)
        cli.parse(["train.py", *options], module.default_config)
        config = flags.FLAGS.config
    stored = json.loads(json.dumps(setup.make_card(config, "ab", "").to_json()))["shift_invariant"]
    assert foreign.transform_of(stored).keywords == {
        "argnums": 1,
        "sampler": {"name": "blur", "kernel_size": 5},
        "padding": None,
        "activations": Oversample(3),
    }


def test_the_transformed_network_updates_its_statistics():
    network = networks()["with statistics"]
    adapted = foreign.Adapted(network, foreign.transform_of({"sampler": "polyphase"}))
    images = jax.random.normal(jax.random.key(3), (2, SIDE, SIDE, 1))
    variables = adapted.init(jax.random.key(0), images)
    how = {"rngs": {"dropout": jax.random.key(5)}, "mutable": ["batch_stats"]}
    _, changed = adapted.apply(variables, images, train=True, **how)
    assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    assert not np.array_equal(
        *(v["batch_stats"]["network"]["BatchNorm_0"]["mean"] for v in (changed, variables))
    )
    assert not check(adapted.apply, variables, images, argnums=1)
    sown = adapted.apply(variables, images, mutable=["intermediates"], capture_intermediates=True)[1]
    assert {"network", "Block_0", "Conv_0"} <= set(sown["intermediates"])  # eval.py --pictures


@pytest.mark.parametrize(
    ("argument", "when"),
    [
        ("train", True),
        ("training", True),
        ("is_training", True),
        ("deterministic", False),
        ("use_running_average", False),
    ],
)
def test_every_word_for_training(argument, when):
    namespace: dict = {"nn": nn}
    exec(f"class Net(nn.Module):\n    def __call__(self, x, {argument}): return {argument}", namespace)
    network = namespace["Net"]()
    assert mode(network, train=True) == {argument: when} and mode(network, train=False) == {
        argument: not when
    }


def test_networks_of_this_package_are_transformed_too():
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    options = {"num_classes": 3, "depths": (1, 1, 1), "widths": (4, 4, 4)}
    for transformation, findings in ({}, True), ({"sampler": "polyphase"}, False):
        network = foreign.build("resnet20_cifar", options, transformation)
        variables = jax.eval_shape(network.init, jax.random.key(0), images)
        assert bool(check(network.apply, variables, images, argnums=1)) == findings


# What a file may contain, and the messages about other content.


@pytest.mark.parametrize("name", ["make_network", "of_all_options", "plain"])
def test_functions_that_make_networks(nets, name):
    config = configured(f"nets.py:{name}", {"sampler": "polyphase"})
    assert setup.set_up(config, sources=(of_classes(10), None)).card.options == {"num_classes": 10}


def test_a_module_of_a_package(nets, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (nets / "of_somebody").mkdir()
    (nets / "of_somebody/__init__.py").touch()
    (nets / "of_somebody/widths.py").write_text("WIDTH = 2\n")
    (nets / "of_somebody/nets.py").write_text("from .widths import WIDTH\n" + NETS)
    config = configured("of_somebody.nets:make_network", {"sampler": "polyphase"})
    card = setup.make_card(config, "ab", "")
    assert card.model == config.model.name
    network_of(card)
    (nets / "of_somebody/nets.py").write_text(NETS)
    with pytest.raises(CheckpointError, match="of_somebody/nets.py has changed"):
        network_of(card)


def test_files_beside_it_are_found(nets, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (nets / "widths_beside.py").write_text("WIDTH = 2\n")
    (nets / "nets.py").write_text("from widths_beside import WIDTH\n" + NETS)
    assert isinstance(foreign.build("nets.py:plain", {}, {}), foreign.Adapted)


MORE = (
    NETS
    + """
import jax.numpy as jnp
from flax import nnx


def needs(width):
    return ResNet(10, width)


def no_module(num_classes):
    return lambda x: x


def with_variables():
    return plain(), {}


def of_nnx():
    return nnx.Linear(2, 2, rngs=nnx.Rngs(0))


class Flat(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), 2)(x)
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Coloured(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)((x @ jnp.ones((3, 4))).mean((1, 2)))


class Several(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.num_classes)(x.mean((1, 2)))
        return x, x


class OfMaps(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Conv(self.num_classes, (3, 3))(x)


class Untold(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, quick):
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Noisy(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = x + self.make_rng("noise")[0] if train else x
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Thousand(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1000)(x.mean((1, 2)))


number = 3
"""
)


@pytest.mark.parametrize(
    ("model", "transformation", "options", "error", "said"),
    [
        ("nets.py", {}, {}, ConfigError, "'nets.py' is not a reference to a function: expected my_"),
        ("nets.py:", {}, {}, ConfigError, "is not a reference to a function"),
        ("net.py:plain", {}, {}, ConfigError, r"there is no file .*/net\.py\."),
        ("no_such.nets:plain", {}, {}, ConfigError, "there is no module 'no_such.nets'"),
        ("nets.py:plian", {}, {}, ConfigError, "unknown function 'plian'. Did you mean 'plain'"),
        (
            "nets.py:number",
            {},
            {},
            ConfigError,
            "not a function but int: expected a function that returns a flax.linen",
        ),
        (
            "nets.py:needs",
            {},
            {},
            ConfigError,
            r"its signature is \(width\): missing a required argument: 'width'.*Write a default",
        ),
        ("nets.py:make_network", {}, {"widht": 3}, ConfigError, "unknown argument .*'widht'. Did .*'width'"),
        ("nets.py:no_module", {}, {}, ConfigError, "returned function: expected a flax.linen.Module alone"),
        ("nets.py:with_variables", {}, {}, ConfigError, "returned tuple: .*pass --config.init_from"),
        ("nets.py:of_nnx", {}, {}, ConfigError, "returned Linear: expected a flax.linen.Module"),
        ("nets.py:Coloured", {}, {}, ShapeError, r"Coloured does not run on images of 16,16,1 \(.*data.mean"),
        (
            "nets.py:Untold",
            {},
            {},
            ShapeError,
            "'quick'.*training may be named train, training, is_training, deter",
        ),
        ("nets.py:Noisy", {}, {}, ShapeError, "noise.*the random streams drop_path, dropout, gumbel"),
        (
            "nets.py:Thousand",
            {},
            {},
            ShapeError,
            r"returns float32\[2, 1000\] for 2 .*The data has 10 classes",
        ),
        ("nets.py:Several", {}, {}, ShapeError, r"\('float32\[2, 10\]', .* one array, float32\[2, 10\]"),
        ("nets.py:OfMaps", {}, {}, ShapeError, r"returns float32\[2, 16, 16, 10\] .*return only that array"),
        ("nets.py:Flat", {"sampler": "polyphase"}, {}, TransformError, r"nets.py:\d+: reshape.*\. \w+"),
        ("nets.py:plain", {"sampler": "polyphas"}, {}, ConfigError, "unknown sampler 'polyphas'"),
        ("nets.py:plain", {"sampler": "learned_polyphase"}, {}, ConfigError, "has parameters"),
        ("nets.py:plain", {"smapler": "blur"}, {}, ConfigError, "'model.shift_invariant.smapler'. Did you"),
        ("nets.py:plain", {"padding": "same"}, {}, ConfigError, "unknown padding 'same'"),
        (
            "nets.py:plain",
            {"activations": "gelu"},
            {},
            ConfigError,
            r'must be None, "polynomial" or \{"oversample"',
        ),
        ("nets.py:plain", {"activations": {"oversample": 0}}, {}, ConfigError, "factor of at least 1, got 0"),
        ("nets.py:plain", {"activations": {"oversampling": 2}}, {}, ConfigError, "got .*'oversampling': 2"),
        ("nets.py:plain", {"activations": {"oversample": "2"}}, {}, ConfigError, "got .*'oversample': '2'"),
        ("resnet20_cifr", {"sampler": "blur"}, {}, ConfigError, "unknown model 'resnet20_cifr'"),
    ],
)
def test_what_cannot_be_trained_is_one_message(nets, model, transformation, options, error, said):
    (nets / "nets.py").write_text(MORE)
    config = configured(model, transformation, **options)
    with pytest.raises(error, match=f"(?s){said}") as found:
        setup.set_up(config, sources=(of_classes(10), None))
    assert isinstance(found.value, AliasFreeError)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("train.precision", "bfloat16", "unknown argument of .*'(dtype|precision)'.*train.precision"),
        ("train.remat", "block", "unknown argument of .*'remat'.*train.remat"),
        ("train.temperature.schedule", "decay", "unexpected keyword argument 'temperature'"),
    ],
)
def test_options_of_this_packages_networks_are_none_of_others(nets, field, value, said):
    config = configured("nets.py:make_network")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(AliasFreeError, match=said):
        setup.set_up(config, sources=(of_classes(10), None))


def test_another_number_of_classes_than_the_function_has(nets):
    with pytest.raises(
        ShapeError, match=r"float32\[2, 10\] for 2 images. The data has 4 classes.*num_classes"
    ):
        setup.set_up(configured("nets.py:plain"), sources=(of_classes(4), None))


def test_misspelt_options_are_found_on_the_command_line():
    with pytest.raises(ConfigError, match="'model.shift_invariant.smapler'. Did you mean .*sampler"):
        cli.check_overrides(["--config.model.shift_invariant.smapler=blur"])
    cli.check_overrides(["--config.model.shift_invariant.sampler.name=blur"])


@pytest.mark.parametrize(("model", "how"), [("nets.py:plain", {}), ("resnet18", {"sampler": "polyphase"})])
def test_no_original_has_the_network(nets, model, how):
    card = setup.make_card(configured(model, how), "ab", "")
    with pytest.raises(
        ConversionError, match="(?s)no network like.*transformed or made by a user's function"
    ):
        original_of("torchvision", card)
