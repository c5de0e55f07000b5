"""A function of images as a program: its jaxpr, and which of its arguments are maps."""

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
    """A function that changes something outside of itself."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What a call of a function does.

    Attributes:
      jaxpr: the program, closed.
      arrays: its arguments.
      images: whether each is a batch of images.
      axes: of rows and columns in the images.
      results: the tree of the function's results.
    """

    jaxpr: Any
    arrays: Sequence[Any]
    images: Sequence[bool]
    axes: tuple[int, int]
    results: Any

    def maker(self, variable: Any) -> tuple[int, Any]:
        """The number and the operation that gives a variable; (0, None) for an argument."""
        found = ((i, eqn) for i, eqn in enumerate(self.jaxpr.jaxpr.eqns) if variable in eqn.outvars)
        return next(found, (0, None))

    def values(self, arrays: Sequence[Any]) -> list[Held]:
        """`arrays` as the interpreter takes them; images of one size are on one grid."""
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
    """The program of `f(*args, **kwargs)`; arrays may be `jax.ShapeDtypeStruct`, all else stays as it is.

    Raises:
      ConfigError: images that are not where `argnums` and `axes` say.
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
        with override_named_call(True):  # names of Flax's modules, for messages
            jaxpr, shapes = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
    except TraceContextError as error:
        raise StatefulError(
            "the function changes a module that it holds (batch statistics, random keys). Give it as "
            "graphdef, state = nnx.split(module), merge both inside the function, and return the new state."
        ) from error
    found = [i in images for i in dynamic]
    return Program(jaxpr, arrays, found, (axes[0], axes[1]), jax.tree.structure(shapes))


def _images(args: Sequence[Any], argnums: int | Sequence[int], axes: Sequence[int]) -> set[int]:
    """The numbers of the leaves that are images."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not all(-len(args) <= number < len(args) for number in numbers):
        raise ConfigError(
            f"argnums={argnums} names the images among the positional arguments, of which there are "
            f"{len(args)}: pass the images by position."
        )
    owners = [(number, leaf) for number, arg in enumerate(args) for leaf in jax.tree.leaves(arg)]
    held = {number % len(args) for number in numbers}
    images = {i for i, (owner, leaf) in enumerate(owners) if owner in held and hasattr(leaf, "dtype")}
    for _, leaf in (owners[i] for i in images):
        ranks = [axis % leaf.ndim for axis in axes if -leaf.ndim <= axis < leaf.ndim]
        if len(axes) != 2 or len(set(ranks)) != 2:
            raise ConfigError(
                f"spatial_axes={tuple(axes)} are to be rows and columns of the images, which have the shape "
                f"{list(leaf.shape)}: give spatial_axes, and argnums, which names the images' argument."
            )
    if not images:
        raise ConfigError(f"argnums={argnums} names no array: give the number of the images' argument.")
    return images


def named(variable: Any) -> bool:
    """Whether it is a variable, and no constant that is written out."""
    return not isinstance(variable, core.Literal)


def walked(
    jaxpr: Any,
    equations: Sequence[Any],
    known: dict[Any, V],
    constant: Callable[[jax.Array], V],
    evaluate: Callable[[int, Any, list[V]], Sequence[V]],
) -> list[V]:
    """The results of a program, operation by operation; values go when nothing needs them any more.

    Args:
      equations: its operations, in the order in which they are evaluated.
      known: the values of its arguments and constants.
      constant: the value of an array that is written out.
      evaluate: the results of an operation: its number, itself, the values of its operands.
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
