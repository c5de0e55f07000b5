"""Networks that start from the weights of another: what they take, what is new, what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.checkpoint import ModelCard, named_leaves
from aliasfree_jax.config import base_config
from aliasfree_jax.errors import CheckpointError
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.activation import GELU_QUADRATIC
from aliasfree_jax.training.adopting import Pretrained, adopt
from aliasfree_jax.training.setup import set_up
from configs.convnext_afc import gelu_like

CLASSES = tuple("0123456789")
MICRO = {"depths": (1, 1), "widths": (4, 8)}
PLAIN = "convnext_micro", MICRO
ALIAS_FREE = "convnext_afc_micro", MICRO
POLYNOMIALS = r"params/.*activation/(coefficients|in_scale|out_scale)|params/stem/gain"


def make_card(model, options, classes=CLASSES):
    about = {"class_names": classes, "image_size": 32, "channels": 1, "mean": (0.3,), "std": (0.35,)}
    return ModelCard(
        model, options | {"num_classes": len(classes)}, **about, eval_crop_ratio=1.0, step=7, origin="w"
    )


def make_initial(model, options, classes=CLASSES):
    """A card and variables that differ from the initial zeros and ones."""
    card, rng = make_card(model, options, classes), np.random.default_rng(0)
    network = create_model(model, **card.options)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), np.zeros((1, 32, 32, 1))))
    drawn = jax.tree.map(lambda a: 0.3 * rng.standard_normal(a.shape).astype(a.dtype), shapes)
    return Pretrained(card, drawn)


def adopted(initial, model, options, classes=CLASSES):
    """The leaves of the adopted variables, the weights and the initial variables; and the notes."""
    mine, told = make_card(model, options, classes), []
    module = create_model(model, **mine.options)
    taken = adopt(initial, module, mine, seed=3, tell=told.append)
    fresh = jax.jit(lambda: module.init(jax.random.key(3), jnp.zeros((1, 32, 32, 1)), train=False))()
    assert jax.tree.structure(taken) == jax.tree.structure(fresh)
    return named_leaves(taken), named_leaves(initial.variables), named_leaves(fresh), told


@pytest.mark.parametrize(
    ("start", "end", "own"),
    [
        (PLAIN, ALIAS_FREE, POLYNOMIALS),
        (("convnext_circular_micro", MICRO), ALIAS_FREE, POLYNOMIALS),
        (PLAIN, ("convnext_aps_micro", MICRO), None),
        (("resnet20_cifar", MICRO), ("resnet20_cifar_lps", MICRO), "params/.*/sampler/logits.*"),
        (("resnet20_cifar", MICRO), ("resnet20_cifar_afc", MICRO), "params/.*/activation1?/coefficients"),
        (("resnet50", MICRO), ("resnet50", MICRO | {"sampler": "polyphase", "padding": "CIRCULAR"}), None),
        (("resnet50", MICRO), ("resnet50", MICRO | {"sampler": "ideal", "padding": "CIRCULAR"}), None),
    ],
)
def test_shared_parameters_are_taken_and_a_networks_own_begin_as_they_do_from_scratch(start, end, own):
    taken, weights, fresh, told = adopted(make_initial(*start), *end)
    new = set(taken) - set(weights)
    assert set(weights) <= set(taken)
    assert new == {name for name in taken if own and re.fullmatch(own, name)} and bool(new) == bool(own)
    for name, leaf in taken.items():
        np.testing.assert_array_equal(leaf, (fresh if name in new else weights)[name], err_msg=name)
    if own:
        (line,) = told
        assert (
            f"{len(weights)} arrays are taken from the weights; {len(new)} arrays of {end[0]!r} are not"
            in line
        )
        assert all(name in line for name in sorted(new)[:6])
    else:
        assert told == []


def test_a_polynomial_begins_as_a_fit_to_gelu():
    taken, *_ = adopted(make_initial(*PLAIN), *ALIAS_FREE)
    rows = taken["params/stage0_block0/mlp/activation/coefficients"]
    np.testing.assert_array_equal(rows, np.tile(np.float32(GELU_QUADRATIC), (16, 1)))
    # The paper's scales turn it into 7 P(7 x); the recipe for fine-tuning removes them.
    options = MICRO | {"activation": gelu_like("up_polynomial")}
    taken, *_ = adopted(make_initial(*PLAIN), "convnext_afc_micro", options)
    rows, inner, outer = (
        taken[f"params/stage0_block0/mlp/activation/{name}"]
        for name in ("coefficients", "in_scale", "out_scale")
    )
    # Rounding of the coefficients and products to float32.
    np.testing.assert_allclose(rows[0] * outer * inner ** np.arange(3), GELU_QUADRATIC, rtol=1e-6)


def test_other_classes_draw_a_head_and_keep_the_rest():
    taken, weights, fresh, told = adopted(make_initial(*PLAIN, classes=CLASSES[:3]), *ALIAS_FREE)
    head = ["params/head/bias", "params/head/kernel"]
    for name in set(taken) - set(head):
        np.testing.assert_array_equal(taken[name], weights.get(name, fresh[name]), err_msg=name)
    for name in head:
        np.testing.assert_array_equal(taken[name], fresh[name])
    drawn, kept = told
    assert drawn == "initialised randomly for 10 classes: " + ", ".join(head)
    assert (
        f"{len(weights) - 2} arrays are taken from the weights; {len(set(taken) - set(weights))} arrays of"
        in kept
    )


DEEPER = {"depths": (1, 2), "widths": (4, 8)}


@pytest.mark.parametrize(
    ("start", "end", "fault"),
    [
        # A missing layer is not part of an activation: it must not be initialised silently.
        (PLAIN, ("convnext_afc_micro", DEEPER), "missing: params/stage1_block1/depthwise/bias"),
        (("resnet20_cifar", MICRO), ("resnet20_cifar", DEEPER), "missing: batch_stats/stage1_block1/norm1"),
        (("convnext_micro", DEEPER), ALIAS_FREE, "unexpected: params/stage1_block1/depthwise/bias"),
        (ALIAS_FREE, PLAIN, "unexpected: params/stage0_block0/mlp/activation/coefficients"),
        (
            ("convnext_afg_micro", MICRO),
            ALIAS_FREE,
            r"wrong shape: params/stage0_block0/mlp/project/kernel \(8, 4\)",
        ),
        (
            PLAIN,
            ("convnext_afg_micro", MICRO),
            r"wrong shape: .*/project/kernel \(16, 4\) \(expected \(8, 4\)",
        ),
        (PLAIN, ("convnext_afc_micro", MICRO | {"widths": (4, 6)}), r"wrong shape: .*params/downsample1"),
        (
            ("resnet20_cifar", MICRO),
            ("resnet20_cifar", MICRO | {"norm": "spatial"}),
            "unexpected: batch_stats",
        ),
        (("resnet20_cifar", MICRO), ALIAS_FREE, "missing: params/downsample1.*"),
    ],
)
def test_other_layers_are_refused_by_name(start, end, fault):
    with pytest.raises(
        CheckpointError, match=f"(?s)weights of '{start[0]}' .w. do not fit.*{fault}.*init_from"
    ):
        adopted(make_initial(*start), *end)


def test_a_run_begins_as_its_network_with_the_weights():
    config = base_config()
    config.model.name, config.model.options = ALIAS_FREE
    config.data.mean, config.data.std = (0.3,), (0.35,)
    config.train.devices = 1
    setup = set_up(config)
    initial = make_initial(*PLAIN)
    taken = adopt(initial, setup.network.module, setup.card, seed=config.seed, tell=lambda line: None)
    state = setup.states.build(taken)
    images = np.random.default_rng(1).standard_normal((2, 32, 32, 1)).astype(np.float32)
    module = create_model("convnext_afc_micro", **setup.card.options)
    fresh = jax.jit(module.init)(jax.random.key(5), images)  # another seed: nothing new is random
    leaves = named_leaves(fresh) | named_leaves(initial.variables)
    merged = jax.tree.unflatten(jax.tree.structure(fresh), list(leaves.values()))
    found, expected = setup.network.predict(state.evaluated(), images), jax.jit(module.apply)(merged, images)
    # Rounding differs between two compilations of a network; relative to the largest logit.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    plain = create_model("convnext_micro", **initial.card.options)
    before = jax.jit(plain.apply)(initial.variables, images)
    assert np.abs(expected - before).max() > 1e-2 * np.abs(before).max()  # a different function


def test_weights_of_a_classifier_become_those_of_the_backbone():
    """Also if the backbone's samplers have weights that the classifier lacks."""
    initial = make_initial("resnet20_cifar", MICRO)
    options = {"backbone": {"name": "resnet20_cifar_lps", **MICRO}, "width": 4, "low_level_width": 2}
    taken, old, fresh, told = adopted(initial, "deeplabv3plus_resnet20_cifar_lps", options, tuple("abc"))
    kept = {path.replace("/", "/backbone/", 1): leaf for path, leaf in old.items() if "/head/" not in path}
    assert kept.keys() < taken.keys()
    for path, leaf in taken.items():
        np.testing.assert_array_equal(leaf, kept.get(path, fresh[path]))
    assert any("/backbone/" in path and "logits" in path for path in taken.keys() - kept.keys())
    assert re.search("keep their initial values: .*logits", told[0])
    assert re.fullmatch(
        r"the backbone has the weights of resnet20_cifar; \d+ other arrays keep their initial values", told[1]
    )


def test_a_backbone_of_another_depth_is_refused():
    initial = make_initial("resnet20_cifar", {"depths": (1, 2), "widths": (4, 8)})
    options = {"backbone": {"name": "resnet20_cifar", **MICRO}, "width": 4, "low_level_width": 2}
    with pytest.raises(CheckpointError, match=r"do not fit the model .*\n.*unexpected: .*stage1_block1"):
        adopted(initial, "deeplabv3plus_resnet20_cifar", options)
