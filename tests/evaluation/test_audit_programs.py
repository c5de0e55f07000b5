"""Tests of audits of plain functions: layouts, branches and loops."""

import inspect

import jax
import jax.numpy as jnp

from aliasfree_jax.evaluation.audit import audit

CONV = "conv_general_dilated"


def strided(x, kernel):
    """A plain function of single images `[C, H, W]`."""
    x = jnp.maximum(x, 0.1)
    x = jax.lax.conv_general_dilated(x[None], kernel, (2, 2), "SAME")[0]
    return jnp.tanh(x).mean((1, 2))


def test_functions_of_no_framework_and_other_layouts(draw):
    images, kernel = draw(2, 3, 8, 8), draw(4, 3, 3, 3)
    function = jax.vmap(strided, in_axes=(0, None))
    (found,) = audit(function, images, kernel, shifts=[(1, 1)], spatial_axes=(2, 3))
    first = next(layer for layer in found.layers if layer.state == "breaks")
    assert first.operation == CONV and first.path == "" and found.network == "strided"
    lines, start = inspect.getsourcelines(strided)
    assert first.where == f"{__file__}:{start + 3}" and "conv_general_dilated(x[None]" in lines[3]
    assert [layer.state for layer in found.layers if layer.operation == "max"] == ["exact"]
    (found,) = audit(strided, images[0], kernel, shifts=[(0.5, 0.5)], spatial_axes=(1, 2))
    assert found.finding.startswith("max (")


OPERATIONS = ["tanh", "mul", "the result"]


def branched(x, which):
    x = jax.lax.cond(which > 0, jnp.tanh, lambda x: x * jnp.arange(8.0)[:, None, None], x)
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 0.5), (0, x))[1]


def test_branches_and_loops_are_looked_into(draw):
    x = draw(2, 8, 8, 3)
    (found,) = audit(branched, x, jnp.int32(1), shifts=[(1, 0)])
    assert found.first_break is None and [layer.operation for layer in found.layers] == OPERATIONS
    (found,) = audit(branched, x, jnp.int32(0), shifts=[(1, 0)])
    assert found.finding.startswith("mul (") and found.layers[-1].state == "follows"


def stacked(x, turns):
    """Maps and vectors from the iterations of a loop, in reverse order."""

    def turn(carry, scale):
        maps = carry * scale
        return maps, (maps, maps.mean((1, 2)))

    last, (maps, means) = jax.lax.scan(turn, x, jnp.arange(1.0, 1 + turns), reverse=True)
    return last + maps.sum(0), means, jax.lax.scan(turn, x, jnp.zeros(0))[1][0]


def test_what_the_turns_of_a_loop_give_is_followed(draw):
    x = draw(2, 8, 8, 3)
    (found,) = audit(stacked, x, 3, shifts=[(1, 0)])
    assert found.first_break is None and {layer.state for layer in found.layers} <= {"exact", "not compared"}
    assert [layer.operation for layer in found.layers].count("mul") == 3
    (found,) = audit(lambda x: stacked(x * jnp.arange(8.0)[:, None, None], 3), x, shifts=[(1, 0)])
    assert found.finding.startswith("mul (") and found.layers[-1].state == "follows"


def test_an_error_is_followed_through_any_number_of_integers(draw):
    def counted(x):
        y = jnp.round(x * jnp.arange(8.0)[:, None, None]).astype(jnp.int32)
        return 0.5 * jax.lax.fori_loop(0, 1100, lambda _, y: y + 1, y)  # deeper than Python's recursion limit

    (found,) = audit(counted, draw(1, 8, 8, 1), shifts=[(1, 0)])
    assert found.finding.startswith("mul (") and found.layers[-1].after > 1e-3
    assert [layer.state for layer in found.layers if layer.state == "breaks"] == ["breaks"]


def test_branches_that_the_images_choose_are_run_whole(draw):
    def chosen(x):
        return jax.lax.cond(x[0, 0, 0, 0] > 0.5, jnp.tanh, jnp.sin, x)

    x = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(1.0)
    (found,) = audit(chosen, x, shifts=[(1, 0)])
    assert found.finding.startswith("slice (")  # the pixel that decides
    assert found.layers[-1].after > 0.05  # tanh(1) is not sin(1)
