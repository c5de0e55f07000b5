"""Weights in entries and behind prefixes of any name and nesting."""

import numpy as np
import pytest

from aliasfree_jax.conversion import weights
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.conversion.weights import find_weights
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import Description

NAMES = ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.weight", "fc.bias")


def state(value=0.0, prefix="", names=NAMES):
    return {prefix + name: np.full(2, value) for name in names}


def value(found):
    (number,) = {float(tensor[0]) for tensor in found.tensors.values()}
    assert list(found.tensors) == list(NAMES)
    return number


PREFIXES = ["module.", "_orig_mod.", "model.", "net.", "core.", "backbone.", "network.", "encoder."]
NESTED = [a + b for a in PREFIXES for b in ("", *PREFIXES)] + ["module.model._orig_mod.net."]


@pytest.mark.parametrize("prefix", NESTED)
def test_prefixes_in_any_order(prefix):
    assert value(find_weights(state(1.0, prefix))) == 1


@pytest.mark.parametrize(
    "entry",
    "state_dict model_state_dict model module net network weights params backbone my_run".split(),
)
def test_entries_of_any_name(entry):
    content = {entry: state(1.0, "module."), "epoch": 3, "optimizer": {"state": {0: {"m": np.ones(2)}}}}
    found = find_weights(content)
    assert value(found) == 1 and found.aside == ()
    assert value(find_weights({"checkpoint": content})) == 1


AVERAGED = (
    "state_dict_ema model_ema ema ema_model ema_state_dict averaged_model model_averaged swa_model "
    "teacher netEMA momentum_encoder"
).split()


@pytest.mark.parametrize("averaged", AVERAGED)
@pytest.mark.parametrize("raw", ["state_dict", "model", "student", "net"])
def test_averaged_weights_come_first_and_the_others_are_named(averaged, raw):
    """Tests networks as entries, and as prefixes within one entry."""
    for content in (
        {raw: state(1.0), averaged: state(2.0, "module.")},
        {"state_dict": state(1.0, f"{raw}.") | state(2.0, f"{averaged}.")},
        {"state_dict": state(1.0, f"{raw}.module.") | state(2.0, f"{averaged}._orig_mod.")},
    ):
        found = find_weights(content)
        assert value(found) == 2
        assert averaged in found.place and f"{raw}' (5 tensors)" in found.note()


def test_averaged_model_of_torch():
    found = find_weights({"n_averaged": np.array(3), **state(1.0, "module.")})
    assert (
        value(found) == 1
        and found.note() == "loaded its entry 'module', did not load 'n_averaged' (1 tensor)"
    )


def test_averages_of_the_parameters_only_take_the_buffers_from_beside_them():
    parameters = tuple(name for name in NAMES if "running" not in name)
    for content in (
        {"model": state(1.0, "module."), "ema": {"decay": 0.9, "shadow": state(2.0, "", parameters)}},
        {"model." + name: tensor for name, tensor in state(1.0).items()}
        | {"model_ema." + name.replace(".", ""): np.full(2, 2.0) for name in parameters},
    ):
        found = find_weights(content)
        assert {name: tensor[0] for name, tensor in found.tensors.items()} == {
            name: 1.0 if "running" in name else 2.0 for name in NAMES
        }
        assert "and 1 tensors from the entry beside it" in found.place


def test_averages_without_names_are_left_aside_by_name():
    content = {"model": state(1.0), "ema": {"shadow_params": [np.ones(2)] * 4, "decay": 0.9}}
    found = find_weights(content)
    assert value(found) == 1
    assert "'ema" in found.note() and "without names" in found.note()


@pytest.mark.parametrize("extra", ["loss.weight", "criterion.net.weight", "metric.total", "pos_weight"])
def test_tensors_of_losses_and_metrics_are_listed(extra):
    found = find_weights({"state_dict": {**state(1.0, "model."), extra: np.ones(3)}})
    assert value(found) == 1 and extra.split(".")[0] in found.note()


def test_other_values_among_the_tensors_are_no_obstacle():
    assert value(find_weights({**state(1.0), "fc._extra_state": None, "epoch": 3})) == 1


def test_small_tensors_of_an_averaged_name_are_no_weights():
    assert value(find_weights({"ema": {"decay": np.ones(1)}, "model": state(1.0)})) == 1


def test_whole_modules_that_were_pickled():
    def module(parameters, buffers, modules):
        made = Description("my.Net", ())
        made.set_state(
            {"_parameters": parameters, "_buffers": buffers, "_modules": modules, "training": True}
        )
        return made

    inner = module({"weight": np.ones(2), "bias": None}, {"running_mean": np.ones(2)}, {})
    found = find_weights({"ema": module({}, {}, {"bn1": inner}), "epoch": 1})
    assert list(found.tensors) == ["bn1.weight", "bn1.running_mean"]


def test_networks_that_nothing_tells_apart_are_asked_for():
    with pytest.raises(UndecidedError, match=r"several networks: 'netA', 'netB'. Name .* key='netA'"):
        find_weights({"netA": state(), "netB": state()})
    assert value(find_weights({"netA": state(1.0), "netB": state()}, "netA")) == 1


def test_lps_keeps_its_prefix():
    names = {f"core.{name}": np.ones(1) for name in (*NAMES, "layer2.0.conv2.1.weight")}
    assert list(find_weights({f"model.{name}": array for name, array in names.items()}).tensors) == list(
        names
    )


def test_values_that_contain_themselves_or_multiply(monkeypatch):
    loop = {"model": state(1.0)}
    loop["self"] = loop
    assert value(find_weights(loop)) == 1
    deep = {}
    for _ in range(60):
        deep = {"a": deep, "b": deep}
    assert weights.MAX_NODES == 1_000_000
    monkeypatch.setattr(weights, "MAX_NODES", 10_000)
    with pytest.raises(ConversionError, match="more than 10,000 values"):
        find_weights(deep)
