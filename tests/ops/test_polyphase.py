"""Polyphase components and their adaptive selection."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import polyphase_downsample_ref

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.polyphase import (
    CRITERIA,
    component_scores,
    pad_to_multiple,
    polyphase_components,
    polyphase_downsample,
    select_component,
)


def test_phase_order_of_the_original():
    components = polyphase_components(jnp.arange(16.0).reshape(1, 4, 4, 1))
    expected = [[0, 2, 8, 10], [4, 6, 12, 14], [1, 3, 9, 11], [5, 7, 13, 15]]
    np.testing.assert_array_equal(components.reshape(4, 4), expected)


def test_components_are_the_strided_slices(draw):
    x = draw(2, 6, 8, 3)
    components = polyphase_components(x)
    assert components.shape == (2, 4, 3, 4, 3)
    for phase, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        np.testing.assert_array_equal(components[:, phase], x[:, row::2, column::2])
    np.testing.assert_array_equal(
        select_component(components, jnp.array([3, 1])), jnp.stack([components[0, 3], components[1, 1]])
    )


def test_odd_sides_continue_round_the_circle(draw):
    x = draw(1, 5, 6, 2)
    y = pad_to_multiple(x)
    assert y.shape == (1, 6, 6, 2)
    np.testing.assert_array_equal(y[:, :5], x)
    np.testing.assert_array_equal(y[:, 5], x[:, 0])
    np.testing.assert_array_equal(pad_to_multiple(x.transpose(0, 2, 1, 3))[:, :, 5], x[:, 0])
    np.testing.assert_array_equal(pad_to_multiple(x, padding="ZERO")[:, 5], jnp.zeros((1, 6, 2)))
    assert pad_to_multiple(y) is y
    assert polyphase_downsample(x)[0].shape == (1, 3, 3, 2)
    assert polyphase_downsample(draw(1, 7, 9, 1))[0].shape == (1, 4, 5, 1)


DEFINITIONS = {
    "l2": lambda part: np.sqrt((part**2).sum()),
    "l1": lambda part: np.abs(part).sum(),
    "l_infty": lambda part: np.abs(part).max(),
    "non_abs_max": lambda part: part.max(),
    "l2_min": lambda part: -np.sqrt((part**2).sum()),
    "l1_min": lambda part: -np.abs(part).sum(),
}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_each_criterion_selects_by_its_definition(criterion, draw):
    x = draw(16, 6, 4, 3)
    y, phase = polyphase_downsample(x, criterion)
    for image, selected, index in zip(np.asarray(x, np.float64), y, phase, strict=True):
        parts = [image[i::2, j::2] for j in (0, 1) for i in (0, 1)]
        assert int(index) == int(np.argmax([DEFINITIONS[criterion](part) for part in parts]))
        np.testing.assert_array_equal(selected, parts[int(index)].astype(np.float32))
    assert len(set(phase.tolist())) > 1


def test_the_twin_by_slices(draw):
    x = draw(4, 8, 6, 3)
    np.testing.assert_array_equal(polyphase_downsample(x)[0], polyphase_downsample_ref(x))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_ties_go_to_the_first_phase(criterion):
    y, phase = polyphase_downsample(jnp.ones((2, 4, 4, 3)), criterion)
    assert phase.tolist() == [0, 0]
    np.testing.assert_array_equal(y, jnp.ones((2, 2, 2, 3)))
    stripes = jnp.broadcast_to(jnp.array([0.0, 1.0])[None, None, jnp.arange(4) % 2, None], (1, 4, 4, 1))
    first_of_two = {"l2_min": 0, "l1_min": 0}.get(
        criterion, 2
    )  # the ones are in odd columns: phases 2 and 3 tie
    assert polyphase_downsample(stripes, criterion)[1].tolist() == [first_of_two]


@pytest.mark.parametrize("criterion", ["l2", "l_infty"])
def test_every_integer_shift_permutes_the_same_samples(criterion, draw):
    x = draw(1, 6, 8, 2)
    expected = polyphase_downsample(x, criterion)[0]
    shifts = list(itertools.product(range(6), range(8)))
    moved = np.concatenate([np.roll(x, shift, (1, 2)) for shift in shifts])
    parts, phases = polyphase_downsample(jnp.asarray(moved), criterion)
    assert set(phases.tolist()) == {0, 1, 2, 3}
    for part in np.asarray(parts):
        rolled = (np.roll(expected[0], back, (0, 1)) for back in itertools.product(range(3), range(4)))
        assert any((candidate == part).all() for candidate in rolled)
    # Negative control: the fixed phase 0 selects other samples after an odd shift.
    assert np.abs(np.sort(moved[8, ::2, ::2], None) - np.sort(moved[0, ::2, ::2], None)).max() > 0.1


def test_a_phase_can_be_reused(draw):
    x, other = draw(4, 6, 6, 3), draw(4, 6, 6, 2, seed=1)
    _, phase = polyphase_downsample(x)
    y, returned = polyphase_downsample(other, phase=phase)
    np.testing.assert_array_equal(returned, phase)
    np.testing.assert_array_equal(y, select_component(polyphase_components(other), phase))
    assert polyphase_downsample(other)[1].tolist() != phase.tolist()


def test_no_gradient_flows_through_the_choice(draw):
    x = draw(2, 4, 4, 3)
    y, phase = polyphase_downsample(x)
    weights = draw(*y.shape, seed=1)
    gradient = jax.grad(lambda x: jnp.sum(weights * polyphase_downsample(x)[0]))(x)
    expected = np.zeros(x.shape, np.float32)
    for image, index in enumerate(phase.tolist()):
        expected[image, index % 2 :: 2, index // 2 :: 2] = weights[image]
    np.testing.assert_array_equal(gradient, expected)
    scores = jax.grad(lambda x: polyphase_downsample(x)[1].astype(jnp.float32).sum())(x)
    np.testing.assert_array_equal(scores, 0.0)


def test_jit_equals_eager_and_dtypes_stay(draw):
    x = draw(2, 6, 6, 3)
    for image in (x, x.astype(jnp.bfloat16)):
        y, phase = polyphase_downsample(image)
        compiled = jax.jit(polyphase_downsample)(image)
        np.testing.assert_array_equal(phase, compiled[1])
        np.testing.assert_array_equal(y, compiled[0])
        assert y.dtype == image.dtype
    assert jnp.issubdtype(phase.dtype, jnp.integer)


def test_scores_of_bfloat16_accumulate_in_float32():
    ones = jnp.ones((1, 4, 40, 40, 1), jnp.bfloat16)
    scores = component_scores(ones)
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, jnp.full((1, 4), 1600.0))  # bfloat16 sums stop at 256


def test_wrong_sides_and_criteria_are_named(draw):
    with pytest.raises(
        ShapeError, match="by 2 x 2 need sides that are multiples of the strides, got 5 x 4: pad"
    ):
        polyphase_components(draw(1, 5, 4, 1))
    with pytest.raises(ConfigError, match="unknown polyphase criterion 'l_inf'. Did you mean 'l_infty'"):
        polyphase_downsample(draw(1, 4, 4, 1), "l_inf")
