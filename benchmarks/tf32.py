"""Emulates TF32 products by rewriting a function's program.

The operands of every float32 product with a precision below "highest" are rounded to nearest with 10 mantissa
bits, then multiplied and summed in float32. Tensor cores differ in the last bits of the sums.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params

from aliasfree_jax.errors import ConfigError

_PRODUCTS = {"dot_general", "conv_general_dilated"}
_LOOPS = {"scan", "while", "cond"}
_CALLS = {"jit", "pjit", "closed_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}


def rounded_products(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its float32 products in TF32: operands of 10 mantissa bits, and float32 sums.

    Products with precision "highest" are not changed, as on a GPU, nor are products of other types. Operands
    are also rounded inside jit, checkpoint, scan, while, cond and functions with custom derivatives.

    Raises:
      ConfigError: There are products inside another operation, such as a kernel.
    """

    def rounded(*arguments: Any) -> Any:
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        return jax.tree.unflatten(jax.tree.structure(shapes), _evaluate(jaxpr, *jax.tree.leaves(arguments)))

    return rounded


def _evaluate(jaxpr: Any, *arguments: Any) -> list[Any]:
    """The outputs of a jaxpr with rounded products. An open jaxpr must have no constants."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    values = dict(zip(inner.constvars, getattr(jaxpr, "consts", ()), strict=True))
    values.update(zip(inner.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in inner.eqns:
        values.update(
            zip(equation.outvars, _outputs(equation, list(map(read, equation.invars))), strict=True)
        )
    return [read(variable) for variable in inner.outvars]


def _outputs(equation: Any, operands: list[Any]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return _evaluate(params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"], *operands)
    if name in _LOOPS:
        params = {key: _rewritten(value) for key, value in params.items()}
    elif name in _PRODUCTS and _tf32(params["precision"], operands):
        operands = [
            jax.lax.reduce_precision(operand, exponent_bits=8, mantissa_bits=10) for operand in operands
        ]
        params = {**params, "precision": (jax.lax.Precision.HIGHEST,) * 2}
    elif any(map(_has_products, jaxprs_in_params(params))):
        raise ConfigError(
            f"the products inside {name!r} cannot be rounded. Choose a method that uses plain operations."
        )
    result = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(params))
    return result if equation.primitive.multiple_results else [result]


def _tf32(precision: Any, operands: Sequence[Any]) -> bool:
    highest = precision is not None and all(p == jax.lax.Precision.HIGHEST for p in precision)
    return not highest and all(operand.dtype == jnp.float32 for operand in operands)


def _rewritten(value: Any) -> Any:
    """A parameter of a loop, with rounded products in its jaxprs."""
    if isinstance(value, tuple) and value and hasattr(value[0], "eqns"):
        return tuple(map(_rewritten, value))
    if not hasattr(value, "eqns"):
        return value
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in value.in_avals]
    return jax.make_jaxpr(functools.partial(_evaluate, value))(*shapes)


def _has_products(jaxpr: Any) -> bool:
    return any(
        equation.primitive.name in _PRODUCTS or any(map(_has_products, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def has_tf32() -> bool:
    """Whether products of precision "high" are TF32 on the default backend. TF32 rounds 1 + 2^-12 to 1."""
    near_one = jnp.full((256, 256), 1 + 2.0**-12, jnp.float32)
    product = jax.jit(functools.partial(jnp.matmul, precision="high"))(near_one, jnp.eye(256))
    return bool(jnp.all(product == 1))
