"""A plain ConvNeXt fine-tuned into the alias-free one: start, blend, resumption, and what is left."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from aliasfree_jax import create_model
from aliasfree_jax.checkpoint import ModelCard, load_model, named_leaves
from aliasfree_jax.config import base_config, validate
from aliasfree_jax.conversion.alias_free_convnets import translate
from aliasfree_jax.data import eval_batches, open_source
from aliasfree_jax.errors import CheckpointError, ConfigError, ShapeError
from aliasfree_jax.training import loop
from aliasfree_jax.training.blending import blended_network, own_layers, starting_network
from aliasfree_jax.training.schedules import make_plan
from aliasfree_jax.training.setup import check_network, set_up
from aliasfree_jax.training.state import Pretrained, adopt

MICRO = {"depths": [1], "widths": [4]}  # as JSON gives them back
CLASSES = tuple("0123456789")


def make_config(model="convnext_afc_micro"):
    """Two steps of 8 digits an epoch; layers blend over two of three epochs."""
    config = base_config()
    config.model.name = model
    config.model.options.update(MICRO)
    config.data.mean, config.data.std = (0.3,), (0.35,)
    config.data.train_limit, config.data.eval_limit = 16, 8
    config.data.eval_crop_ratio = 1.0
    config.train.batch_size, config.train.total_epochs = 8, 3.0
    config.train.devices = 1
    config.train.ema_decay = 0.5
    config.train.blend.epochs = 2.0 if "afc" in model else 0.0
    config.eval.batch_size = 8
    config.checkpoint.keep = 10
    config.log.every_steps = 1
    return config


def make_card(model: str, **options) -> ModelCard:
    about = {"class_names": CLASSES, "image_size": 32, "channels": 1, "mean": (0.3,), "std": (0.35,)}
    options = MICRO | {"num_classes": 10} | options
    return ModelCard(model, options, eval_crop_ratio=1.0, step=7, origin="here", **about)


def make_initial(model="convnext_micro", **options):
    """A card and variables, off their initial zeros and ones."""
    card, rng = make_card(model, **options), np.random.default_rng(0)
    network = create_model(card.model, **card.options)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), np.zeros((1, 32, 32, 1))))
    return Pretrained(
        card, jax.tree.map(lambda a: 0.3 * rng.standard_normal(a.shape).astype(a.dtype), variables)
    )


def events(workdir, split):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def logit_sum(predict, batches):
    """An evaluation: the first network is the most accurate, so that it would be kept as the best."""
    values = [float(np.asarray(predict(batch["image"])).sum()) for batch in batches]
    return {"logits": values[0], "accuracy": abs(values[0])}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> SimpleNamespace:
    """A run from plain weights to the alias-free network."""
    workdir, initial = tmp_path_factory.mktemp("whole"), make_initial()
    summary = loop.run(make_config(), workdir, pretrained=initial, evaluate=logit_sum)
    return SimpleNamespace(workdir=workdir, pretrained=initial, summary=summary)


@pytest.mark.slow
def test_the_first_step_is_the_plain_networks(whole, tmp_path):
    config = make_config("convnext_micro")
    config.train.total_epochs = 0.5
    loop.run(config, tmp_path, pretrained=whole.pretrained)
    plain, blended = (events(workdir, "train")[0] for workdir in (tmp_path, whole.workdir))
    assert plain["step"] == blended["step"] == 1
    assert blended["loss"] == pytest.approx(plain["loss"], rel=1e-6)  # float32 rounding of a mean of 8
    # The same gradient too, but for what the alias-free layers add with share 0.
    assert blended["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-5)


@pytest.mark.slow
def test_a_run_that_stops_while_it_blends_goes_on_bit_by_bit(whole, tmp_path):
    shutil.copytree(whole.workdir / "checkpoints/2", tmp_path / "checkpoints/2")
    shutil.copy(whole.workdir / "config.json", tmp_path)
    again = loop.run(make_config(), tmp_path)  # without the plain weights
    for name, leaf in named_leaves(whole.summary.variables).items():
        np.testing.assert_array_equal(leaf, named_leaves(again.variables)[name], err_msg=name)
    losses = [[e["loss"] for e in events(run, "train")] for run in (tmp_path, whole.workdir)]
    assert losses[0] == losses[1][2:]


def shift_change(compute, variables) -> float:
    """Largest change of a logit under two shifts, relative to the largest logit."""
    image = np.random.default_rng(1).standard_normal((1, 32, 32, 1)).astype(np.float32)
    images = np.concatenate([image, np.roll(image, (3, -5), (1, 2)), np.roll(image, (1, 0), (1, 2))])
    logits = np.asarray(compute(variables, images))
    return np.abs(logits[1:] - logits[0]).max() / np.abs(logits[0]).max()


@pytest.mark.slow
def test_what_is_left_is_the_alias_free_network(whole):
    card, module, variables = load_model(whole.workdir)
    assert (card.model, card.step) == ("convnext_afc_micro", 6) and "blend" not in card.options
    assert card == whole.summary.card
    assert module.blend is None
    assert shift_change(jax.jit(module.apply), variables) < 2e-5  # as in tests/models/test_equivariance.py
    # The polynomials were trained: their coefficients differ from channel to channel.
    coefficients = variables["params"]["stage0_block0"]["mlp"]["activation"]["coefficients"]
    assert np.ptp(np.asarray(coefficients), axis=0).max() > 0


@pytest.mark.slow
def test_a_checkpoint_on_the_way_is_the_network_on_the_way(whole):
    card, module, variables = load_model(whole.workdir / "checkpoints/2")
    assert card.options["blend"] == {"start": "convnext", "share": 0.5}
    compute = jax.jit(module.apply)
    assert shift_change(compute, variables) > 1e-3
    on_the_way, done = events(whole.workdir, "test")[0], events(whole.workdir, "test")[1:]
    assert on_the_way["share"] == 0.5 and not any("share" in event for event in done)
    data = make_config().data
    batches = eval_batches(open_source(data, train=False), data, batch_size=8)
    again = logit_sum(lambda images: compute(variables, images), batches)
    assert on_the_way["logits"] == pytest.approx(again["logits"], rel=1e-4)


@pytest.mark.slow
def test_the_best_network_is_an_alias_free_one(whole):
    accuracies = [event["accuracy"] for event in events(whole.workdir, "test")]
    card = load_model(whole.workdir / "best")[0]
    assert card.step == (4, 6)[int(np.argmax(accuracies[1:]))] and "blend" not in card.options


def test_the_alias_free_step_costs_what_it_does_without_a_blend():
    """From the end of the blend on the compiled step is the one of the model alone."""
    config = make_config()
    source = type("Source", (), {"class_names": CLASSES, "__len__": lambda _: 16})()
    setup = set_up(config, sources=(source, None))
    networks = [setup.network_after(done) for done in range(6)]
    assert networks[:4] == [setup.blended] * 4 and networks[4:] == [setup.network] * 2
    assert setup.network.module.blend is None and setup.card_after(4).options == setup.card.options


def test_the_share_grows_linearly():
    schedule = own_layers(make_plan(make_config(), 16).blend)
    assert [float(schedule(step)) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_other_classes_draw_a_head_and_keep_the_rest():
    initial = make_initial(num_classes=3)
    card, variables = initial
    blended = blended_network(make_card("convnext_afc_micro"), "convnext")
    start = starting_network(blended, card)
    module = blended.clone(blend=None)
    told, drawn = [], ("params/head/bias", "params/head/kernel")
    mine = make_card("convnext_afc_micro")
    taken = adopt(initial, module, mine, seed=0, start=start, tell=told.append)
    assert told == [f"drawn afresh for {len(CLASSES)} classes: {', '.join(drawn)}"]
    old, new = named_leaves(variables), named_leaves(taken)
    assert set(old) < set(new)
    for name in set(old) - set(drawn):
        np.testing.assert_array_equal(old[name], new[name], err_msg=name)
    assert new["params/stem/gain"] == 0


@pytest.mark.parametrize(
    ("start", "model", "options"),
    [
        ("convnext", *translate("convnext", {"depths": (1,), "dims": (4,)})),
        ("convnext_circular", *translate("convnext_afc", {"depths": (1,), "dims": (4,)})),
        ("convnext_circular", "convnext_circular_micro", {"sampler": {"name": "subsample"}}),
    ],
)
def test_weights_of_the_original_programs_are_starts(start, model, options):
    blended = blended_network(make_card("convnext_afc_micro"), start)
    assert starting_network(blended, make_card(model, **options)) == blended.blend.start


@pytest.mark.parametrize(
    ("model", "options", "different"),
    [
        ("convnext_circular_micro", {}, "padding, sampled_padding"),
        ("convnext_micro", {"activation": "relu"}, "activation"),
        ("convnext_cifar", {}, "stem_stride"),
        (
            "convnext_afc_micro",
            {"blend": {"start": "convnext", "share": 0.5}},
            "sampler, activation, .*, blend",
        ),
        ("resnet18_cifar", {"depths": (1,), "widths": (4,)}, "activation, .*stem_stride"),
    ],
)
def test_weights_of_another_function_are_refused(model, options, different):
    blended = blended_network(make_card("convnext_afc_micro"), "convnext")
    with pytest.raises(
        CheckpointError, match=f"{model}.*here.*they differ in {different}.*train.blend.start"
    ):
        starting_network(blended, make_card(model, **options))


def test_a_blend_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train.blend starts from .*--config.init_from=.*blend.epochs = 0"):
        loop.run(make_config(), tmp_path)


def test_faults_of_the_configuration():
    config = make_config()
    config.train.blend.epochs = 4.0
    with pytest.raises(ConfigError, match=r"train.blend.epochs must lie in \[0, train.total_epochs = 3.0\]"):
        validate(config)
    config.train.blend.start = "convnext_micro"
    with pytest.raises(ConfigError, match="family of ConvNeXts to blend from.*convnext"):
        check_network(config)
    config.train.blend.start, config.model.name = "convnext", "resnet18_cifar_afc"
    config.model.options = {}
    with pytest.raises(ConfigError, match=r"train.blend is for ConvNeXts \(convnext_\*\), not for 'resnet18"):
        check_network(config)
    config.model.name = "convnext_afc_cifar"
    with pytest.raises(ShapeError, match=r"'stem' blends maps of \(15, 15\) and \(16, 16\)"):
        check_network(config)
