"""Writes runs as files of the originals and reads them back. Also safetensors files."""

import json
import re

import golden
import jax
import numpy as np
import pytest
from described import meta, originals

from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import (
    ModelCard,
    abstract_variables,
    leaf_shapes,
    load_model,
    named_leaves,
    save_model,
)
from aliasfree_jax.conversion import from_original, load_pretrained
from aliasfree_jax.conversion.code_bases import code_base, original_of
from aliasfree_jax.conversion.description import described
from aliasfree_jax.conversion.safetensors import safetensors_file
from aliasfree_jax.conversion.weight_files import read_state_dict
from aliasfree_jax.errors import CheckpointError, ConversionError
from aliasfree_jax.models import create_model

AFC, BLUR, VISION = "alias_free_convnets", "antialiased-cnns", "torchvision"
APS, CIFAR = "truly_shift_invariant_cnns", "truly_shift_invariant_cnns/cifar10"
LPS = "learnable_polyphase_sampling"
MINI = {"depths": [1, 1, 2, 1], "widths": [8, 16, 24, 32], "num_classes": 10}


def card_of(model, image_size=32, channels=3, **options):
    return ModelCard(
        model=model,
        options=options,
        class_names=tuple(map(str, range(options.get("num_classes", 1000)))),
        image_size=image_size,
        channels=channels,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        eval_crop_ratio=1.0,
        step=7,
        origin="test",
    )


def numbered(shapes):
    """Variables with different values, so that tests notice swapped variables."""
    leaves, structure = jax.tree.flatten(shapes)
    return jax.tree.unflatten(
        structure, [np.full(leaf.shape, n / 8 + 1, np.float32) for n, leaf in enumerate(leaves)]
    )


@pytest.fixture
def run(tmp_path):
    """Returns a function that stores a network and returns its directory and variables."""

    def store(model, image_size=32, channels=3, **options):
        card = card_of(model, image_size, channels, **options)
        variables = numbered(abstract_variables(create_model(model, **options), image_size, channels))
        return save_model(tmp_path / "run", card, variables), variables

    return store


def flat(variables):
    return {name: np.asarray(leaf) for name, leaf in named_leaves(variables).items()}


def network(source, name, side, options, suffix=".pth", slow=False, **ambiguous):
    """A test case. `ambiguous`: the error for a file that fits several networks."""
    marks = [pytest.mark.slow] * slow
    return pytest.param(source, name, side, options, suffix, ambiguous, marks=marks, id=f"{name}{suffix}")


NONE = {"stated": {"antialias": None}}  # the file may have lost its filters


@pytest.mark.parametrize(
    ("source", "name", "side", "options", "suffix", "ambiguous"),
    [
        network(AFC, "convnext_afc_tiny", 96, MINI, ".safetensors"),
        network(AFC, "convnext_circular_tiny", 96, MINI, slow=True),
        network(AFC, "convnext_aps_tiny", 96, {**MINI, "filter_size": 3}, slow=True),
        network(AFC, "convnext_tiny", 96, MINI, slow=True),
        network(BLUR, "resnet18_blur", 32, {"num_classes": 10, "filter_size": 3}),
        network(VISION, "resnet18", 32, {"num_classes": 10}, slow=True),
        network(APS, "resnet18_aps", 32, {"num_classes": 10, "filter_size": 2}, ".pth.tar"),
        network(APS, "resnet18_circular", 32, {"num_classes": 10}, slow=True),  # the original's resnet18_lpf1
        network(CIFAR, "resnet20_cifar_circular", 32, {"num_classes": 10}),
        network(CIFAR, "resnet20_cifar_aps", 32, {"num_classes": 10}, slow=True, model="resnet20_aps"),
        network(
            LPS, "resnet18_cifar_lps", 32, {"num_classes": 10}, slow=True, model="ResNet18Custom", **NONE
        ),
        *(
            network(
                LPS, "basic", 32, {"sampler": "learned_polyphase"}, suffix, model="BasicClassifier", **NONE
            )
            for suffix in (".pth", ".pth.tar", ".safetensors")
        ),
    ],
)
def test_a_run_goes_to_a_file_and_back(tmp_path, capsys, run, source, name, side, options, suffix, ambiguous):
    directory, variables = run(name, side, **options)
    output = tmp_path / f"weights{suffix}"
    assert main(["convert", f"--to={source}", str(directory), str(output)]) == 0
    printed = capsys.readouterr().out
    model, given = printed.split(": ", 1)[1].split("\n")[0].split(" ", 1)
    assert printed.startswith(f"{source}: ") and f"values to {output}" in printed
    # Loads it strictly with the printed name and options.
    module, back = from_original(source, model, json.loads(given), read_state_dict(output))
    assert described(module) == described(create_model(name, **options))
    _equal(flat(back), flat(variables))
    # Recognised from the file, except networks with equal files.
    stated = {**json.loads(given), **ambiguous.get("stated", {})}
    known = {key: value for key, value in ambiguous.items() if key != "stated"}
    extra = {**known, "source": source, "options": stated} if ambiguous else {}
    _, _, back = load_pretrained(output, image_size=side, **extra)
    _equal(flat(back), flat(variables))


