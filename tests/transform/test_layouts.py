"""Other orders of axes and other ways to write a layer give the same network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blocks import CLOSE, conv, head
from jax import lax

from aliasfree_jax.transform import shift_invariant


def mlp(t, k):
    return t + jax.nn.gelu(t @ k[0, 0, 0]) @ k[1, 1, 1]


def tokens(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    n, h, w, c = x.shape
    x = mlp(x.reshape(n, h * w, c), k).reshape(n, h, w, c)
    return head(conv(x, k[1], 2))


def without_tokens(x, k):
    return head(conv(mlp(jax.nn.relu(conv(x, k[0], 2)), k), k[1], 2))


def flat_tokens(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    return head(conv(mlp(x.reshape(-1, 4), k).reshape(x.shape), k[1], 2))


def tokens_behind_channels(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    t = x.transpose(0, 3, 1, 2)
    t = t.reshape(*t.shape[:2], -1).swapaxes(1, 2)
    return head(conv(mlp(t, k).reshape(x.shape), k[1], 2))


def channels_first(x, k):
    x = x.transpose(0, 3, 1, 2)
    order = ("NCHW", "OIHW", "NCHW")

    def conv(x, kernel):
        return lax.conv_general_dilated(
            x, kernel.transpose(3, 2, 0, 1), (2, 2), "SAME", dimension_numbers=order
        )

    x = jnp.moveaxis(mlp(jnp.moveaxis(jax.nn.relu(conv(x, k[0])), 1, -1), k), -1, 1)
    return jax.nn.relu(conv(x, k[1])).mean((2, 3))


@pytest.mark.parametrize("f", [tokens, flat_tokens, tokens_behind_channels, channels_first])
def test_other_layouts_are_the_same_network(f, k, draw):
    images = draw(3, 16, 16, 4)
    got, want = (jax.jit(shift_invariant(g))(images, k) for g in (f, without_tokens))
    np.testing.assert_allclose(got, want, atol=CLOSE)


def test_attention_between_channels_is_kept(k, draw):
    def f(x):
        x = jax.nn.relu(conv(x, k[0], 2))
        n, h, w, c = x.shape
        t = x.reshape(n, h * w, c)
        q, v = t @ k[0, 0, 0], t @ k[1, 1, 1]
        q = q / jnp.sqrt((q**2).sum(1, keepdims=True) + 1e-6)
        weights = jax.nn.softmax(jnp.einsum("ntc,ntd->ncd", q, q), -1)
        y = jnp.einsum("ncd,ntd->ntc", weights, v).reshape(n, h, w, c)
        return head(conv(x + y, k[1], 2))

    image = draw(1, 16, 16, 4)
    logits = jax.jit(shift_invariant(f))(jnp.concatenate([image, jnp.roll(image, (3, 6), (1, 2))]))
    np.testing.assert_allclose(logits[1], logits[0], atol=CLOSE)
    broken = jax.jit(f)(jnp.concatenate([image, jnp.roll(image, (3, 6), (1, 2))]))
    assert np.abs(broken[1] - broken[0]).max() > 1e-3


def space_to_depth(x, k):
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)
    return head(conv(x @ k[:, :, 0].reshape(-1, 4)[:16], k[1], 2))


def patches_of_two(x, k):
    """`space_to_depth` written as a convolution of stride 2."""
    kernel = k[:, :, 0].reshape(-1, 4)[:16].reshape(2, 2, 4, 4)
    return head(conv(conv(x, kernel, 2, "VALID"), k[1], 2))


def pool_by_reshape(x, k):
    n, h, w, c = x.shape
    return head(conv(x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4)), k[1], 2))


def pool_by_windows(x, k):
    sums = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return head(conv(sums / 4, k[1], 2))


def maxima_by_slices(x, k):
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return head(conv(jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2]), k[1], 2))


def maxima_by_reshape(x, k):
    n, h, w, c = x.shape
    return head(conv(x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4)), k[1], 2))


def maxima_by_windows(x, k):
    return head(conv(lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), k[1], 2))


def padded_by(mode):
    def f(x, k):
        x = jax.nn.relu(conv(x, k[0], 2))
        x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode=mode)
        return head(conv(x, k[1], 1, "VALID"))

    return f


def padded_by_the_window(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    return head(conv(x, k[1], 1, ((1, 1), (1, 1))))


def padded_with_channels(x, k):
    x = jax.nn.relu(conv(x, k[0, ..., :2], 2))
    return head(conv(jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 2)]), k[1], 1, "VALID"))


def padded_apart(x, k):
    x = jax.nn.relu(conv(x, k[0, ..., :2], 2))
    return head(conv(jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, 2)]), k[1], 1, ((1, 1), (1, 1))))


def focus(x, k):
    """Space to depth by slices."""
    cells = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
    return head(conv(jnp.concatenate(cells, -1) @ k[:, :, 0].reshape(-1, 4)[:16], k[1], 2))


@pytest.mark.parametrize("f", [space_to_depth, focus])
def test_space_to_depth_has_a_phase(f, k, draw):
    """All four phases have the same samples in another order, so the first sample of each block decides."""
    images = draw(3, 16, 16, 4)
    moved = [jnp.roll(images, shift, (1, 2)) for shift in [(0, 0), (1, 0), (0, 1), (3, -5)]]
    logits = jax.jit(shift_invariant(f))(jnp.concatenate(moved), k).reshape(4, 3, -1)
    np.testing.assert_allclose(logits, jnp.broadcast_to(logits[:1], logits.shape), atol=CLOSE)
    f_blur, twin = (
        jax.jit(shift_invariant(g, sampler={"name": "blur", "kernel_size": 3})) for g in (f, patches_of_two)
    )
    np.testing.assert_allclose(f_blur(images, k), twin(images, k), atol=CLOSE)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_mean_pools_that_leave_padding_out(padding, k, draw):
    """They divide by the number of positions in a window, which is the same everywhere on a circle."""
    images = draw(3, 8, 8, 4)

    def f(x):
        x = conv(x, k[0])
        return head(conv(nn.avg_pool(x, (2, 2), (2, 2), padding, count_include_pad=False), k[1], 1))

    moved = [jnp.roll(images, shift, (1, 2)) for shift in [(0, 0), (1, 0), (3, -5)]]
    logits = jax.jit(shift_invariant(f))(jnp.concatenate(moved)).reshape(3, 3, -1)
    np.testing.assert_allclose(logits, jnp.broadcast_to(logits[:1], logits.shape), atol=CLOSE)

    counted = shift_invariant(lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False))
    whole = jnp.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="wrap")
    np.testing.assert_allclose(counted(images), nn.avg_pool(whole, (3, 3), (1, 1), "VALID"), atol=CLOSE)


@pytest.mark.parametrize("images", [2, 4])
def test_reshapes_in_the_order_of_columns(images, draw):
    """`lax.reshape` permutes the axes first. Without sampling, the function is unchanged."""
    x, weights = draw(images, 8, 8, 4), jnp.arange(1.0, 5.0).reshape(2, 2)

    def f(x):
        y = x.reshape(x.shape[0], 8, 8, 2, 2, order="F")
        return ((y**2) * weights).mean((1, 2)).reshape(-1, 4)

    g = shift_invariant(f, sampler="subsample", padding=None)
    np.testing.assert_allclose(jax.jit(g)(x), jax.jit(f)(x), rtol=1e-6)  # rounding of sums


def ghost_norm(y):
    """A norm over each half of the batch."""
    return jnp.concatenate([half / (1 + half.std((0, 1, 2))) for half in jnp.split(y, 2)])


def of_kernels(y, k):
    """Maps that are sampled in each iteration of a loop, and their means."""
    return lax.map(lambda kernel: head(conv(y, kernel, 2)), k).sum(0) + (
        lax.map(lambda kernel: conv(y, kernel, 2), k).mean((2, 3)).sum(0)
    )


FORMS = {
    "halves of a batch": lambda y, k: head(conv(ghost_norm(y), k[0])),
    "channels of each image": lambda y, k: head(
        y + jnp.take_along_axis(y, jnp.arange(16).reshape(4, 1, 1, 4) % 3, 3)
    ),
    "a loop over kernels": of_kernels,
    "images by their numbers": lambda y, k: head(conv(y[jnp.array([2, 0, 3, 1])], k[1], 2)),
    "images merged again": lambda y, k: head(
        conv(y.reshape(2, 2, *y.shape[1:]).swapaxes(0, 1).reshape(y.shape)[:3], k[1], 2)
    ),
    "no position left": lambda y, k: (lambda z: z - z.mean(0))(head(y)),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_image_may_move_by_itself(name, k, draw):
    """Every image has its own phase, whatever the program does with the batch."""
    images = draw(4, 16, 16, 4)
    each = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))
    moved = each(images, jnp.array([[0, 1], [3, -2], [1, 0], [5, 5]]))
    f = jax.jit(shift_invariant(lambda x: FORMS[name](conv(jax.nn.relu(conv(x, k[2], 2)), k[3]), k)))
    want = f(images)
    np.testing.assert_allclose(f(moved), want, atol=CLOSE * max(1, float(jnp.abs(want).max())))


def test_pools_of_sequences_keep_their_border(k, draw):
    """A sequence of numbers is no map: its mean pool divides by fewer positions at the border."""

    def f(x):
        sequence = head(conv(x, k[0])).reshape(1, -1, 4)
        return nn.avg_pool(sequence, (3,), (1,), "SAME", count_include_pad=False)

    images = draw(4, 8, 8, 4)
    g = shift_invariant(f, sampler="subsample", padding=None)
    np.testing.assert_allclose(g(images), f(images), rtol=1e-5)
    circular = shift_invariant(lambda x: head(conv(x, k[0])).reshape(1, -1, 4))(images)
    want = nn.avg_pool(circular, (3,), (1,), "SAME", count_include_pad=False)
    np.testing.assert_allclose(shift_invariant(f)(images), want, rtol=1e-5)


def test_images_of_a_loop_stay_images(k, draw):
    """After `lax.map`, every image chooses its own phase."""
    images = draw(4, 16, 16, 4)
    images = jnp.concatenate([images, jnp.roll(images, (1, 0), (1, 2)), jnp.roll(images, (2, 1), (1, 2))])

    def f(x):
        x = lax.map(lambda image: jax.nn.relu(conv(image[None], k[0], 2))[0], x)
        return head(conv(jax.nn.relu(conv(x, k[1], 2)), k[2]))

    logits = jax.jit(shift_invariant(f))(images).reshape(3, 4, -1)
    np.testing.assert_allclose(logits, jnp.broadcast_to(logits[:1], logits.shape), atol=CLOSE)


@pytest.mark.parametrize("sampler", ["polyphase", "ideal"])
@pytest.mark.parametrize(
    ("f", "twin"),
    [
        (pool_by_reshape, pool_by_windows),
        (maxima_by_slices, maxima_by_windows),
        (maxima_by_reshape, maxima_by_windows),
        (padded_with_channels, padded_apart),
        *(
            (padded_by(mode), padded_by_the_window)
            for mode in ("constant", "reflect", "symmetric", "edge", "wrap")
        ),
    ],
)
def test_other_ways_to_write_a_layer(f, twin, sampler, k, draw):
    images = draw(3, 16, 16, 4)
    got, want = (jax.jit(shift_invariant(g, sampler=sampler))(images, k) for g in (f, twin))
    np.testing.assert_allclose(got, want, atol=CLOSE)


def test_one_image_is_any_number_of_images(k, draw):
    """An axis of length 1 may be removed and restored, before rows and before other axes."""
    image = draw(1, 16, 16, 4)

    def f(x):
        x = jax.nn.relu(conv(x, k[0], 2))[0]
        x = x.reshape(1, 8, 1, 8, 2, 2).reshape(64, 4).reshape(8, 8, 4)
        return head(conv(x[None], k[1], 2))

    got, want = (jax.jit(shift_invariant(g))(image) for g in (f, lambda x: without_one(x, k)))
    np.testing.assert_allclose(got, want, atol=CLOSE)


def without_one(x, k):
    return head(conv(jax.nn.relu(conv(x, k[0], 2)), k[1], 2))
