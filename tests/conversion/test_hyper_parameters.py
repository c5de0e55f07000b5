"""Lightning checkpoints: objects of the training program are described, and their choices are used."""

from pathlib import Path

import pytest
from pickles import Code, call, code, name, zip_file

from aliasfree_jax.conversion import load_pretrained
from aliasfree_jax.conversion.undecided import with_hyper_parameters
from aliasfree_jax.conversion.weight_files import read_entry, read_torch_file
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import Description

FILE = Path(__file__).parent / "data" / "lps_resnet18.ckpt"  # make_torch_fixtures.py writes it with torch


@pytest.fixture(scope="module")
def hyper_parameters():
    return read_entry(FILE, "hyper_parameters")


def test_objects_of_the_program_are_described(hyper_parameters):
    layer = hyper_parameters["pooling_layer"]
    function, arguments, keywords, attributes = layer.state
    assert (layer.name, function) == ("functools.partial", "layers.polydown.PolyphaseInvariantDown2D")
    assert arguments == () and attributes is None
    assert keywords["component_selection"] == "layers.polydown.LPS"
    assert keywords["antialias_layer"].state[2] == {"filter_size": 2, "padding_mode": "reflect"}
    assert hyper_parameters["optimizer"] == "torch.optim.sgd.SGD"
    assert repr(layer) == "Description(functools.partial)"


def test_plain_values_beside_them(hyper_parameters):
    assert hyper_parameters["skipped"] == ["layer4"]
    assert hyper_parameters["milestones"] == {30: 1, 60: 2}
    assert hyper_parameters["gain"] == 1 + 2j
    watcher = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    assert read_entry(FILE, "callbacks") == {watcher: {"best_model_path": "/logs/best.ckpt"}}
    assert read_entry(FILE, "lr_schedulers")[0]["milestones"] == {30: 1, 60: 1}
    assert read_entry(FILE, "model") is None


def test_the_network_has_the_options_of_its_training():
    card, module, _ = load_pretrained(FILE)
    assert (card.model, card.options["padding"]) == ("resnet18_lps", "ZERO")
    assert card.options["stem"]["pool_padding"] == "ZERO"
    sampler = card.options["sampler"]
    assert sampler["inner"] == {"name": "blur", "kernel_size": 2, "padding": "REFLECT"}
    assert sampler["logits"] == {"name": "conv", "skip": True, "padding": "ZERO", "width_ratio": 1.0}
    assert sampler["select_on"] == "raw"
    assert module.num_classes == 10


def test_options_given_by_name_win():
    card, _, _ = load_pretrained(FILE, options={"padding_mode": "circular"})
    assert card.options["padding"] == "CIRCULAR"


def partial(function, **keywords):
    description = Description("functools.partial", (function,))
    description.set_state((function, (), keywords, None))
    return description


@pytest.mark.parametrize("mixture", ["comp_convex", "comp_train_convex", "comp_fix_train"])
def test_mixtures(mixture):
    layer = partial("layers.polydown.PolyphaseInvariantDown2D", **{mixture: True})
    option = {
        "comp_convex": "LPS_convex",
        "comp_train_convex": "LPS_train_convex",
        "comp_fix_train": "LPS_gumbel",
    }[mixture]
    assert with_hyper_parameters({}, {"pooling_layer": layer}) == {option: True}


def test_the_weights_decide_what_they_show():
    recognised = {"conv1_stride": True, "antialias": ["DDAC", 3, "circular", 8]}
    layer = partial("X", antialias_layer=partial("layers.ddac.DDAC", pad_type="zero", group=2))
    options = with_hyper_parameters(
        recognised, {"extras_model": {"conv1_stride": False}, "pooling_layer": layer}
    )
    assert options == {"conv1_stride": True, "antialias": ["DDAC", 3, "zero", 8]}


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        [],
        {},
        {"extras_model": 1},
        {"pooling_layer": 1},
        {"pooling_layer": partial("a", get_logits=1)},
    ],
)
def test_hyper_parameters_of_another_form_are_passed_over(odd):
    assert with_hyper_parameters({"logits": "SAInner"}, odd) == {"logits": "SAInner"}


@pytest.mark.parametrize("state", [None, (), ("f", (), 3, None), {"f": 1}])
def test_a_damaged_partial_is_passed_over(state):
    description = Description("functools.partial", ())
    description.set_state(state)
    assert with_hyper_parameters({}, {"pooling_layer": description}) == {}


def test_a_description_may_hold_itself(tmp_path):
    """A cycle must not hang or overflow. The state of memo 7 refers to memo 7."""
    looped = Code(call(name("layers.a", "B"), 1) + b"q\x07}" + code("me") + b"h\x07sb")
    content = read_torch_file(zip_file(tmp_path / "odd.pth", looped))
    assert (content.name, content.arguments) == ("layers.a.B", (1,))
    assert content.state == {"me": content}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (call(name("collections", "Counter"), 3), "damaged Counter"),
        (call(name("builtins", "set"), (1,)), "damaged set"),
        (call(name("builtins", "complex"), "1", "2"), "damaged complex"),
        (call(name("pathlib", "PosixPath"), "a", 1), "damaged path"),
        (call(call(name("layers.a", "B"))), "it calls a Description"),
    ],
)
def test_what_is_refused(content, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_torch_file(zip_file(tmp_path / "odd.pth", content))
