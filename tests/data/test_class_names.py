"""Matches labels of data with outputs of a network, by the names of the classes."""

import pickle

import numpy as np
import pytest

from aliasfree_jax.data import ArraySource, limit
from aliasfree_jax.data.class_names import ClassNamesError, fit_classes, match_classes, placeholders
from aliasfree_jax.data.sources import Example
from aliasfree_jax.errors import DataError

AS_TEXT = ("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9")
BY_TEXT = (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)
NUMBERED = placeholders(11)
ANIMALS = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (ANIMALS, ANIMALS),
        (ANIMALS, list(ANIMALS)),
        (ANIMALS, (" ant", "bee\n", "cat ")),
        (("caf\u00e9",), ("cafe\u0301",)),  # as written by Linux and by Macintosh
        (("crane", "crane", "ox"), ("crane", "crane", "ox")),  # ImageNet's English names
        (NUMBERED, NUMBERED),
        (AS_TEXT, AS_TEXT),  # a run on numbered folders, and its data
        (("class 0", "class 1"), ("0", "1")),
        (("0", "1"), ("00", "01")),
        (("0", "1"), (0, 1)),
        (("0",), ("0",)),
    ],
)
@pytest.mark.parametrize("accept", [False, True])
def test_equal_names_are_taken_as_they_are(known, found, accept):
    match = match_classes(known, found, accept=accept)
    assert match.outputs == tuple(range(len(known))) and match.class_names == known and not match.note


BY_NAME = "labels are matched by name"


@pytest.mark.parametrize(
    ("known", "found", "outputs", "names", "said"),
    [
        (
            ANIMALS,
            ("cat", "ant", "bee"),
            (2, 0, 1),
            ANIMALS,
            "the classes of the network in another order; " + BY_NAME,
        ),
        (NUMBERED, AS_TEXT, BY_TEXT, NUMBERED, f"{BY_NAME}: 0, 1, 10, 2, 3"),
        (AS_TEXT, NUMBERED, (0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2), AS_TEXT, BY_NAME),
        (("class 0", "class 1"), ("1", "0"), (1, 0), ("class 0", "class 1"), BY_NAME),
        (("1", "2", "3"), ("3", "2", "1"), (2, 1, 0), ("1", "2", "3"), BY_NAME),
        # placeholders of the network
        (("0", "1", "2"), ANIMALS, (0, 1, 2), ANIMALS, "the network has placeholders; folders are taken in "),
        (("0", "1", "2"), ANIMALS, (0, 1, 2), ANIMALS, "in order: ant = 0, bee = 1, cat = 2"),
        (("0", "1"), ("crane", "crane"), (0, 1), ("crane", "crane"), "placeholders"),
        (("class 0", "class 1", "class 2"), ANIMALS, (0, 1, 2), ANIMALS, "in order: ant = class 0"),
        (
            ("0", "1", "2"),
            ("n1", "n10", "n2"),
            (0, 1, 2),
            ("n1", "n10", "n2"),
            "in order (as text, not as numbers): n1 = 0, n10 = 1, n2 = 2",
        ),
        (
            placeholders(10),
            tuple(sorted(map(str, range(1, 11)))),
            tuple(range(10)),
            None,
            "1 = 0, 10 = 1, 2 = 2",
        ),
        # placeholders of the data
        (ANIMALS, ("0", "1", "2"), (0, 1, 2), ANIMALS, "the data has placeholders; they are taken as pos"),
        (ANIMALS, ("2", "0", "1"), (2, 0, 1), ANIMALS, "of the network: 2 = cat, 0 = ant, 1 = bee"),
        (tuple("abcdefghijk"), AS_TEXT, BY_TEXT, tuple("abcdefghijk"), "0 = a, 1 = b, 10 = k, 2 = c"),
        (("ant",), ("0",), (0,), ("ant",), "placeholders"),
    ],
)
def test_other_names_that_are_understood_are_told(known, found, outputs, names, said):
    match = match_classes(known, found)
    assert match.outputs == outputs and match.class_names == (found if names is None else names)
    assert match.note.startswith("class names: ") and "\n" not in match.note and said in match.note


def test_long_lists_are_shortened():
    note = match_classes(placeholders(1000), [f"n{k:08d}" for k in range(1000)]).note
    assert "n00000011 = 11, ... (1000 in all)" in note and "n00000012" not in note


def test_some_of_the_classes_where_that_is_allowed():
    match = match_classes(ANIMALS, ("cat", "ant"), subset=True)
    assert match.outputs == (2, 0) and match.class_names == ANIMALS
    assert match.note == (
        "class names: the data has only 2 of the 3 classes of the network; labels are matched by name: "
        "cat, ant"
    )
    assert match_classes(NUMBERED, ("10", "2"), subset=True).outputs == (10, 2)
    # One name belongs to one class only, although another belongs to two.
    assert match_classes(("crane", "crane", "ox"), ("ox",), subset=True).outputs == (2,)
    with pytest.raises(
        ClassNamesError, match="2 classes, the network has 3.*'bee', class 1 of the network, is"
    ):
        match_classes(ANIMALS, ("ant", "cat"))


