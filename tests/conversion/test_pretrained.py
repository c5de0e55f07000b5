"""`load_pretrained`: every kind of reference, also from a local server, and undecided networks."""

import json
import re
from pathlib import Path

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hub_server import hub_at, serving

import aliasfree_jax
from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import abstract_variables, save_model
from aliasfree_jax.conversion import is_checkpoint, published, to_original
from aliasfree_jax.conversion.pretrained import load_pretrained
from aliasfree_jax.conversion.safetensors import safetensors_file
from aliasfree_jax.conversion.to_files import torch_file
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.errors import CheckpointError, ConversionError

ROOT = Path(__file__).parents[2]
SIZE = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}
CONVNEXT = "timm_convnext_mini_64"
WIDTHS = {"depths": SIZE["depths"], "hidden_sizes": SIZE["dims"]}
IMAGES = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "crop_pct": 0.875}
IMAGES |= {"size": {"shortest_edge": 64}, "resample": 3}
CFG = {
    "input_size": [3, 64, 64],
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    **{"mean": [0.5] * 3, "std": [0.2] * 3},
}


def files_of(name, config=None, preprocessor=None, weights="model.safetensors"):
    """A repository with the weights of a golden case."""
    state = golden.load(name).state_dict
    encode = safetensors_file if weights.endswith(".safetensors") else torch_file
    found = {weights: encode({key: np.asarray(value, order="C") for key, value in state.items()})}
    for file, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        if content is not None:
            found[file] = json.dumps(content).encode()
    return found


def of_timm(architecture, **arguments):
    return {"architecture": architecture, "num_classes": 10, "model_args": arguments, "pretrained_cfg": CFG}


# A repository of each library: a golden case, its descriptions, and the expected fields of the card.
REPOSITORIES = {
    "timm/convnext": (CONVNEXT, of_timm("convnext_tiny", **SIZE), None),
    "timm/head-norm-first": (
        "timm_convnext_mini_head_norm_first_conv_mlp_64",
        of_timm("convnext_tiny_hnf", **SIZE),
        None,
    ),
    "torchvision/convnext": ("torchvision_convnext_mini_64", None, None),
    "transformers/convnext": (
        "transformers_convnext_mini_layer_norm_eps_64",
        {"architectures": ["ConvNextForImageClassification"], "layer_norm_eps": 0.01, **WIDTHS},
        IMAGES,
    ),
    "transformers/resnet": (
        "transformers_resnet_bottleneck_downsample_in_bottleneck_64",
        {
            "architectures": ["ResNetForImageClassification"],
            "embedding_size": 16,
            "hidden_sizes": [32, 64, 96, 128],
            "depths": [1, 2, 2, 1],
            "layer_type": "bottleneck",
            "downsample_in_bottleneck": True,
        },
        IMAGES,
    ),
    "akamaster/resnet20": ("aka_resnet20_32", None, None),
    "hmichaeli/convnext-afc": ("afc_mini_128", None, None),
}


