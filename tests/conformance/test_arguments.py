"""Inputs and options of layers and networks, and the errors for wrong ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import LAYERS, NETWORKS, close, filled, images, init_shapes, over, parameters, sample

from aliasfree_jax import layers
from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.models import create_model


def sizes(case):
    """Returns the fields that are a number or a pair."""
    module = case.make()
    names = ("kernel_size", "strides", "window_shape") if case.rank == 4 else ()
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


@pytest.mark.parametrize("case", parameters([case for case in LAYERS if sizes(case)]))
def test_a_number_is_short_for_a_pair(case):
    _, variables, x, y = sample(case)
    again = case.make(**{name: (number, number) for name, number in sizes(case).items()})
    np.testing.assert_array_equal(jax.jit(again.apply)(variables, x), y)


@pytest.mark.parametrize("case", parameters([case for case in LAYERS if "strides" in sizes(case)]))
def test_each_axis_has_a_stride_of_its_own(case):
    x = images(case)
    for strides in ((2, 1), (1, 2), (1, 1)):
        module = case.make(strides=strides)
        y = jax.eval_shape(module.apply, init_shapes(module, x), x)
        rows, columns = (8 * s if "Upsample" in case.name else 8 // s for s in strides)
        if case.name == "MaxBlurPool" and module.padding == "VALID":  # pooled without padding, then sampled
            rows, columns = (7 if s == 1 else 4 for s in strides)
        assert y.shape == (len(x), rows, columns, case.gives[-1])


def test_in_a_sequential():
    network = nn.Sequential([nn.Conv(16, (3, 3)), layers.BlurPool(2), nn.relu])
    y, _ = network.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    assert y.shape == (1, 4, 4, 16)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, ((2, 1), (0, 3))])
@pytest.mark.parametrize("strides", [1, 2, (2, 1)])
@pytest.mark.parametrize("kernel_size", [3, (4, 1)])
def test_convolutions_are_flaxs(padding, strides, kernel_size, draw):
    x, size = draw(2, 8, 7, 4), kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 2
    theirs = nn.Conv(6, size, strides, padding, feature_group_count=2)
    ours = layers.Conv(6, kernel_size, strides, padding, feature_group_count=2)
    variables = filled(init_shapes(theirs, x))
    assert jax.tree.map(jnp.shape, init_shapes(ours, x)) == jax.tree.map(jnp.shape, variables)
    close(ours.apply(variables, x), theirs.apply(variables, x))


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT"])
def test_flaxs_words_of_padding_at_stride_1(padding, draw):
    x = draw(2, 8, 7, 4)
    theirs, ours = nn.Conv(6, (3, 5), padding=padding), layers.Conv(6, (3, 5), padding=padding)
    variables = filled(init_shapes(theirs, x))
    close(ours.apply(variables, x), theirs.apply(variables, x))


PADDED = [
    pytest.param(case, field, id=f"{name.id}-{field}")
    for case, name in zip(LAYERS, parameters(LAYERS), strict=True)
    for field in ("padding", "odd_padding")
    if hasattr(case.make(), field)
]


@pytest.mark.parametrize(("case", "field"), PADDED)
def test_unknown_padding_is_named(case, field):
    """The error also occurs for maps that need no padding."""
    with pytest.raises(ConfigError, match="unknown padding 'CIRCLAR'.*'CIRCULAR'"):
        init_shapes(case.make(**{field: "CIRCLAR"}), images(case))


@pytest.mark.parametrize("case", parameters([case for case in LAYERS if hasattr(case.make(), "with_phase")]))
def test_phases(case):
    """`with_phase` returns the same map as a call.

    With the phase of one map, another map is sampled at the same positions.
    """
    module, variables, x, y = sample(case)
    with_phase = jax.jit(lambda x, phase: module.apply(variables, x, phase, method="with_phase"))
    again, phase = with_phase(x, None)
    close(again, y)
    adaptive = "Polyphase" in case.name or case.label == "adaptive"
    assert bool(jax.tree.leaves(phase)) == adaptive
    if adaptive:
        rolled = jnp.roll(x, 1, axis=1)
        _, other = with_phase(rolled, None)
        assert jax.tree.map(jnp.shape, jax.tree.leaves(phase)) == [x.shape[:1]]
        assert not np.array_equal(
            *map(jax.tree.leaves, (other, phase))
        )  # the same samples, one row further down
        close(with_phase(x, phase)[0], y)


WORDS = {3: r"\[N, L, C\]", 4: r"\[N, H, W, C\]", 5: r"\[N, K, h, w, C\]"}


@pytest.mark.parametrize("case", parameters([case for case in LAYERS if case.rank]))
@pytest.mark.parametrize("more", [-1, 1])
def test_another_rank(case, more):
    x = images(case)
    x = x[0] if more < 0 else x[None]
    with pytest.raises(ShapeError, match=f"(?s){WORDS[case.rank]}.*{'.*'.join(map(str, x.shape))}"):
        init_shapes(case.make(), x)


@pytest.mark.parametrize("case", parameters([case for case in LAYERS if case.rank is None]))
def test_any_rank(case):
    module, variables, x, y = sample(case)
    close(module.apply(variables, x[:, 0, 0]), y[:, 0, 0])
    close(module.apply(variables, x[None]), y[None])


@over(LAYERS, light=True)
def test_integers(case):
    for dtype in ("uint8", "int32", "bool"):
        with pytest.raises(ShapeError, match=f"float.*{dtype}"):
            init_shapes(case.make(), images(case, dtype=dtype))


@over([case for case in LAYERS if case.smallest > 1])
def test_sides_smaller_than_the_stride(case):
    x = images(case)
    for small in (x[:, :1], x[:, :, :1]) if case.rank == 4 else (x[:, :1],):
        with pytest.raises(ShapeError, match=r"(sampling by|stride).*2"):
            init_shapes(case.make(), small)


@over(NETWORKS, light=True)
def test_what_a_network_says_about_its_images(case):
    module, x, small = case.make(), images(case), case.smallest - 1
    for wrong, words in [
        (x[0], r"\[N, H, W, C\]"),
        (x[None], r"\[N, H, W, C\]"),
        (x.astype(jnp.uint8), "float.*uint8"),
        (x[:, :small], rf"{small} x {x.shape[2]} .*at least \d+"),
        (x[:, :, :small], rf"{x.shape[1]} x {small} .*at least \d+"),
        (x[:, :0], rf"0 x {x.shape[2]}"),
    ]:
        with pytest.raises(ShapeError, match=f"(?s){words}"):
            init_shapes(module, wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dtype": "bfloat61"},
            "dtype must be a floating-point format of JAX, such as \"bfloat16\", got 'bfloat61'",
        ),
        ({"param_dtype": "int8"}, "param_dtype must be a floating-point format of JAX, .*'int8'"),
        ({"precision": "hihgest"}, "unknown precision 'hihgest'"),
        ({"padding": "CIRCLAR"}, "unknown padding 'CIRCLAR'.*'CIRCULAR'"),
        ({"num_classes": -1}, "num_classes.*-1"),
    ],
)
def test_options_of_networks_that_do_not_exist(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("convnext_micro", **options)
