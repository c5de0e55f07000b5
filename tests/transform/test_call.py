"""Arguments of `shift_invariant`: what it accepts and refuses, and its error messages."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aliasfree_jax import Oversample, layers, shift_invariant
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.transform import StatefulError, TransformError

IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3)), jnp.float32)
MOVED = jnp.roll(IMAGES, (1, 3), (1, 2))


class Network(nn.Module):
    """A network with a strided convolution, and dropout in training."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(5)(x.mean((1, 2)))


MODULE = Network()
VARIABLES = jax.jit(lambda: MODULE.init(jax.random.key(0), IMAGES, train=False))()


@pytest.mark.parametrize(
    "sampler",
    [
        "polyphase",
        {"name": "polyphase", "criterion": "l1"},
        {"name": "polyphase", "criterion": "l_infty"},
        {"name": "polyphase", "inner": "blur"},
        layers.AdaptivePolyphase,
        layers.AdaptivePolyphase(criterion="l1_min"),
        layers.Factory(layers.AdaptivePolyphase, tie_order="rows"),
    ],
    ids=str,
)
def test_every_way_to_name_an_exact_sampler(sampler):
    f = shift_invariant(MODULE.apply, sampler=sampler, argnums=1)
    here, there = (f(VARIABLES, x, train=False) for x in (IMAGES, MOVED))
    # The same sums in another order: float32 rounding.
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [
        "subsample",
        "blur",
        {"name": "blur", "kernel_size": 5, "padding": "REFLECT"},
        "ideal",
        {"name": "ideal", "any_size": True},
        "norm_preserving",
        {"name": "norm_preserving", "inner": "ideal"},
    ],
    ids=str,
)
def test_every_sampler_without_parameters(sampler):
    f = shift_invariant(MODULE.apply, sampler=sampler, argnums=1)
    logits = jax.jit(f, static_argnames="train")(VARIABLES, IMAGES, train=False)
    assert logits.shape == (2, 5) and np.isfinite(logits).all()


@pytest.mark.parametrize("sampler", ["learned_polyphase", "adaptive_blur"])
def test_samplers_with_parameters_are_refused(sampler):
    with pytest.raises(ConfigError, match="has parameters.*create_model"):
        shift_invariant(MODULE.apply, sampler=sampler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "polyfase"}, "unknown sampler 'polyfase'.*polyphase"),
        ({"padding": "zero"}, "unknown padding 'zero'.*None keeps"),
        ({"activations": "polynomal"}, r'"polynomial" or Oversample\(k\)'),
        ({"argnums": 3}, "argnums=3 is out of range: there are 2 .*Pass the images by position"),
        ({"argnums": 1, "spatial_axes": (3, 4)}, r"spatial_axes=\(3, 4\) .*\[2, 8, 8, 3\]"),
        ({"argnums": 1, "spatial_axes": (2, -2)}, "are not two axes of the images"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refusals_of_the_call(options, message):
    with pytest.raises(ConfigError, match=message):
        shift_invariant(MODULE.apply, **options)(VARIABLES, IMAGES, train=False)


def test_argnums_that_names_no_images():
    with pytest.raises(ConfigError, match="contains no array"):
        shift_invariant(lambda flag, x: x.sum())(True, IMAGES)
    with pytest.raises(ConfigError, match="expected a function"):
        shift_invariant(MODULE)


def test_a_factor_below_one():
    with pytest.raises(ConfigError, match="at least 1"):
        Oversample(0)


def test_several_images_in_any_tree():
    def f(weight, pair):
        rows = pair["left"][:, ::2, ::2] + pair["right"][:, ::2, ::2]
        return weight * rows.mean((1, 2))

    g = shift_invariant(f, argnums=(1,))
    here = g(2.0, {"left": IMAGES, "right": 3 * IMAGES})
    np.testing.assert_allclose(g(2.0, {"left": MOVED, "right": 3 * MOVED}), here, rtol=1e-6)
    assert (
        np.abs(f(2.0, {"left": MOVED, "right": IMAGES}) - f(2.0, {"left": IMAGES, "right": IMAGES})).max()
        > 0.01
    )


def test_arguments_without_arrays_stay():
    f = shift_invariant(MODULE.apply, argnums=1)
    rngs = {"dropout": jax.random.key(1)}
    evaluated, trained = f(VARIABLES, IMAGES, train=False), f(VARIABLES, IMAGES, rngs=rngs)
    assert np.abs(evaluated - trained).max() > 1e-3
    assert f.__name__ == "apply"


def test_a_module_that_changes_its_state():
    module = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

    def f(x):
        return module(x)[:, ::2, ::2].mean((1, 2))

    with pytest.raises(StatefulError, match=r"nnx\.split"):
        shift_invariant(f)(IMAGES)
    definition, state = nnx.split(module)

    def pure(state, x):
        merged = nnx.merge(definition, state)
        return merged(x)[:, ::2, ::2].mean((1, 2)), nnx.state(merged)

    logits, new = shift_invariant(pure, argnums=1)(state, IMAGES)
    assert logits.shape == (2, 3) and jax.tree.structure(new) == jax.tree.structure(state)
    assert np.abs(new["mean"][...] - state["mean"][...]).max() > 0


def test_the_identity_and_a_result_that_is_a_map():
    np.testing.assert_array_equal(shift_invariant(lambda x: x)(IMAGES), IMAGES)
    coarse = shift_invariant(lambda x: x[:, ::2, ::2])
    here, there = coarse(IMAGES), coarse(MOVED)
    assert here.shape == (2, 4, 4, 3)
    assert all(
        any((jnp.roll(a, shift, (0, 1)) == b).all() for shift in np.ndindex(4, 4))
        for a, b in zip(here, there, strict=True)
    )


def test_a_result_of_another_shape():
    """If windows leave the border out, the circular map has more positions than the program's."""

    def f(x):
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "VALID")

    with pytest.raises(TransformError, match="6 x 6.*8 x 8"):
        shift_invariant(f)(IMAGES)
