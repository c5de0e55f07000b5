"""Depthwise convolution: both methods compared, in value and both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.depthwise import depthwise_conv, depthwise_conv_ref

# Rounding of sums of 49 products of order 1 in a different order, in float64 and float32.
EXACT, SINGLE = 1e-13, 2e-5

convolve = jax.jit(depthwise_conv, static_argnames=("padding", "method"))


@functools.partial(jax.jit, static_argnames=("padding", "method"))
def value_and_gradients(x, kernel, weights, padding, method):
    def loss(x, kernel):
        y = depthwise_conv(x, kernel, padding, method=method)
        return jnp.sum(weights * y), y

    gradients, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)
    return y, *gradients


@pytest.mark.parametrize(
    ("size", "padding"),
    [(7, "CIRCULAR"), (3, "ZERO"), (3, "REFLECT"), (3, "REPLICATE"), (2, "CIRCULAR"), (1, "ZERO")],
)
def test_both_methods_agree_with_the_reference_in_value_and_gradients(size, padding, draw, x64):
    x, kernel, weights = draw(2, 9, 7, 3), draw(size, size, 3, seed=1), draw(2, 9, 7, 3, seed=2)
    y, gradients = jax.vjp(lambda x, kernel: depthwise_conv_ref(x, kernel, padding), x, kernel)
    expected = y, *gradients(weights)
    for method in ("shifted", "conv"):
        found = value_and_gradients(x, kernel, weights, padding, method)
        for ours, theirs, name in zip(found, expected, ("value", "dx", "dkernel"), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=EXACT, err_msg=f"{method}: {name}")


def test_value_by_definition(draw, x64):
    x, kernel = draw(1, 5, 6, 2), draw(3, 3, 2, seed=1)
    expected = sum(kernel[i, j] * np.roll(x, (1 - i, 1 - j), axis=(1, 2)) for i in range(3) for j in range(3))
    for method in ("shifted", "conv", "auto"):
        np.testing.assert_allclose(convolve(x, kernel, method=method), expected, atol=EXACT)


def test_float32_methods_agree(draw):
    x, kernel, weights = draw(2, 9, 7, 3), draw(7, 7, 3, seed=1), draw(2, 9, 7, 3, seed=2)
    shifted, conv = (
        value_and_gradients(x, kernel, weights, "CIRCULAR", method) for method in ("shifted", "conv")
    )
    for ours, theirs in zip(shifted, conv, strict=True):
        assert ours.dtype == theirs.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=10 * SINGLE)  # gradients sum 126 products


@pytest.mark.parametrize("method", ["shifted", "conv"])
@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT"])
def test_own_gradients_against_finite_differences(padding, method, draw, x64):
    x, kernel = draw(1, 5, 6, 2), draw(3, 3, 2, seed=1)
    convolve = jax.jit(functools.partial(depthwise_conv, padding=padding, method=method))
    check_grads(convolve, (x, kernel), order=2, modes=["rev", "fwd"])


def test_no_convolution_without_zeros_computes_a_gradient_on_accelerators(draw):
    """cuDNN has no fast kernel for it (`ops.depthwise`)."""
    x, kernel = draw(1, 8, 8, 2), draw(7, 7, 2, seed=1)
    gradient = jax.grad(lambda kernel: depthwise_conv(x, kernel, method="conv").sum())
    text = str(jax.make_jaxpr(gradient)(kernel))
    assert "padding=((3, 3), (3, 3))" in text
    assert text.count("padding=((0, 0), (0, 0))") <= 1  # the value


@pytest.mark.parametrize("method", ["shifted", "conv"])
def test_bfloat16_in_bfloat16_out(method, draw):
    x, kernel, weights = (
        a.astype(jnp.bfloat16) for a in (draw(2, 9, 7, 3), draw(7, 7, 3, seed=1), draw(2, 9, 7, 3, seed=2))
    )
    rough = value_and_gradients(x, kernel, weights, "CIRCULAR", method)
    wide = (a.astype(jnp.float32) for a in (x, kernel, weights))
    for ours, theirs in zip(rough, value_and_gradients(*wide, "CIRCULAR", method), strict=True):
        assert ours.dtype == jnp.bfloat16
        # The inputs are equal numbers. The result is rounded once to 8 bits, and once more where the gradient
        # of the border is added to that of the interior.
        np.testing.assert_allclose(
            ours.astype(jnp.float32), theirs, atol=2**-7 * float(jnp.abs(theirs).max())
        )


def test_mixed_dtypes_give_each_gradient_its_own_dtype(draw):
    x, kernel = draw(1, 5, 5, 2).astype(jnp.bfloat16), draw(3, 3, 2, seed=1)
    dx, dkernel = jax.grad(
        lambda x, k: depthwise_conv(x, k, method="shifted").astype(jnp.float32).sum(), (0, 1)
    )(x, kernel)
    assert (dx.dtype, dkernel.dtype) == (jnp.bfloat16, jnp.float32)


def test_auto_takes_shifted_sums_on_the_cpu_and_convolutions_elsewhere(draw, monkeypatch):
    x, kernel = draw(1, 5, 5, 2), draw(3, 3, 2)

    def text() -> str:
        return str(
            jax.make_jaxpr(lambda x, kernel: depthwise_conv(x, kernel))(x, kernel)
        )  # the lambda makes JAX trace again

    assert "conv_general_dilated" not in text()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in text()


def test_jit_equals_eager(draw):
    x, kernel = draw(1, 5, 6, 2), draw(3, 3, 2)
    for method in ("shifted", "conv"):
        eager = depthwise_conv(x, kernel, method=method)
        np.testing.assert_allclose(convolve(x, kernel, method=method), eager, atol=SINGLE)
    np.testing.assert_array_equal(eager, depthwise_conv_ref(x, kernel))


def test_wrong_kernels_methods_and_maps_are_named(draw):
    x = draw(1, 8, 8, 3)
    with pytest.raises(
        ShapeError, match=r"expected a kernel \[kh, kw, 3\] for maps \[1, 8, 8, 3\], got \[3, 3, 4\]"
    ):
        depthwise_conv(x, jnp.ones((3, 3, 4)))
    with pytest.raises(ShapeError, match=r"got \[3, 3, 1, 3\]"):
        depthwise_conv(x, jnp.ones((3, 3, 1, 3)))
    with pytest.raises(ConfigError, match="unknown depthwise method 'shift'. Did you mean 'shifted'"):
        depthwise_conv(x, jnp.ones((3, 3, 3)), method="shift")
    with pytest.raises(ConfigError, match="unknown padding 'ZEROS'. Did you mean 'ZERO'"):
        depthwise_conv(x, jnp.ones((3, 3, 3)), "ZEROS")
    for method in ("shifted", "conv"):
        with pytest.raises(ShapeError, match=r"CIRCULAR padding by \(3, 3\) needs a larger map: width is 2"):
            depthwise_conv(x[:, :, :2], jnp.ones((7, 7, 3)), method=method)


def test_xla_cannot_cut_the_shifted_sum(draw):
    """Otherwise XLA would fuse half of the sum with a following norm, which is 7 times slower."""
    x, kernel = draw(2, 9, 7, 3), draw(7, 7, 3, seed=1)

    def normalised(x, kernel):
        y = depthwise_conv(x, kernel, method="shifted")
        return y - y.mean(-1, keepdims=True)

    text = jax.jit(normalised).lower(x, kernel).compile().as_text()
    products = [computation.count(" multiply(") for computation in text.split("\n}")]
    assert max(products) == 49


@pytest.mark.parametrize("method", ["shifted", "conv"])
def test_a_nan_in_the_kernel_reaches_its_channel_alone(method, draw):
    kernel = draw(3, 3, 2).at[0, 0, 0].set(jnp.nan)
    spoilt = jnp.isnan(depthwise_conv(draw(1, 4, 4, 2), kernel, method=method))
    assert bool(spoilt[..., 0].all()) and not bool(spoilt[..., 1].any())


# Every JAX transformation of both methods is compared with that of the reference. With a sine in the loss,
# all its derivatives are bounded and none vanishes.
OURS = ("shifted", "conv")


def losses(padding, method="shifted"):
    convolve = (
        functools.partial(depthwise_conv_ref, padding=padding)
        if method == "reference"
        else functools.partial(depthwise_conv, padding=padding, method=method)
    )
    return convolve, lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))


def assert_same(ours, theirs):
    """Asserts equal trees, up to rounding of some hundred products relative to the largest result."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol=EXACT * max(1, np.abs(b).max(initial=0)))


