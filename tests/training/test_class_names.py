"""Runs whose data has other classes than the run, the initial weights or the other split."""

import dataclasses

import jax
import numpy as np
import pytest

from aliasfree_jax.checkpoint import load_model, newest_card
from aliasfree_jax.data import ArraySource
from aliasfree_jax.data.class_names import ClassNamesError
from aliasfree_jax.training import loop, network, preparation

CLASSES = ("ant", "bee", "cat")
OTHERS = ("wolf", "yak", "zebra")
LABELS = np.arange(24) % 3


def source(names, labels=LABELS):
    return ArraySource(np.zeros((24, 8, 8, 1), np.uint8), labels, names)


@pytest.fixture
def train(world, config, monkeypatch, capfd):
    """Runs on classes of given names; gives the sources that training and evaluation read, and what is said."""
    read = {}
    batches, evaluated = loop.train_batches, preparation.own_eval_batches

    def seen(name, real):
        def call(source, *args, **how):
            read[name] = source
            return real(source, *args, **how)

        return call

    monkeypatch.setattr(loop, "train_batches", seen("train", batches))
    monkeypatch.setattr(preparation, "own_eval_batches", seen("val", evaluated))

    def run(workdir, names, held_out=None, *, epochs=1.0, **how):
        read.clear()
        config.train.total_epochs = epochs
        config.checkpoint.every_epochs = 0.5
        sources = source(names), source(held_out or names)
        summary = loop.run(config, workdir, sources=sources, evaluate=lambda predict, b: [*b] and {}, **how)
        return summary, dict(read), capfd.readouterr().err

    return run


def test_a_run_goes_on_with_its_own_classes_only(train, config, tmp_path):
    _, _, said = train(tmp_path, CLASSES)
    assert "class names" not in said
    stored = (tmp_path / "config.json").read_text()
    with pytest.raises(
        ClassNamesError, match="'wolf', class 0 of the training split, is unknown to the run, "
    ):
        train(tmp_path, OTHERS, epochs=2.0)
    with pytest.raises(
        ClassNamesError, match="accept_class_names. To train on other classes, use another --wo"
    ):
        train(tmp_path, ("ant", "bee", "dog"), epochs=2.0)
    with pytest.raises(ClassNamesError, match="the training split has 4 classes, the run has 3"):
        train(tmp_path, (*CLASSES, "dog"), epochs=2.0)
    with pytest.raises(ClassNamesError, match="--accept_class_names, .* needs equal numbers"):
        train(tmp_path, (*CLASSES, "dog"), epochs=2.0, accept_class_names=True)
    assert (tmp_path / "config.json").read_text() == stored
    assert newest_card(tmp_path).step == 2  # nothing was lost, nothing added
    _, _, said = train(tmp_path, CLASSES, epochs=2.0)
    assert "class names" not in said and "resuming at step 2 of 4" in said


def test_a_run_goes_on_with_its_classes_in_another_order(train, tmp_path):
    train(tmp_path, CLASSES)
    summary, read, said = train(tmp_path, ("cat", "ant", "bee"), epochs=2.0)
    assert (
        "the training split has the classes of the run in another order; labels are matched by name" in said
    )
    assert summary.card.class_names == load_model(tmp_path)[0].class_names == CLASSES
    for split in ("train", "val"):
        assert read[split].class_names == CLASSES
        assert read[split].labels.tolist() == [(2, 0, 1)[label] for label in LABELS]


def test_a_run_goes_on_by_position_where_that_is_accepted(train, tmp_path):
    train(tmp_path, CLASSES)
    summary, read, said = train(tmp_path, OTHERS, epochs=2.0, accept_class_names=True)
    assert "class names: not compared (--accept_class_names)" in said and "wolf = ant" in said
    assert read["train"].labels.tolist() == LABELS.tolist() and summary.card.class_names == OTHERS


def test_a_damaged_newest_card_is_passed_over(train, tmp_path):
    train(tmp_path, CLASSES)
    (tmp_path / "checkpoints/2/card/metadata").write_text("{")
    assert newest_card(tmp_path).step == 1 and newest_card(tmp_path / "nowhere") is None
    with pytest.raises(ClassNamesError, match="'wolf'"):
        train(tmp_path, OTHERS, epochs=2.0)
    (tmp_path / "checkpoints/1/card/metadata").write_text("{")
    assert newest_card(tmp_path) is None


