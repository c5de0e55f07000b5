"""Random programs of images: seeded compositions of operations that occur in networks.

There are always 4 channels and sides are small, so that few distinct operations are compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CHANNELS = 4
Step = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def straight_through_sign(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, 1.0, -1.0)


@straight_through_sign.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return straight_through_sign(*primals), tangents[0]


@jax.custom_vjp
def clipped_gradient(x: jax.Array) -> jax.Array:
    return x * 2


clipped_gradient.defvjp(lambda x: (clipped_gradient(x), x), lambda x, dy: (jnp.where(x > 0, dy, 0.5 * dy),))


class Drawn:
    """Draws the steps of a program. Input and output of every step are maps [N, H, W, 4].

    Attributes:
      circular: Whether the program must be equivariant to whole-pixel shifts. Then strides divide the map,
        nothing depends on the position, and no step outputs only ones and zeros, which would give several
        phases the same norm.
      shape: Shape of the next step's input.
    """

    def __init__(self, seed: int, circular: bool = False) -> None:
        self.rng, self.circular = np.random.default_rng(seed), circular
        sides = (16, 16) if circular else self.rng.choice([7, 8, 9], 2).tolist()
        self.shape: tuple[int, ...] = (2, *sides, CHANNELS)

    def one(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def weights(self, *shape: int) -> jax.Array:
        fan_in = max(np.prod(shape[:-1]), 1)
        return jnp.asarray(self.rng.standard_normal(shape) / np.sqrt(fan_in), jnp.float32)

    def step(self, depth: int = 0) -> Step:
        """Draws a step for which the map is large enough."""
        shape = self.shape
        while True:
            kinds = FLAT if depth > 1 else FLAT + NESTED
            made = kinds[self.rng.integers(len(kinds))](self, depth)
            self.shape = jax.eval_shape(made, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
            if min(self.shape) > 0:
                return made
            self.shape = shape

    def same(self, depth: int) -> Step:
        """Draws a step that keeps the shape."""
        shape = self.shape
        while True:
            made = self.step(depth)
            if self.shape == shape:
                return made
            self.shape = shape


def conv(d: Drawn, depth: int) -> Step:
    size, stride, dilation, groups = (
        d.one(1, 2, 3, 5),
        d.one(1, 1, 2, 2 if d.circular else 3),
        d.one(1, 1, 2),
        d.one(1, 2, 4),
    )
    if min(d.shape[1:3]) == 1:  # a stride would not change a single row, but its grid
        stride = 1
    padding = d.one("SAME", "VALID", ((1, 0), (0, 2)), ((size // 2, size // 2),) * 2)
    kernel, order = d.weights(size, size, CHANNELS // groups, CHANNELS), d.one("NHWC", "NCHW")

    def step(x: jax.Array) -> jax.Array:
        x = x if order == "NHWC" else x.transpose(0, 3, 1, 2)
        y = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=(order, "HWIO", order),
            feature_group_count=groups,
        )
        return y if order == "NHWC" else y.transpose(0, 2, 3, 1)

    return step


def pool(d: Drawn, depth: int) -> Step:
    size, stride, padding = d.one(2, 3), d.one(1, 2), d.one("SAME", "VALID")
    stride = 1 if min(d.shape[1:3]) == 1 else stride
    start, combine = d.one((-jnp.inf, lax.max), (jnp.inf, lax.min), (0.0, lax.add))
    return lambda x: lax.reduce_window(x, start, combine, (1, size, size, 1), (1, stride, stride, 1), padding)


def padded(d: Drawn, depth: int) -> Step:
    mode, amounts = (
        d.one("wrap", "constant", "reflect", "edge"),
        [(0, 0), d.one((1, 1), (0, 2)), (1, 0), (0, 0)],
    )
    return lambda x: jnp.pad(x, amounts, mode=mode) if min(x.shape[1:3]) > 1 else x


def cut(d: Drawn, depth: int) -> Step:
    first, last, stride = d.one(0, 1), d.one(None, -1), d.one(1, 2)
    stride = 1 if min(d.shape[1:3]) == 1 else stride
    return lambda x: x[:, first:last:stride, first::stride]


def part_of_channels(d: Drawn, depth: int) -> Step:
    which = d.one(
        lambda x: x[..., ::-1],
        lambda x: jnp.concatenate([x[..., 2:], x[..., :2]], -1),
        lambda x: jnp.concatenate(jnp.split(x, 2, axis=-1)[::-1], -1),
        lambda x: x[..., jnp.array([3, 1, 1, 0])],
        lambda x: lax.dynamic_slice_in_dim(jnp.concatenate([x, -x], -1), 3, CHANNELS, 3),
        lambda x: jnp.stack([x[..., ::2], x[..., 1::2]], 3).reshape(x.shape),
        lambda x: jnp.sort(x, axis=-1),
        lambda x: jnp.cumsum(x, axis=-1),
        lambda x: jnp.repeat(x[..., :1], CHANNELS, axis=-1) + x,
        lambda x: x if d.circular else jax.nn.one_hot(jnp.argmax(x, -1), CHANNELS),
        lambda x: jnp.roll(x, 1, axis=-1),
        lambda x: lax.top_k(x, CHANNELS)[0],
    )
    return which


def pointwise(d: Drawn, depth: int) -> Step:
    bias, gain = d.weights(CHANNELS), d.weights(1, 1, CHANNELS)
    positions = gain if d.circular else d.weights(*d.shape[1:])
    return d.one(
        jax.nn.relu,
        jax.nn.gelu,
        jax.nn.silu,
        lambda x: jax.nn.softmax(x, axis=-1),
        lambda x: x * gain + bias,
        lambda x: jnp.clip(x, -1, 1),
        lambda x: jnp.where(x > bias, x, 0.1 * x),
        jnp.tanh if d.circular else straight_through_sign,
        clipped_gradient,
        lambda x: x + positions,
        lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
        lambda x: x + lax.stop_gradient(jnp.round(x) - x),
        lambda x: x / (1 + jnp.abs(x)),
    )


def norm(d: Drawn, depth: int) -> Step:
    axes = d.one((3,), (0, 1, 2), (1, 2), (1, 2, 3))

    def step(x: jax.Array) -> jax.Array:
        mean = x.mean(axes, keepdims=True)
        return (x - mean) * lax.rsqrt(((x - mean) ** 2).mean(axes, keepdims=True) + 1e-3)

    def grouped(x: jax.Array) -> jax.Array:
        g = x.reshape(*x.shape[:3], 2, CHANNELS // 2)
        g = (g - g.mean((1, 2, 4), keepdims=True)) / jnp.sqrt(g.var((1, 2, 4), keepdims=True) + 1e-3)
        return g.reshape(x.shape)

    return d.one(step, step, grouped)


def linear(d: Drawn, depth: int) -> Step:
    w = d.weights(CHANNELS, CHANNELS)

    def tokens(x: jax.Array) -> jax.Array:
        n, h, w_, c = x.shape
        return (x.reshape(n, h * w_, c) @ w).reshape(n, h, w_, c)

    def flat(x: jax.Array) -> jax.Array:
        return (x.reshape(-1, CHANNELS) @ w).reshape(x.shape)

    def squeeze_excite(x: jax.Array) -> jax.Array:
        return x * jax.nn.sigmoid(x.mean((1, 2)) @ w)[:, None, None]

    def cross_covariance(x: jax.Array) -> jax.Array:
        t = x.reshape(x.shape[0], -1, CHANNELS)
        weights = jax.nn.softmax(jnp.einsum("ntc,ntd->ncd", t, t @ w) / t.shape[1], -1)
        return jnp.einsum("ncd,ntd->ntc", weights, t).reshape(x.shape)

    def heads(x: jax.Array) -> jax.Array:
        n, h, w_, c = x.shape
        return jnp.einsum("nhwgc,gcd->nhwgd", x.reshape(n, h, w_, 2, 2), w.reshape(2, 2, 4)[..., :2]).reshape(
            x.shape
        )

    return d.one(
        lambda x: jnp.einsum("nhwc,cd->nhwd", x, w), tokens, flat, squeeze_excite, cross_covariance, heads
    )


def residual(d: Drawn, depth: int) -> Step:
    inner = d.same(depth + 1)
    w = d.weights(2 * CHANNELS, CHANNELS)
    return d.one(
        lambda x: x + inner(x),
        lambda x: inner(x) + x,
        lambda x: x * inner(x),
        lambda x: jnp.concatenate([inner(x), x], -1) @ w,
    )


def shortcut(d: Drawn, depth: int) -> Step:
    shape = d.shape
    if min(shape[1:3]) < 2:
        return lambda x: x
    k, s = d.weights(3, 3, CHANNELS, CHANNELS), d.weights(1, 1, CHANNELS, CHANNELS)

    def conv2(x: jax.Array, k: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return d.one(
        lambda x: conv2(x, k) + conv2(x, s),
        lambda x: x[:, ::2, ::2] + conv2(jax.nn.relu(x), k),
        lambda x: jnp.concatenate([conv2(x, k)[..., :2], conv2(x, s)[..., 2:]], -1),
    )


def blocks(d: Drawn, depth: int) -> Step:
    if min(d.shape[1:3]) < 4:  # after a 2 x 2 map's only block, the axis of rows is ambiguous
        return lambda x: x
    w = d.weights(4 * CHANNELS, CHANNELS)

    def cells(x: jax.Array) -> jax.Array:
        n, h, w_, c = x.shape
        return x[:, : h // 2 * 2, : w_ // 2 * 2].reshape(n, h // 2, 2, w_ // 2, 2, c)

    def space_to_depth(x: jax.Array) -> jax.Array:
        y = cells(x).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(*y.shape[:3], 4 * CHANNELS) @ w

    return d.one(lambda x: cells(x).mean((2, 4)), lambda x: cells(x).max((2, 4)), space_to_depth)


def loop(d: Drawn, depth: int) -> Step:
    stack, times = d.weights(3, CHANNELS, CHANNELS), d.one(1, 2, 3)
    inner = d.same(2)

    def scanned(x: jax.Array) -> jax.Array:
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), x.mean()), x, stack)[0]

    def collected(x: jax.Array) -> jax.Array:
        return lax.scan(lambda s, w: (s + 1, x @ w * s), 1.0, stack)[1].sum(0)

    return d.one(
        scanned,
        collected,
        lambda x: lax.map(lambda image: inner(image[None])[0], x),
        lambda x: lax.fori_loop(0, times, lambda i, x: inner(x) + i, x),
        lambda x: lax.while_loop(lambda s: s[1] < times, lambda s: (s[0] * 0.5, s[1] + 1), (x, 0))[0],
    )


def branch(d: Drawn, depth: int) -> Step:
    one, other = d.same(2), d.same(2)
    return d.one(
        lambda x: lax.cond(x.mean() > 0, one, other, x),
        lambda x: lax.switch(1, [one, other, lambda x: x], x),
        lambda x: lax.cond(jnp.sum(jnp.ones(3)) > 2, one, lambda x: x, x),
    )


def called(d: Drawn, depth: int) -> Step:
    inner = d.step(depth + 1)
    return d.one(jax.jit(inner), jax.checkpoint(inner), lambda x: jax.vmap(lambda i: inner(i[None])[0])(x))


FLAT = [conv, conv, pool, padded, cut, part_of_channels, pointwise, pointwise, norm, linear, shortcut, blocks]
NESTED = [residual, residual, loop, branch, called]


def program(seed: int, circular: bool = False) -> tuple[Callable[[jax.Array], Any], jax.Array]:
    """A random function of images, and images for it."""
    drawn = Drawn(seed, circular)
    images = drawn.weights(*drawn.shape) * 10
    steps = [drawn.step() for _ in range(drawn.rng.integers(3, 8))]
    heads = [
        lambda x: x,
        lambda x: x.mean((1, 2)),
        lambda x: x.max((1, 2)),
        lambda x: {"map": x, "sum": x.sum()},
    ]
    head = heads[drawn.rng.integers(1, 3)] if circular else drawn.one(*heads)

    def f(x: jax.Array) -> Any:
        for step in steps:
            x = step(x)
        return head(x)

    return f, images


def one_by_one(program: Any, *arrays: jax.Array) -> list[jax.Array]:
    """Evaluates a closed jaxpr operation by operation, so that no operations are fused."""
    return _run(program.jaxpr, program.consts, arrays)


def _run(jaxpr: Any, consts: Any, arrays: Any) -> list[jax.Array]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arrays], strict=True))
    for eqn in jaxpr.eqns:
        values = [v.val if hasattr(v, "val") else known[v] for v in eqn.invars]
        known.update(zip(eqn.outvars, _results(eqn, values), strict=True))
    return [v.val if hasattr(v, "val") else known[v] for v in jaxpr.outvars]


def _results(eqn: Any, values: list[Any]) -> list[Any]:
    p = eqn.params
    match eqn.primitive.name:
        case "scan":
            return _scanned(p, values)
        case "while":
            tests, bodies = values[: p["cond_nconsts"]], values[p["cond_nconsts"] :][: p["body_nconsts"]]
            state, test, body = values[len(tests) + len(bodies) :], p["cond_jaxpr"], p["body_jaxpr"]
            while _run(test.jaxpr, test.consts, [*tests, *state])[0]:
                state = _run(body.jaxpr, body.consts, [*bodies, *state])
            return state
        case "cond":
            taken = p["branches"][int(np.clip(values[0], 0, len(p["branches"]) - 1))]
            return _run(taken.jaxpr, taken.consts, values[1:])
    inner = p.get("call_jaxpr", p.get("jaxpr"))
    if inner is not None:
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
    if eqn.primitive.name in (
        "add",
        "sub",
        "mul",
        "div",
        "max",
        "min",
    ):  # XLA turns a division by a scalar into a product
        values = [jnp.broadcast_to(value, eqn.outvars[0].aval.shape) for value in values]
    y = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(p))
    return y if eqn.primitive.multiple_results else [y]


def _scanned(p: Any, values: list[Any]) -> list[Any]:
    body, length = p["jaxpr"], p["length"]
    if "num_consts" in p:
        consts, carried = p["num_consts"], p["num_carry"]
    else:  # from jax 0.11 on
        consts, carried = (len(part) for part in p["ft_in"].unpack()[:2])
    fixed, state, rows = values[:consts], values[consts : consts + carried], values[consts + carried :]
    stacks: list[Any] = [None] * length
    for i in reversed(range(length)) if p["reverse"] else range(length):
        results = _run(body.jaxpr, body.consts, [*fixed, *state, *(row[i] for row in rows)])
        state, stacks[i] = results[:carried], results[carried:]
    return [*state, *(jnp.stack(each) for each in zip(*stacks, strict=True))]