def _equal(found, expected):
    assert leaf_shapes(found) == leaf_shapes(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


CASES = [meta(name) for name in originals()]


@pytest.mark.parametrize("meta", CASES, ids=lambda meta: meta["source"] + meta["model"])
def test_every_golden_network_is_named_as_it_was(meta):
    name, options = code_base(meta["source"]).translate(meta["model"], meta["options"])
    model, found = original_of(meta["source"], card_of(name, **options))
    assert model == meta["model"].removesuffix(" (circular)")
    # The initial value of a trained scale is not part of the network. Export still states the option.
    nested = ("activation_kwargs", "stem_activation_kwargs", "blurpool_kwargs", "apply_maxpool", "cfg")
    nested += ("eta", "qkv_bias")  # initial values, and what every network has
    asked = {
        key: value for key, value in meta["options"].items() if key not in (*nested, "forward_pool_method")
    }
    assert {key: found.get(key) for key in asked} == asked


@pytest.mark.parametrize(
    ("source", "name", "options", "channels", "message"),
    [
        (AFC, "convnext_afg_tiny", MINI, 3, "activation: ours UpGate.*theirs Gelu.*No other source has it"),
        (AFC, "convnext_afc_cifar", {}, 3, r"depths: ours \(2, 2, 2\), theirs \(3, 3, 9, 3\)"),
        (
            AFC,
            "resnet18_aps",
            {},
            3,
            "network: ours ResNet.*theirs ConvNeXt.*--to=truly_shift_invariant_cnns",
        ),
        (
            BLUR,
            "resnet18_afc",
            {},
            3,
            "nearest is resnet18 .*padding: ours 'CIRCULAR', theirs 'ZERO'.*No other",
        ),
        (BLUR, "resnet18_circular_blur", {}, 3, "padding: .*--to=truly_shift_invariant_cnns"),
        (
            BLUR,
            "resnet18_blur",
            {"sampler": {"name": "blur", "kernel_size": 3, "padding": "ZERO"}},
            3,
            "theirs 'REFLECT'",
        ),
        (BLUR, "resnet18_blur", {}, 1, "channels of the images: ours 1, theirs 3"),
        (VISION, "resnet18_blur", {}, 3, "sampler: ours BlurPool.*theirs Subsample.*--to=antialiased-cnns"),
        (APS, "resnet50_aps", {}, 3, "nearest is .*resnet.*differences"),
        (CIFAR, "resnet20_cifar_aps", {"filter_size": 3}, 3, "select_on: ours 'filtered', theirs 'raw'"),
        (
            CIFAR,
            "resnet18_cifar_aps",
            {"depths": [1, 1, 1, 1]},
            3,
            r"depths: ours \(1, 1, 1, 1\), theirs \(2, 2, 2, 2\)",
        ),
        (LPS, "resnet18_lps", {"filter_size": 3}, 3, "first_sampler.inner: ours BlurPool.*theirs Subsample"),
        ("timn", "resnet18", {}, 3, "unknown source 'timn'. Did you mean 'timm'"),
    ],
)
def test_a_network_that_the_source_does_not_have_says_why_and_who_has_it(
    source, name, options, channels, message
):
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        original_of(source, card_of(name, channels=channels, **options))


def test_every_part_of_a_run_can_be_named(tmp_path, run):
    directory, variables = run("basic", sampler="learned_polyphase")
    step = tmp_path / "own" / "checkpoints" / "7"
    step.parent.mkdir(parents=True)
    directory.rename(step)
    save_model(tmp_path / "own" / "best", card_of("basic", sampler="learned_polyphase"), variables)
    for number, path in enumerate((tmp_path / "own", tmp_path / "own" / "best", step)):
        output = tmp_path / f"{number}.safetensors"
        assert main(["convert", f"--to={LPS}", str(path), str(output)]) == 0
        assert len(read_state_dict(output)) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "weights.ckpt"], "weights.ckpt must end in one of .safetensors, .pth, .pth.tar"),
        (["RUN", "there.pth"], "there.pth exists already"),
        (["RUN", "no/weights.pth"], "cannot be written: the directory"),
        (["missing", "weights.pth"], "no checkpoint at .*missing"),
        (["RUN", "weights.pth", "--model=resnet18"], "--model cannot be used with --to"),
        (["RUN", "weights.pth", "--to=lps"], "unknown source 'lps'"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys, run, arguments, message):
    monkeypatch.chdir(tmp_path)
    directory, _ = run("basic", sampler="learned_polyphase")
    (tmp_path / "there.pth").write_text("kept")
    words = [str(directory) if word == "RUN" else word for word in arguments]
    before = sorted(tmp_path.iterdir())
    assert main(["convert", f"--to={LPS}", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(message, error), error
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "there.pth").read_text() == "kept"


def test_a_file_that_cannot_be_written_is_explained(tmp_path, monkeypatch, capsys, run):
    directory, _ = run("basic", sampler="learned_polyphase")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["convert", f"--to={LPS}", str(directory), str(tmp_path / "weights.pth")]) == 2
    assert "weights.pth: No space left on device. Free disk space" in capsys.readouterr().err


