"""Runs whose data has other classes than the run, the initial weights or the other split."""

import dataclasses

import jax
import numpy as np
import pytest

from aliasfree_jax import foreign
from aliasfree_jax.checkpoint import load_model, newest_card
from aliasfree_jax.data import ArraySource
from aliasfree_jax.data.class_names import ClassNamesError
from aliasfree_jax.training import loop, setup
from aliasfree_jax.training.adopting import Pretrained, adopt

CLASSES = ("ant", "bee", "cat")
OTHERS = ("wolf", "yak", "zebra")
LABELS = np.arange(24) % 3


def source(names, labels=LABELS):
    return ArraySource(np.zeros((24, 8, 8, 1), np.uint8), labels, names)


@pytest.fixture
def go(world, config, monkeypatch, capfd):
    """Trains on classes of the given names. Returns the summary, the training source and the notes."""
    read = []
    train_batches = setup.train_batches

    def seen(source, *args, **how):
        read.append(source)
        return train_batches(source, *args, **how)

    monkeypatch.setattr(setup, "train_batches", seen)
    config.train.devices = 1
    config.checkpoint.every_epochs = 0.5

    def run(workdir, names, *, epochs=1.0, **how):
        read.clear()
        config.train.total_epochs = epochs
        how["accept_changes"] = ("train.total_epochs",)
        summary = loop.run(config, workdir, sources=(source(names), None), **how)
        return summary, read[0], capfd.readouterr().err

    return run


def test_a_run_goes_on_with_its_own_classes_only(go, tmp_path):
    _, _, said = go(tmp_path, CLASSES)
    assert "class names" not in said
    stored = (tmp_path / "config.json").read_text()
    with pytest.raises(
        ClassNamesError, match="'wolf', class 0 of the training split, is unknown to the run, "
    ):
        go(tmp_path, OTHERS, epochs=2.0)
    with pytest.raises(
        ClassNamesError, match="accept_class_names. To train on other classes, use another --wo"
    ):
        go(tmp_path, ("ant", "bee", "dog"), epochs=2.0)
    with pytest.raises(ClassNamesError, match="the training split has 4 classes, the run has 3"):
        go(tmp_path, (*CLASSES, "dog"), epochs=2.0)
    with pytest.raises(ClassNamesError, match="--accept_class_names .*needs equally many classes"):
        go(tmp_path, (*CLASSES, "dog"), epochs=2.0, accept_class_names=True)
    assert (tmp_path / "config.json").read_text() == stored
    assert newest_card(tmp_path).step == 2  # nothing was lost, nothing added

    summary, read, said = go(tmp_path, ("cat", "ant", "bee"), epochs=2.0)
    assert "resuming at step 2 of 4" in said
    assert (
        "the training split has the classes of the run in another order; labels are matched by name" in said
    )
    assert summary.card.class_names == load_model(tmp_path)[0].class_names == read.class_names == CLASSES
    assert read.labels.tolist() == [(2, 0, 1)[label] for label in LABELS]

    (tmp_path / "checkpoints/4/card/metadata").write_text("{")  # damaged: the one before is used
    assert newest_card(tmp_path).step == 3 and newest_card(tmp_path / "nowhere") is None
    with pytest.raises(ClassNamesError, match="'wolf'"):
        go(tmp_path, OTHERS, epochs=2.0)


def test_other_classes_are_taken_by_position_where_that_is_accepted(go, config, tmp_path):
    initial = make_initial(config, CLASSES)
    _, _, said = go(tmp_path, OTHERS, pretrained=initial, accept_class_names=True)
    assert "initialised randomly" not in said and "wolf = ant" in said
    summary, read, said = go(tmp_path, CLASSES, epochs=2.0, accept_class_names=True)
    assert "class names: not compared (--accept_class_names)" in said and "ant = wolf" in said
    assert read.labels.tolist() == LABELS.tolist() and summary.card.class_names == CLASSES


