"""Depthwise convolution with its own gradient.

On CPUs, XLA's grouped convolution is 15 to 50 times slower than a sum over shifted slices, which fuses into
one loop. Automatic differentiation of that sum is slow again. So there are two JAX primitives, which every
JAX transformation can handle. One is the sum over taps. The other computes the gradient of the kernel by
one reduction per tap (several reductions in one fusion are 2 to 10 times slower on CPUs). Both are linear
in each operand, and the gradient of each one is expressed by these two primitives.

On GPUs, XLA's grouped convolution is fast only with zero padding. Without it, the gradient of the kernel
takes up to 55 times as long (`_convolved`).
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.ops.choices import choices
from aliasfree_jax.ops.padding import Amounts, Padding, check_amounts, pad, same_padding
from aliasfree_jax.ops.resample import Precision

DepthwiseMethod = Literal["shifted", "conv", "auto"]


def _padded(x: jax.Array, amounts: Amounts, padding: Padding) -> jax.Array:
    return jax.vmap(lambda x: _padded(x, amounts, padding))(x) if x.ndim > 4 else pad(x, amounts, padding)


def _shifted_sum(x: jax.Array, kernel: jax.Array, *, amounts: Amounts, padding: Padding) -> jax.Array:
    """Correlates padded maps `[..., H, W, C]` with `[rows, columns, C]`, summed in at least float32."""
    padded = _padded(x, amounts, padding)
    rows, columns = kernel.shape[:2]
    h, w = padded.shape[-3] - rows + 1, padded.shape[-2] - columns + 1
    accurate = jnp.promote_types(padded.dtype, jnp.float32)

    def total(padded: jax.Array) -> jax.Array:
        y = jnp.zeros((), accurate)
        for i in range(rows):
            for j in range(columns):
                y = y + padded[..., i : i + h, j : j + w, :].astype(accurate) * kernel[i, j].astype(accurate)
        return y.astype(padded.dtype)

    # Without the conditional, XLA splits the sum to fuse it with the padding before and a norm after it,
    # which is 7 times slower. XLA removes optimization barriers before fusion, but never fuses across a
    # conditional. It cannot know that this condition is always false: no sign is above 1, and no NaN is.
    impossible = jnp.sign(kernel[0, 0].sum()) > 1
    return jax.lax.cond(impossible, lambda padded: jnp.zeros_like(padded[..., :h, :w, :]), total, padded)


def _tap_sums(x: jax.Array, dy: jax.Array, *, amounts: Amounts, padding: Padding) -> jax.Array:
    """Sums of padded maps times `dy` for each tap, `[rows, columns, C]`, in at least float32."""
    padded = _padded(x, amounts, padding)
    rows, columns = (padded.shape[axis] - dy.shape[axis] + 1 for axis in (-3, -2))
    others = (0,) * (dy.ndim - 3)
    accurate = jnp.promote_types(dy.dtype, jnp.float32)
    dy = dy.astype(accurate)

    def tap(index: jax.Array) -> jax.Array:
        window = jax.lax.dynamic_slice(padded, (*others, index // columns, index % columns, 0), dy.shape)
        return jnp.sum(window.astype(accurate) * dy, axis=tuple(range(dy.ndim - 1)))

    return jax.lax.map(tap, jnp.arange(rows * columns)).reshape(rows, columns, dy.shape[-1])


# Both primitives are linear in both operands, and the gradients are these two primitives again. Padding is
# either zeros (on each side less than the kernel's size) or circular and size-keeping. In both cases the
# gradient of the map is the same sum with the same padding mode and the flipped kernel.
shifted_sum = Primitive("depthwise_shifted_sum")
tap_sums = Primitive("depthwise_tap_sums")


def _places(x: ShapedArray, amounts: Amounts, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Number of window positions along each side of the padded map."""
    return tuple(
        side + sum(amount) + 1 - size
        for side, amount, size in zip(x.shape[-3:-1], amounts, sizes, strict=True)
    )


def _sums_type(x: ShapedArray, kernel: ShapedArray, *, amounts: Amounts, padding: Padding) -> ShapedArray:
    h, w = _places(x, amounts, kernel.shape[:2])
    return x.update(shape=(*x.shape[:-3], h, w, x.shape[-1]), weak_type=False)


def _taps_type(x: ShapedArray, dy: ShapedArray, *, amounts: Amounts, padding: Padding) -> ShapedArray:
    channels = NamedSharding(x.sharding.mesh, PartitionSpec(None, None, x.sharding.spec[-1]))
    shape = (*_places(x, amounts, dy.shape[-3:-1]), x.shape[-1])
    accurate = jnp.promote_types(dy.dtype, jnp.float32)
    return x.update(shape=shape, dtype=accurate, weak_type=False, sharding=channels)


def _towards_map(dy: jax.Array, kernel: jax.Array, amounts: Amounts, padding: Padding) -> jax.Array:
    missing = tuple(
        (size - 1 - before, size - 1 - after)
        for size, (before, after) in zip(kernel.shape[:2], amounts, strict=True)
    )
    return shifted_sum.bind(dy, kernel[::-1, ::-1], amounts=missing, padding=padding)


ad.defbilinear(
    shifted_sum,
    lambda dy, x, kernel, **how: _towards_map(dy, kernel, **how),
    lambda dy, x, kernel, **how: tap_sums.bind(x, dy, **how).astype(kernel.aval.dtype),
)
ad.defbilinear(
    tap_sums,
    lambda taps, x, dy, **how: _towards_map(dy, taps, **how),
    lambda taps, x, dy, **how: shifted_sum.bind(x, taps, **how),
)