BY_POSITION = "If label k nevertheless means class k of the network, pass --accept_class_names"
NEEDS = "--accept_class_names takes labels by position, so it needs equally many classes"


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize(
    ("known", "found", "said", "way"),
    [
        (
            ANIMALS,
            ("wolf", "yak", "zebra"),
            "'wolf', class 0 of the data, .* class 0 is 'ant'; 2 more classes are unknown too",
            BY_POSITION,
        ),
        (
            ANIMALS,
            ("ant", "bee", "dog"),
            "'dog', class 2 of the data, is unknown to the network, whose class 2 is 'cat'",
            BY_POSITION,
        ),
        (ANIMALS, ("ant", "bee", "Cat"), r"'Cat'.*\(did you mean 'cat'\?\)", BY_POSITION),
        (ANIMALS, ("ant", "bees", "cat"), r"'bees'.*\(did you mean 'bee'\?\)", BY_POSITION),
        (
            ANIMALS,
            (*ANIMALS, "dog"),
            "4 classes, the network has 3, .* 'dog', class 3 of the data, is unknown",
            NEEDS,
        ),
        (ANIMALS, ("aphid", "bee"), "2 classes, the network has 3, .* 'aphid', class 0", NEEDS),
        (("n01440764", "n01443537"), ("tench", "goldfish"), "'tench'.*'n01440764'", BY_POSITION),
        (ANIMALS, ("ant", "ant", "bee"), "'ant' names 2 classes of the data", BY_POSITION),
        (ANIMALS, ("ant", "ant"), "'ant' names 2 classes of the data", NEEDS),
        (("ox", "ox", "bee"), ("bee", "ox", "ox"), "'ox' names 2 classes of the data", BY_POSITION),
        (("ox", "ox", "bee"), ("bee", "ox"), "'ox' names 2 classes of the network", NEEDS),
        (placeholders(4), ANIMALS, "3 classes, the network has 4, .* 'ant', class 0", NEEDS),
        (("a", "b", "c", "d"), ("0", "1", "2"), "3 classes, the network has 4, .* '0', class 0", NEEDS),
        (("a", "b", "c"), ("1", "2", "3"), "'1', class 0 of the data", BY_POSITION),  # from 1: positions?
        (("1", "2", "3"), ("0", "1", "2"), "'0', class 0 of the data", BY_POSITION),  # shifted by one
        (AS_TEXT, tuple("abcdefghijk"), "'a', class 0 of the data", BY_POSITION),  # which is 10?
    ],
)
def test_other_classes_are_refused(known, found, said, way, subset):
    with pytest.raises(ClassNamesError, match=said) as refused:
        match_classes(known, found, subset=subset)
    assert way in str(refused.value) and str(refused.value).startswith(f"the data has {len(found)} classes")
    assert isinstance(refused.value, DataError)


def test_accepting_takes_positions():
    match = match_classes(ANIMALS, ("wolf", "yak", "zebra"), accept=True)
    assert match.outputs == (0, 1, 2) and match.class_names == ("wolf", "yak", "zebra")
    assert match.note.startswith("class names: not compared (--accept_class_names). Labels are taken as ")
    assert "wolf = ant, yak = bee" in match.note
    # Folders in alphabetical order, as other programs number them.
    assert match_classes(NUMBERED, AS_TEXT, accept=True).outputs == tuple(range(11))
    assert match_classes(ANIMALS, ("0", "1", "2"), accept=True).class_names == ANIMALS
    assert match_classes(ANIMALS, ("cat",), accept=True, subset=True).outputs == (2,)  # by name, as always
    with pytest.raises(ClassNamesError, match="needs equally many classes"):
        match_classes(ANIMALS, ("wolf", "yak"), accept=True, subset=True)


IMAGES = np.zeros((6, 2, 2, 1), np.uint8)


def test_a_source_gets_the_labels_and_names_of_the_network():
    told = []
    source = ArraySource(IMAGES, [0, 1, 2, 0, 0, 1], ("cat", "ant", "bee"))
    fitted = fit_classes(source, ANIMALS, tell=told.append)
    assert len(told) == 1 and "matched by name" in told[0]
    assert (len(fitted), fitted.class_names, fitted.labels.tolist()) == (6, ANIMALS, [2, 0, 1, 2, 2, 0])
    assert [fitted[i].label for i in range(6)] == [2, 0, 1, 2, 2, 0]
    assert fitted[3].name == source[3].name and fitted[3].image is not None
    assert pickle.loads(pickle.dumps(fitted))[0].label == 2  # workers of the pipeline receive it
    # Balanced by the new labels: three images, one of each class.
    assert limit(fitted, 3).labels.tolist() == [2, 0, 1] and limit(fitted, 3).class_names == ANIMALS


def test_a_source_of_some_classes_is_limited_to_them():
    source = ArraySource(IMAGES, [0, 1, 0, 1, 0, 1], ("cat", "ant"))
    fitted = fit_classes(source, ANIMALS, tell=lambda _: None, subset=True)
    assert fitted.class_names == ANIMALS and sorted(limit(fitted, 4).labels.tolist()) == [0, 0, 2, 2]


def test_a_source_with_equal_names_is_itself():
    source = ArraySource(IMAGES, [0, 1, 2, 0, 1, 2])
    assert fit_classes(source, placeholders(3), tell=pytest.fail) is source


def test_numbers_get_the_networks_names():
    fitted = fit_classes(ArraySource(IMAGES, [0, 1, 2, 0, 1, 2]), ANIMALS, tell=lambda _: None)
    assert fitted.class_names == ANIMALS and fitted.labels.tolist() == [0, 1, 2, 0, 1, 2]


class Unlabelled:
    """Like the test split of a data set without labels."""

    class_names = ("b", "a")

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Example(IMAGES[0], -1, "unlabelled[0]")


def test_a_label_of_no_class_is_not_another_class():
    fitted = fit_classes(Unlabelled(), ("a", "b"), tell=lambda _: None)
    assert not hasattr(fitted, "labels")
    with pytest.raises(DataError, match=r"unlabelled\[0\] has the label -1; expected 0 to 1"):
        fitted[0]
