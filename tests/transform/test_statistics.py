"""A transformed network uses the same batch statistics in training and in evaluation."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from aliasfree_jax.transform import shift_invariant

SAMPLERS = ["subsample", {"name": "blur", "kernel_size": 3}, "ideal", "polyphase"]


class Network(nn.Module):
    """A residual network with batch norm on its strided maps, with momentum 0."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def norm(x: jax.Array) -> jax.Array:
            return nn.BatchNorm(not train, momentum=0.0)(x)

        x = nn.relu(norm(nn.Conv(6, (3, 3), strides=2)(x)))
        y = nn.relu(norm(nn.Conv(8, (3, 3), strides=2)(x)))
        y = norm(nn.Conv(8, (3, 3))(y))
        x = nn.relu(y + norm(nn.Conv(8, (1, 1), strides=2)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        return nn.Dense(5)(norm(x).mean((1, 2)))


@pytest.fixture
def network_and_images(draw):
    network, images = Network(), draw(4, 16, 16, 3) + 0.3
    variables = jax.jit(network.init, static_argnames="train")(jax.random.key(0), images, train=False)
    perturbed = [leaf + 0.1 * draw(*leaf.shape, seed=i) for i, leaf in enumerate(jax.tree.leaves(variables))]
    return network, jax.tree.unflatten(jax.tree.structure(variables), perturbed), images


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_training_and_evaluation_agree_on_one_batch(sampler, network_and_images):
    network, variables, images = network_and_images

    def train(variables, images):
        return network.apply(variables, images, train=True, mutable=["batch_stats"])

    def evaluate(variables, images):
        return network.apply(variables, images, train=False)

    logits, changed = jax.jit(shift_invariant(train, sampler=sampler, argnums=1))(variables, images)
    assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    evaluated = jax.jit(shift_invariant(evaluate, sampler=sampler, argnums=1))
    again = evaluated({**variables, **changed}, images)
    # Both use the variance of the batch, with sums in another order. A transformation that sampled maps
    # before their statistics was 11 % off.
    np.testing.assert_allclose(again, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert np.abs(evaluated(variables, images) - logits).max() > 0.1 * np.abs(logits).max()


@pytest.mark.parametrize("sampler", ["polyphase", "ideal"])
def test_statistics_are_those_of_the_full_map(sampler, draw):
    kernel, x = draw(3, 3, 3, 4), draw(2, 12, 12, 3)

    def moments(x, stride):
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, squares = y.mean((0, 1, 2)), (y**2).mean((0, 1, 2))
        # The formulas of Haiku and Equinox, and the corrected variance.
        return mean, squares, y.var((0, 1, 2)), ((y - mean) ** 2).mean((0, 1, 2)), y.var((0, 1, 2), ddof=1)

    got = jax.jit(shift_invariant(lambda x: moments(x, 2), sampler=sampler))(x)
    want = list(jax.jit(shift_invariant(lambda x: moments(x, 1)))(x))
    coarse, full = 2 * 6 * 6, 2 * 12 * 12
    want[4] = want[3] * coarse / (coarse - 1)  # uses the program's number of positions
    assert full > coarse
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_they_choose_no_phase(draw):
    """Batch statistics choose no phase: the map after the ReLU still decides."""
    kernel, x = draw(3, 3, 3, 4), draw(8, 8, 8, 3)

    def conv(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def normed(x, given=None):
        y = conv(x)
        mean = y.mean((0, 1, 2)) if given is None else given
        return jax.nn.relu(y - mean - 2), mean

    got, mean = jax.jit(shift_invariant(normed))(x)
    want, _ = jax.jit(shift_invariant(normed))(x, mean)
    np.testing.assert_array_equal(got, want)
    # The map before the ReLU would choose another phase for some images.
    early = jax.nn.relu(jax.jit(shift_invariant(lambda x: conv(x) - mean - 2))(x))
    assert np.abs(early - got).max() > 0.1
