"""Networks on the way from plain to alias-free: what they are at both ends, and between."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from aliasfree_jax import create_model
from aliasfree_jax.checkpoint import abstract_variables, named_leaves
from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers import batching
from aliasfree_jax.ops.choices import CHOICES

# LLVM's optimisation takes half of the compilation time and changes no result beyond rounding.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Rounding through some ten layers, relative to the largest logit.
EXACT, SINGLE = 1e-12, 1e-5
MICRO = {"depths": (1, 1), "widths": (4, 8), "num_classes": 10}
SMALL = {"depths": (1, 1, 1, 1), "widths": (8, 16, 16, 16), "num_classes": 10}


def blending(name: str, start: str, share: float = 0.5, **options):
    return create_model(name, blend={"start": start, "share": share}, **options)


def restricted(variables, network, images):
    """Those of `variables` that `network` has."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images))
    leaves = named_leaves(variables)
    return jax.tree.unflatten(jax.tree.structure(shapes), [leaves[name] for name in named_leaves(shapes)])


def check_ends(end: str, start: str, side: int, options, draw, randomised, tolerance: float) -> None:
    network, other = create_model(end, **options), create_model(start, **options)
    between = blending(end, start.rpartition("_")[0], **options)
    images = draw(2, side, side, 3)
    variables = randomised(network, *images.shape)
    assert jax.tree.structure(variables) == jax.tree.structure(randomised(between, *images.shape))
    compute = jit(lambda v, x, share: between.apply(v, x, share=share))
    expected = jit(other.apply)(restricted(variables, other, images), images)
    scale = np.abs(expected).max()
    assert np.abs(compute(variables, images, 0.0) - expected).max() < tolerance * scale
    expected = jit(network.apply)(variables, images)
    assert np.abs(compute(variables, images, 1.0) - expected).max() < tolerance * np.abs(expected).max()
    # The share of the options is what holds without another, and none of the ends.
    half = compute(variables, images, 0.5)
    np.testing.assert_allclose(half, jit(between.apply)(variables, images), rtol=0, atol=tolerance * scale)
    assert np.abs(half - expected).max() > 1e-3 * scale


@pytest.mark.parametrize(
    ("end", "start", "side", "options"),
    [
        pytest.param("convnext_afc_tiny", "convnext_tiny", 96, SMALL, marks=pytest.mark.slow),
        ("convnext_afc_micro", "convnext_micro", 32, MICRO),
        pytest.param("convnext_afc_cifar", "convnext_circular_cifar", 32, MICRO, marks=pytest.mark.slow),
        pytest.param("convnext_aps_micro", "convnext_micro", 32, MICRO, marks=pytest.mark.slow),
    ],
)
def test_both_ends_in_float64(end, start, side, options, draw, randomised, x64):
    check_ends(end, start, side, options, draw, randomised, EXACT)


@pytest.mark.slow
def test_both_ends_in_float32(draw, randomised):
    check_ends("convnext_afc_micro", "convnext_micro", 32, MICRO, draw, randomised, SINGLE)


@pytest.mark.parametrize("remat", ["auto", "block"])
@pytest.mark.slow
def test_pieces_and_recomputation_change_nothing(remat, draw, randomised, x64, monkeypatch):
    images = draw(4, 32, 32, 3)
    whole = blending("convnext_afc_micro", "convnext", remat="none", **MICRO)
    variables = randomised(whole, *images.shape)
    value_and_grad = jax.value_and_grad(lambda v, net: (net.apply(v, images, share=0.3) ** 2).sum())
    expected = jit(functools.partial(value_and_grad, net=whole))(variables)
    monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=1))
    monkeypatch.setattr(batching.jax, "device_count", lambda: 1)
    cut = blending("convnext_afc_micro", "convnext", remat=remat, **MICRO)
    found = jit(functools.partial(value_and_grad, net=cut))(variables)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_exact_at_the_end_and_not_before(draw, randomised, x64):
    network = blending("convnext_afc_micro", "convnext", **MICRO)
    image = np.asarray(draw(1, 32, 32, 3))
    variables = randomised(network, *image.shape)
    images = np.concatenate([image, np.roll(image, (3, -5), (1, 2))])

    compute = jit(lambda share: network.apply(variables, images, share=share))

    def change(share: float) -> float:
        logits = np.asarray(compute(share))
        return float(np.abs(logits[1] - logits[0]).max() / np.abs(logits[0]).max())

    assert change(1.0) < EXACT
    assert min(change(share) for share in (0.0, 0.5, 0.99)) > 1e-5  # the aliases of 1 % plain layers


@pytest.mark.parametrize(
    ("blend", "message"),
    [
        ({"start": "convnxt", "share": 0.5}, "family of ConvNeXts to blend from.*convnext"),
        ({"start": "convnext", "share": 1.5}, r"expected blend=\{.*share.*\}, got"),
        ({"start": "convnext"}, r"expected blend=\{.*share.*\}, got"),
        ("convnext", r"expected blend=\{.*share.*\}, got 'convnext'"),
    ],
)
def test_wrong_blends_are_named(blend, message):
    with pytest.raises(ConfigError, match=message):
        create_model("convnext_afc_micro", blend=blend)


def test_a_gated_network_cannot_be_blended_into():
    with pytest.raises(ConfigError, match="a gated network's MLPs .* blend into a convnext_afc"):
        create_model("convnext_afg_micro", blend={"start": "convnext", "share": 0.5})


def test_full_windows_of_another_stride_do_not_fit():
    """Windows of 4 pixels every 2, without padding, give 15 of 32 pixels; the alias-free stem gives 16."""
    with pytest.raises(
        ShapeError, match=r"'stem' blends maps of \(15, 15\) and \(16, 16\).*convnext_circular"
    ):
        abstract_variables(blending("convnext_afc_cifar", "convnext"), 32, 3)
