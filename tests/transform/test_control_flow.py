"""Maps pass through loops, branches, calls and functions with custom derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blocks import CLOSE, conv, head
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aliasfree_jax.models.parts import resolve
from aliasfree_jax.transform import shift_invariant


def by_hand(body):
    """The same network of three blocks, without control flow."""

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
    """Besides the map, the loop carries a counter, and a plain zero that becomes a map."""
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
        x, i, total = state
        return block(x, k[i]), i + 1, total + x

    start = x, 0, jnp.zeros_like(x)
    x, _, total = lax.while_loop(lambda state: (state[1] < 3) & (state[0].mean() < 1e6), body, start)
    return head(conv(x + 0 * total, k[1], 2))


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
    """Each iteration samples its images at its own phases."""
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
def limited(x):
    return x


limited.defvjp(lambda x: (x, None), lambda _, dy: (dy / jnp.linalg.norm(dy),))


@pytest.mark.parametrize("sampler", ["polyphase", {"name": "blur", "kernel_size": 3}], ids=str)
@pytest.mark.parametrize("name", ["jvp", "vjp"])
def test_derivatives_of_their_own_with_a_stride_pending(name, sampler, k, draw):
    """The derivatives run on the full-resolution map, as the functions do."""
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


@pytest.mark.parametrize("library", [np, jnp])
def test_a_function_that_holds_an_array(library, k, draw):
    """JAX passes the array as an operand. The forward rule calls the function itself."""
    images, gains = draw(2, 8, 8, 4), library.asarray([1.0, 2.0, -1.0, 0.5], "float32")

    @jax.custom_vjp
    def scaled(x):
        return x * gains

    def gradient(_, dy):
        return jax.vjp(lambda x: jnp.sin(x) + x * gains, jnp.zeros_like(dy))[1](dy)  # adds two gradients

    scaled.defvjp(lambda x: (scaled(x), None), gradient)

    def with_gradient(rule):
        g = shift_invariant(lambda x: head(conv(rule(conv(x, k[0], 2)), k[1])))
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(g(x)))))(images)

    (y, dy), (want, wanted) = map(with_gradient, (scaled, lambda x: x * (gains + 1) - lax.stop_gradient(x)))
    np.testing.assert_allclose(y, want, atol=CLOSE)
    np.testing.assert_allclose(dy, wanted, atol=CLOSE)


def test_a_gradient_that_is_no_function_of_each_element(k, draw):
    """The gradient is computed on the sampled map."""
    images = draw(2, 8, 8, 4)

    def f(x, error):  # `error` differs between positions, so it is added to the sampled map
        return head(conv(conv(x, k[0], 2) + error, k[1]))

    def of(f, *arguments):
        g = shift_invariant(f)
        loss = lambda *arguments: jnp.sum(jnp.sin(g(*arguments)))  # noqa: E731
        return jax.jit(jax.grad(loss, tuple(range(len(arguments)))))(*arguments)

    (got,) = of(lambda x: head(conv(limited(conv(x, k[0], 2)), k[1])), images)
    full, at_map = of(f, images, jnp.zeros((2, 4, 4, 4)))
    np.testing.assert_allclose(got, full / jnp.linalg.norm(at_map), atol=CLOSE)


def test_a_loop_without_turns(k, draw):
    def f(x, k):
        x, (maps, means) = lax.scan(lambda x, kernel: (block(x, kernel), (x, x.mean((1, 2)))), x, k[:0])
        return head(conv(x, k[1], 2)), maps, means

    logits, maps, means = shift_invariant(f)(draw(2, 8, 8, 4), k)
    expected, *_ = shift_invariant(lambda x, k: (head(conv(x, k[1], 2)),))(draw(2, 8, 8, 4), k)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)  # the same operations
    assert maps.shape == (0, 2, 8, 8, 4) and means.shape == (0, 2, 4)


def test_forward_derivatives(k, draw):
    images, tangents = draw(2, 8, 8, 4), draw(2, 8, 8, 4, seed=1)
    f = shift_invariant(lambda x: head(conv(bounded(conv(x, k[0], 2)), k[1])))
    _, change = jax.jit(lambda *given: jax.jvp(f, *given))((images,), (tangents,))
    gradients = jax.jit(jax.jacrev(f))(images)
    np.testing.assert_allclose(change, jnp.einsum("nfmhwc,mhwc->nf", gradients, tangents), atol=CLOSE)


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
