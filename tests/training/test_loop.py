import json
import os
import signal

import jax
import numpy as np
import pytest

from aliasfree_jax import foreign
from aliasfree_jax.checkpoint import RunCheckpoints, finished_steps, load_model, named_leaves
from aliasfree_jax.errors import CheckpointError, ConfigError, DataError, NotFiniteError, ShapeError
from aliasfree_jax.training import loop, setup
from aliasfree_jax.training.adopting import Pretrained
from aliasfree_jax.training.progress import Progress
from aliasfree_jax.training.resuming import TerminatedError


def events(workdir, split):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def assert_equal(a, b, atol=0.0):
    a, b = named_leaves(a), named_leaves(b)
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(np.asarray(a[name]), np.asarray(b[name]), rtol=0, atol=atol, err_msg=name)


def count_images(predict, batches):
    """A custom evaluation: masked count of images, and the mean of their logits."""
    total, count = 0.0, 0
    for batch in batches:
        mask = batch["mask"] > 0
        total += float(np.asarray(predict(batch["image"]))[mask].mean())
        count += int(mask.sum())
    return {"images": count, "mean_logit": total}


def test_four_steps_are_two_and_two_more(world, config, tmp_path):
    whole = loop.run(config, tmp_path / "whole", evaluate=count_images)
    (tmp_path / "parts").mkdir()

    def stop_after_two(predict, batches):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(config, tmp_path / "parts", evaluate=stop_after_two)
    assert sorted(p.name for p in (tmp_path / "parts/checkpoints").iterdir()) == ["2"]
    parts = loop.run(config, tmp_path / "parts", evaluate=count_images)
    # Bit for bit: parameters, averages, statistics, and the results of the evaluation.
    assert_equal(whole.variables, parts.variables)
    assert whole.results == parts.results
    losses = [[e["loss"] for e in events(tmp_path / run, "train")] for run in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 4

    # The newest checkpoint contains the same as the summary, read through the public function.
    card, module, variables = load_model(tmp_path / "parts")
    assert (card.step, card.class_names, card.channels) == (4, ("a", "b", "c"), 1)
    assert card == parts.card
    assert_equal(variables, parts.variables)
    # Saved in the background while training continued: still the values of step 2.
    assert_equal(
        load_model(tmp_path / "whole/checkpoints/2")[2], load_model(tmp_path / "parts/checkpoints/2")[2]
    )


def test_sigterm_saves_the_step_and_ends_the_run(world, config, tmp_path, monkeypatch):
    """A scheduler's signal after step 3, between two checkpoints: nothing is lost or changed."""
    whole = loop.run(config, tmp_path / "whole")
    step = Progress.step

    def step_and_signal(self, metrics):
        step(self, metrics)
        if self._step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, pytest.raises(TerminatedError, match="after step 3"):
        patch.setattr(Progress, "step", step_and_signal)
        loop.run(config, tmp_path / "parts")
    assert signal.getsignal(signal.SIGTERM) == before
    assert finished_steps(tmp_path / "parts/checkpoints")[-1] == 3
    assert_equal(whole.variables, loop.run(config, tmp_path / "parts").variables)


def signalling(at, batches_before):
    """An evaluation that receives SIGTERM in its `at`-th call, and counts the batches after it."""
    calls, after = [0], [0]

    def evaluate(predict, batches):
        calls[0] += 1
        for number, _ in enumerate(batches):
            if calls[0] == at:
                after[0] += number >= batches_before
                if number == batches_before:
                    os.kill(os.getpid(), signal.SIGTERM)
        return {"accuracy": 0.9 if calls[0] == at or at == 0 else 0.5}

    evaluate.after = after
    return evaluate


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("last", [False, True])
def test_sigterm_ends_an_evaluation_and_a_restart_makes_up_for_it(
    world, config, tmp_path, monkeypatch, saves, last
):
    batches = [world.batch(i) for i in range(5)]
    monkeypatch.setattr(setup, "own_eval_batches", lambda *_, **__: iter(batches))
    config.eval.batch_size, config.train.ema_decay = 12, 0.0  # one evaluation at a time
    config.checkpoint.every_epochs = 1.0 if saves else 0.0
    step = 4 if last else 2
    evaluate = signalling(2 if last else 1, 1)
    with pytest.raises(TerminatedError, match=f"terminated after step {step} and saved its checkpoint"):
        loop.run(config, tmp_path, evaluate=evaluate)
    assert evaluate.after == [1]  # no further batch
    assert finished_steps(tmp_path / "checkpoints")[-1] == step
    assert [event["step"] for event in events(tmp_path, "test")] == ([2] if last else [])
    accuracies = iter([0.75] if last else [0.75, 0.25])
    summary = loop.run(config, tmp_path, evaluate=lambda *_: {"accuracy": next(accuracies)})
    assert [event["step"] for event in events(tmp_path, "test")] == [2, 4]
    assert [event["step"] for event in events(tmp_path, "train")] == [1, 2, 3, 4]
    assert load_model(tmp_path / "best")[0].step == step and next(accuracies, None) is None
    assert summary.results == {"accuracy": 0.75 if last else 0.25}
    # Once more: evaluated for the summary, reported before.
    loop.run(config, tmp_path, evaluate=lambda *_: {"accuracy": 0.0})
    assert [event["step"] for event in events(tmp_path, "test")] == [2, 4]


def test_sigterm_during_the_last_batch_is_not_forgotten(world, config, tmp_path):
    config.train.ema_decay = 0.0
    with pytest.raises(TerminatedError, match="after step 4"):
        loop.run(config, tmp_path, evaluate=signalling(2, 0))
    assert [event["step"] for event in events(tmp_path, "test")] == [2, 4]


def test_a_damaged_newest_checkpoint_costs_its_steps_only(world, config, tmp_path, capfd):
    whole = loop.run(config, tmp_path)
    (tmp_path / "checkpoints/4/card/metadata").write_text("{")
    again = loop.run(config, tmp_path)
    assert_equal(whole.variables, again.variables)
    told = capfd.readouterr().err
    assert "is damaged or incomplete" in told and "4.damaged. Continuing from step 2" in told
    assert [event["step"] for event in events(tmp_path, "train")] == [1, 2, 3, 4]


def test_the_best_network_is_not_the_newest(world, config, tmp_path, capfd):
    config.train.ema_decay = 0.0
    accuracies = iter([0.75, 0.5])
    loop.run(config, tmp_path, evaluate=lambda predict, batches: {"accuracy": next(accuracies)})
    assert (load_model(tmp_path / "best")[0].step, load_model(tmp_path)[0].step) == (2, 4)
    assert "best accuracy of test images so far: kept in" in capfd.readouterr().err
    # A custom evaluation without the result that the configuration asks for:
    loop.run(config, tmp_path / "other", evaluate=lambda predict, batches: {"top5": 1.0})
    assert not (tmp_path / "other/best").exists()
    assert "no result 'accuracy' (checkpoint.best), only top5" in capfd.readouterr().err


def test_an_unknown_best_result_is_found_before_any_data_is_opened(world, config, tmp_path):
    config.checkpoint.best = "acuracy"
    with pytest.raises(ConfigError, match="unknown checkpoint.best 'acuracy'. Did you mean .*'accuracy'"):
        loop.run(config, tmp_path, evaluate=count_images)
    assert world.opened == []


def test_events_and_summary_and_a_finished_run(world, config, tmp_path, capfd):
    world.skipped = 3
    config.log.every_steps = 2
    summary = loop.run(config, tmp_path, evaluate=count_images, origin="configs/x.py")
    train, evals = events(tmp_path, "train"), events(tmp_path, "test")
    assert [e["step"] for e in train] == [2, 4] and [e["epoch"] for e in train] == [1.0, 2.0]
    assert set(train[-1]) == {
        *("step", "epoch", "split", "loss", "accuracy", "learning_rate", "grad_norm"),
        *("images_per_second", "data_wait", "skipped"),
    }
    assert [e["step"] for e in evals] == [2, 4]
    assert evals[-1]["images"] == 98  # 100 rows, the last two of which are padding
    assert summary.results["images"] == 98 and summary.skipped == 3
    assert summary.card.origin == "configs/x.py" and summary.card.step == 4
    err = capfd.readouterr().err
    assert (
        "compiling the first step" in err
        and "3 training images could not be read and were replaced:\n  x.png is no image" in err
    )


def test_the_evaluation_batch_is_a_multiple_of_the_devices(world, config, tmp_path):
    config.eval.batch_size = 6
    sizes = []

    def sizes_seen(predict, batches):
        sizes.extend(len(batch["label"]) for batch in batches)
        return {}

    config.train.total_epochs = 1.0
    loop.run(config, tmp_path, evaluate=sizes_seen)
    assert sizes == [8, 8]  # averaged and raw weights


def test_a_loss_that_is_not_finite_stops_the_run(world, config, tmp_path):
    config.log.every_steps = 50
    world.poison = 4
    config.checkpoint.every_epochs = 0.5
    with pytest.raises(NotFiniteError, match=r"loss of step 4 is nan. Last checkpoint: .*/checkpoints/3\."):
        loop.run(config, tmp_path)
    assert RunCheckpoints(tmp_path, 2).latest_step() == 3  # nothing was saved after it


def test_an_impossible_image_size_is_found_before_any_data_is_opened(world, config, tmp_path):
    config.data.image_size = 2
    with pytest.raises(ShapeError, match="too small"):
        loop.run(config, tmp_path)
    assert world.opened == []


def test_a_batch_that_does_not_divide_is_found_before_any_data_is_opened(world, config, tmp_path):
    config.train.batch_size = 10
    with pytest.raises(ConfigError, match=r"train.batch_size = 10 .*multiple of 4, e.g. 8 or 12"):
        loop.run(config, tmp_path)
    assert world.opened == []


def test_a_run_directory_that_cannot_be_made(world, config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot create the run directory .*file"):
        loop.run(config, tmp_path / "file")


def test_sources_of_your_own(world, config, tmp_path):
    train = setup.open_source(config.data, train=True, task=config.task)
    held_out = setup.open_source(config.data, train=False, task=config.task)
    world.opened.clear()
    summary = loop.run(config, tmp_path, sources=(train, held_out), evaluate=count_images)
    assert summary.results["images"] == 98 and world.opened == []


def test_splits_with_other_classes(world, config, tmp_path):
    world.eval_classes = ("a", "dog")
    with pytest.raises(
        DataError, match="the evaluation split has 2 classes, the training split has 3.*'dog'"
    ):
        loop.run(config, tmp_path, evaluate=count_images)


def test_accepted_changes_that_the_arrays_do_not_allow(world, config, tmp_path):
    loop.run(config, tmp_path)
    accept = ["train.ema_decay", "model.options.width", "model.name"]
    config.train.ema_decay = 0.0
    with pytest.raises(
        CheckpointError, match=r"another model or optimizer.*\n  unexpected: state/collections"
    ):
        loop.run(config, tmp_path, accept_changes=accept)
    config.train.ema_decay = 0.9
    config.model.options.width = 6
    with pytest.raises(
        CheckpointError, match=r"another model.*\n  wrong shape: variables/\w+/.* \(4,\) \(expected \(6,\)\)"
    ):
        loop.run(config, tmp_path, accept_changes=accept)
    stored = (tmp_path / "config.json").read_text()
    config.model.name = "other"
    with pytest.raises(CheckpointError, match="has the model 'tiny', but the configuration asks for 'other'"):
        loop.run(config, tmp_path, accept_changes=accept)
    assert (tmp_path / "config.json").read_text() == stored  # the run can still be resumed


def stand_still(config):
    """Steps of 1e-30, which change only zeros."""
    config.optimizer.learning_rate = 1e-30
    config.optimizer.min_learning_rate = 0.0
    config.train.ema_decay = 0.0


def make_initial(config, num_classes, **changes):
    names = tuple("abcdefgh"[:num_classes])
    card = setup.make_card(config, names, "weights.pth")
    module = foreign.create_model(card.model, **(card.options | changes))
    image = np.zeros((1, card.image_size, card.image_size, 1), np.float32)
    return Pretrained(card, module.init(jax.random.key(7), image))


def test_initial_weights_are_where_training_starts(world, config, tmp_path, capfd):
    stand_still(config)
    card, variables = make_initial(config, 3)
    summary = loop.run(config, tmp_path, pretrained=Pretrained(card, variables))
    assert_equal(summary.variables["params"], variables["params"], atol=1e-20)
    assert "starting from the weights of tiny (weights.pth, step 0)\n" in capfd.readouterr().err


def test_a_head_for_other_classes_is_drawn_afresh_and_that_is_said(world, config, tmp_path, capfd):
    stand_still(config)
    card, variables = make_initial(config, 5)
    summary = loop.run(config, tmp_path, pretrained=Pretrained(card, variables))
    assert_equal(summary.variables["params"]["conv"], variables["params"]["conv"], atol=1e-20)
    assert summary.variables["params"]["head"]["kernel"].shape == (4, 3)
    err = capfd.readouterr().err
    assert "initialised randomly for 3 classes: params/head/bias, params/head/kernel" in err


def test_initial_weights_of_another_network(world, config, tmp_path):
    initial = make_initial(config, 3, width=6)
    with pytest.raises(
        CheckpointError, match=r"weights.pth.* do not fit the model 'tiny':\n.*params/coefficients"
    ):
        loop.run(config, tmp_path, pretrained=initial)
