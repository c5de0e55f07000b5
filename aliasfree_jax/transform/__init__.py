"""Any JAX function of images made shift-invariant."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import errors as flax_errors

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers.sampling import Subsample
from aliasfree_jax.models.parts import Part, resolve
from aliasfree_jax.transform import control, cutting, loops, reductions, shapes, windows  # noqa: F401  rules
from aliasfree_jax.transform.interpreter import Activations, Transformation, TransformError, interpret
from aliasfree_jax.transform.values import Grid, Map, Value, map_of, plain

__all__ = ["TransformError", "shift_invariant"]


def shift_invariant(
    f: Callable[..., Any],
    *,
    sampler: Part = "polyphase",
    padding: str | None = "circular",
    activations: Activations | str | None = None,
    spatial_axes: tuple[int, int] = (1, 2),
    argnums: int | Sequence[int] = 0,
) -> Callable[..., Any]:
    """`f` with every strided operation sampled by `sampler`."""
    how = Transformation(sampler_of(sampler), _subsamples(sampler), padding == "circular")

    @functools.wraps(f)
    def transformed(*args: Any, **kwargs: Any) -> Any:
        return _run(how, f, spatial_axes, argnums, args, kwargs)

    return transformed


def sampler_of(sampler: Part) -> Callable[..., Any]:
    """The factory of a sampler without parameters."""
    return resolve("sampler", sampler)


def _subsamples(sampler: Part) -> bool:
    return isinstance(sampler_of(sampler)(parent=None), Subsample)


def _run(
    how: Transformation, f: Any, spatial_axes: tuple[int, int], argnums: Any, args: Any, kwargs: Any
) -> Any:
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = [leaf for leaf in leaves if hasattr(leaf, "dtype")]

    def of_arrays(*arrays: Any) -> Any:
        rest = iter(arrays)
        filled = [next(rest) if hasattr(leaf, "dtype") else leaf for leaf in leaves]
        some, named = jax.tree.unflatten(tree, filled)
        return f(*some, **named)

    program, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
    which = [argnums] if isinstance(argnums, int) else list(argnums)
    images = {id(leaf) for number in which for leaf in jax.tree.leaves(args[number])}
    grid = Grid()
    values: list[Value] = [_image(a, spatial_axes, grid) if id(a) in images else plain(a) for a in arrays]
    results = [how.realized(r) for r in interpret(how, program.jaxpr, program.consts, values)]
    eqn = program.jaxpr.eqns[-1]
    finals = [how.seen(eqn, r).merged() if isinstance(r, Map) else r.full() for r in results]
    return jax.tree.unflatten(jax.tree.structure(shape), finals)


def _image(array: Any, spatial_axes: tuple[int, int], grid: Grid) -> Map:
    rows, columns = (axis % array.ndim for axis in spatial_axes)
    return map_of(array, (rows, columns), () if 0 in (rows, columns) else (0,), grid)


del ConfigError, ShapeError, flax_errors
