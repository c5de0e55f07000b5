"""Upsampling in two steps: zeros between the samples on a finer grid, then fixed weights.

Transposed convolutions, copied rows and columns, depth to space and `jax.image.resize` all have this form.
The samples return to the phase at which they were taken, and windows with fixed weights run over the finer
grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.transform.grids import ONE
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rebound
from aliasfree_jax.transform.maps import Map, exchanged
from aliasfree_jax.transform.program import named
from aliasfree_jax.transform.values import Held

RESIZE = "_resize"  # the name of jax.image.resize in programs


def upsampled(how: Transformation, eqn: Any, value: Map, strides: tuple[int, int]) -> Map:
    """`value` with zeros between its positions.

    Raises:
      TransformError: The program sees only a part of the map.
    """
    value = how.seen(eqn, value)
    if value.sides != value.seen_sides:
        raise TransformError(eqn, "upsamples a map whose border was left out", "Pad the windows before it")
    return how.upsampled(eqn, value, strides)


def interleaved(how: Transformation, eqn: Any, value: Map, direction: int) -> Map:
    """Interleaves rows (`direction` 0) or columns with those in the next base axis (depth to space)."""
    axis = value.space[direction]
    size = value.array.shape[axis + 1]
    value = upsampled(how, eqn, value, exchanged(ONE, direction, size))
    parts = [jnp.roll(jnp.take(value.array, i, axis + 1), i, axis) for i in range(size)]
    others = [(base,) for base in range(value.array.ndim) if base != axis + 1]
    return value.rebuilt(sum(parts[1:], parts[0]), others)


def resized(how: Transformation, eqn: Any, value: Held) -> list[Map] | None:
    """`jax.image.resize` by whole factors, with circular weights. None for any other resize."""
    program = eqn.params["jaxpr"].jaxpr
    if not isinstance(value, Map):
        return None
    matrices: dict[int, np.ndarray] = {}
    order = _resized_axes(program, matrices)
    if order is None:
        return None
    finer = by_matrices(how, eqn, value, matrices)
    if finer is None:
        return None
    return [finer.rebuilt(finer.merged().transpose(order), [finer.groups[dim] for dim in order])]


def by_matrices(how: Transformation, eqn: Any, value: Map, matrices: Mapping[int, np.ndarray]) -> Map | None:
    """Resizes by a matrix `[in, out]` per dimension. None if the weights have no circular continuation."""
    factors = [1, 1]
    weights: list[tuple[int, dict[int, float]]] = []
    for dim, matrix in matrices.items():
        along = _weights(matrix)
        if dim not in value.space_dims() or along is None:
            return None
        direction = value.space_dims().index(dim)
        factors[direction] = matrix.shape[1] // matrix.shape[0]
        weights.append((value.space[direction], along))
    value = upsampled(how, eqn, value, (factors[0], factors[1]))
    for axis, along in weights:
        array = value.array
        weighted = [jnp.roll(array, by, axis) * jnp.asarray(w, array.dtype) for by, w in along.items()]
        value = value.like(sum(weighted[1:], weighted[0]))
    return value


def _resized_axes(program: Any, matrices: dict[int, np.ndarray]) -> list[int] | None:
    """The argument's axis for each axis of the result. It adds the matrix of each resized axis to `matrices`.

    None if the program does anything else.
    """
    constants, order = _constants(program), list(range(program.invars[0].aval.ndim))
    for eqn in program.eqns:
        if eqn.outvars[0] in constants:
            continue
        axis, matrix, place = -1, np.empty(0), -1
        match eqn.primitive.name:
            case "transpose":
                order = [order[dim] for dim in eqn.params["permutation"]]
                continue
            case "dot_general":
                side = int(eqn.invars[0] in constants)  # which operand is the map
                (contracted, batched) = eqn.params["dimension_numbers"]
                constant = constants.get(eqn.invars[1 - side])
                if constant is None or constant.ndim != 2 or any(batched) or len(contracted[0]) != 1:
                    return None
                axis, matrix = contracted[side][0], np.moveaxis(constant, contracted[1 - side][0], 0)
                place = 0 if side else len(order) - 1
            case "gather":
                numbers, indices = eqn.params["dimension_numbers"], constants.get(eqn.invars[1])
                if indices is None or indices.ndim != 2 or len(numbers.collapsed_slice_dims) != 1:
                    return None
                axis = numbers.collapsed_slice_dims[0]
                matrix = np.eye(eqn.invars[0].aval.shape[axis])[:, indices[:, 0]]
                place = next(dim for dim in range(len(order)) if dim not in numbers.offset_dims)
            case _:
                return None
        dim = order.pop(axis)
        order.insert(place, dim)
        matrices[dim] = matrix
    return order


def _constants(program: Any) -> Mapping[Any, np.ndarray]:
    """The values of a program that do not depend on its arguments."""
    known: dict[Any, Any] = {}

    def read(variables: Sequence[Any]) -> Iterator[Any]:
        return (known[v] if named(v) else jnp.asarray(v.val, v.aval.dtype) for v in variables)

    with jax.ensure_compile_time_eval():
        for eqn in program.eqns:
            if all(v in known for v in eqn.invars if named(v)):
                known.update(zip(eqn.outvars, rebound(eqn, *read(eqn.invars)), strict=True))
    return {variable: np.asarray(value) for variable, value in known.items()}


def _weights(matrix: np.ndarray) -> dict[int, float] | None:
    """The interpolation weights of `matrix` `[in, out]`, by distance from the sample, read in the middle.

    None if `out` is not a multiple of `in`, or if the weights differ elsewhere. Near the border they may
    differ, because JAX scales their sum to 1 there.
    """
    places, outputs = matrix.shape
    factor, left = divmod(outputs, places)
    if left or factor < 1:
        return None
    weights: dict[int, float] = {}
    for out in range(factor):
        middle = min(range(out, outputs, factor), key=lambda o: abs(2 * o - outputs + 1))
        weights |= {middle - factor * i: float(w) for i, w in enumerate(matrix[:, middle]) if w}
    expected = np.array([[weights.get(o - factor * i, 0.0) for o in range(outputs)] for i in range(places)])
    sums = expected.sum(0)
    bordered = expected / np.where(sums == 0, 1, sums)
    return weights if np.allclose(bordered, matrix, atol=1e-4) else None  # float32 rounding