def _batch(
    primitive: Primitive, operands: tuple[jax.Array, jax.Array], axes: tuple[Any, Any], **how: Any
) -> tuple[jax.Array, int]:
    """Batching rule: one call for a batch of calls.

    If only the maps of a sum differ, the batch becomes more images. Otherwise it becomes more channels.
    """
    if primitive is shifted_sum and axes[1] is None:
        return shifted_sum.bind(jnp.moveaxis(operands[0], axes[0], 0), operands[1], **how), 0
    batch = next(a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None)
    stacked = [
        a[..., None, :] if axis is None else jnp.moveaxis(a, axis, -2)
        for a, axis in zip(operands, axes, strict=True)
    ]
    channels = stacked[0].shape[-1]
    y = primitive.bind(
        *(
            jnp.broadcast_to(a, (*a.shape[:-2], batch, channels)).reshape(*a.shape[:-2], batch * channels)
            for a in stacked
        ),
        **how,
    )
    return y.reshape(*y.shape[:-1], batch, channels), y.ndim - 1


for _primitive, _run, _type in (
    (shifted_sum, _shifted_sum, _sums_type),
    (tap_sums, _tap_sums, _taps_type),
):
    _primitive.def_impl(jax.jit(_run, static_argnames=("amounts", "padding")))
    _primitive.def_abstract_eval(_type)
    mlir.register_lowering(_primitive, mlir.lower_fun(_run, multiple_results=False))
    batching.primitive_batchers[_primitive] = functools.partial(_batch, _primitive)


def _same(kernel: jax.Array) -> Amounts:
    return same_padding(kernel.shape[0]), same_padding(kernel.shape[1])


def _varying(x: jax.Array) -> frozenset[str]:
    # Read defensively: JAX has renamed this attribute before, and only `jax.shard_map` needs it.
    found: frozenset[str] = getattr(getattr(jax.typeof(x), "mat", None), "varying", frozenset())
    return found


def _shifted(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    amounts = _same(kernel)
    check_amounts(x.shape, amounts, padding)
    # Within `jax.shard_map` a kernel shared by all devices is marked as varying from here on, so that its
    # gradient is summed over the devices.
    x, kernel = (
        jax.lax.pcast(a, tuple(_varying(b) - _varying(a)), to="varying")
        for a, b in ((x, kernel), (kernel, x))
    )
    if padding in ("CIRCULAR", "ZERO"):
        return shifted_sum.bind(x, kernel, amounts=amounts, padding=padding)
    return shifted_sum.bind(pad(x, amounts, padding), kernel, amounts=((0, 0), (0, 0)), padding="ZERO")


def _grouped(x: jax.Array, kernel: jax.Array, zeros: Amounts, precision: Precision) -> jax.Array:
    """XLA's grouped convolution of a map that it pads with zeros."""
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        window_strides=(1, 1),
        padding=zeros,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=kernel.shape[-1],
        precision=precision,
    )


def depthwise_conv_ref(
    x: jax.Array, kernel: jax.Array, padding: Padding = "CIRCULAR", precision: Precision = None
) -> jax.Array:
    """XLA's grouped convolution, differentiated by JAX: the reference for both methods."""
    return _grouped(pad(x, _same(kernel), padding), kernel, ((0, 0), (0, 0)), precision)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolved(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Precision) -> jax.Array:
    return depthwise_conv_ref(x, kernel, padding, precision)


@_convolved.defjvp
def _convolved_jvp(padding: Padding, precision: Precision, primals: Any, tangents: Any) -> Any:
    """Derivatives of the same convolution with zeros around the padded map, for which cuDNN is fast.

    On an H100, the gradient of a kernel takes 1.4 ms this way, and 78 ms without the zeros (256 maps of
    56 x 56 with 96 channels, bfloat16). The border of the larger output is cut off.
    """

    def cut(x: jax.Array, kernel: jax.Array) -> jax.Array:
        zeros = _same(kernel)
        y = _grouped(pad(x, zeros, padding), kernel, zeros, precision)
        (top, _), (left, _) = zeros
        return y[:, top : top + x.shape[1], left : left + x.shape[2]]

    (x, kernel), (dx, dkernel) = primals, tangents
    return _convolved(x, kernel, padding, precision), cut(dx, kernel) + cut(x, dkernel)


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    padding: Padding = "CIRCULAR",
    *,
    method: DepthwiseMethod = "auto",
    precision: Precision = None,
) -> jax.Array:
    """Correlates each channel with its own filter at stride 1 and keeps the size of the map.

    Args:
      x: maps `[N, H, W, C]`.
      kernel: `[kh, kw, C]`.
      padding: how the map continues beyond its border.
      method: "shifted" (sum over slices), "conv" (XLA's grouped convolution), both with their own gradients,
        or "auto" (`ops.choices`).
      precision: precision of the products of "conv". Shifted sums are always exact.

    Returns:
      `[N, H, W, C]`.

    Raises:
      ShapeError: the numbers of channels differ, or the map is smaller than the padding.
      ConfigError: unknown padding or method.

    Source: standard depthwise convolution; the shifted sum and its gradient are this package's.
    """
    if kernel.ndim != 3 or kernel.shape[-1] != x.shape[-1]:
        raise ShapeError(
            f"expected a kernel [kh, kw, {x.shape[-1]}] for maps {list(x.shape)}, got {list(kernel.shape)}."
        )
    if method not in ("shifted", "conv", "auto"):
        raise ConfigError(unknown("depthwise method", method, ("shifted", "conv", "auto")))
    if (choices().depthwise if method == "auto" else method) == "shifted":
        return _shifted(x, kernel, padding)
    # XLA makes zeros that were added before a convolution part of it.
    convolved = depthwise_conv_ref if padding == "ZERO" else _convolved
    return convolved(x, kernel, padding, precision)