def forward_over_reverse(convolve, loss, x, kernel):
    return jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (jnp.cos(x), jnp.cos(kernel)))


def reverse_over_reverse(convolve, loss, x, kernel):
    def along(x, kernel):
        dx, dkernel = jax.grad(loss, (0, 1))(x, kernel)
        return jnp.vdot(dx, jnp.cos(dx)) + jnp.vdot(dkernel, jnp.cos(dkernel))

    return jax.grad(along, (0, 1))(x, kernel)


def forward_over_forward(convolve, loss, x, kernel):
    def tangent(x, kernel):
        return jax.jvp(loss, (x, kernel), (x, kernel))[1]

    return jax.jvp(tangent, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))


def reverse_over_forward(convolve, loss, x, kernel):
    return jax.grad(lambda x, k: jax.jvp(loss, (x, k), (x, k))[1], (0, 1))(x, kernel)


def third_derivative(convolve, loss, x, kernel):
    return jax.grad(lambda k: jnp.sum(jax.hessian(loss, 1)(x, k) ** 2))(kernel)


def linearize(convolve, loss, x, kernel):
    y, tangent = jax.linearize(convolve, x, kernel)
    return y, tangent(jnp.cos(x), jnp.cos(kernel)), jax.linear_transpose(tangent, x, kernel)(y)


