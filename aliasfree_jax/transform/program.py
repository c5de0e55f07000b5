"""Reads a function of images as a program: its jaxpr, and which of its arguments are images."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax.errors import TraceContextError
from flax.linen import override_named_call
from jax.extend import core

from aliasfree_jax.errors import AliasFreeError, ConfigError
from aliasfree_jax.transform.grids import Grid
from aliasfree_jax.transform.lines import walking
from aliasfree_jax.transform.maps import Map, map_of
from aliasfree_jax.transform.values import Held, plain

V = TypeVar("V")


class StatefulError(AliasFreeError, ValueError):
    """A function changes a module that it holds, so it is not pure.

    Source: this package.
    """


@dataclasses.dataclass(frozen=True)
class Program:
    """The program of one call of a function.

    Attributes:
      jaxpr: The closed jaxpr.
      arrays: Its arguments.
      images: Whether each argument is a batch of images.
      axes: The axes of rows and columns in the images.
      results: The tree structure of the function's results.
    """

    jaxpr: Any
    arrays: Sequence[Any]
    images: Sequence[bool]
    axes: tuple[int, int]
    results: Any

    def maker(self, variable: Any) -> tuple[int, Any]:
        """The operation that computes a variable, with its number. (0, None) for an argument."""
        found = ((i, eqn) for i, eqn in enumerate(self.jaxpr.jaxpr.eqns) if variable in eqn.outvars)
        return next(found, (0, None))

    def values(self, arrays: Sequence[Any]) -> list[Held]:
        """`arrays` as values of the interpreter. Images of equal size share a grid."""
        pairs = zip(arrays, self.images, strict=True)
        return [self._map(array) if image else plain(array) for array, image in pairs]

    def _map(self, array: Any) -> Map:
        rows, columns = (axis % array.ndim for axis in self.axes)
        batch = () if 0 in (rows, columns) else (0,)
        return map_of(array, (rows, columns), batch, Grid((array.shape[rows], array.shape[columns])))


def read(
    f: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    argnums: int | Sequence[int],
    axes: Sequence[int],
) -> Program:
    """Reads the program of `f(*args, **kwargs)`. Arrays may be `jax.ShapeDtypeStruct`.

    Raises:
      ConfigError: `argnums` and `axes` do not point to images.
      StatefulError: `f` changes a module that it holds.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    dynamic = {i: leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")}
    images = _images(args, argnums, axes)

    def of_arrays(*arrays: Any) -> Any:
        filled = dict(enumerate(leaves)) | dict(zip(dynamic, arrays, strict=True))
        some, named = jax.tree.unflatten(tree, filled.values())
        return f(*some, **named)

    arrays = list(dynamic.values())
    try:
        with override_named_call(True):  # Flax writes module names, for messages
            jaxpr, shapes = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
    except TraceContextError as error:
        raise StatefulError(
            "the function changes a module that it holds (batch statistics, random keys). Split the module "
            "by graphdef, state = nnx.split(module), merge both inside the function, and return the new "
            "state."
        ) from error
    found = [i in images for i in dynamic]
    return Program(jaxpr, arrays, found, (axes[0], axes[1]), jax.tree.structure(shapes))


def _images(args: Sequence[Any], argnums: int | Sequence[int], axes: Sequence[int]) -> set[int]:
    """The numbers of the leaves that are images."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not all(-len(args) <= number < len(args) for number in numbers):
        raise ConfigError(
            f"argnums={argnums} is out of range: there are {len(args)} positional arguments. Pass the images "
            "by position."
        )
    owners = [(number, leaf) for number, arg in enumerate(args) for leaf in jax.tree.leaves(arg)]
    held = {number % len(args) for number in numbers}
    images = {i for i, (owner, leaf) in enumerate(owners) if owner in held and hasattr(leaf, "dtype")}
    for _, leaf in (owners[i] for i in images):
        ranks = [axis % leaf.ndim for axis in axes if -leaf.ndim <= axis < leaf.ndim]
        if len(axes) != 2 or len(set(ranks)) != 2:
            raise ConfigError(
                f"spatial_axes={tuple(axes)} are not two axes of the images, which have the shape "
                f"{list(leaf.shape)}. Set spatial_axes to rows and columns, and argnums to the images' "
                "argument."
            )
    if not images:
        raise ConfigError(
            f"argnums={argnums} contains no array. Set argnums to the position of the images' argument."
        )
    return images


def named(variable: Any) -> bool:
    """Whether it is a variable, not a literal constant."""
    return not isinstance(variable, core.Literal)


def walked(
    jaxpr: Any,
    equations: Sequence[Any],
    known: dict[Any, V],
    constant: Callable[[jax.Array], V],
    evaluate: Callable[[int, Any, list[V]], Sequence[V]],
) -> list[V]:
    """Evaluates a program, operation by operation. Values are freed after their last use.

    Args:
      jaxpr: The program.
      equations: Its operations, in the order of evaluation.
      known: The values of its arguments and constants.
      constant: Makes the value of a literal constant.
      evaluate: Computes the results of an operation from its number, the operation and its operands.

    Returns:
      The results of the program.
    """
    last = {variable: i for i, eqn in enumerate(equations) for variable in eqn.invars if named(variable)}
    results = {variable for variable in jaxpr.outvars if named(variable)}

    def read(variable: Any) -> V:
        return (
            known[variable] if named(variable) else constant(jnp.asarray(variable.val, variable.aval.dtype))
        )

    for i, eqn in enumerate(equations):
        with walking(i, eqn):
            outputs = evaluate(i, eqn, list(map(read, eqn.invars)))
        known.update(zip(eqn.outvars, outputs, strict=True))
        for variable in {v for v in eqn.invars if named(v) and last[v] == i} - results:
            known.pop(variable, None)
    return list(map(read, jaxpr.outvars))
