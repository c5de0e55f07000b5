"""A blend of two layers: linear in its share, with shared parameters, and either layer at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.checkpoint import leaf_shapes
from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers import Factory
from aliasfree_jax.layers.activation import Gelu, LowpassPolynomial, UpPolynomial
from aliasfree_jax.layers.blend import Blend, blend
from aliasfree_jax.layers.convolution import DepthwiseConv
from aliasfree_jax.layers.normalization import BatchNorm, ChannelNorm, SpatialNorm
from aliasfree_jax.layers.sampled import ActivatedStem, SampledConv
from aliasfree_jax.layers.sampling import IdealDownsample, Subsample

SHAPE = {"features": 6, "kernel_size": 4, "strides": 4, "kernel_init": jax.nn.initializers.normal(0.5)}
PLAIN = Factory(SampledConv, **SHAPE, sampler=Subsample, padding="VALID")
STEM = Factory(ActivatedStem, **SHAPE, sampler=IdealDownsample, activation=LowpassPolynomial, residual=True)
PAIRS = {
    "activation": (Gelu, Factory(UpPolynomial, train_scale=True)),
    "norm": (ChannelNorm, SpatialNorm),
    "padding": (Factory(DepthwiseConv, padding="ZERO"), Factory(DepthwiseConv, padding="CIRCULAR")),
    "stem": (PLAIN, STEM),
}


def moved(variables):
    """The variables off their initial zeros and ones."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: a + jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype), variables)


@pytest.mark.parametrize("kind", PAIRS)
def test_linear_from_one_layer_to_the_other(kind, draw, x64):
    start, end = PAIRS[kind]
    x = draw(2, 8, 12, 6)
    variables = moved(Blend(start, end, 0.5).init(jax.random.key(0), x))
    assert leaf_shapes(variables) == leaf_shapes(end().init(jax.random.key(0), x))

    own = {
        name: leaf for name, leaf in variables.get("params", {}).items() if name not in ("gain", "activation")
    }
    first = start().apply({} if kind == "activation" else {"params": own}, x)
    last = end().apply(variables, x)
    assert np.abs(first - last).max() > 0.1
    compute = jax.jit(lambda share: Blend(start, end, share).apply(variables, x))
    for share in (0.0, 0.25, 1.0):
        blended = compute(share)
        # Rounding of float64 sums of some hundred terms.
        np.testing.assert_allclose(blended, (1 - share) * first + share * last, rtol=1e-12, atol=1e-12)


def test_gradients_reach_both_layers(draw, x64):
    x = draw(2, 8, 8, 6)
    variables = moved(Blend(*PAIRS["stem"], 0.5).init(jax.random.key(0), x))

    def gradients(share):
        def loss(params):
            return jnp.sum(Blend(*PAIRS["stem"], share).apply({"params": params}, x) ** 2)

        return jax.grad(loss)(variables["params"])

    start, half = gradients(0.0), gradients(0.5)
    assert np.abs(start["conv"]["kernel"]).max() > 0 and not np.any(start["activation"]["coefficients"])
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(half))


def test_windows_of_both_layers_lie_at_the_same_place(draw, x64):
    """A padded convolution reads windows that begin before the map; with `lead` they are the other's."""
    x = draw(1, 16, 16, 3)
    padded = Factory(SampledConv, **SHAPE, sampler=Subsample)
    variables = PLAIN().init(jax.random.key(0), x)
    apart = [Blend(PLAIN, padded, share, lead) for share, lead in ((1.0, 1), (1.0, 0))]
    together, off = (layer.apply(variables, x) for layer in apart)
    expected = PLAIN().apply(variables, x)
    np.testing.assert_allclose(together, expected, atol=1e-12)
    assert np.abs(off - expected).max() > 0.1


def test_statistics_and_formats_are_those_of_the_layers(draw):
    x = draw(4, 6, 6, 3).astype(jnp.bfloat16)
    layer = Blend(BatchNorm, SpatialNorm, 0.3, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    y, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert np.abs(updated["batch_stats"]["norm"]["mean"]).max() > 0


def test_a_layer_with_itself_is_the_layer():
    first, second = (Factory(DepthwiseConv, padding="ZERO") for _ in range(2))
    assert blend(first, second, 0.5) is second
    assert blend(*PAIRS["padding"], 0.5).module is Blend
    nested = [Factory(SampledConv, sampler=Factory(IdealDownsample, any_size=a)) for a in (0, 0, 1)]
    assert nested[0] == nested[1] != nested[2]


def test_maps_of_two_sizes_cannot_be_blended(draw):
    padded = Factory(SampledConv, **SHAPE, sampler=Subsample)
    with pytest.raises(
        ShapeError, match=r"blends maps of \(2, 4\) and \(3, 4\): image sides must be multiples"
    ):
        Blend(PLAIN, padded, 0.5).init(jax.random.key(0), draw(1, 10, 16, 3))