def agrees(name, module, variables):
    """Whether the network's output equals the case's, up to float32 rounding, like tests/golden."""
    case = golden.load(name)
    logits = jax.jit(module.apply)(variables, case.inputs.transpose(0, 2, 3, 1))
    return np.abs(logits - case.output).max() < 1e-5 * np.abs(case.output).max()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with `REPOSITORIES`. Returns the repositories, which tests may change."""
    weights = {"akamaster/resnet20": "resnet20.th", "hmichaeli/convnext-afc": "convnext_mini_afc.pth"}
    held = {
        name: {"main": files_of(*case, weights.get(name, "model.safetensors"))}
        for name, case in REPOSITORIES.items()
    }
    with serving(held) as endpoint, hub_at(endpoint, tmp_path_factory.mktemp("hub")):
        yield held


@pytest.mark.parametrize("name", REPOSITORIES)
def test_a_name_on_the_hub_of_each_dialect(name, hub):
    case, config, preprocessor = REPOSITORIES[name]
    notes = []
    card, module, variables = load_pretrained(f"hf://{name}", tell=notes.append)
    assert agrees(case, module, variables)
    assert card.origin.startswith(f"hf://{name}: ") and card.step == 0
    if config and "architecture" in config:
        assert (card.image_size, card.eval_crop_ratio, card.eval_view) == (64, 0.9, "crop")
        assert card.mean == (0.5,) * 3 and not notes
    elif preprocessor:
        assert (card.image_size, card.eval_crop_ratio, card.mean[0]) == (64, 0.875, 0.485) and not notes
    elif "resnet20" in name:
        assert (card.image_size, card.eval_crop_ratio, card.mean[0]) == (32, 1.0, 0.485)
        assert card.class_names[3] == "cat"


def test_a_file_and_a_revision_can_be_named(hub):
    other = files_of("timm_convnext_mini_conv_mlp_64", of_timm("convnext_tiny", conv_mlp=True, **SIZE))
    hub["timm/convnext"]["v2"] = {
        **other,
        "old/weights.pth": b"",
        "model.safetensors": other["model.safetensors"],
    }
    first = load_pretrained("hf://timm/convnext@main/model.safetensors")[2]
    second = load_pretrained("hf://timm/convnext@v2")[2]
    assert jax.tree.structure(first) == jax.tree.structure(second)
    del hub["timm/convnext"]["v2"]
    with pytest.raises(ConversionError, match="no branch, tag or commit 'v3'"):
        load_pretrained("hf://timm/convnext@v3")


@pytest.fixture
def saved(tmp_path):
    """Returns a function that makes a directory with the files of a repository."""

    def made(name, *, without=()):
        directory = tmp_path / name.replace("/", "-")
        directory.mkdir()
        for file, content in files_of(*REPOSITORIES[name]).items():
            if file not in without:
                (directory / file).write_bytes(content)
        return directory

    return made


def test_a_directory_and_the_file_in_it(saved):
    directory = saved("transformers/resnet")
    card, module, variables = load_pretrained(directory)
    assert agrees(REPOSITORIES["transformers/resnet"][0], module, variables)
    other = load_pretrained(directory / "model.safetensors")
    assert other[0] == card and other[1] == module
    assert not is_checkpoint(str(directory)) and is_checkpoint(str(directory.parent))


@pytest.mark.parametrize(
    ("name", "open_fields"),
    [
        ("transformers/convnext", {"layer_norm_eps"}),
        ("transformers/resnet", {"downsample_in_bottleneck", "hidden_act"}),
    ],
)
def test_what_leaves_no_trace_is_asked_for(saved, name, open_fields, capsys):
    file = saved(name, without=("config.json",)) / "model.safetensors"
    with pytest.raises(
        UndecidedError, match="but the config.json .* cannot be recognised from the weights"
    ) as error:
        load_pretrained(file)
    assert set(error.value.arguments["options"]) >= open_fields
    config = REPOSITORIES[name][1]
    given = {field: config[field] for field in error.value.arguments["options"] if field in config}
    options, notes = error.value.arguments["options"] | given, []
    _, module, variables = load_pretrained(file, options=options, tell=notes.append)
    assert len(notes) == 1 and "no config.json beside it states how images are prepared" in notes[0]
    assert agrees(REPOSITORIES[name][0], module, variables)
    assert main(["convert", str(file), str(file.parent / "converted")]) == 2
    assert "--source=transformers --options=" in capsys.readouterr().err


def test_the_names_of_classes_and_of_the_size_are_on_the_card(saved):
    directory = saved("timm/convnext")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "label_names": list("abcdefghij")}))
    card, module, _ = load_pretrained(directory, image_size=96)
    assert card.class_names == tuple("abcdefghij") and card.image_size == 96 and module.num_classes == 10


def test_a_configuration_of_another_network_is_refused(saved):
    directory = saved("timm/convnext")
    wrong = of_timm("convnext_tiny", depths=[1, 1, 2, 2], dims=SIZE["dims"])
    (directory / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(ConversionError, match=r"(?s)keys that are missing.*stages.3.blocks.1"):
        load_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(of_timm("vit_tiny_patch16_224")))
    with pytest.raises(ConversionError, match="unknown network of timm 'vit_tiny_patch16_224'"):
        load_pretrained(directory)


def rewritten(directory, arguments, change):
    """Applies `change` to the weights of a directory and sets arguments of the constructor."""
    state = {key: np.asarray(value, order="C") for key, value in golden.load(CONVNEXT).state_dict.items()}
    change(state)
    (directory / "model.safetensors").write_bytes(safetensors_file(state))
    (directory / "config.json").write_text(json.dumps(of_timm("convnext_tiny", **SIZE, **arguments)))
    return state


def test_a_network_that_was_saved_without_its_head(saved):
    directory = saved("timm/convnext")
    head = {}

    def behead(state):
        head.update({name: state.pop(f"head.fc.{name}") for name in ("weight", "bias")})

    rewritten(directory, {"num_classes": 0}, behead)
    card, module, variables = load_pretrained(directory)
    case = golden.load(CONVNEXT)
    features = jax.jit(module.apply)(variables, case.inputs.transpose(0, 2, 3, 1))
    logits = features @ head["weight"].T + head["bias"]  # float32 rounding, like `agrees`
    assert np.abs(logits - case.output).max() < 1e-5 * np.abs(case.output).max() and card.outputs() == ()
    rewritten(directory, {}, behead)
    with pytest.raises(
        ConversionError, match=r"model.safetensors, read as convnext_tiny of timm: .*\n.*missing"
    ):
        load_pretrained(directory)


def test_grey_images_have_the_average_of_the_colours(saved):
    directory = saved("timm/convnext")
    config = of_timm("convnext_tiny", **SIZE, in_chans=1)
    config["pretrained_cfg"] = {**CFG, "mean": [0.3, 0.4, 0.5]}

    def grey(state):
        state["stem.0.weight"] = state["stem.0.weight"].sum(1, keepdims=True)

    rewritten(directory, {}, grey)
    (directory / "config.json").write_text(json.dumps(config))
    card, *_ = load_pretrained(directory)
    assert card.channels == 1 and card.mean == pytest.approx((0.4,)) and card.std == pytest.approx((0.2,))
    for wrong in ("one", 0, [1]):
        rewritten(directory, {"in_chans": wrong}, grey)
        with pytest.raises(ConversionError, match="in_chans=.*: expected a whole number above 0"):
            load_pretrained(directory)


def test_a_directory_with_other_files(saved, tmp_path):
    directory = saved("torchvision/convnext")
    (directory / "model.safetensors").rename(directory / "weights.safetensors")  # alone, without config.json
    assert load_pretrained(directory)[0].origin.startswith("weights.safetensors: torchvision ConvNeXt")
    (directory / "more.pth").touch()
    with pytest.raises(
        ConversionError, match="Files of weights: more.pth, weights.safetensors. .* name the file"
    ):
        load_pretrained(directory)
    (directory / "card").mkdir()  # a run or a converted network with other files beside it
    assert is_checkpoint(str(directory))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert is_checkpoint(str(empty))
    (empty / "config.json").write_text(json.dumps(of_timm("resnet18")))
    with pytest.raises(ConversionError, match="has no model.safetensors .*. It has no file of weights"):
        load_pretrained(empty)
    (empty / "model.safetensors.index.json").touch()
    with pytest.raises(ConversionError, match="its weights are split over several files"):
        load_pretrained(empty)


def test_the_source_of_a_model_is_that_of_the_directory(saved):
    directory = saved("timm/convnext")
    card, *_ = load_pretrained(directory, model="convnext_atto", options={"conv_mlp": False, **SIZE})
    assert card.origin == "model.safetensors: timm convnext_atto"


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_networks_that_two_libraries_have_are_of_the_one_that_is_named(source, tmp_path, monkeypatch):
    shapes = abstract_variables(aliasfree_jax.create_model("resnet18", num_classes=10), 64, 3)
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    state = to_original("torchvision", "resnet18", {"num_classes": 10}, zeros)
    (tmp_path / "w.pth").touch()
    monkeypatch.setattr("aliasfree_jax.conversion.pretrained.read_state_dict", lambda *_, **__: state)
    card, *_ = load_pretrained(tmp_path / "w.pth", source=source)
    assert card.origin == f"w.pth: {source} resnet18"


@pytest.mark.parametrize("size", [0, -5, 2.5, "large"])
def test_an_image_size_that_is_none(saved, size):
    with pytest.raises(ConversionError, match="image_size=.*: expected a whole number above 0"):
        load_pretrained(saved("timm/convnext"), image_size=size)


def test_directories_of_this_package(tmp_path):
    model = aliasfree_jax.create_model("resnet20_cifar", num_classes=10)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    state = golden.load("aka_resnet20_32").state_dict
    (tmp_path / "w.pth").write_bytes(torch_file({k: np.asarray(v, order="C") for k, v in state.items()}))
    card, *_ = load_pretrained(tmp_path / "w.pth")
    del model, variables
    card, _, variables = load_pretrained(tmp_path / "w.pth")
    save_model(tmp_path / "converted", card, variables)
    again, _, same = load_pretrained(tmp_path / "converted")
    assert again == card and jax.tree.all(jax.tree.map(np.array_equal, same, variables))
    assert is_checkpoint(str(tmp_path / "converted")) and not is_checkpoint(str(tmp_path / "w.pth"))
    with pytest.raises(ConversionError, match="states its network, so model, image_size cannot be given"):
        load_pretrained(tmp_path / "converted", model="resnet20", image_size=64)
    with pytest.raises(CheckpointError, match="no checkpoint at .*nowhere"):
        load_pretrained(tmp_path / "nowhere")


def test_published_names(tmp_path, monkeypatch):
    """BlurPool's files: over HTTP, with the checksum in the name."""
    import hashlib

    state = golden.load("blurpool_mobilenet_v2_lpf4_64").state_dict
    content = torch_file({key: np.asarray(value, order="C") for key, value in state.items()})
    digest = hashlib.sha256(content).hexdigest()[:8]
    name = "mobilenet_v2_lpf4_finetune"
    monkeypatch.setitem(published.PUBLISHED, name, digest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with serving({}, others={f"{name}-{digest}.pth": content}) as endpoint:
        monkeypatch.setenv("ALIASFREE_ANTIALIASED_CNNS_URL", endpoint)
        card, module, variables = load_pretrained(f"antialiased-cnns/{name}")
    assert card.model == "mobilenet_v2_blur" and card.origin.startswith(f"antialiased-cnns/{name}: ")
    assert agrees("blurpool_mobilenet_v2_lpf4_64", module, variables)


def test_the_page_says_what_runs(hub, tmp_path):
    """Runs the code of docs/weights.md, with a small network under the page's name."""
    page = (ROOT / "docs" / "weights.md").read_text()
    hub["timm/convnext_tiny.fb_in1k"] = hub["timm/convnext"]
    (first, *_) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"images": jnp.zeros((1, 64, 64, 3))}
    exec(compile(first, "docs/weights.md", "exec"), names)
    assert names["logits"].shape == (1, 10)