@pytest.mark.parametrize(
    ("held_out", "labels", "said"),
    [
        (("bee", "cat", "ant"), (1, 2, 0), "the evaluation split has the classes of the training split in "),
        (("0", "1", "2"), (0, 1, 2), "the evaluation split has placeholders"),
        (CLASSES, (0, 1, 2), ""),
    ],
)
def test_the_evaluation_split_has_the_labels_of_the_training_split(held_out, labels, said):
    train = source(CLASSES)
    fitted, evaluated, told = setup.fit_sources(train, source(held_out), None, accept_class_names=False)
    assert fitted is train and evaluated.labels.tolist() == [labels[label] for label in LABELS]
    assert said in "".join(told) and len(told) == bool(said)


def test_both_splits_have_the_labels_of_the_run(config):
    card = setup.make_card(config, CLASSES, "")
    order = ("cat", "ant", "bee")
    *fitted, told = setup.fit_sources(source(order), source(order), card, accept_class_names=False)
    assert [split.labels.tolist() for split in fitted] == [[(2, 0, 1)[label] for label in LABELS]] * 2
    assert len(told) == 2


def test_an_evaluation_split_of_other_classes():
    with pytest.raises(
        ClassNamesError, match="the evaluation split has 3 classes, the training split has 3.*dog"
    ):
        setup.fit_sources(source(CLASSES), source(("ant", "bee", "dog")), None, accept_class_names=False)


def make_initial(config, names):
    card = setup.make_card(config, names, "weights.pth")
    module = foreign.create_model(card.model, **card.options)
    return Pretrained(card, module.init(jax.random.key(7), np.zeros((1, 8, 8, 1), np.float32)))


def heads(config, names, new, accept=False):
    """The head's kernel of weights for `names`, that of a new run on `new` from them, and the notes."""
    told = []
    initial = make_initial(config, names)
    variables = initial.variables
    mine = setup.make_card(config, new, "")
    module = foreign.create_model(mine.model, **mine.options)
    taken = adopt(initial, module, mine, seed=0, tell=told.append, accept_class_names=accept)
    for name, leaf in variables["params"]["conv"].items():
        np.testing.assert_array_equal(leaf, taken["params"]["conv"][name])
    old, now = (np.asarray(v["params"]["head"]["kernel"]) for v in (variables, taken))
    return old, now, "\n".join(told)


@pytest.mark.parametrize(
    ("names", "new", "order", "said"),
    [
        (CLASSES, CLASSES, [0, 1, 2], ""),
        (CLASSES, ("cat", "ant", "bee"), [2, 0, 1], "in another order; labels are matched by name"),
        (
            ("0", "1", "2"),
            CLASSES,
            [0, 1, 2],
            "the initial network has placeholders; folders are taken in order",
        ),
        (CLASSES, ("0", "1", "2"), [0, 1, 2], "the data has placeholders"),
        (CLASSES, ("2", "1", "0"), [2, 1, 0], "the data has placeholders"),
    ],
)
def test_a_head_for_the_same_classes_is_kept(world, config, names, new, order, said):
    old, now, told = heads(config, names, new)
    np.testing.assert_array_equal(now, old[:, order])
    assert said in told and bool(told) == bool(said) and "initialised randomly" not in told


def test_a_head_for_as_many_other_classes_is_drawn_afresh(world, config):
    old, now, told = heads(config, CLASSES, OTHERS)
    assert now.shape == old.shape and np.abs(now - old).max() > 0.01
    assert (
        "initialised randomly for 3 classes: params/head/bias, params/head/kernel, since the data has 3"
        in told
    )
    assert "'wolf', class 0 of the data, is unknown to the initial network, whose class 0 is 'ant'" in told
    assert "pass --accept_class_names" in told
    old, now, told = heads(config, CLASSES, OTHERS, accept=True)
    np.testing.assert_array_equal(now, old)
    assert told.startswith("class names: not compared") and "wolf = ant" in told


@pytest.mark.parametrize("accept", [False, True])
def test_a_head_for_another_number_of_classes_is_drawn_afresh(world, config, accept):
    _, now, told = heads(config, (*CLASSES, "dog"), CLASSES, accept)  # the weights have them too
    assert (
        now.shape == (4, 3)
        and told == "initialised randomly for 3 classes: params/head/bias, params/head/kernel"
    )


def test_a_card_that_names_another_number_of_classes_has_placeholders(config):
    card = setup.make_card(config, CLASSES, "")
    assert card.outputs() == CLASSES
    assert dataclasses.replace(card, class_names=()).outputs() == ("0", "1", "2")
