"""Loops, branches, calls and derivatives of their own carry maps; so do tokens and other orders of axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aliasfree_jax.transform import shift_invariant

NUMBERS = ("NHWC", "HWIO", "NHWC")
# Rounding of sums in another order, of numbers of size 1 to 10.
CLOSE = 1e-5


def conv(x, kernel, stride=1, padding="SAME"):
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=NUMBERS)


@pytest.fixture
def k(draw):
    """Kernels: [3, 3, 3, 4, 4]."""
    return draw(3, 3, 3, 4, 4) / 6


def head(x):
    return jax.nn.relu(x).mean((1, 2))


def by_hand(body):
    """A twin without control flow, of three blocks."""

    def f(x, k):
        x = jax.nn.relu(conv(x, k[0], 2))
        for kernel in k:
            x = body(x, kernel)
        return head(conv(x, k[1], 2))

    return f


def block(x, kernel):
    return x + jax.nn.relu(conv(x, kernel))


PLAIN = by_hand(block)


def scanned(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    x, means = lax.scan(lambda x, kernel: (block(x, kernel), x.mean()), x, k)
    return head(conv(x, k[1], 2)) + 0 * means.sum()


def scan_of_several(x, k):
    """A counter and a plain zero that becomes a map are carried beside the map."""
    x = jax.nn.relu(conv(x, k[0], 2))

    def body(state, kernel):
        x, total, i = state
        return (block(x, kernel), total + x, i + 1), None

    (x, total, _), _ = lax.scan(body, (x, jnp.zeros_like(x), 0), k)
    return head(conv(x + 0 * total, k[1], 2))


def maps_collected(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    _, maps = lax.scan(lambda x, kernel: (block(x, kernel),) * 2, x, k)
    return head(conv(maps[-1], k[1], 2))


def over_images(x, k):
    return lax.map(lambda image: PLAIN(image[None], k)[0], x)


def over_images_vmapped(x, k):
    return jax.vmap(lambda image: PLAIN(image[None], k)[0])(x)


def counted(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    x = lax.fori_loop(0, 3, lambda i, x: block(x, k[i]), x)
    return head(conv(x, k[1], 2))


def with_a_condition(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))

    def body(state):
        x, i = state
        return block(x, k[i]), i + 1

    x, _ = lax.while_loop(lambda state: (state[1] < 3) & (state[0].mean() < 1e6), body, (x, 0))
    return head(conv(x, k[1], 2))


def chosen(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    for kernel in k:
        x = lax.cond(jnp.sum(kernel) < 1e6, lambda x: block(x, kernel), lambda x: x, x)  # noqa: B023
    return head(conv(x, k[1], 2))


def chosen_by_a_mean(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    for kernel in k:
        branches = [lambda x: x, lambda x: block(x, kernel), lambda x: -x]  # noqa: B023
        x = lax.switch((x.mean() < 1e6).astype(int), branches, x)
    return head(conv(x, k[1], 2))


def checkpointed(x, k):
    x = jax.nn.relu(conv(x, k[0], 2))
    for kernel in k:
        x = jax.checkpoint(block)(x, kernel)
    return head(conv(x, k[1], 2))


def all_checkpointed(x, k):
    return jax.checkpoint(PLAIN, policy=jax.checkpoint_policies.dots_saveable)(x, k)


def called(x, k):
    return jax.jit(PLAIN)(x, k)


FORMS = [
    scanned,
    scan_of_several,
    maps_collected,
    over_images,
    over_images_vmapped,
    counted,
    with_a_condition,
    chosen,
    chosen_by_a_mean,
    checkpointed,
    all_checkpointed,
    called,
]


@pytest.mark.parametrize("f", FORMS)
def test_control_flow_computes_what_the_unrolled_program_does(f, k, draw):
    images = draw(4, 16, 16, 4)
    images = jnp.concatenate([images, jnp.roll(images[:1], (3, -2), (1, 2))])

    def results(f):
        g = shift_invariant(f)
        if f is with_a_condition:  # while loops have no gradient
            return jax.jit(g)(images, k), 0.0

        def loss(x, k):
            y = g(x, k)
            return jnp.sum(jnp.sin(y)), y

        gradients, y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(images, k)
        return y, gradients

    (y, gradients), (want, wanted) = results(f), results(PLAIN)
    np.testing.assert_allclose(y, want, atol=CLOSE)
    np.testing.assert_allclose(y[-1], y[0], atol=CLOSE)
    assert np.abs(want - jax.jit(PLAIN)(images, k)).max() > 1e-2
    if f is not with_a_condition:
        for a, b in zip(gradients, wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=CLOSE * np.abs(b).max())


def test_sampling_within_a_scan_over_images_of_one_size(k, draw):
    """Each turn samples its own images at phases of their own."""
    images = draw(3, 1, 8, 8, 4)

    def f(x):
        return lax.scan(lambda total, x: (total + 1, jax.nn.relu(conv(x, k[0], 2))), 0, x)[1].sum((2, 3))

    got = jax.jit(shift_invariant(f, spatial_axes=(2, 3)))(images)
    each = jax.jit(shift_invariant(lambda x: jax.nn.relu(conv(x, k[0], 2)).sum((1, 2))))
    np.testing.assert_allclose(got, jnp.stack([each(x) for x in images]), atol=CLOSE * 10)


@jax.custom_jvp
def bounded(x):
    return jnp.clip(x, -1, 1)


@bounded.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return bounded(x), jnp.where(jnp.abs(x) < 1, dx, 0.1 * dx)


@jax.custom_vjp
def quiet(x, gain):
    return x * gain


quiet.defvjp(lambda x, gain: (quiet(x, gain), (x, gain)), lambda kept, dy: (0.5 * dy, (dy * kept[0]).sum()))


@jax.custom_vjp
def own_conv(x, kernel):
    return conv(x, kernel, 2)


def own_conv_bwd(kept, dy):
    gradient = jax.vjp(lambda x, kernel: conv(x, kernel, 2), *kept)[1](dy)
    return gradient[0], 2 * gradient[1]


own_conv.defvjp(lambda x, kernel: (own_conv(x, kernel), (x, kernel)), own_conv_bwd)


@pytest.mark.parametrize("sampler", ["polyphase", {"name": "blur", "kernel_size": 3}], ids=str)
@pytest.mark.parametrize("name", ["jvp", "vjp"])
def test_derivatives_of_their_own_with_a_stride_pending(name, sampler, k, draw):
    """The rules run on the full-resolution map, where the functions are applied."""
    from aliasfree_jax.models.parts import resolve

    rule = bounded if name == "jvp" else lambda x: quiet(x, 1.5)
    images = 2 * draw(2, 8, 8, 4)

    def f(x):
        return head(conv(rule(conv(x, k[0], 2)), k[1]))

    def twin(x):
        wrap = lambda x: jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="wrap")  # noqa: E731
        before = jnp.pad(x, [(0, 0), (0, 2), (0, 2), (0, 0)], mode="wrap")  # "SAME" by strides of 2
        y = rule(conv(before, k[0], 1, "VALID"))
        y = resolve("sampler", sampler)(strides=2).apply({}, y)
        return head(conv(wrap(y), k[1], 1, "VALID"))

    def with_gradient(f):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(f(x)))))(images)

    (y, dy), (want, wanted) = with_gradient(shift_invariant(f, sampler=sampler)), with_gradient(twin)
    np.testing.assert_allclose(y, want, atol=CLOSE)
    np.testing.assert_allclose(dy, wanted, atol=CLOSE)


def test_forward_derivatives(k, draw):
    images, tangents = draw(2, 8, 8, 4), draw(2, 8, 8, 4, seed=1)
    f = shift_invariant(lambda x: head(conv(bounded(conv(x, k[0], 2)), k[1])))
    _, change = jax.jit(lambda *given: jax.jvp(f, *given))((images,), (tangents,))
    gradients = jax.jit(jax.jacrev(f))(images)
    np.testing.assert_allclose(change, jnp.einsum("nfmhwc,mhwc->nf", gradients, tangents), atol=CLOSE)


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
    """The same as a convolution of stride 2."""
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


def focus(x, k):
    """Space to depth by slices."""
    cells = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
    return head(conv(jnp.concatenate(cells, -1) @ k[:, :, 0].reshape(-1, 4)[:16], k[1], 2))


@pytest.mark.parametrize("f", [space_to_depth, focus])
def test_space_to_depth_has_a_phase(f, k, draw):
    """All four phases have the same samples, in another order: the first sample of the blocks decides."""
    images = draw(3, 16, 16, 4)
    moved = [jnp.roll(images, shift, (1, 2)) for shift in [(0, 0), (1, 0), (0, 1), (3, -5)]]
    logits = jax.jit(shift_invariant(f))(jnp.concatenate(moved), k).reshape(4, 3, -1)
    np.testing.assert_allclose(logits, jnp.broadcast_to(logits[:1], logits.shape), atol=CLOSE)
    f_blur, twin = (
        jax.jit(shift_invariant(g, sampler={"name": "blur", "kernel_size": 3})) for g in (f, patches_of_two)
    )
    np.testing.assert_allclose(f_blur(images, k), twin(images, k), atol=CLOSE)


def test_images_of_a_loop_stay_images(k, draw):
    """Behind `lax.map` every image chooses a phase of its own."""
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


def test_single_images_and_vmap(k, draw):
    images = draw(3, 16, 16, 4)
    want = jax.jit(shift_invariant(PLAIN))(images, k)
    single = shift_invariant(lambda image, k: PLAIN(image[None], k)[0], spatial_axes=(0, 1))
    np.testing.assert_allclose(jax.jit(jax.vmap(single, (0, None)))(images, k), want, atol=CLOSE)
    np.testing.assert_allclose(jax.jit(single)(images[1], k), want[1], atol=CLOSE)
    inside = shift_invariant(lambda x, k: jax.vmap(lambda image: PLAIN(image[None], k)[0])(x))
    np.testing.assert_allclose(jax.jit(inside)(images, k), want, atol=CLOSE)
    of_sets = jax.vmap(shift_invariant(PLAIN), (0, None))(images[:, None], k)
    np.testing.assert_allclose(of_sets[:, 0], want, atol=CLOSE)


def test_shapes_alone_and_channels_first(k, draw):
    f = shift_invariant(lambda x: PLAIN(x.transpose(0, 2, 3, 1), k), spatial_axes=(2, 3))
    images = draw(2, 16, 16, 4)
    got = jax.jit(f)(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(got, jax.jit(shift_invariant(PLAIN))(images, k), atol=CLOSE)
    shape = jax.eval_shape(f, jax.ShapeDtypeStruct((7, 4, 32, 32), jnp.float32))
    assert (shape.shape, shape.dtype) == ((7, 4), jnp.float32)


def test_a_batch_divided_over_devices(k, draw):
    mesh = Mesh(jax.devices(), ("batch",))
    images = draw(4, 16, 16, 4)
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("batch")))
    f = jax.jit(shift_invariant(scanned))
    logits = f(spread, k)
    np.testing.assert_allclose(logits, f(images, k), atol=CLOSE)
    assert len(logits.sharding.device_set) == len(jax.devices())
