"""XCiT: which shifts change the logits of which family, sizes, pooling, options and errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aliasfree_jax
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.models import create_model, list_models
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift
from configs.cifar10_xcit import FINER_STEM

# float64 rounding in about 20 layers; 1e-15 was measured.
EXACT = 1e-12
# Aliases of a random image. GELU on the double grid leaves the smallest ones, about 1e-3.
BROKEN = 1e-5
WHOLE = [(1.0, 0.0), (-3.0, 5.0), (16.0, 31.0)]
FRACTIONS = [(0.5, 0.5), (1 / 3, 2 / 3), (0.137, 7.77)]
SMALL = {"width": 16, "depth": 2, "num_heads": 2, "num_classes": 10}


def changes(name: str, side: int, draw, randomised, **options) -> np.ndarray:
    """The largest change of a logit for each shift, relative to the largest logit."""
    network = create_model(name, **{**SMALL, **options})
    variables = randomised(network, 1, side, side, 3)
    image = remove_nyquist(draw(1, side, side, 3))
    images = jnp.concatenate([image, *(fractional_shift(image, shift) for shift in WHOLE + FRACTIONS)])
    logits = np.asarray(jax.jit(network.apply)(variables, images))
    return np.abs(logits[1:] - logits[0]).max(1) / np.abs(logits[0]).max()


@pytest.mark.parametrize(
    ("name", "side"),
    [("micro", 32), ("nano_12_p8", 64), pytest.param("nano_12_p16", 96, marks=pytest.mark.slow)],
)
def test_the_gated_network_is_exact_for_every_shift(name, side, draw, randomised, x64):
    assert changes(f"xcit_afg_{name}", side, draw, randomised).max() < EXACT


@pytest.mark.parametrize(
    "options",
    [
        {"class_attention": None},
        {"patch_stem": "sampled"},
        {"patch_stem": "activated", "stem_activation": "bandlimited_gate", "stem_last_activation": None},
        FINER_STEM,
    ],
)
def test_other_exact_parts(options, draw, randomised, x64):
    assert changes("xcit_afg_micro", 32, draw, randomised, **options).max() < EXACT


@pytest.mark.parametrize(
    "parts", [{"norm": "channel"}, {"class_attention": "class"}, {"positions": "fourier"}]
)
def test_each_part_of_the_gated_network_is_needed(parts, draw, randomised, x64):
    assert changes("xcit_afg_micro", 32, draw, randomised, **parts).max() > BROKEN


def test_polyphase_sampling_is_exact_for_whole_pixels_only(draw, randomised, x64):
    found = changes("xcit_aps_micro", 32, draw, randomised)
    assert found[: len(WHOLE)].max() < EXACT < BROKEN < found[len(WHOLE) :].min()


@pytest.mark.parametrize("family", ["xcit", "xcit_circular", "xcit_aft"])
def test_the_others_are_not_exact(family, draw, randomised, x64):
    # Without the shift by (16, 31), which is 16 and almost the whole image.
    assert np.delete(changes(f"{family}_micro", 32, draw, randomised), 2).min() > BROKEN


def test_the_published_network_is_exact_for_multiples_of_eight(draw, randomised, x64):
    network = create_model("xcit_aft_nano_12_p16", **SMALL)
    variables, image = randomised(network, 1, 64, 64, 3), remove_nyquist(draw(1, 64, 64, 3))
    images = jnp.concatenate([image, *(jnp.roll(image, shift, (1, 2)) for shift in ((8, 16), (4, 0)))])
    logits = np.asarray(jax.jit(network.apply)(variables, images))
    assert np.abs(logits[1] - logits[0]).max() < EXACT * np.abs(logits[0]).max()
    assert np.abs(logits[2] - logits[0]).max() > BROKEN * np.abs(logits[0]).max()


@pytest.mark.parametrize(
    ("family", "whole", "fractions"),
    [("xcit_afg", 0, 0), ("xcit_aps", 0, 1), ("xcit_aft", 1, 1), ("xcit_circular", 1, 1)],
)
def test_the_checker_finds_what_is_not_exact(family, whole, fractions):
    network, images = create_model(f"{family}_micro", **SMALL), jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    for shifts, some in (("whole pixels", whole), ("fractions", fractions)):
        findings = aliasfree_jax.check(network.apply, variables, images, shifts=shifts, argnums=1)
        assert bool(findings) == bool(some), findings


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Facebook's figures: 3.1 M, 6.7 M, 12.1 M, 26.3 M, 47.7 M, 84.4 M and 189.1 M.
    [
        ("nano_12_p16", 3.1),
        ("tiny_12_p16", 6.7),
        ("tiny_24_p16", 12.1),
        ("small_12_p16", 26.3),
        ("small_24_p16", 47.7),
        ("medium_24_p16", 84.4),
        ("large_24_p16", 189.1),
    ],
)
def test_the_sizes_are_those_of_the_paper(name, parameters):
    network = create_model(f"xcit_{name}")
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    assert round(count / 1e6, 1) == parameters


def test_every_family_in_every_size():
    families = ("xcit", "xcit_circular", "xcit_aps", "xcit_aft", "xcit_afg")
    sizes = [name.removeprefix("xcit_afg_") for name in list_models("xcit_afg_*")]
    assert len(sizes) == 16
    assert set(list_models("xcit*")) == {f"{family}_{size}" for family in families for size in sizes}
    assert create_model("xcit_nano_12_p8").normed_tokens == "class"
    assert create_model("xcit_aft_nano_12_p8").normed_tokens == "all"


def test_pooling():
    image = jnp.zeros((1, 16, 16, 3))
    for options, shape in [
        ({"num_classes": 0}, (1, 16)),
        ({"num_classes": 0, "global_pool": ""}, (1, 4, 4, 16)),
        ({"class_attention": None, "global_pool": "max"}, (1, 10)),
    ]:
        network = create_model("xcit_micro", **{**SMALL, **options})
        variables = jax.eval_shape(network.init, jax.random.key(0), image)
        assert jax.eval_shape(network.apply, variables, image).shape == shape
        assert ("class_token" in variables["params"]) == (len(shape) == 2 and shape[1] == 16)


def test_remat_and_the_order_of_the_mlp_change_nothing(draw, randomised, x64):
    image, results = draw(2, 16, 16, 3), []
    for options in ({}, {"remat": "block"}, {"mlp_grid": "fine"}, {"mlp_grid": "coarse"}):
        network = create_model("xcit_afg_micro", **{**SMALL, "depth": 1}, **options)
        variables = randomised(network, 1, 16, 16, 3)
        gradient = jax.grad(lambda x, variables, of=network: of.apply(variables, x).sum())
        results.append(jax.jit(gradient)(image, variables))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_pool": "max"}, "needs class_attention=None"),
        ({"mlp_ratio": 0}, "mlp_ratio must be positive, got 0"),
        ({"class_attention": "cros"}, "unknown class_attention 'cros'. Known: class, cross_covariance"),
        ({"patch_stem": {"name": "sampled", "width": 3}}, "unknown option of patch_stem 'sampled' 'width'"),
        ({"normed_tokens": "al"}, "unknown normed_tokens 'al'. Did you mean 'all'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("xcit_micro", **options)
