"""Shared check of export, for tests of conversion and golden cases."""

from typing import Any

import golden
import numpy as np

from aliasfree_jax.conversion import to_original


def check_way_back(case: golden.Case, module: Any, variables: Any) -> None:
    """Checks that export returns the same state dict bit by bit."""
    options = {**case.meta["options"], "num_classes": module.num_classes}
    state = to_original(case.meta["source"], case.meta["model"], options, variables)
    # Masks of ideal filters are made for one image size. The original makes them again.
    expected = {key: value for key, value in case.state_dict.items() if not key.endswith(".rect")}
    assert set(state) == set(expected)
    for key, value in expected.items():
        assert state[key].dtype == value.dtype, key
        np.testing.assert_array_equal(state[key], value, err_msg=key)
