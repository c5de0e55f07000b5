"""The strict table: every key and every parameter accounted for, or one error that lists all."""

import numpy as np
import pytest

from aliasfree_jax.conversion.rules import Rule, conv, convert, dense, depthwise
from aliasfree_jax.errors import ConversionError


class Shape:
    def __init__(self, *shape: int):
        self.shape = shape


TARGET = {"params": {"conv": {"kernel": Shape(2, 3, 4, 5)}, "head": {"bias": Shape(7)}}}
RULES = [
    Rule(r"conv\.weight", "params/conv/kernel", conv),
    Rule(r"(\w+)\.bias", r"params/\1/bias"),
    Rule(r".*\.filt", None, why="constant"),
]
STATE = {
    "conv.weight": np.arange(120.0).reshape(5, 4, 2, 3),
    "head.bias": np.ones(7),
    "down.filt": np.ones(1),
}


def test_layouts():
    assert conv(np.zeros((5, 4, 2, 3))).shape == (2, 3, 4, 5)
    assert depthwise(np.zeros((5, 1, 2, 3))).shape == (2, 3, 5)
    assert dense(np.zeros((5, 4))).shape == (4, 5)


def test_fills_and_drops():
    filled = convert(STATE, RULES, TARGET)
    np.testing.assert_array_equal(
        filled["params"]["conv"]["kernel"][1, 2, 3, 4], STATE["conv.weight"][4, 3, 1, 2]
    )
    assert set(filled["params"]) == {"conv", "head"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": np.ones(1)}, r"source keys without a place:\n    extra.weight \[1\]"),
        ({"other.bias": np.ones(1)}, r"other.bias \[1\] \(the network has no params/other/bias\)"),
        ({"head.bias": np.ones(8)}, r"params/head/bias: \[8\] from head.bias, expected \[7\]"),
        ({"conv.weight": np.ones(5)}, r"params/conv/kernel: \[5\] from conv.weight, expected \[2, 3, 4, 5\]"),
        ({"head.bias": None}, r"parameters without a source:\n    params/head/bias \[7\]"),
    ],
)
def test_everything_that_differs_is_listed(change, message):
    state = {key: value for key, value in {**STATE, **change}.items() if value is not None}
    with pytest.raises(ConversionError, match=message):
        convert(state, RULES, TARGET)


def test_two_sources_for_one_parameter():
    rules = [*RULES, Rule(r"second", "params/head/bias")]
    with pytest.raises(ConversionError, match="two sources:\n    params/head/bias from second"):
        convert({**STATE, "second": np.ones(7)}, rules, TARGET)


def test_all_faults_are_in_one_message():
    with pytest.raises(ConversionError) as error:
        convert({"odd": np.ones(1), "head.bias": np.ones(9)}, RULES, TARGET)
    for part in ("odd", "params/conv/kernel", "expected [7]", "Check the model name"):
        assert part in str(error.value)