def test_an_address_is_refused_before_anything_is_read(capsys):
    assert main(["convert", f"--to={LPS}", "run", "gs://bucket/weights.pth"]) == 2
    assert "an address: gs:// is not supported" in capsys.readouterr().err


def torch_basic_classifier(torch):
    """The modules with tensors of LPS's BasicClassifier, under its names."""
    nn = torch.nn

    def holder(**parts):
        module = nn.Module()
        for name, part in parts.items():
            module.add_module(name, part) if isinstance(part, nn.Module) else module.register_buffer(
                name, part
            )
        return module

    def pool(width):
        logits = holder(conv1=nn.Conv2d(width, width, 3), conv2=nn.Conv2d(width, width, 3))
        return holder(component_selection=holder(get_logits=logits, gumbel_tau=torch.ones(())))

    widths = {"conv1": (3, 32), "conv2": (32, 32), "conv3": (32, 64), "conv4": (64, 64)}
    convs = {name: nn.Conv2d(*pair, 3) for name, pair in widths.items()}
    return holder(**convs, pool1=pool(32), pool2=pool(64), fc=nn.Linear(64, 10))


def test_torch_loads_them_strictly(tmp_path, run):
    torch = pytest.importorskip("torch")
    directory, variables = run("basic", sampler="learned_polyphase")
    for suffix, entry in ((".pth", None), (".pth.tar", "state_dict")):
        assert main(["convert", f"--to={LPS}", str(directory), str(tmp_path / f"w{suffix}")]) == 0
        state = torch.load(tmp_path / f"w{suffix}", weights_only=True)
        network = torch_basic_classifier(torch)
        network.load_state_dict(state[entry] if entry else state, strict=True)
        assert np.array_equal(network.fc.weight.detach().numpy().T, variables["params"]["head"]["kernel"])
        kernel = network.conv3.weight.detach().numpy().transpose(2, 3, 1, 0)
        assert np.array_equal(kernel, variables["params"]["stage1_conv1"]["kernel"])


def test_a_safetensors_file_is_taken_wherever_a_file_is(tmp_path, capsys):
    case = golden.load("cifar_resnet20_1_circular")
    file = tmp_path / "resnet20.safetensors"
    file.write_bytes(safetensors_file(case.state_dict))
    assert main(["convert", str(file), str(tmp_path / "converted")]) == 0
    assert f"{CIFAR} resnet20" in capsys.readouterr().out
    _, module, variables = load_model(tmp_path / "converted")
    _, expected = from_original(CIFAR, "resnet20", case.meta["options"], case.state_dict)
    _equal(flat(variables), flat(expected))
    with pytest.raises(ConversionError, match="safetensors file, which has tensors but no entries"):
        load_pretrained(file, key="model")
    with pytest.raises(CheckpointError, match="no such file"):
        load_pretrained(tmp_path / "missing.safetensors")
