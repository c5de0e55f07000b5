"""Lists networks with their parameters and multiply-adds.

    python -m aliasfree_jax models [PATTERN] [--image_size=224]

PATTERN is a shell pattern ("convnext_afc_*", "*50*"). Without it, all networks are listed. Multiply-adds
are those of one square image with 3 channels in evaluation. They include convolutions and matrix products,
also the resampling of alias-free networks. They exclude norms, activations, pooling and blurs. The numbers
describe the program of this machine: if several implementations lead to the same result, a GPU may use
another one. Nothing is computed.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.models.registry import create_model, list_models


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_integer(
        "image_size", 224, "rows and columns of the image", lower_bound=1, flag_values=values
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Prints one line per network.

    Raises:
      ConfigError: several patterns, or a pattern that matches no network.
    """
    if len(arguments) > 1:
        raise ConfigError(
            f"expected one pattern of names, got {' '.join(arguments)}: quote it ('resnet18*')."
        )
    pattern = arguments[0] if arguments else "*"
    names = list_models(pattern)
    if not names:
        raise ConfigError(unknown("model", pattern, list_models()))
    width, side = max(map(len, names)), values.image_size
    print(f"{'':{width}}  {'parameters':>11}  {'multiply-adds':>13}  (G, at {side} x {side})")
    for name in names:
        try:
            parameters, multiply_adds = size_of(create_model(name), side)
        except ShapeError as error:
            print(f"{name:{width}}  {error}", flush=True)
            continue
        print(f"{name:{width}}  {parameters:11,}  {multiply_adds / 1e9:13.3f}", flush=True)


def size_of(network: Any, image_size: int) -> tuple[int, int]:
    """Returns the parameters and multiply-adds of a network. The network is only traced, not computed.

    Raises:
      ShapeError: the image is too small.
    """
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    program, (_, variables) = jax.make_jaxpr(network.init_with_output, return_shape=True)(
        jax.random.key(0), image
    )
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return parameters, multiply_adds(program.jaxpr)


def multiply_adds(jaxpr: Any) -> int:
    """Counts the multiply-adds of convolutions and matrix products in a program, in each pass of a loop."""
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    operands = [variable.aval.shape for variable in equation.invars]
    result = math.prod(equation.outvars[0].aval.shape)
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            return result * math.prod(operands[0][axis] for axis in contracted)
        case "conv_general_dilated":
            # Each value of the result needs one multiply-add per weight of one output feature.
            features = operands[1][equation.params["dimension_numbers"].rhs_spec[0]]
            return result * math.prod(operands[1]) // features
        case "depthwise_shifted_sum":
            return result * math.prod(operands[1][:2])
        case "cond":
            return max(multiply_adds(branch.jaxpr) for branch in equation.params["branches"])
    times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
    inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns"))
    programs = [getattr(program, "jaxpr", program) for program in inner]
    return times * sum(multiply_adds(program) for program in programs if hasattr(program, "eqns"))
