import pickle

import numpy as np
import pytest

from aliasfree_jax.data import ArraySource, DigitsSource, Example, hold_out, limit, open_source
from aliasfree_jax.data.sources import balanced_quotas, proportional_quotas
from aliasfree_jax.errors import ConfigError, DataError

IMAGES = np.zeros((4, 2, 2, 1), np.uint8)


def test_array_source_hands_out_examples_with_names():
    source = ArraySource(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), [0, 1, 1, 0], ["no", "yes"])
    example = source[2]
    assert (len(source), example.label, example.name, source.class_names) == (
        4,
        1,
        "arrays[2]",
        ("no", "yes"),
    )
    assert example.image.item() == 2
    assert ArraySource(IMAGES, [0, 3, 1, 0]).class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (IMAGES[..., 0], [0] * 4, r"expected images \[N, H, W, C\].*uint8\[4, 2, 2\]"),
        (IMAGES.astype(int), [0] * 4, "int64"),
        (IMAGES[:0], [], "at least one image"),
        (IMAGES, [0] * 3, r"expected 4 integer labels.*\[3\]"),
        (IMAGES, [0.0] * 4, "integer labels.*float64"),
        (IMAGES, [0, 1, 2, 0], r"0\.\.1.*got 0\.\.2"),
        (IMAGES, [0, -1, 0, 0], r"got -1\.\.0"),
        (IMAGES + 255.0, [0] * 4, "divide by 255"),
        (IMAGES + np.nan, [0] * 4, r"must be in \[0, 1\]"),
    ],
)
def test_array_source_says_what_is_wrong(images, labels, match):
    with pytest.raises(DataError, match=match):
        ArraySource(images, labels, ["a", "b"])


def test_digits_splits_are_disjoint_stratified_and_complete():
    train, val = DigitsSource("train", 8), DigitsSource("val", 8)
    assert (len(train), len(val)) == (1500, 297)
    counts = np.bincount(val.labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    together = np.concatenate([[s[i].image.ravel() for i in range(len(s))] for s in (train, val)])
    assert len(np.unique(together, axis=0)) == 1797  # all images of the data set differ


def test_digits_are_enlarged_by_ideal_interpolation():
    small, large = DigitsSource("val", 8), DigitsSource("val", 32)
    image = large[5].image
    assert image.shape == (32, 32, 1) and image.dtype == np.float32
    assert large[5].label == small[5].label
    # interpolation keeps the samples, except for float32 rounding of a product with an 8-column matrix
    np.testing.assert_allclose(image[::4, ::4], small[5].image, atol=2e-6)


def test_digits_unknown_split():
    with pytest.raises(ConfigError, match="unknown split of digits 'vall'.*Did you mean 'val'"):
        DigitsSource("vall", 8)


@pytest.mark.parametrize(
    ("sizes", "count", "quotas"),
    [([5, 5], 4, [2, 2]), ([1, 9, 9], 7, [1, 3, 3]), ([3, 3, 3, 3], 2, [1, 0, 1, 0]), ([2, 2], 4, [2, 2])],
)
def test_balanced_quotas(sizes, count, quotas):
    assert balanced_quotas(np.asarray(sizes), count).tolist() == quotas


def test_limit_balances_classes_and_spreads():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    source = ArraySource(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), labels)
    subset = limit(source, 12)
    picked = [subset[i].image.item() for i in range(len(subset))]
    assert picked == [0, 15, 30, 45, 60, 67, 75, 82, 90, 92, 95, 97]
    assert subset.class_names == source.class_names
    assert np.bincount(limit(subset, 6).labels).tolist() == [2, 2, 2]  # a subset of a subset is balanced too


def test_limit_without_known_labels_is_evenly_spread():
    subset = limit(Unlabelled(), 4)
    assert [subset[i].name for i in range(len(subset))] == ["0", "2", "5", "7"]


def test_limit_bounds():
    source = ArraySource(IMAGES, [0] * 4)
    assert limit(source, 0) is source and limit(source, 9) is source
    with pytest.raises(ConfigError, match="got -1"):
        limit(source, -1)


class Unlabelled:
    """Ten examples with unknown labels."""

    class_names = ("a",)

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return Example(b"", 0, str(index))


