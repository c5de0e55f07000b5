"""Strided 1 x 1 convolutions of shortcuts: how they are found, and where they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blocks import conv
from jax import lax

from aliasfree_jax.transform import shift_invariant
from aliasfree_jax.transform.order import shortcuts

SHAPE = (2, 8, 8, 4)


KERNELS = np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype(np.float32) / 6
POINT = KERNELS[:1, :1]


def normed(x):
    """Batch norm in training."""
    mean = x.mean((0, 1, 2))
    return (x - mean) * lax.rsqrt(jnp.var(x, axis=(0, 1, 2)) + 1e-5) * 2.0 + 0.5


def main(x):
    return conv(jax.nn.relu(normed(conv(x, KERNELS, 2))), KERNELS)


def block(x):
    return jax.nn.relu(main(x) + normed(conv(x, POINT, 2)))


def twice(x):
    y = conv(x, POINT, 2)
    return main(x) + y, jax.nn.relu(y)


FOUND = {
    "a normed shortcut": (block, 1),
    "a shortcut alone": (lambda x: main(x) - conv(x, POINT, 2), 1),
    "two of them": (lambda x: main(x) + conv(x, POINT, 2) + normed(conv(x, POINT, 2)), 2),
    "in a function of its own": (lambda x: main(x) + jax.jit(normed)(conv(x, POINT, 2)), 1),
    "an activation behind it": (lambda x: main(x) + jax.nn.relu(conv(x, POINT, 2)), 0),
    "a product of maps": (lambda x: main(x) * conv(x, POINT, 2), 0),
    "a result": (lambda x: conv(x, POINT, 2), 0),
    "used twice": (twice, 0),
    "a wider kernel": (lambda x: main(x) + conv(x, KERNELS, 2), 0),
    "no stride": (lambda x: conv(x, KERNELS) + conv(x, POINT), 0),
}


@pytest.mark.parametrize(("f", "count"), FOUND.values(), ids=FOUND)
def test_shortcuts_are_found(f, count):
    program = jax.make_jaxpr(f)(jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert len(shortcuts(program.jaxpr, [True])) == count
    assert not shortcuts(program.jaxpr, [False]), "plain arrays are not sampled"


def rows_convolved(f):
    """The side of the input map of each 1 x 1 convolution in the program."""
    program = jax.make_jaxpr(f)(jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    return [
        eqn.invars[0].aval.shape[1]
        for eqn in program.jaxpr.eqns
        if eqn.primitive.name == "conv_general_dilated" and eqn.invars[1].aval.shape[0] == 1
    ]


@pytest.mark.parametrize("sampler", ["polyphase", "blur", "ideal", {"name": "polyphase", "inner": "blur"}])
def test_they_run_on_the_coarse_grid(sampler):
    assert rows_convolved(shift_invariant(block, sampler=sampler)) == [4]
    assert rows_convolved(shift_invariant(block, sampler="norm_preserving")) == [8], "it does not commute"


def test_the_main_branch_decides(draw):
    """The result does not depend on which operand of the sum is written first."""
    images = draw(*SHAPE)

    def swapped(x):
        return jax.nn.relu(normed(conv(x, POINT, 2)) + main(x))

    here = np.asarray(shift_invariant(block)(images))
    np.testing.assert_allclose(shift_invariant(swapped)(images), here, atol=1e-6)
    moved = np.asarray(shift_invariant(block)(jnp.roll(images, (1, 3), (1, 2))))
    # Sums of float32 numbers of size 1 over all positions.
    np.testing.assert_allclose(moved.sum((1, 2)), here.sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("inside_jit", [True, False])
def test_constants_of_one_shape_are_told_apart(inside_jit, draw):
    """Two branches differ only in their constants: the same one decides, in either order."""
    images, kernels = draw(32, 8, 8, 4), list(jnp.asarray(draw(2, 3, 3, 4, 4)))

    def branch(x, kernel):
        return conv(jax.nn.relu(conv(x, kernel, 2)), KERNELS)

    def first_second(x):
        y = branch(x, kernels[0])
        return y + branch(x, kernels[1])

    def second_first(x):
        y = branch(x, kernels[1])
        return y + branch(x, kernels[0])

    wrap = jax.jit if inside_jit else lambda f: f
    a, b = (np.asarray(wrap(shift_invariant(f))(images)) for f in (first_second, second_first))
    np.testing.assert_allclose(a, b, atol=1e-5)