@pytest.mark.parametrize(
    ("held_out", "labels", "said"),
    [
        (("bee", "cat", "ant"), (1, 2, 0), "the evaluation split has the classes of the training split in "),
        (("0", "1", "2"), (0, 1, 2), "the evaluation split has placeholders"),
        ((*CLASSES,), (0, 1, 2), "compiling"),
    ],
)
def test_the_evaluation_split_has_the_labels_of_the_training_split(train, tmp_path, held_out, labels, said):
    _, read, told = train(tmp_path, CLASSES, held_out)
    assert read["val"].labels.tolist() == [labels[label] for label in LABELS] and said in told


def test_an_evaluation_split_of_other_classes(train, tmp_path):
    with pytest.raises(
        ClassNamesError, match="the evaluation split has 3 classes, the training split has 3.*dog"
    ):
        train(tmp_path, CLASSES, ("ant", "bee", "dog"))
    assert not (tmp_path / "checkpoints").exists()


def start(config, names, tmp_path, train, new, **how):
    """The head's kernel of the initial weights on `names`, and that of a run on `new` before it learns."""
    config.optimizer.learning_rate = 1e-30
    config.optimizer.min_learning_rate = 0.0
    config.train.ema_decay = 0.0
    card = network.make_card(config, names, "weights.pth")
    module = preparation.create_model(card.model, **card.options)
    variables = module.init(jax.random.key(7), np.zeros((1, 8, 8, 1), np.float32))
    summary, _, said = train(tmp_path, new, initial=(card, variables), **how)
    old, now = (np.asarray(v["params"]["head"]["kernel"]) for v in (variables, summary.variables))
    assert summary.card.class_names == new
    return old, now, said


SAME = {"rtol": 0, "atol": 1e-20}  # steps of 1e-30 change nothing but zeros


@pytest.mark.parametrize(
    ("names", "new", "order", "said"),
    [
        (CLASSES, CLASSES, [0, 1, 2], "starting from the weights of tiny (weights.pth, step 0)\n"),
        (CLASSES, ("cat", "ant", "bee"), [2, 0, 1], "in another order; labels are matched by name"),
        (
            ("0", "1", "2"),
            CLASSES,
            [0, 1, 2],
            "the initial network has placeholders; folders are taken in order",
        ),
        (CLASSES, ("0", "1", "2"), [0, 1, 2], "the data has placeholders"),
    ],
)
def test_a_head_for_the_same_classes_is_kept(config, train, tmp_path, names, new, order, said):
    old, now, told = start(config, names, tmp_path, train, new)
    np.testing.assert_allclose(now, old[:, order], **SAME)
    assert said in told and "drawn afresh" not in told
    assert ("class names" in told) == (names != new)


def test_a_head_for_as_many_other_classes_is_drawn_afresh(config, train, tmp_path):
    old, now, said = start(config, CLASSES, tmp_path / "run", train, OTHERS)
    assert np.abs(now - old).max() > 0.01
    assert "drawn afresh for 3 classes: params/head/bias, params/head/kernel. the data has 3 classes" in said
    assert "'wolf', class 0 of the data, is unknown to the initial network, whose class 0 is 'ant'" in said
    assert "pass --accept_class_names" in said
    old, now, said = start(config, CLASSES, tmp_path / "kept", train, OTHERS, accept_class_names=True)
    np.testing.assert_allclose(now, old, **SAME)
    assert "drawn afresh" not in said and "class names: not compared" in said and "wolf = ant" in said


@pytest.mark.parametrize("accept", [False, True])
def test_a_head_for_another_number_of_classes_is_drawn_afresh(config, train, tmp_path, accept):
    names = (*CLASSES, "dog")  # which has the new ones
    _, now, said = start(config, names, tmp_path, train, CLASSES, accept_class_names=accept)
    assert (
        now.shape == (4, 3) and "drawn afresh for 3 classes: params/head/bias, params/head/kernel\n" in said
    )


def test_a_card_that_names_another_number_of_classes_has_placeholders(config):
    card = network.make_card(config, CLASSES, "")
    assert card.outputs() == CLASSES
    assert dataclasses.replace(card, class_names=()).outputs() == ("0", "1", "2")
