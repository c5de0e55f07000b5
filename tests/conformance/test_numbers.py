"""Number formats and precision, as in Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
from table import CASES, NETWORKS, filled, images, init_shapes, over, sample

# Scores that choose a component are never rounded. Neither are adaptive means (VGG, AlexNet).
ALWAYS_ACCURATE = {"ConvLogits", "AttentionLogits", "GraphLogits", "LinearLogits"}


def result_of(module, x):
    variables = filled(init_shapes(module, x))
    return variables, jax.jit(module.apply)(variables, x)


@over(CASES)
def test_computes_in_dtype(case):
    *_, x, expected = sample(case)
    _, y = result_of(case.make(dtype="bfloat16" if case.network else jnp.bfloat16), x)
    accurate = case.network or case.name in ALWAYS_ACCURATE
    assert y.dtype == (jnp.float32 if accurate else jnp.bfloat16)
    assert y.shape == expected.shape and np.isfinite(np.asarray(y, np.float32)).all()


@over(CASES)
def test_takes_the_inputs_dtype(case, x64):
    x = images(case, dtype="float64")
    _, y = result_of(case.make(), x)
    assert y.dtype == jnp.float64 and np.isfinite(y).all()


@over(CASES, light=True)
def test_half_precision_inputs(case):
    """Flax's rule: layers without parameters keep the dtype of the input."""
    x = images(case, dtype="bfloat16")
    module = case.make()
    variables = init_shapes(module, x)
    dtype = jax.eval_shape(module.apply, variables, x).dtype
    accurate = variables or case.name in ALWAYS_ACCURATE
    assert dtype in ((jnp.float32, jnp.bfloat16) if accurate else (jnp.bfloat16,))


@over(CASES, light=True)
def test_param_dtype(case):
    x = images(case)
    module = case.make(param_dtype="bfloat16" if case.network else jnp.bfloat16)
    variables = init_shapes(module, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables.get("params", {}))} <= {jnp.dtype(jnp.bfloat16)}
    usual = init_shapes(case.make(), x)
    assert jax.tree.structure(variables) == jax.tree.structure(usual)
    assert jax.eval_shape(module.apply, variables, x).dtype == jnp.float32


@over(CASES, light=True)
def test_parameters_are_float32_by_default(case):
    for dtype in ("float32", "bfloat16"):
        variables = init_shapes(case.make(), images(case, dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} <= {jnp.dtype("float32")}


HIGHEST = ("afc", "afg", "aft")


def precisions(module, variables, x) -> set:
    """Returns the precisions of all products in the program, including those in loops and calls."""
    found = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                found.add(equation.params["precision"])
            for value in jax.tree.leaves(
                equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
            ):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    visit(inner)

    visit(jax.make_jaxpr(module.apply)(variables, x).jaxpr)
    return found


@over(NETWORKS, light=True)
def test_default_precision_of_networks(case):
    """Alias-free networks are exact only with exact products. Other networks use JAX's default."""
    module, x = case.make(), images(case)
    variables = init_shapes(module, x)
    highest = (jax.lax.Precision.HIGHEST,) * 2
    found = precisions(module, variables, x)
    exact = any(word in case.name for word in HIGHEST)
    assert found == {highest} if exact else None in found


@over(CASES, light=True)
def test_a_precision_given_is_that_of_every_product(case):
    module, x = case.make(precision="high"), images(case)
    variables = init_shapes(module, x)
    high, highest = ((precision,) * 2 for precision in (jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST))
    exact = ALWAYS_ACCURATE | {
        *(
            "LearnedPolyphase",
            "resnet20_cifar_lps",
            "unet_micro_lps",
            "deeplabv3plus_resnet20_cifar_lps",
            "vgg11_bn_blur",
            "alexnet_blur",
        ),
    }
    assert precisions(module, variables, x) <= ({high, highest} if case.name in exact else {high})
