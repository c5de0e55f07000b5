"""ResNets under shifts, before any training: exactness and what breaks it. Names of all networks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.models import alexnet_vgg, create_model, list_models
from aliasfree_jax.ops.pooling import adaptive_average_pool
from aliasfree_jax.ops.shift import fractional_shift

# float64 rounding in up to 20 layers, relative to the largest logit.
EXACT = 1e-12
SLOW = {
    "resnet20_cifar_lps",
    "resnet18_aps",
    "resnet18_lps",
    "resnet18_circular",
    "resnet18_blur",
    "resnet18_afc",
    "resnet18_afg",
} | {
    "criterion l2_min",
    "bottleneck",
    "raw",
    "sampler after the convolution",
}
NARROW = {"num_classes": 5, "depths": (1, 1, 1, 1), "widths": (8, 16, 16, 16)}


def some_slow(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


def variables_of(module, side, draw):
    """Returns random variables, with batch statistics as after some training."""
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float64)
    shapes = jax.eval_shape(lambda x: module.init({"params": jax.random.key(0)}, x), images)

    def fill(path, leaf):
        name, value = path[-1].key, draw(*leaf.shape, seed=len(jax.tree_util.keystr(path)))
        if name == "kernel":
            return value / np.sqrt(np.prod(leaf.shape[:-1]))
        if name == "coefficients":
            return jnp.broadcast_to(jnp.array([0.02, 0.5, 0.3]), leaf.shape)
        return 0.7 + 0.1 * value if name in ("scale", "var") else 0.1 * value

    return jax.tree_util.tree_map_with_path(fill, shapes)


def changes(module, side, shifts, draw):
    """Returns the largest change of a logit for each shift, relative to the largest logit."""
    variables, x = variables_of(module, side, draw), np.asarray(draw(1, side, side, 3))
    apply = jax.jit(module.apply)
    whole = all(float(pixels).is_integer() for shift in shifts for pixels in shift)
    moved = [
        np.roll(x, shift, (1, 2)) if whole else fractional_shift(jnp.asarray(x), shift) for shift in shifts
    ]
    parts = np.split(np.concatenate(moved), max(1, len(shifts) // 64))
    logits = np.concatenate([apply(variables, part) for part in parts])
    # A batch of the same size needs no second compilation, which would take most of the time.
    expected = np.asarray(apply(variables, np.repeat(x, len(parts[0]), axis=0)))[:1]
    return np.abs(logits - expected).max(axis=1) / np.abs(expected).max()


EVERY_SHIFT = list(itertools.product(range(32), range(32)))
ALONG_LINES = [(i, 0) for i in range(32)] + [(0, i) for i in range(32)] + [(i, -5 * i) for i in range(32)]
SOME_SHIFTS = [(1, 0), (0, 1), (3, 30), (17, 8)]
LPS = {"name": "learned_polyphase", "logits": {"name": "conv", "width_ratio": 0.25}}
SMALL = {"num_classes": 5, "depths": (1, 1, 1), "widths": (4, 8, 8)}
INTEGER = {
    "resnet20_cifar_aps": (SMALL, EVERY_SHIFT),
    "resnet20_cifar_lps": (SMALL, ALONG_LINES),
    "resnet18_aps": ({**NARROW, "filter_size": 3}, ALONG_LINES),
    "resnet18_lps": ({**NARROW, "sampler": LPS}, ALONG_LINES),
}


@pytest.mark.parametrize("name", some_slow(INTEGER))
def test_unchanged_by_integer_shifts(name, draw, x64):
    options, shifts = INTEGER[name]
    assert changes(create_model(name, **options), 32, shifts, draw).max() < EXACT


MORE = {
    **{f"criterion {c}": {"sampler": {"name": "polyphase", "criterion": c}} for c in ("l1", "l2_min")},
    "largest value": {"stem": "small", "sampler": {"name": "polyphase", "criterion": "l_infty"}},
    "bottleneck": {"block": "bottleneck", "sampler": "polyphase"},
    "ResNeXt": {"block": "bottleneck", "groups": 4, "group_width": 16, "sampler": "polyphase"},
    "sampler after the convolution": {"sampler": LPS, "sampler_position": "after"},
    "zero-padded shortcut": {"shortcut": "zero_padded", "sampler": "polyphase"},
    "plain shortcut": {"shortcut_sampler": "subsample", "sampler": "polyphase"},
    "sampler before the block": {"block": "bottleneck", "sampler_position": "first", "sampler": "polyphase"},
    "deep stem": {
        "stem": {"name": "deep", "hidden_widths": [4, 4], "pool_padding": "CIRCULAR"},
        "stem_width": 12,
    },
    "DDAC": {"sampler": {"name": "polyphase", "inner": {"name": "adaptive_blur", "groups": 2}}},
    "raw": {"sampler": {"name": "polyphase", "select_on": "raw", "inner": "blur"}},
}


@pytest.mark.parametrize("name", some_slow(MORE))
def test_other_choices_are_exact_too(name, draw, x64):
    assert changes(create_model("resnet18_aps", **NARROW, **MORE[name]), 32, SOME_SHIFTS, draw).max() < EXACT


def test_a_mixture_of_components_and_ties_are_not_exact(draw, x64):
    convex = {"sampler": {**LPS, "evaluation": "convex"}}
    # After the stem's max pool each component contains the largest value.
    ties = {"sampler": {"name": "polyphase", "criterion": "l_infty"}}
    for options in (convex, ties):
        assert changes(create_model("resnet18_aps", **NARROW, **options), 32, SOME_SHIFTS, draw).max() > 1e-4


@pytest.mark.parametrize(
    "name", some_slow(["resnet18_circular", "resnet18_circular_blur", "resnet18_blur", "resnet18"])
)
def test_networks_that_choose_nothing_change(name, draw, x64):
    side = 96 if name == "resnet18_blur" else 32  # reflection needs maps of at least 3 x 3
    assert changes(create_model(name, **NARROW), side, SOME_SHIFTS, draw)[:2].min() > 1e-4


def test_blurring_helps_but_is_not_exact(draw, x64):
    plain, blurred = (
        changes(create_model(name, **NARROW), 64, EVERY_SHIFT[1:64:9], draw).mean()
        for name in ("resnet18_circular", "resnet18_circular_blur")
    )
    assert 1e-4 < blurred < 0.8 * plain


def test_odd_maps_are_not_exact(draw, x64):
    """At 48 pixels the last sampled map is 3 x 3. 112 and 72 pixels fail, too."""
    with pytest.warns(UserWarning, match="3 x 3 is sampled by 2"):
        assert changes(create_model("resnet18_aps", **NARROW), 48, SOME_SHIFTS, draw).max() > 1e-4


@pytest.mark.parametrize(
    "name",
    some_slow([f"{size}_{variant}" for size in ("resnet18", "resnet20_cifar") for variant in ("afc", "afg")]),
)
def test_alias_free_resnets_are_unchanged_by_fractions_of_a_pixel(name, draw, x64):
    options = NARROW if name.startswith("resnet18") else SMALL
    shifts = [(0.5, 0.0), (0.25, 1 / 3), (7.1, 3.9), (5.0, 2.0)]
    assert changes(create_model(name, **options), 64, shifts, draw).max() < EXACT
    adaptive = create_model(f"{name[:-4]}_aps", **options)
    assert changes(adaptive, 64, shifts[:1], draw).max() > 1e-4


def test_alias_free_resnets_stay_bounded_before_training(draw):
    """Values that no norm bounds must not be squared: the network would not train."""

    def largest(**options) -> float:
        network = create_model("resnet20_cifar_afc", num_classes=10, **options)

        @jax.jit
        def features(images):
            variables = network.init(jax.random.key(0), images)
            _, sown = network.apply(variables, images, train=True, mutable=["batch_stats", "intermediates"])
            return sown["intermediates"]["features"][0]

        return float(jnp.abs(features(draw(4, 32, 32, 3))).max())

    # Each of nine blocks adds values of order 1. 27 was measured, and 2e6 with a polynomial of the sum.
    assert largest() < 100 < 1e4 < largest(sum_activation="up_polynomial")


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("resnet20_cifar", {"conv1": (3, 3, 16, 2 * 8), "conv2": (3, 3, 8, 16)}),
        ("resnet50", {"conv1": (1, 1, 64, 80), "conv2": (3, 3, 40, 80), "conv3": (1, 1, 40, 256)}),
        ("resnext50_32x4d", {"conv1": (1, 1, 64, 192), "conv2": (3, 3, 3, 192), "conv3": (1, 1, 96, 256)}),
    ],
)
def test_gates_keep_the_number_of_weights(name, kernels):
    """2/3 of the channels after each gate, rounded to multiples of 8 and of the groups."""

    def params(variant):
        network = create_model(f"{name}_{variant}")
        return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]

    gated, usual = params("afg"), params("afc")
    block = gated["stage0_block0"]
    assert {conv: block[conv]["kernel"].shape for conv in kernels} == kernels
    assert gated["stem"]["conv"]["kernel"].shape[-1] == 2 * usual["stem"]["conv"]["kernel"].shape[-1]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (gated, usual)]
    assert abs(counts[0] / counts[1] - 1) < 0.07  # because of the rounding


@pytest.mark.slow
def test_a_self_gate_serves_any_network(draw, x64):
    network = create_model("resnet20_cifar_afc", **SMALL, activation="up_self_gate")
    assert changes(network, 64, [(0.5, 0.0), (7.1, 3.9)], draw).max() < EXACT


def test_a_convnext_takes_any_sampler(draw, x64):
    module = create_model("convnext_aps_micro", num_classes=5, depths=(1, 1), sampler=LPS)
    assert changes(module, 32, SOME_SHIFTS, draw).max() < EXACT


def test_a_learned_sampler_trains_with_temperature_and_noise(draw):
    module, x = create_model("resnet20_cifar_lps", **SMALL), draw(2, 32, 32, 3)
    variables = variables_of(module, 32, draw)

    @jax.jit
    def logits(temperature, seed):
        rngs = {"gumbel": jax.random.key(seed)}
        out, _ = module.apply(
            variables, x, train=True, temperature=temperature, rngs=rngs, mutable=["batch_stats"]
        )
        return out

    assert float(jnp.abs(logits(1.0, 0) - logits(1.0, 0)).max()) == 0
    assert float(jnp.abs(logits(1.0, 0) - logits(1.0, 1)).max()) > 1e-4
    assert float(jnp.abs(logits(1.0, 0) - logits(0.1, 0)).max()) > 1e-4


def test_names():
    names = list_models()
    assert len(names) == len(set(names)) and "resnet50_blur" in names and "densenet161" in names
    assert list_models("resnet18_cifar*") == sorted(
        f"resnet18_cifar{family}"
        for family in ("", "_afc", "_afg", "_aps", "_blur", "_circular", "_circular_blur", "_lps")
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet51", {}, "unknown model 'resnet51'. Did you mean 'resnet50'"),
        ("resnet18_aps", {"criterion": "l1"}, "unknown option of resnet18_aps 'criterion'"),
        ("resnet18", {"filter_size": 3}, "filter_size needs a sampler that blurs"),
        ("vgg16_blur", {"pool_only": True}, "unknown option of vgg16_blur 'pool_only'"),
        ("resnet18_cifar_blur", {"pool_only": True}, "pool_only needs an ImageNet stem"),
        ("resnet18", {"block": "bottle"}, "unknown block 'bottle'. Did you mean 'bottleneck'"),
        ("resnet18", {"depths": (1, 1)}, "must have the same length"),
        ("resnet18_aps", {"sampler": {"name": "polyphase", "kernel_size": 3}}, "unknown option of sampler"),
        ("resnet18", {"stem": {"name": "image", "width": 3}}, "unknown option of stem 'image' 'width'"),
        ("resnet18", {"any_size": True}, "any_size=True needs the ideal sampler"),
        ("densenet121", {"precision": "half"}, "unknown precision 'half'"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **options)


def test_plain_networks_do_not_compute_what_they_drop():
    """The convolution before `Subsample` is strided: a quarter of the work."""

    def flops(name, **options):
        module, x = create_model(name, **options), jnp.zeros((1, 64, 64, 3))
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        return jax.jit(module.apply).lower(variables, x).cost_analysis()["flops"]

    assert flops("resnet18") < 0.8 * flops("resnet18", sampler={"name": "blur", "kernel_size": 1})


def test_a_blur_of_one_tap_is_plain_subsampling(draw):
    plain = create_model("resnet18_circular", **NARROW)
    one = create_model("resnet18_circular", **NARROW, sampler={"name": "blur", "kernel_size": 1})
    x, variables = draw(1, 64, 64, 3), variables_of(plain, 64, draw)
    # float32 rounding of sums in a different order, in ten layers.
    logits = (jax.jit(net.apply)(variables, x) for net in (plain, one))
    np.testing.assert_allclose(*logits, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["alexnet", "densenet121_blur", "resnet18_blur", "vgg11"])
def test_images_that_are_too_small_are_refused(name):
    module = create_model(name, num_classes=5)
    with pytest.raises(ShapeError, match="images of 8 x 8 are too small: .* at least 32 pixels"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_vggs_head_in_every_window_of_a_large_map(draw, monkeypatch, pool):
    """For maps up to 7 x 7, the result is that of the pooled head.

    For larger maps, it is the mean or maximum over their windows.
    """
    monkeypatch.setattr(alexnet_vgg, "HIDDEN", 16)
    pooled, windowed = (
        alexnet_vgg.Classifier(0, global_pool=pool, large_maps=large) for large in ("pooled", "windows")
    )
    x = draw(2, 9, 8, 4)
    variables = pooled.init(jax.random.key(0), x, train=False)
    one = x[:, :7, :7]
    np.testing.assert_array_equal(*(m.apply(variables, one, train=False) for m in (pooled, windowed)))
    parts = [
        pooled.apply(variables, x[:, i : i + 7, j : j + 7], train=False) for i in range(3) for j in (0, 1)
    ]
    expected = {"mean": np.mean, "max": np.max}[pool](np.stack(parts), axis=0)
    # float32 rounding of sums of 196 products.
    np.testing.assert_allclose(windowed.apply(variables, x, train=False), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(pooled.apply(variables, x, train=False) - expected).max() > 0.1
    # Smaller maps are enlarged by adaptive averages.
    small, means = x[:, :4], adaptive_average_pool(x[:, :4], (7, 8))
    np.testing.assert_array_equal(*(windowed.apply(variables, y, train=False) for y in (small, means)))


def test_vgg_hands_its_choice_to_the_head():
    assert create_model("vgg11", large_maps="windows") != create_model("vgg11")
    with pytest.raises(ConfigError, match="unknown large_maps 'window'. Did you mean 'windows'"):
        create_model("vgg11", large_maps="window")


def test_stages_are_those_of_the_images():
    """Variables may hold maps of an earlier call, after `mutable=["intermediates"]`."""
    module = create_model("basic", num_classes=3, widths=(4, 4))
    first, second = (jax.random.normal(jax.random.key(seed), (1, 8, 8, 3)) for seed in (0, 1))
    variables = module.init(jax.random.key(0), first)
    _, sown = module.apply(variables, first, mutable=["intermediates"])
    found = module.stages(variables | sown, second)
    for stage, wanted in zip(found, module.stages(variables, second), strict=True):
        np.testing.assert_array_equal(stage.map, wanted.map)
    assert jnp.abs(found[0].map - module.stages(variables, first)[0].map).max() > 1e-3