def hessian(convolve, loss, x, kernel):
    return jax.hessian(loss, (0, 1))(x[:1, :4, :4, :1], kernel[:, :, :1])


def checkpoint(convolve, loss, x, kernel):
    return forward_over_reverse(convolve, jax.checkpoint(loss), x, kernel)


def scan(convolve, loss, x, kernel):
    def last(kernel):
        return jnp.sin(jax.lax.scan(lambda x, k: (convolve(x, k), None), x, kernel)[0]).sum()

    return jax.grad(last)(jnp.stack([kernel, kernel[::-1]]) / kernel.size)


TRANSFORMED = (
    forward_over_reverse,
    reverse_over_reverse,
    forward_over_forward,
    reverse_over_forward,
    third_derivative,
    linearize,
    hessian,
    checkpoint,
    scan,
)


@pytest.mark.parametrize(
    ("transformed", "padding"),
    [*((transformed, "CIRCULAR") for transformed in TRANSFORMED), (reverse_over_reverse, "REPLICATE")],
)
def test_derivatives_of_every_kind_agree(transformed, padding, draw, x64):
    x, kernel = draw(2, 5, 6, 2), draw(2, 3, 2, seed=1)
    theirs, *ours = (
        jax.jit(functools.partial(transformed, *losses(padding, method)))(x, kernel)
        for method in ("reference", *OURS)
    )
    for own in ours:
        assert_same(own, theirs)


def derivatives(padding, method):
    """Returns value, gradients and a Hessian-vector product."""
    convolve, loss = losses(padding, method)
    return lambda x, kernel: (convolve(x, kernel), *forward_over_reverse(convolve, loss, x, kernel))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (4, None), (-2, 3)])
def test_vmap_over_maps_and_kernels(axes, draw, x64):
    x, kernel = (
        a if axis is None else jnp.moveaxis(jnp.stack([a, a + 1, 2 * a]), 0, axis)
        for a, axis in zip((draw(2, 4, 3, 2), draw(3, 3, 2, seed=1)), axes, strict=True)
    )
    theirs, *ours = (
        jax.jit(jax.vmap(derivatives("CIRCULAR", method), axes))(x, kernel) for method in ("reference", *OURS)
    )
    for own in ours:
        assert_same(own, theirs)


def test_vmap_of_vmap_and_of_no_map_at_all(draw, x64):
    x, kernel = draw(3, 2, 1, 4, 3, 2), draw(2, 3, 3, 2, seed=1)
    theirs, *ours = (
        jax.jit(jax.vmap(jax.vmap(derivatives("REFLECT", method)), (0, None)))(x, kernel)
        for method in ("reference", *OURS)
    )
    for own in ours:
        assert_same(own, theirs)
    many = jax.vmap(functools.partial(depthwise_conv, method="shifted"))
    assert many(x[:, 0, 0][:0][:, None], kernel[:0, :, :, :]).shape == (0, 1, 4, 3, 2)


