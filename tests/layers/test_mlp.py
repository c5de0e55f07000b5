"""The pointwise part of a block: both orders compute the same function, and the cheaper one is used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Gelu, UpPolynomial
from aliasfree_jax.layers.mlp import Mlp, mlp_costs, resampling_cost
from aliasfree_jax.ops.activation import polynomial, polynomial_grid

ACTIVATION = functools.partial(UpPolynomial, in_scale=0.7, out_scale=1.3, train_scale=True)


def mlp(grid: str = "auto", activation=ACTIVATION, **kwargs) -> Mlp:
    return Mlp(6, activation, grid, **kwargs)


def randomised(layer: Mlp, x: jax.Array, draw) -> dict:
    return jax.tree.map(
        lambda leaf: draw(*leaf.shape, seed=leaf.size), jax.eval_shape(layer.init, jax.random.key(0), x)
    )


@pytest.mark.parametrize("size", [(8, 7), (5, 6)], ids="{0[0]}x{0[1]}".format)
def test_fine_coarse_and_auto_are_one_function(size, draw, x64):
    x = draw(2, *size, 3)
    variables = randomised(mlp(), x, draw)
    outputs = {grid: jax.jit(mlp(grid).apply)(variables, x) for grid in ("fine", "coarse", "auto")}
    # float64 rounding: rows of the resampling matrices sum to 1 within rounding, and values reach 50.
    np.testing.assert_allclose(outputs["fine"], outputs["coarse"], atol=1e-12)
    np.testing.assert_allclose(outputs["auto"], outputs["coarse"], atol=1e-12)
    pointwise = polynomial(
        x @ variables["params"]["expand"]["kernel"] + variables["params"]["expand"]["bias"],
        **variables["params"]["activation"],
    )
    aliased = pointwise @ variables["params"]["project"]["kernel"] + variables["params"]["project"]["bias"]
    assert float(jnp.abs(outputs["fine"] - aliased).max()) > 1e-2


def test_gradients_agree_as_well(draw, x64):
    x = draw(2, 6, 7, 3)
    variables = randomised(mlp(), x, draw)

    def gradient(grid: str):
        return jax.jit(jax.grad(lambda v, x: jnp.sum(mlp(grid).apply(v, x) ** 2), argnums=(0, 1)))(
            variables, x
        )

    # A relative tolerance, because the gradients reach 1e4.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-9),
        gradient("fine"),
        gradient("coarse"),
    )


@pytest.mark.parametrize(
    ("side", "channels", "fine", "coarse"),
    [(56, 96, 647, 737), (28, 192, 552, 358), (14, 384, 528, 263), (7, 768, 474, 239)],
)
def test_costs_of_the_tiny_network(side, channels, fine, coarse):
    shape = (side, side)
    costs = mlp_costs(shape, polynomial_grid(shape, 2), channels, 4 * channels)
    assert {grid: round(cost / 1e6) for grid, cost in costs.items()} == {
        "fine": fine,
        "coarse": coarse,
    }


def test_costs_of_uneven_maps_count_both_products():
    # Columns first (4 rows from 6 to 9), then rows (9 columns from 4 to 6), and the same back.
    assert resampling_cost((4, 6), (6, 9)) == 2 * (4 * 6 * 9 + 4 * 9 * 6)


def test_auto_takes_the_cheaper_order(draw):
    def grid_of_the_first_layer(channels: int, side: int) -> tuple[int, ...]:
        layer, x = Mlp(4 * channels, ACTIVATION, remat="none"), draw(1, side, side, channels)
        variables = jax.eval_shape(layer.init, jax.random.key(0), x)
        jaxpr = jax.make_jaxpr(layer.apply)(variables, x)
        products = [[v.aval.shape for v in e.invars] for e in jaxpr.eqns if e.primitive.name == "dot_general"]
        return next(shapes[0] for shapes in products if shapes[1] == (channels, 4 * channels))

    costs = {
        (channels, side): mlp_costs((side,) * 2, polynomial_grid((side,) * 2, 2), channels, 4 * channels)
        for channels, side in [(2, 14), (64, 4)]
    }
    assert costs[2, 14]["fine"] < costs[2, 14]["coarse"] and costs[64, 4]["coarse"] < costs[64, 4]["fine"]
    assert grid_of_the_first_layer(2, 14) == (1, 21, 21, 2)
    assert grid_of_the_first_layer(64, 4) == (1, 4, 4, 64)


def test_other_activations_stay_on_the_map(draw, x64):
    x = draw(2, 5, 5, 3)
    variables = randomised(mlp(activation=Gelu), x, draw)
    outputs = [mlp(grid, activation=Gelu).apply(variables, x) for grid in ("fine", "coarse")]
    np.testing.assert_array_equal(*outputs)
    params = variables["params"]
    hidden = jax.nn.gelu(x @ params["expand"]["kernel"] + params["expand"]["bias"], approximate=False)
    expected = hidden @ params["project"]["kernel"] + params["project"]["bias"]
    np.testing.assert_allclose(outputs[0], expected, atol=1e-13)  # float64 sums of 6 terms


def test_bfloat16_in_bfloat16_out(draw):
    layer, x = mlp(dtype=jnp.bfloat16), draw(1, 6, 6, 3).astype(jnp.bfloat16)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert jax.eval_shape(layer.apply, variables, x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_an_unknown_grid_is_named(draw):
    with pytest.raises(ConfigError, match="unknown mlp_grid 'corse'. Did you mean 'coarse'"):
        mlp("corse").init(jax.random.key(0), draw(1, 6, 6, 3))
