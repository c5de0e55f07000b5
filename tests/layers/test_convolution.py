"""Convolution modules."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers import Conv, DepthwiseConv, StandardisedConv
from aliasfree_jax.layers.layer import normal
from aliasfree_jax.ops.choices import CHOICES


def randomised(layer, x: jax.Array, draw) -> dict:
    return jax.tree.map(
        lambda leaf: draw(*leaf.shape, seed=leaf.size), jax.eval_shape(layer.init, jax.random.key(0), x)
    )


def by_definition(
    x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, mode: str | None, stride: int
) -> np.ndarray:
    """Cross-correlation, one output at a time, with a kernel [k, k, in, out]."""
    k = kernel.shape[0]
    if mode:
        border = ((k - 1) // 2, k // 2)
        x = np.pad(x, ((0, 0), border, border, (0, 0)), mode=mode)
    rows, columns = (range(0, side - k + 1, stride) for side in x.shape[1:3])
    return np.stack(
        [
            np.stack(
                [np.einsum("nijc,ijco->no", x[:, r : r + k, c : c + k], kernel) + bias for c in columns], 1
            )
            for r in rows
        ],
        1,
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "mode"),
    [
        (4, 4, "VALID", None),
        (2, 2, "VALID", None),
        (4, 1, "CIRCULAR", "wrap"),
        (2, 1, "CIRCULAR", "wrap"),
        (3, 2, "ZERO", "constant"),
        (4, 1, "REFLECT", "reflect"),
        (3, 1, "REPLICATE", "edge"),
    ],
)
def test_convolutions_by_definition(kernel, stride, padding, mode, draw, x64):
    x, layer = draw(2, 9, 8, 3), Conv(5, kernel, stride, padding)
    variables = randomised(layer, x, draw)
    params = variables["params"]
    assert params["kernel"].shape == (kernel, kernel, 3, 5) and params["bias"].shape == (5,)
    expected = by_definition(np.asarray(x), params["kernel"], params["bias"], mode, stride)
    y = layer.apply(variables, x)
    if mode:
        assert y.shape == (2, -(-9 // stride), -(-8 // stride), 5)
    np.testing.assert_allclose(y, expected, atol=1e-13)  # float64 sums of 48 products


@pytest.mark.parametrize(("padding", "mode"), [("CIRCULAR", "wrap"), ("ZERO", "constant")])
def test_depthwise_convolution_by_definition(padding, mode, draw, x64):
    x, layer = draw(2, 9, 8, 3), DepthwiseConv(7, padding)
    variables = randomised(layer, x, draw)
    params = variables["params"]
    assert params["kernel"].shape == (7, 7, 3)
    full = np.einsum("ijc,co->ijco", params["kernel"], np.eye(3))
    expected = by_definition(np.asarray(x), full, params["bias"], mode, 1)
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-13)  # float64 sums of 49 products


def test_initial_weights(draw):
    params = Conv(64, 4, kernel_init=normal(0.02)).init(jax.random.key(0), draw(1, 8, 8, 16))["params"]
    assert float(params["kernel"].std()) == pytest.approx(
        0.02, rel=0.05
    )  # 16 384 draws: one standard deviation is 0.5 %
    np.testing.assert_array_equal(params["bias"], 0.0)


@pytest.mark.parametrize("layer", [Conv, DepthwiseConv])
def test_bfloat16_from_float32_weights(layer, draw):
    x, dtype = draw(1, 8, 8, 3), jnp.bfloat16
    module = Conv(4, 3, dtype=dtype) if layer is Conv else DepthwiseConv(3, dtype=dtype)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert jax.eval_shape(module.apply, variables, x).dtype == jnp.bfloat16


def test_small_maps_and_unknown_paddings_are_named(draw):
    with pytest.raises(ShapeError, match="CIRCULAR padding .* needs a larger map"):
        DepthwiseConv(7).init(jax.random.key(0), draw(1, 2, 2, 3))
    with pytest.raises(ConfigError, match="unknown padding 'CIRCLE'. Did you mean 'CIRCULAR'"):
        Conv(4, 3, padding="CIRCLE").init(jax.random.key(0), draw(1, 8, 8, 3))


def of_one_device(monkeypatch, devices):
    monkeypatch.setattr(jax, "device_count", lambda: devices)


@pytest.mark.parametrize("devices", [1, 4])
def test_the_memory_of_a_stem_on_the_cpu_does_not_grow_with_its_windows(monkeypatch, devices):
    """A convolution from 3 to 8 channels does not store all windows of 7 x 7 pixels at once.

    The same holds for its gradient.
    """
    of_one_device(monkeypatch, devices)
    monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=2**20))
    layer, images = Conv(8, 7, padding="CIRCULAR"), jax.ShapeDtypeStruct((16, 32, 32, 3), "float32")
    variables = jax.eval_shape(layer.init, jax.random.key(0), images)

    def loss(variables, images):
        return jnp.square(layer.apply(variables, images)).mean()

    compiled = jax.jit(jax.grad(loss)).lower(variables, images).compile()
    windows, result = (16 * 32 * 32 * numbers * 4 for numbers in (147, 8))
    # Memory of the result, its gradient, the padded images twice, and the windows of one piece, twice.
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * result + 3 * 2**20 < windows / 1.8


def test_pieces_of_a_batch_give_the_same_convolution(monkeypatch, draw, x64):
    x, found = draw(6, 8, 8, 3), []
    layer = Conv(5, 7, padding="ZERO", param_dtype=jnp.float64)
    variables = layer.init(jax.random.key(0), x)
    of_one_device(monkeypatch, 1)
    for limit in (None, 8 * 8 * 147 * 8 * 2):  # the whole batch; two images at a time
        monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=limit))
        loss = jax.value_and_grad(lambda v, x: jnp.sin(layer.apply(v, x)).sum(), (0, 1))
        assert ("scan" in str(jax.make_jaxpr(loss)(variables, x))) == (limit is not None)
        found.append(jax.tree.leaves(loss(variables, x)))
    for whole, pieces in zip(*found, strict=True):
        np.testing.assert_allclose(
            pieces, whole, rtol=1e-12, atol=1e-12
        )  # float64 rounding of sums in a different order


@pytest.mark.parametrize("padding", ["SAME", "VALID", 3, ((1, 2), (0, 4))])
@pytest.mark.parametrize(("strides", "dilation", "groups"), [(1, 2, 1), (2, 3, 3), (1, (1, 2), 1)])
def test_dilated_kernels_are_flaxes(strides, dilation, groups, padding, draw, x64):
    x = draw(2, 11, 9, 3)
    ours = Conv(6, 3, strides, padding, feature_group_count=groups, kernel_dilation=dilation)
    fields = {"padding": padding, "kernel_dilation": dilation, "feature_group_count": groups}
    theirs = nn.Conv(6, (3, 3), strides, **fields)
    variables = randomised(ours, x, draw)
    # float64 rounding of sums of 27 products.
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-13)


def test_standardised_kernels_have_no_scale_and_no_mean(draw):
    images = draw(1, 4, 4, 2)
    for layer, same in ((Conv, False), (StandardisedConv, True)):
        conv = layer(3, (3, 3), use_bias=False)
        variables = conv.init(jax.random.key(1), images)
        other = jax.tree.map(lambda kernel: 5 * kernel + 2, variables)
        # Tolerance: the constant 1e-5 beside variances of about 2 / 25.
        assert np.allclose(conv.apply(variables, images), conv.apply(other, images), atol=2e-3) == same


def test_a_standardised_kernel_has_the_variance_of_its_initialisation(draw):
    kernel = StandardisedConv(3, 3).applied(draw(3, 3, 16, 4))
    np.testing.assert_allclose(kernel.mean((0, 1, 2)), 0, atol=1e-7)
    np.testing.assert_allclose(kernel.var((0, 1, 2)), 2 / (9 * 16), rtol=1e-5)
