"""Any JAX function of images made shift-invariant, in the manner of `jax.grad`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import TraceContextError

from aliasfree_jax.errors import AliasFreeError, ConfigError, ShapeError, unknown
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample
from aliasfree_jax.models.parts import Part, resolve
from aliasfree_jax.transform import control, cutting, loops, reductions, shapes, windows  # noqa: F401  rules
from aliasfree_jax.transform.interpreter import Activations, Transformation, TransformError, run
from aliasfree_jax.transform.nonlinear import Oversample, Quadratics
from aliasfree_jax.transform.values import Grid, Held, Map, map_of, plain

__all__ = ["Oversample", "TransformError", "shift_invariant"]


class StatefulError(AliasFreeError, ValueError):
    """A function that changes something outside of itself."""


def shift_invariant(
    f: Callable[..., Any],
    *,
    sampler: Part | nn.Module = "polyphase",
    padding: str | None = "circular",
    activations: Oversample | str | None = None,
    spatial_axes: tuple[int, int] = (1, 2),
    argnums: int | Sequence[int] = 0,
) -> Callable[..., Any]:
    """Makes a function of images shift-invariant: any network, with the parameters that it has.

    The program of `f` is read, and run with every strided convolution, pool and slice at stride 1 on a
    circle; `sampler` samples behind the non-linearity that follows, where the next operation needs it. All
    maps that are sampled at one place follow one choice of phase. The result composes with `jax.jit`, `grad`,
    `vmap`, `eval_shape`, `checkpoint` and sharding, in training and evaluation.

    Args:
      f: a pure function, such as `module.apply`; its positional argument number `argnums` holds the images.
        Arguments without arrays (`train=False`) stay as they are. An NNX module is given by `nnx.split`.
      sampler: name, dictionary, class or module, as for `create_model`, of one without parameters.
        "polyphase" is exact for whole pixels, "ideal" for all shifts where activations are.
      padding: "circular" lays maps on a circle, whatever the program pads by; None keeps its padding.
      activations: None, as written; `Oversample(k)`, approximate; "polynomial", by quadratics that are fitted
        to them, which are exact for shifts by fractions of a pixel with sampler="ideal".
      spatial_axes: of rows and columns in the images; the images are axis 0, unless it is one of the two.
      argnums: number, or numbers, of the positional arguments that hold the images (any pytree of arrays).

    Returns:
      A function with the arguments and results of `f`.

    Raises:
      ConfigError: a sampler with parameters, an unknown option.
    The function returned raises:
      TransformError: an operation that cannot be kept on grids, with its line and a remedy.
      ShapeError: images without these axes.
      StatefulError: `f` changes a module that it holds.
    """
    if not callable(f):
        raise ConfigError(f"expected a function of images, got {f!r}: give module.apply, say.")
    if padding not in ("circular", None):
        raise ConfigError(
            unknown("padding", padding, ["circular"]) + " None keeps the padding of the function."
        )
    make = sampler_of(sampler)
    how = Transformation(
        make, _subsamples(make), padding == "circular", activations=_activations_of(activations)
    )
    return functools.wraps(f)(functools.partial(_transformed, how, f, _axes(spatial_axes), _numbers(argnums)))


def sampler_of(sampler: Part | nn.Module) -> SamplerFactory:
    """The factory of a sampler without parameters.

    Raises:
      ConfigError: an unknown sampler, or one with parameters.
    """
    if isinstance(sampler, nn.Module):
        given = sampler
        make: Any = lambda strides=2, parent=None: given.clone(strides=strides, parent=parent)  # noqa: E731
    else:
        make = resolve("sampler", sampler)
    images = jax.ShapeDtypeStruct((1, 8, 8, 8), jnp.float32)
    variables = jax.eval_shape(make(strides=2, parent=None).init, jax.random.key(0), images)
    if variables:
        raise ConfigError(
            f"the sampler {sampler!r} has parameters, for which a transformed function has no place: build "
            "the network with it (create_model(..., sampler=...)), or transform by one without parameters, "
            'such as "polyphase".'
        )
    return make


def _subsamples(make: SamplerFactory) -> bool:
    return isinstance(make(strides=2, parent=None), Subsample)


def _activations_of(activations: Oversample | str | None) -> Activations | None:
    if activations is None or isinstance(activations, Oversample):
        return activations
    if activations == "polynomial":
        return Quadratics()
    raise ConfigError(
        f'expected activations None, "polynomial" or Oversample(k), got {activations!r}: other layers are '
        "exchanged in the network itself."
    )


def _axes(spatial_axes: Any) -> tuple[int, int]:
    axes = tuple(spatial_axes) if isinstance(spatial_axes, Sequence) else ()
    if len(axes) != 2 or axes[0] == axes[1] or not all(isinstance(axis, int) for axis in axes):
        raise ConfigError(f"expected the axes of rows and columns, such as (1, 2), got {spatial_axes!r}.")
    return axes[0], axes[1]


def _numbers(argnums: int | Sequence[int]) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def _transformed(
    how: Transformation,
    f: Callable[..., Any],
    axes: tuple[int, int],
    numbers: tuple[int, ...],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """The results of `f`, read as a program and run on maps."""
    held = _image_arguments(args, numbers)
    leaves, tree = jax.tree.flatten((args, kwargs))
    owners = [i for i, argument in enumerate(args) for _ in jax.tree.leaves(argument)]
    dynamic = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")]

    def of_arrays(*arrays: Any) -> Any:
        filled = list(leaves)
        for i, array in zip(dynamic, arrays, strict=True):
            filled[i] = array
        some, named = jax.tree.unflatten(tree, filled)
        return f(*some, **named)

    try:
        program, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*(leaves[i] for i in dynamic))
    except TraceContextError as error:
        raise StatefulError(
            "the function changes a module that it holds (batch statistics, random keys). Give it as "
            "graphdef, state = nnx.split(module), merge both inside the function, and return the new state."
        ) from error
    grids: dict[tuple[int, int], Grid] = {}
    values = [
        _image(leaves[i], axes, grids) if i < len(owners) and owners[i] in held else plain(leaves[i])
        for i in dynamic
    ]
    results = run(how, program.jaxpr, program.consts, values)
    last = program.jaxpr.eqns[-1] if program.jaxpr.eqns else None
    arrays = [how.seen(last, r).merged() if isinstance(r, Map) else r.full() for r in results]
    return jax.tree.unflatten(jax.tree.structure(shape), arrays)


def _image_arguments(args: Sequence[Any], numbers: Sequence[int]) -> set[int]:
    if any(not -len(args) <= number < len(args) for number in numbers):
        raise ShapeError(
            f"argnums={list(numbers)} names the images among the positional arguments, of which there are "
            f"{len(args)}: pass the images by position."
        )
    return {number % len(args) for number in numbers}


def _image(array: Any, spatial_axes: tuple[int, int], grids: dict[tuple[int, int], Grid]) -> Held:
    if any(not -array.ndim <= axis < array.ndim for axis in spatial_axes):
        raise ShapeError(
            f"images of shape {list(array.shape)} have no axes {spatial_axes}: give spatial_axes and argnums."
        )
    rows, columns = (axis % array.ndim for axis in spatial_axes)
    grid = grids.setdefault((array.shape[rows], array.shape[columns]), Grid())
    return map_of(jnp.asarray(array), (rows, columns), () if 0 in (rows, columns) else (0,), grid)
