"""All maps of one grid are sampled at one phase, in whatever order the program is written."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blocks import CLOSE, conv
from jax import lax

from aliasfree_jax.transform import shift_invariant


class Weights:
    """Kernels of the three branches of a block."""

    def __init__(self, draw):
        self.main = draw(3, 3, 4, 4, seed=1) / 6
        self.second = draw(3, 3, 4, 4, seed=2) / 6
        self.short = draw(1, 1, 4, 4, seed=3) / 2


@pytest.fixture
def w(draw):
    return Weights(draw)


def shortcut_last(x, w):
    y = conv(jax.nn.relu(conv(x, w.main, 2)), w.second)
    return y + conv(x, w.short, 2)


def shortcut_first(x, w):
    s = conv(x, w.short, 2)
    y = conv(x, w.main, 2)
    return s + conv(jax.nn.relu(y), w.second)


def other_operands(x, w):
    s = conv(x, w.short, 2)
    return conv(jax.nn.relu(conv(x, w.main, 2)), w.second) + s


def in_a_call(x, w):
    s = jax.jit(lambda x: conv(x, w.short, 2))(x)
    return jax.jit(lambda x: conv(jax.nn.relu(conv(x, w.main, 2)), w.second))(x) + s


def rematerialised(x, w):
    return jax.checkpoint(lambda x: shortcut_last(x, w))(x)


def main_branch_rematerialised(x, w):
    y = jax.checkpoint(lambda x: conv(jax.nn.relu(conv(x, w.main, 2)), w.second))(x)
    return y + conv(x, w.short, 2)


def shortcut_rematerialised(x, w):
    s = jax.checkpoint(lambda x: conv(x, w.short, 2))(x)
    return conv(jax.nn.relu(conv(x, w.main, 2)), w.second) + s


def by_slices(x, w):
    """The shortcut is a strided slice, as in ResNets for CIFAR-10."""
    return conv(jax.nn.relu(conv(x, w.main, 2)), w.second) + x[:, ::2, ::2]


def by_pools(x, w):
    return conv(jax.nn.relu(conv(x, w.main, 2)), w.second) + nn.avg_pool(x, (2, 2), (2, 2))


def two_branches(x, w):
    a, b = jax.nn.relu(conv(x, w.main, 2)), jnp.tanh(conv(x, w.second, 2))
    return conv(a * b, w.main) + a


def concatenated(x, w):
    a, b = conv(x, w.main, 2), jax.nn.relu(conv(x, w.second, 2))
    return jnp.concatenate([a, b, x[:, ::2, ::2]], -1)


def dense(x, w):
    x = jax.nn.relu(conv(x, w.main, 2))
    y = conv(jax.nn.gelu(x), w.second)
    z = conv(x + y, w.main)
    return jnp.concatenate([x, y, z], -1)


def twice(x, w):
    return shortcut_last(shortcut_first(x, w), w)


def shared_statistics(x, w):
    y = conv(x, w.main, 2)
    y = (y - y.mean((0, 1, 2))) * lax.rsqrt(y.var((0, 1, 2)) + 1e-3)
    s = conv(x, w.short, 2)
    s = (s - s.mean((0, 1, 2))) * lax.rsqrt(s.var((0, 1, 2)) + 1e-3)
    return jax.nn.relu(conv(jax.nn.relu(y), w.second) + s)


ALIKE = [
    shortcut_first,
    other_operands,
    in_a_call,
    rematerialised,
    main_branch_rematerialised,
    shortcut_rematerialised,
]
BLOCKS = [
    *ALIKE,
    shortcut_last,
    by_slices,
    by_pools,
    two_branches,
    concatenated,
    dense,
    twice,
    shared_statistics,
]


def transformed(block, w, sampler="polyphase"):
    return jax.jit(shift_invariant(lambda x: block(x, w), sampler=sampler))


@pytest.mark.parametrize("sampler", ["polyphase", "ideal"])
@pytest.mark.parametrize("block", ALIKE)
def test_phases_do_not_depend_on_how_a_block_is_written(block, sampler, w, draw):
    images = draw(6, 8, 8, 4)
    got, want = (transformed(b, w, sampler)(images) for b in (block, shortcut_last))
    np.testing.assert_allclose(got, want, atol=CLOSE)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_follow_whole_pixels(block, w, draw):
    """The result is that of the unshifted image, rolled: by half the shift, plus one if the phase changed."""
    f = transformed(block, w)
    image, factor = draw(1, 8, 8, 4), 4 if block is twice else 2
    shifts = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 3), (5, -2)]
    results = np.asarray(f(jnp.concatenate([jnp.roll(image, shift, (1, 2)) for shift in shifts])))
    places = [(i, j) for i in range(8 // factor) for j in range(8 // factor)]
    for result in results[1:]:
        turned = [np.abs(np.roll(results[0], place, (0, 1)) - result).max() for place in places]
        assert min(turned) < CLOSE
    plain = np.asarray(jax.jit(lambda x: block(x, w))(jnp.roll(image, (1, 1), (1, 2))))[0]
    assert min(np.abs(np.roll(plain, place, (0, 1)) - results[0]).max() for place in places) > 0.1


def test_every_image_has_a_phase_of_its_own(w, draw):
    f, image = transformed(shortcut_last, w), draw(1, 8, 8, 4)
    shifts = [(0, 0), (0, 1), (1, 0), (1, 1)]
    batch = jnp.concatenate([jnp.roll(image, shift, (1, 2)) for shift in shifts])
    together, alone = f(batch), jnp.concatenate([f(batch[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=CLOSE)
    same_phase = transformed(shortcut_last, w, "subsample")(batch)
    different = np.abs(np.asarray(same_phase) - together).max((1, 2, 3)) > 0.1
    assert 0 < different.sum() < 4  # one phase equals that of subsampling
