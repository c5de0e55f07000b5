"""With sampler "subsample" and the program's padding, the transformed function returns identical bits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import clipped_gradient, one_by_one, program, straight_through_sign

from aliasfree_jax.models import create_model
from aliasfree_jax.ops import choices
from aliasfree_jax.transform import shift_invariant

identity = {"sampler": "subsample", "padding": None}


def same_bits(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def with_gradient(f):
    """The results of a function of one array, and the gradient of a sum of them."""

    def both(x):
        def total(x):
            y = f(x)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y)), y

        gradient, y = jax.grad(total, has_aux=True)(x)
        return gradient, y

    return both


# Without optimisation, because fusion changes the last bits.
UNOPTIMISED = {"xla_backend_optimization_level": 0}


def differ(f, g, x) -> bool:
    """Whether the results of two functions differ in any bit.

    One compiled program is fast, but some fusions differ. Then each operation is compiled separately.
    """
    if same_bits(*jax.jit(lambda x: (f(x), g(x)), compiler_options=UNOPTIMISED)(x)):
        return False
    return not same_bits(*(one_by_one(jax.make_jaxpr(h)(x), *jax.tree.leaves(x)) for h in (f, g)))


def close(a: Any, b: Any) -> bool:
    """Whether two gradients are equal, up to the order of summation.

    Gradients from inside a `jit` are summed first, and the transformation removes such calls. The gradient of
    a norm over a single value is 0 plus rounding.
    """
    return np.allclose(a, b, rtol=0, atol=2e-6 * max(np.abs(a).max(), 0.1), equal_nan=True)


def gradients_differ(f, g, x) -> bool:
    """Like `differ`, for gradients. They may differ where the function jumps, because of rounding."""
    f, g = with_gradient(f), with_gradient(g)
    if close(*jax.jit(lambda x: (f(x)[0], g(x)[0]), compiler_options=UNOPTIMISED)(x)):
        return False
    return not close(*(one_by_one(jax.make_jaxpr(h)(x), x)[0] for h in (f, g)))


def generated_differ(seed: int) -> bool:
    """Whether a generated program and its transformation differ. Gradients are compared for every fifth."""
    f, images = program(seed)
    g = shift_invariant(f, **identity)
    if seed % 5 == 0 and "while[" not in str(jax.make_jaxpr(f)(images)):  # a while loop has no gradient
        return differ(f, g, images) or gradients_differ(f, g, images)
    return differ(f, g, images)


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_generated_programs_compute_the_same_bits(first):
    assert not [seed for seed in range(first, first + 20) if generated_differ(seed)]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(40, 300, 20))
def test_more_generated_programs(first):
    assert not [seed for seed in range(first, first + 20) if generated_differ(seed)]


def test_the_comparison_can_fail(draw):
    f, images = program(1)
    assert not differ(f, f, images)
    assert differ(f, shift_invariant(lambda x: f(x * (1 + 2e-7)), **identity), images)
    kernel, x = draw(3, 3, 1, 1), jnp.ones((1, 5, 5, 1))

    def padded(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert differ(padded, shift_invariant(padded, sampler="subsample"), x)


RESNET = {"depths": (1, 1), "widths": (8, 16)}
# On the CPU, stride 2 uses special methods: depthwise sums, patches, batches in pieces.
NETWORKS = {
    "resnet20_cifar": RESNET,
    "resnet18": RESNET,
    "resnet18_aps": RESNET,
    "densenet121": {"depths": (1,), "growth": 4, "width": 8, "dropout_rate": 0.5},
    "mobilenet_v2": {"width_mult": 0.5},
    "convnext_micro": {**RESNET, "drop_path_rate": 0.5},
    "convnext_afc_micro": {**RESNET, "remat": "block"},
    "convnext_afg_micro": RESNET,
}
FAST = ("resnet20_cifar", "convnext_afc_micro")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_networks_train_on_the_same_bits(name, randomised, draw, monkeypatch):
    row = dataclasses.replace(choices.CHOICES["cpu"], working_set=50_000)  # a batch in pieces
    monkeypatch.setitem(choices.CHOICES, "cpu", row)
    monkeypatch.setattr("aliasfree_jax.models.mobilenet.STAGES", ((1, 16, 1, 1), (6, 24, 2, 2)))
    network = create_model(name, num_classes=5, **NETWORKS[name])
    variables = randomised(network, 1, 32, 32, 3)
    parameters, statistics = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def forward(parameters, images, key):
        keys = dict(zip(("dropout", "drop_path"), jax.random.split(key), strict=True))
        given = {"params": parameters, **statistics}
        return network.apply(given, images, train=True, rngs=keys, mutable=["batch_stats"])

    def step(forward):
        def loss(parameters, images, key):
            logits, changed = forward(parameters, images, key)
            return jnp.sum(jnp.sin(logits)), (logits, changed)

        return lambda given: jax.grad(loss, argnums=(0, 1), has_aux=True)(*given)

    given = parameters, draw(4, 32, 32, 3), jax.random.key(0)
    plain, transformed = step(forward), step(shift_invariant(forward, argnums=1, **identity))
    if name == "resnet18_aps":
        assert not differ(lambda x: plain(x)[1], lambda x: transformed(x)[1], given)
        gradients = jax.jit(lambda x: (plain(x)[0], transformed(x)[0]))(given)
        assert all(map(close, *map(jax.tree.leaves, gradients)))
    else:
        assert not differ(plain, transformed, given)


@pytest.mark.parametrize("rule", [straight_through_sign, clipped_gradient], ids=["custom_jvp", "custom_vjp"])
def test_gradients_of_their_own_are_kept(rule, draw):
    kernel, x = draw(3, 3, 2, 2), draw(2, 6, 6, 2)
    numbers = ("NHWC", "HWIO", "NHWC")

    def f(x):
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)
        return rule(y) * y

    got, want = (jax.jit(with_gradient(h))(x) for h in (shift_invariant(f, **identity), f))
    assert same_bits(got, want)
    assert not np.array_equal(want[0], with_gradient(lambda x: f(x) * 0)(x)[0])


def test_every_second_of_a_single_row_is_it(draw):
    x = draw(2, 1, 4, 3)
    assert not differ(lambda x: x[:, ::2, ::2], shift_invariant(lambda x: x[:, ::2, ::2], **identity), x)
