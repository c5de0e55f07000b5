"""akamaster's ResNets for CIFAR-10: golden cases, missing keys and recognition."""

import jax
import numpy as np
import pytest
from libraries import check_output, check_strictness, check_way_back, converted, unused_keys

from aliasfree_jax.checkpoint import abstract_variables
from aliasfree_jax.conversion.converting import convert
from aliasfree_jax.conversion.pytorch_resnet_cifar10 import AKAMASTER, recognise_pytorch_resnet_cifar10
from aliasfree_jax.conversion.recognition import normalised
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

CASES = ["aka_resnet20_32", pytest.param("aka_resnet32_32", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", CASES)
def test_the_golden_cases(name):
    check_output(AKAMASTER, name, "float32")
    check_output(AKAMASTER, name, "float64")
    check_way_back(AKAMASTER, name)


def test_every_key_is_used_and_none_is_left_over():
    assert list(unused_keys(AKAMASTER, "aka_resnet20_32")) == []
    check_strictness(AKAMASTER, "aka_resnet20_32")


def test_a_published_file_has_no_counters_and_a_prefix():
    case, module, variables = converted(AKAMASTER, "aka_resnet20_32")
    state = {f"module.{k}": v for k, v in case.state_dict.items() if "num_batches_tracked" not in k}
    state = normalised(state)
    model, options = recognise_pytorch_resnet_cifar10(state)
    assert (model, options) == ("resnet20", {})
    shapes = abstract_variables(module, 32, 3)
    jax.tree.map(
        np.testing.assert_array_equal,
        convert(state, AKAMASTER.table(model, options), shapes),
        variables,
    )


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110, 1202])
def test_every_depth_is_recognised(depth):
    state = state_of(f"resnet{depth}", {})
    assert recognise_pytorch_resnet_cifar10(state) == (f"resnet{depth}", {})


def state_of(model, options):
    """Only keys, except for the head: recognition reads its shape."""
    state = {entry.key: np.zeros(1) for entry in AKAMASTER.table(model, options)}
    return {**state, "linear.weight": np.zeros((options.get("num_classes", 10), 64))}


def test_other_classes_are_read_off_and_other_weights_are_not_recognised():
    state = state_of("resnet20", {"num_classes": 100})
    assert recognise_pytorch_resnet_cifar10(state) == ("resnet20", {"num_classes": 100})
    module = create_model("resnet20_cifar", **AKAMASTER.translate("resnet20", {"num_classes": 100})[1])
    assert module.num_classes == 100
    one_more = {**state, "layer1.3.conv1.weight": np.zeros(1)}
    four_stages = {**state, "layer4.0.conv1.weight": np.zeros(1)}  # kuangliu's ResNet-18 for CIFAR-10
    other_head = {("fc.weight" if key == "linear.weight" else key): v for key, v in state.items()}
    damaged = {**state, "linear.weight": np.zeros(())}
    for other in (one_more, four_stages, other_head, damaged, {}):
        assert recognise_pytorch_resnet_cifar10(other) is None


def test_there_are_no_options_and_no_other_networks():
    with pytest.raises(ConversionError, match="unknown network of pytorch_resnet_cifar10 'resnet18'"):
        AKAMASTER.translate("resnet18", {})
    with pytest.raises(ConversionError, match="unknown option of pytorch_resnet_cifar10 'option'"):
        AKAMASTER.translate("resnet20", {"option": "B"})