def make_numbered(labels, names=None):
    """A source whose images are their indices."""
    images = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1) / len(labels)
    return ArraySource(images, labels, names)


def numbers(source, total):
    return [round(source[i].image.item() * total) for i in range(len(source))]


@pytest.mark.parametrize("share", [0.001, 0.1, 1 / 3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(4))
def test_a_share_of_every_class_is_held_out(seed, share):
    rng = np.random.default_rng(seed)
    sizes = [2, 3, *rng.integers(2, 200, rng.integers(1, 12)), 0, 1000]  # imbalanced; one class is empty
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    names = [f"class {k}" for k in range(len(sizes))]
    source = make_numbered(labels, names)
    left, held = hold_out(source, share)
    assert sorted(numbers(left, len(labels)) + numbers(held, len(labels))) == list(range(len(labels)))
    assert numbers(left, len(labels)) == sorted(numbers(left, len(labels)))  # in the order of the source
    found = np.bincount(held.labels, minlength=len(sizes))
    for size, of_class in zip(sizes, found, strict=True):
        assert abs(of_class - share * size) < 1 and (size == 0 or 0 < of_class < size)
    assert np.array_equal(np.bincount(left.labels, minlength=len(sizes)) + found, sizes)
    if not (share * np.array(sizes) < 1).any() and share * max(sizes) <= max(sizes) - 1:
        assert len(held) == round(share * len(labels))
    assert left.class_names == held.class_names == source.class_names
    again = hold_out(make_numbered(labels, names), share)[1]
    assert numbers(again, len(labels)) == numbers(held, len(labels))


def test_equal_classes_give_equally_many_and_evenly_spread():
    source = make_numbered(np.repeat([0, 1, 2], 100))
    left, held = hold_out(source, 0.29)  # 0.29 * 100 is slightly less than 29
    assert np.bincount(held.labels).tolist() == [29] * 3 and len(left) == 213
    gaps = np.diff([n for n in numbers(held, 300) if n < 100])
    assert set(gaps) == {3, 4}


def test_what_is_held_out_of_few_is_in_total_the_share():
    assert proportional_quotas(np.array([15] * 10), 0.1).tolist() == [2] * 5 + [1] * 5
    assert proportional_quotas(np.array([5, 5, 5]), 0.1).tolist() == [1, 1, 1]  # one of each nevertheless
    assert proportional_quotas(np.array([2, 0, 3]), 0.9).tolist() == [1, 0, 2]


def test_a_limit_comes_before_what_is_held_out():
    source = limit(make_numbered(np.repeat([0, 1], 50)), 20)
    left, held = hold_out(source, 0.2)
    assert np.bincount(left.labels).tolist() == [8, 8] and np.bincount(held.labels).tolist() == [2, 2]


def test_held_out_without_known_labels_is_evenly_spread():
    left, held = hold_out(Unlabelled(), 0.3)
    assert [held[i].name for i in range(len(held))] == ["0", "3", "6"]
    assert [left[i].name for i in range(len(left))] == ["1", "2", "4", "5", "7", "8", "9"]


def test_a_class_of_one_image_cannot_be_divided():
    source = make_numbered([0, 0, 1, 2, 2], ["cat", "dog", "owl"])
    with pytest.raises(DataError, match="needs at least two .*only one: 'dog'.*data.validation = 0"):
        hold_out(source, 0.5)


def test_sources_survive_pickling():
    source = limit(DigitsSource("val", 8), 10)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[3].image, source[3].image)


def test_open_source_applies_split_and_limit(data_config):
    data = data_config(train_limit=20, eval_limit=0)
    assert len(open_source(data, train=True)) == 20
    assert len(open_source(data, train=False)) == 297


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"source": "folder"}, "needs data.path"),
        ({"source": "tfds"}, "needs data.name"),
        ({"source": "arrays"}, "ArraySource"),
        ({"source": "folders"}, "unknown data.source 'folders'.*Did you mean 'folder'"),
    ],
)
def test_open_source_incomplete_configuration(data_config, fields, match):
    with pytest.raises(ConfigError, match=match):
        open_source(data_config(**fields), train=True)
