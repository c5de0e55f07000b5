"""The transformation does not change this package's operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax import ops, shift_invariant
from aliasfree_jax.errors import AliasFreeError
from aliasfree_jax.layers import IdealDownsample, LearnedPolyphase, LinearLogits, SampledConv

KERNEL = np.random.default_rng(0).standard_normal((3, 3, 3, 3)) / 5


def conv(x, strides=1):
    return ops.conv2d(x, jnp.asarray(KERNEL, x.dtype), strides, "CIRCULAR")


def unet(x):
    coarse, phase = ops.polyphase_downsample(conv(x))
    return ops.polyphase.polyphase_upsample(jax.nn.relu(coarse), phase) + x


def layer(module, **arguments):
    def call(x):
        variables = module.init(jax.random.key(0), jnp.zeros(x.shape, x.dtype))
        return module.apply(variables, x, **arguments)

    return call


FUNCTIONS = {
    "polyphase": unet,
    "learned": layer(LearnedPolyphase(2, logits=LinearLogits)),
    "learned, in training": layer(LearnedPolyphase(2, logits=LinearLogits, noise=False), train=True),
    "ideal": lambda x: ops.ideal_downsample(conv(x)) + conv(ops.ideal_downsample(x)),
    "ideal, by taps": layer(SampledConv(4, (2, 3), 2, IdealDownsample)),
    "ideal, any size": lambda x: ops.ideal_downsample(x, 5, any_size=True),
    "a finer grid and back": lambda x: x + ops.up_polynomial_down(x, jnp.asarray([0.1, 0.5, 0.3])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("batch", [1, 2])
def test_they_stay(name, batch, draw):
    f, images = FUNCTIONS[name], draw(batch, 12, 12, 3)
    for padding in ("circular", None):
        # float32 rounding: sums in another order.
        transformed = shift_invariant(f, padding=padding)(images)
        np.testing.assert_allclose(transformed, f(images), rtol=1e-5, atol=1e-6)


def test_a_stride_before_them_is_settled(draw):
    images = draw(2, 16, 16, 3)
    transformed = shift_invariant(lambda x: unet(jax.nn.relu(conv(x, 2))).mean((1, 2)))
    moved = transformed(jnp.roll(images, (1, 3), (1, 2)))
    # float32 rounding: sums in another order.
    np.testing.assert_allclose(moved, transformed(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: ops.ideal_downsample(x.swapaxes(1, 3)), "expects rows and columns on other axes"),
        (lambda x: ops.ideal_downsample(x[:, 2:]), "it uses 10 x 12 positions of a map"),
        (lambda x: x + ops.ideal_upsample(x, 2)[:, :12, :12], "combines maps that are sampled at different"),
    ],
)
def test_what_cannot_stay_is_refused(f, message, draw):
    with pytest.raises(AliasFreeError) as raised:
        shift_invariant(f)(draw(2, 12, 12, 12))
    assert message in str(raised.value)


@pytest.mark.parametrize("of", [lambda x: ops.polyphase_downsample(x)[0], ops.ideal_downsample])
def test_their_derivatives_are_other_functions(of):
    """Derivatives have the same names. They are refused: they multiply by matrices or gather positions."""

    def f(x):
        return jax.grad(lambda x: (of(x) ** 2).sum())(x).sum((1, 2))

    with pytest.raises(AliasFreeError, match="test_own.py:[0-9]+"):
        shift_invariant(f)(jnp.ones((2, 8, 8, 3)))
