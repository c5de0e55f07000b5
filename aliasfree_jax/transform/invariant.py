"""Makes any JAX function of images shift-invariant. It transforms functions, as `jax.grad` does."""

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
    """Makes a function of images, such as a network with its parameters, shift-invariant.

    It reads the program of `f`, and runs every strided convolution, pool and slice at stride 1 with circular
    padding. The sampler runs after the non-linearity that follows, right before the next operation that needs
    the samples. All branches that sample the same grid use the same phase. The result works with `jax.jit`,
    `grad`, `vmap`, `eval_shape`, `checkpoint` and sharding, in training and evaluation.

    Source: this package.

    Args:
      f: A pure function, such as `module.apply`. Arguments without arrays, such as `train=False`, are passed
        on unchanged. Pass an NNX module as the parts that `nnx.split` returns.
      sampler: A sampler without parameters: name, dictionary, class or module, as in `create_model`.
        "polyphase" is exact for shifts by whole pixels. "ideal" is exact for all shifts, if the activations
        are.
      padding: "CIRCULAR" replaces the program's padding by circular padding. None keeps the program's
        padding.
      activations: None keeps the activations. `Oversample(k)` is approximate. "polynomial" replaces them by
        fitted quadratics, which are exact for all shifts with `sampler="ideal"`.
      spatial_axes: The axes of rows and columns in the images. Axis 0 is the batch, unless it is one of them.
      argnums: Positions of the positional arguments that hold the images. They may be pytrees of arrays.

    Returns:
      A function with the arguments and results of `f`.

    Raises:
      ConfigError: The sampler has parameters, an option is unknown, or `f` is not a function. The returned
        function raises it if there are no images at these axes.
      TransformError: Raised by the returned function. An operation has no shift-invariant form. The message
        names its line and a remedy.
      StatefulError: Raised by the returned function. `f` changes a module that it holds.
    """
    if not callable(f) or isinstance(f, nn.Module):
        raise ConfigError(f"expected a function of images, such as module.apply, got {type(f).__name__}.")
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
      ConfigError: The sampler is unknown, or has parameters.
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
            f"the sampler {sampler!r} has parameters, which a transformed function cannot hold. Build the "
            "network with it (create_model(..., sampler=...)), or use a sampler without parameters, such as "
            '"polyphase".'
        )
    return make


def _activations_of(activations: Oversample | str | None) -> Activations | None:
    if activations is None or isinstance(activations, Oversample):
        return activations
    if activations == "polynomial":
        return Quadratics()
    raise ConfigError(
        f'expected activations None, "polynomial" or Oversample(k), got {activations!r}. Change other layers '
        "in the network itself."
    )


def _result(how: Transformation, eqn: Any, value: Map) -> jax.Array:
    """The array of a map that the function returns."""
    value = how.seen(eqn, value)
    if value.seen_sides != value.sides:
        raise TransformError(
            eqn,
            "returns a map of {} x {} positions, which has {} x {} on the circle".format(
                *value.seen_sides, *value.sides
            ),
            "Pad the windows that leave the border out",
        )
    return value.merged()
