"""The images that evaluations use during training, and the results."""

import json
from contextlib import closing
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from aliasfree_jax.checkpoint import load_model, named_leaves
from aliasfree_jax.config import SHIFTS_DURING, result_names
from aliasfree_jax.data import ArraySource, eval_batches, hold_out
from aliasfree_jax.data.sources import Subset
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.measurements import integer_shifts
from aliasfree_jax.evaluation.selection import evaluation_while_training
from aliasfree_jax.training import loop
from aliasfree_jax.training.setup import set_up


def make_source(count, seed, classes=3):
    """Noise images, each with a different brightness, which identifies it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.uniform(0, 0.2, (count, 8, 8, 1)) + np.linspace(0, 0.7, count)[:, None, None, None]
    return ArraySource(images, labels, list("abcd"[:classes]))


def events(workdir, split):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


class Looking:
    """An evaluation that remembers its images and returns preset results."""

    def __init__(self, *values):
        self.values, self.images = iter(values), []

    def __call__(self, predict, batches):
        seen = [np.asarray(batch["image"])[np.asarray(batch["mask"]) > 0] for batch in batches]
        self.images.append(np.concatenate(seen))
        return {"accuracy": next(self.values, 0.0)}


@pytest.fixture
def small(config, tiny_networks):
    """36 training images, a third of them held out: two steps of 12 per epoch."""
    config.data.source, config.data.eval_crop_ratio, config.data.validation = "arrays", 1.0, 1 / 3
    config.model.options.drop_path_rate = 0.0
    config.train.ema_decay, config.eval.batch_size = 0.0, 8
    return SimpleNamespace(config=config, sources=(make_source(36, 0), make_source(20, 1)))


def as_inputs(source, config):
    batches = eval_batches(source, config.data, batch_size=len(source))
    return next(iter(batches))["image"]


def test_evaluations_look_at_what_is_held_out(small, tmp_path, capfd):
    config, looking = small.config, Looking(0.75, 0.5, 0.25)
    loop.run(config, tmp_path, sources=small.sources, evaluate=looking)
    assert loop.run(config, tmp_path, sources=small.sources, evaluate=looking).results == {"accuracy": 0.25}
    assert len(looking.images) == 3  # also in the resumed run
    left, held = hold_out(small.sources[0], 1 / 3)
    for images in looking.images:
        np.testing.assert_array_equal(images, as_inputs(held, config))
    assert [e["epoch"] for e in events(tmp_path, "validation")] == [1.0, 2.0] and not events(tmp_path, "test")
    assert [e["step"] for e in events(tmp_path, "train")] == [1, 2, 3, 4]  # with the 24 remaining images
    chosen = json.loads((tmp_path / "best/results.json").read_text())
    assert chosen == {"accuracy": 0.75, "chosen_by": "accuracy", "chosen_on": "validation"}
    told = capfd.readouterr().err
    assert "validation: 12 of 36 training images are held out (data.validation)" in told
    assert "epoch 1 (step 2), validation: accuracy 75.00%" in told
    assert "best accuracy of validation images so far" in told and "test images" not in told


def test_what_is_held_out_is_never_trained_on(small):
    left, held = hold_out(small.sources[0], 1 / 3)
    with closing(set_up(small.config, sources=small.sources).batches(start_step=0)) as batches:
        trained = np.concatenate([next(batches)["image"] for _ in range(2)])  # one epoch
    trained, kept, left = (
        images.mean((1, 2, 3))
        for images in (trained, as_inputs(held, small.config), as_inputs(left, small.config))
    )
    assert len(trained) == 24 and not set(trained) & set(kept)
    np.testing.assert_array_equal(sorted(trained), sorted(left))


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_division_is_the_same_for_every_seed_and_number_of_devices(small, devices, seed):
    small.config.seed, small.config.train.devices, looking = seed, devices, Looking()
    setup = set_up(small.config, sources=small.sources, evaluate=looking)
    setup.evaluate(SimpleNamespace(step=9, ema=None, evaluated=dict), lambda: False)
    expected = as_inputs(hold_out(small.sources[0], 1 / 3)[1], small.config)
    np.testing.assert_array_equal(looking.images[0], expected)


def test_without_validation_images_it_is_said_that_test_images_choose(small, tmp_path, capfd):
    small.config.data.validation = 0.0
    loop.run(small.config, tmp_path, sources=small.sources, evaluate=Looking(0.5, 0.75, 0.5))
    assert events(tmp_path, "test") and not events(tmp_path, "validation")
    assert json.loads((tmp_path / "best/results.json").read_text())["chosen_on"] == "test"
    told = capfd.readouterr().err
    assert told.count("best by test images: data.validation=0, so the network in best/") == 1
    assert "(step 3), test: accuracy 50.00%" in told
    small.config.checkpoint.best = ""
    loop.run(small.config, tmp_path, sources=small.sources, evaluate=Looking())
    assert "best" not in capfd.readouterr().err


def test_too_few_images_to_hold_some_out(small, tmp_path):
    with pytest.raises(DataError, match="needs at least two .*only one: 'a', 'b', 'c'"):
        loop.run(small.config, tmp_path, sources=(make_source(3, 0), None))
    small.config.data.validation = 0.9
    with pytest.raises(ConfigError, match="exceeds the 4 training examples that data.validation = 0.9"):
        loop.run(small.config, tmp_path, sources=small.sources)


def test_unreadable_images_that_are_held_out(small):
    class Damaged(Subset):
        def __getitem__(self, index):
            if index == 2:  # the first of its class, so it is held out
                raise DataError("c.png is no image")
            return super().__getitem__(index)

    held = hold_out(Damaged(small.sources[0], np.arange(36)), 1 / 3)[1]
    looking, state = Looking(), SimpleNamespace(step=9, ema=None, evaluated=dict)

    def evaluated():
        sources = Damaged(small.sources[0], np.arange(36)), None
        return set_up(small.config, sources=sources, evaluate=looking).evaluate(state, lambda: False)

    with pytest.raises(DataError, match="c.png is no image"):
        evaluated()
    small.config.data.corrupt = "skip"
    assert evaluated() == {"accuracy": 0.0, "skipped": 1}
    assert len(looking.images[-1]) == len(held) - 1


def test_a_test_split_of_other_classes_is_found_before_training(small, tmp_path):
    sources = small.sources[0], make_source(20, 1, classes=4)
    with pytest.raises(DataError, match="evaluation split has 4 classes, the training split has 3"):
        loop.run(small.config, tmp_path, sources=sources, evaluate=Looking())


def test_averaged_and_raw_weights_and_consistency_while_training(small, tmp_path, capfd):
    config = small.config
    config.train.ema_decay, config.train.total_epochs = 0.5, 1.0
    config.eval.during, config.eval.shifts, config.eval.max_shift = ("integer", "fractional"), 3, 7
    config.checkpoint.best = "raw_integer_consistency"
    run = loop.run(config, tmp_path, sources=small.sources, evaluate=evaluation_while_training(config))
    (event,) = events(tmp_path, "validation")
    names = {"accuracy", "integer_consistency", "fractional_consistency"}
    assert set(event) == {"step", "epoch", "split", "images", *names, *(f"raw_{name}" for name in names)}
    assert event["images"] == 12 and run.results == {k: event[k] for k in run.results}
    told = capfd.readouterr().err
    assert f"raw_integer_consistency {event['raw_integer_consistency']:.2%}" in told

    # The run keeps averages. best/ has the weights that the metric belongs to. Both have the logged value.
    held = hold_out(small.sources[0], 1 / 3)[1]
    for prefix, directory in (("", tmp_path), ("raw_", tmp_path / "best")):
        _, module, variables = load_model(directory)
        found = evaluate(
            jax.jit(lambda images, module=module, variables=variables: module.apply(variables, images)),
            eval_batches(held, config.data, batch_size=8),
            [integer_shifts(8, shifts=3, max_shift=7, seed=0)],
        )
        assert found["accuracy"] == event[f"{prefix}accuracy"]
        assert found["integer"]["consistency"] == event[f"{prefix}integer_consistency"]
    averaged, raw = (named_leaves(load_model(d)[2]) for d in (tmp_path, tmp_path / "best"))
    assert not np.array_equal(averaged["params/conv/kernel"], raw["params/conv/kernel"])
    chosen = json.loads((tmp_path / "best/results.json").read_text())
    assert (chosen["chosen_by"], chosen["chosen_on"]) == (config.checkpoint.best, "validation")


def test_every_kind_of_shifts_has_its_flat_name(config):
    config.data.zero_pad, config.eval.shifts = 1, 2  # shifts in pixels of the network's input
    config.eval.during = SHIFTS_DURING

    def brightest_row(images):
        return np.asarray(images).mean((2, 3))

    batch = {"image": np.eye(10, dtype=np.float32)[None, ..., None], "label": np.array([3])}
    found = evaluation_while_training(config)(brightest_row, [batch | {"mask": np.ones(1)}])
    assert list(found) == ["images", *result_names(config)][: len(found)]
    assert len(found) == 5 and all(isinstance(value, int | float) for value in found.values())