def test_a_nan_in_one_of_many_kernels_stays_there(draw):
    kernels = jnp.stack([draw(3, 3, 2), draw(3, 3, 2).at[0, 0, 0].set(jnp.nan)])[::-1]
    y = jax.vmap(functools.partial(depthwise_conv, method="shifted"), (None, 0))(draw(1, 4, 4, 2), kernels)
    assert bool(jnp.isnan(y[0]).any()) and not bool(jnp.isnan(y[1]).any())


def test_no_image_at_all(draw):
    x, kernel = draw(0, 5, 5, 2), draw(3, 3, 2)
    value, gradients, products = derivatives("CIRCULAR", "shifted")(x, kernel)
    assert value.shape == gradients[0].shape == products[0].shape == x.shape
    assert not gradients[1].any() and not products[1].any()


@pytest.mark.parametrize(
    ("dtype", "kernel_dtype"),
    [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "bfloat16"), ("float32", "float64")],
)
def test_second_derivatives_keep_each_dtype(dtype, kernel_dtype, draw, x64):
    x, kernel = draw(1, 5, 5, 2, dtype=dtype), draw(3, 3, 2, seed=1, dtype=kernel_dtype)
    results = jax.jit(derivatives("CIRCULAR", "shifted"))(x, kernel)
    shapes = jax.eval_shape(derivatives("CIRCULAR", "shifted"), x, kernel)
    exact = jax.jit(derivatives("CIRCULAR", "shifted"))(x.astype("float64"), kernel.astype("float64"))
    assert [str(a.dtype) for a in jax.tree.leaves(results)] == [dtype, dtype, kernel_dtype] + [
        dtype,
        kernel_dtype,
    ]
    # bfloat16 rounds the value, its gradient and the results of both to 8 bits each. float32 rounds every sum
    # to 24 bits.
    error = 2**-5 if "bfloat16" in (dtype, kernel_dtype) else 2**-20
    for a, shape, b in zip(*map(jax.tree.leaves, (results, shapes, exact)), strict=True):
        assert (a.shape, a.dtype) == (shape.shape, shape.dtype)
        np.testing.assert_allclose(a.astype("float64"), b, atol=error * float(jnp.abs(b).max()))


def test_export_with_any_number_of_images(draw):
    x, kernel = draw(3, 5, 6, 2), draw(3, 3, 2, seed=1)
    function = jax.jit(derivatives("ZERO", "shifted"))
    (n,) = export.symbolic_shape("n")
    exported = export.export(function)(jax.ShapeDtypeStruct((n, 5, 6, 2), x.dtype), kernel)
    for images in (1, 3):
        for a, b in zip(
            *map(jax.tree.leaves, (exported.call(x[:images], kernel), function(x[:images], kernel))),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, atol=10 * SINGLE)  # the same program, compiled again


@pytest.fixture
def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.mark.parametrize("mapped", ["nothing", "whole maps", "divided maps"])
def test_a_batch_on_four_devices_stays_where_it_is(mapped, mesh, draw):
    x, kernel = draw(4, 5, 6, 2), draw(3, 3, 2, seed=1)
    function, place = derivatives("CIRCULAR", "shifted"), ("data",)
    if mapped != "nothing":
        x, function = draw(4, 4, 5, 6, 2), jax.vmap(function, (0, None))
        place = (None, "data") if mapped == "whole maps" else ("data",)
    divided = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*place)))
    everywhere = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    compiled = jax.jit(function).lower(divided, everywhere).compile()
    assert not any(f" {gather}(" in compiled.as_text() for gather in ("all-gather", "all-to-all"))
    results = compiled(divided, everywhere)
    assert results[0].sharding.is_equivalent_to(divided.sharding, divided.ndim)
    for a, b in zip(*map(jax.tree.leaves, (results, jax.jit(function)(x, kernel))), strict=True):
        np.testing.assert_allclose(a, b, atol=10 * SINGLE)  # kernel gradients are sums of four partial sums


@pytest.mark.parametrize("method", OURS)
def test_shard_map_adds_the_kernel_gradients_of_all_devices(method, mesh, draw):
    x, kernel = draw(4, 5, 6, 2), draw(3, 3, 2, seed=1)
    gradient = jax.grad(losses("CIRCULAR", method)[1], (0, 1))
    specs = PartitionSpec("data"), PartitionSpec()
    divided = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=specs)
    for a, b in zip(jax.jit(divided)(x, kernel), jax.jit(gradient)(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, atol=10 * SINGLE)  # kernel gradients are sums of four partial sums
