"""The order of evaluation of a program. It matters because the first sampled map decides the phase."""

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from aliasfree_jax.transform.program import named

# How a variable depends on the result of one convolution. _PLAIN: it is not a map. _OTHER: it is an unrelated
# map. _AFFINE: it is an affine function at each position. _FUNCTION: it is another function at each position,
# which may only be summed over all positions.
_PLAIN, _OTHER, _AFFINE, _FUNCTION = range(4)
_SAME = "add sub neg convert_element_type copy copy_p stop_gradient broadcast_in_dim reshape".split()
_LATE = 10**6  # more operations than any program has


def in_order(jaxpr: Any, consts: Sequence[Any], maps: Sequence[bool]) -> tuple[list[Any], set[int]]:
    """Sorts the program's operations, independently of the order in which they are written.

    The key is the depth of an operation, then a digest of its computation. So the map that decides a phase is
    the same whether a shortcut is written before or after the main branch. Strided 1 x 1 convolutions of
    shortcuts come last: the main branch has decided by then, so their input can be sampled first.

    Args:
      jaxpr: The program.
      consts: Its constants.
      maps: Whether each argument is a map.

    Returns:
      The sorted operations, and the indices of the `shortcuts` among them.
    """
    late = shortcuts(jaxpr, maps)
    depths = {variable: (0, f"argument {i}") for i, variable in enumerate(jaxpr.invars)}
    for variable, const in zip(jaxpr.constvars, consts, strict=True):
        depths[variable] = 0, f"constant {variable.aval.str_short()} {_first_values(const)}"
    keys = {}
    for i, eqn in enumerate(jaxpr.eqns):
        operands = [depths[v] if named(v) else (0, str(v.val)) for v in eqn.invars]
        names = [name for _, name in operands]
        if eqn.primitive.name in ("add", "mul", "max", "min"):
            names.sort()
        params = [str(p) for p in eqn.params.values() if isinstance(p, int | str | tuple)]
        text = f"{eqn.primitive.name} {params} {names}"
        digest = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        depth = max((depth for depth, _ in operands), default=0) + (_LATE if i in late else 1)
        keys[i] = depth, digest
        depths.update({v: (depth, f"{digest} {o}") for o, v in enumerate(eqn.outvars)})
    order = sorted(keys, key=lambda i: (*keys[i], i))
    return [jaxpr.eqns[i] for i in order], {place for place, i in enumerate(order) if i in late}


def _first_values(array: Any) -> str:
    """The first values of a constant, if they are known. numpy reads them, so that nothing is traced."""
    if isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True):
        return ""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):  # random keys
        return ""
    return str(np.asarray(array).ravel()[:4])


def shortcuts(jaxpr: Any, maps: Sequence[bool]) -> set[int]:
    """The strided 1 x 1 convolutions that are only normalised before another map is added.

    Args:
      jaxpr: The program.
      maps: Whether each argument is a map.
    """
    states = [_OTHER if each else _PLAIN for each in maps]
    found = set()
    for i, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name == "conv_general_dilated" and _is_strided_pointwise(eqn):
            results = _followed(jaxpr, states, i)
            if results is not None and max(results, default=0) < _AFFINE:
                found.add(i)
    return found


def _is_strided_pointwise(eqn: Any) -> bool:
    kernel, p = eqn.invars[1].aval.shape, eqn.params
    alone = all(kernel[axis] == 1 for axis in p["dimension_numbers"].rhs_spec[2:])
    return alone and max(p["window_strides"]) > 1 and not any(map(any, p["padding"]))


def _followed(jaxpr: Any, arguments: Sequence[int], start: int | None = None) -> list[int] | None:
    """How the results depend on convolution number `start`. None if it is not a shortcut."""
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    for i, eqn in enumerate(jaxpr.eqns):
        states = [known.get(v, _PLAIN) if named(v) else _PLAIN for v in eqn.invars]
        outputs = [_AFFINE] if i == start else _step(eqn, states)
        if outputs is None:
            return None
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [known.get(v, _PLAIN) if named(v) else _PLAIN for v in jaxpr.outvars]


def _step(eqn: Any, states: Sequence[int]) -> list[int] | None:
    """How the results of an operation depend on the convolution."""
    name, most = eqn.primitive.name, max(states, default=_PLAIN)
    if name == "jit":
        return _followed(eqn.params["jaxpr"].jaxpr, states)
    if most < _AFFINE:
        return [most if v.aval.ndim > 2 else _PLAIN for v in eqn.outvars]
    match name:
        case "add" | "sub" if _OTHER in states:  # the residual sum
            return [_OTHER] if most == _AFFINE else None
        case "mul" if _OTHER not in states:
            return [most if _PLAIN in states else _FUNCTION]
        case "square" | "integer_pow":
            return [_FUNCTION]
        case "reduce_sum" if eqn.outvars[0].aval.ndim <= 2:
            return [_PLAIN]
        case "div" if states[1] == _PLAIN:
            return [most]
    return [most] if name in _SAME else None
