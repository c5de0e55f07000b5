"""Any JAX function of images made shift-invariant, in the manner of `jax.grad`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample
from aliasfree_jax.models.parts import Part, resolve
from aliasfree_jax.ops.padding import padding_word
from aliasfree_jax.transform import program
from aliasfree_jax.transform.interpreter import Activations, Transformation, TransformError, run
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.nonlinear import Oversample, Quadratics


def shift_invariant(
    f: Callable[..., Any],
    *,
    sampler: Part | nn.Module = "polyphase",
    padding: str | None = "CIRCULAR",
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
      padding: "CIRCULAR" lays maps on a circle, whatever the program pads by; None keeps its
        padding.
      activations: None, as written; `Oversample(k)`, approximate; "polynomial", by quadratics that are fitted
        to them, which are exact for shifts by fractions of a pixel with sampler="ideal".
      spatial_axes: of rows and columns in the images; the images are axis 0, unless it is one of the two.
      argnums: number, or numbers, of the positional arguments that hold the images (any pytree of arrays).

    Returns:
      A function with the arguments and results of `f`.

    Raises:
      ConfigError: a sampler with parameters, an unknown option; when called: no images at these axes.
      TransformError: when called: an operation that cannot be kept on grids, with its line and a remedy.
      StatefulError: when called: `f` changes a module that it holds.
    """
    if not callable(f) or isinstance(f, nn.Module):
        raise ConfigError(f"expected a function of images such as module.apply, got {type(f).__name__}.")
    if padding is not None and padding_word(padding) != "CIRCULAR":
        raise ConfigError(
            unknown("padding", padding, ["CIRCULAR"]) + " None keeps the padding of the function."
        )
    make, nonlinear = sampler_of(sampler), _activations_of(activations)
    subsamples = isinstance(make(strides=2, parent=None), Subsample)

    @functools.wraps(f)
    def transformed(*args: Any, **kwargs: Any) -> Any:
        read = program.read(f, args, kwargs, argnums, spatial_axes)
        how = Transformation(make, subsamples, padding is not None, activations=nonlinear)
        values = read.values([jnp.asarray(array) for array in read.arrays])
        results = run(how, read.jaxpr.jaxpr, read.jaxpr.consts, values)
        arrays = [
            _result(how, read.maker(variable)[1], result) if isinstance(result, Map) else result.full()
            for variable, result in zip(read.jaxpr.jaxpr.outvars, results, strict=True)
        ]
        return jax.tree.unflatten(read.results, arrays)

    return transformed


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


def _activations_of(activations: Oversample | str | None) -> Activations | None:
    if activations is None or isinstance(activations, Oversample):
        return activations
    if activations == "polynomial":
        return Quadratics()
    raise ConfigError(
        f'expected activations None, "polynomial" or Oversample(k), got {activations!r}: other layers are '
        "exchanged in the network itself."
    )


def _result(how: Transformation, eqn: Any, value: Map) -> jax.Array:
    """A map that the function gives, as the program sees it."""
    value = how.seen(eqn, value)
    if value.seen_sides != value.sides:
        raise TransformError(
            eqn,
            "gives a map of {} x {} places, which has {} x {} on the circle".format(
                *value.seen_sides, *value.sides
            ),
            "Pad the windows that leave the border out",
        )
    return value.merged()
