import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.config import IMAGE_BACKENDS, INTERPOLATIONS
from aliasfree_jax.data import (
    ArraySource,
    DigitsSource,
    FolderSource,
    ProcessPart,
    eval_batches,
    pipeline,
    train_batches,
)
from aliasfree_jax.data.decode import FILTERS
from aliasfree_jax.data.sources import Example
from aliasfree_jax.errors import ConfigError, DataError, MissingPackageError
from configs.convnext_afc import recipe

needs_fast = pytest.mark.usefixtures("fast_packages")
GREY = {"mean": (0.0,), "std": (1.0,)}


def numbered(count: int, size: int = 8) -> ArraySource:
    """Images whose only colour, and whose label, is their index."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 1))
    return ArraySource(np.ascontiguousarray(images), np.arange(count))


def gradients(count: int) -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (count, 10, 12, 1)).astype(np.uint8)
    return ArraySource(images, np.arange(count) % 7)


def take(source, data, count, **options):
    options = {"batch_size": 4, "seed": 3, **options}
    with closing(train_batches(source, data, **options)) as stream:
        return list(itertools.islice(stream, count)), stream


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for key in ("image", "label", "mask"):
            np.testing.assert_array_equal(a[key], b[key])


@pytest.fixture
def random_views(data_config):
    return data_config(crop="random_resized", flip=True, circular_shift=8, **GREY)


@pytest.fixture
def damaged_tree(tree, encoded):
    """A tree in which train/cat/b.JPG is half a JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    data = encoded(noise, "JPEG")
    (tree / "train/cat/b.PNG").rename(tree / "train/cat/b.JPG")
    (tree / "train/cat/b.JPG").write_bytes(data[: len(data) // 2])
    return tree


def test_batches_have_the_promised_form(data_config):
    batch = take(numbered(10), data_config(**GREY), 1)[0][0]
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((4, 8, 8, 1), "float32"),
        "label": ((4,), "int32"),
        "mask": ((4,), "float32"),
    }
    np.testing.assert_array_equal(batch["mask"], 1)
    # float32 rounding of numbers below 10 / 255
    np.testing.assert_allclose(batch["image"][:, 0, 0, 0] * 255, batch["label"], atol=1e-5)


def test_every_epoch_is_a_new_order_of_everything(data_config):
    labels = np.concatenate([b["label"] for b in take(numbered(10), data_config(**GREY), 10)[0]])
    epochs = labels.reshape(4, 10)  # batches of 4 continue across the epochs of 10
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_repeated_images_follow_each_other_in_different_views(random_views, workers):
    random_views.repeats, random_views.workers = 3, workers
    batches = take(gradients(9), random_views, 5)[0]
    labels = np.concatenate([batch["label"] for batch in batches])
    source_labels = np.arange(9) % 7
    epochs = labels[:18].reshape(2, 3, 3)  # 3 of 9 images in an epoch, 3 times each
    for epoch in epochs:
        assert (epoch == epoch[:, :1]).all()
        assert len(set(epoch[:, 0])) >= 2 and set(epoch[:, 0]) <= set(source_labels)
    views = np.concatenate([batch["image"] for batch in batches]).reshape(20, -1)
    assert len(np.unique(views, axis=0)) == 20
    assert_same(take(gradients(9), random_views, 2, start_step=3)[0], batches[3:])


def test_an_epoch_of_repeated_images_ends_with_an_incomplete_repetition(data_config):
    batches = take(numbered(10), data_config(**GREY, repeats=4), 10)[0]
    epochs = np.concatenate([batch["label"] for batch in batches]).reshape(4, 10)
    for epoch in epochs:
        first, second, third = epoch[:4], epoch[4:8], epoch[8:]
        assert all(len(set(part)) == 1 for part in (first, second, third))
        assert len(set(epoch)) == 3
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_one_example_can_fill_batches(data_config):
    assert take(numbered(1), data_config(**GREY), 2)[0][1]["label"].tolist() == [0] * 4


def test_stream_depends_on_the_seed_only(random_views):
    source = gradients(9)
    first, second = (take(source, random_views, 5)[0] for _ in range(2))
    assert_same(first, second)
    other = take(source, random_views, 5, seed=4)[0]
    assert not np.array_equal(first[0]["image"], other[0]["image"])


def test_neighbouring_seeds_do_not_share_an_order(data_config):
    orders = []
    for seed in (0, 1):
        labels = np.concatenate(
            [b["label"] for b in take(numbered(12), data_config(**GREY), 9, seed=seed)[0]]
        )
        orders.append({tuple(epoch) for epoch in labels.reshape(3, 12)})
    assert not orders[0] & orders[1]


def test_views_depend_on_the_seed(random_views):
    source = gradients(1)
    first, second = (take(source, random_views, 1, seed=seed)[0][0]["image"] for seed in (3, 4))
    assert not np.array_equal(first, second)


def test_views_of_an_image_differ_between_epochs(random_views):
    batches = take(gradients(1), random_views, 3)[0]
    views = np.concatenate([b["image"] for b in batches]).reshape(12, -1)
    assert len(np.unique(views, axis=0)) == 12


@pytest.mark.parametrize("start", [1, 3, 20])
def test_start_step(random_views, start):
    source = gradients(9)
    whole = take(source, random_views, start + 2)[0]
    assert_same(take(source, random_views, 2, start_step=start)[0], whole[start:])


def test_threads_do_not_change_the_stream(random_views, monkeypatch):
    source = gradients(9)
    expected = take(source, random_views, 5)[0]
    monkeypatch.setattr(pipeline, "SMALL_IMAGE_BYTES", 0)
    assert pipeline._threads(source) > 0
    assert_same(take(source, random_views, 5)[0], expected)
    assert_same(take(source, random_views, 2, start_step=3)[0], expected[3:])


@pytest.mark.parametrize(("sizes", "threads"), [((9, 60, 70), True), ((60, 9, 8), False), ((9,), False)])
def test_threads_are_chosen_by_typical_images(sizes, threads):
    """The first image may be much smaller or larger than the others."""
    source = [Example(bytes(size * 1000), 0, "") for size in (*sizes, *sizes[1:] * 50)]
    assert (pipeline._threads(source) > 0) == threads


@pytest.fixture
def photographs(tree, encoded, monkeypatch):
    """A tree of JPEGs of several sizes. Threads prepare them as if they were large."""
    monkeypatch.setattr(pipeline, "SMALL_IMAGE_BYTES", 0)
    rng = np.random.default_rng(0)
    for i, file in enumerate(sorted((tree / "train").rglob("*.[pP]*"))):
        coarse = rng.integers(0, 256, (12 + i, 16, 3)).astype(np.uint8)
        pixels = np.kron(coarse, np.ones((12, 12, 1), np.uint8))
        file.write_bytes(encoded(pixels, "JPEG", quality=95))
    return FolderSource(tree, "train")


@pytest.mark.parametrize("backend", ["pillow", pytest.param("fast", marks=pytest.mark.slow)])
def test_the_papers_augmentation_is_the_same_for_any_number_of_workers(backend, photographs, request):
    if backend == "fast":
        request.getfixturevalue("fast_packages")
    data = recipe("convnext_afc_tiny").data
    data.update({"image_size": 32, "image_backend": backend, "zero_pad": 2})
    expected = take(photographs, data, 6)[0]
    assert expected[0]["image"].shape == (4, 36, 36, 3)
    assert_same(take(photographs, data, 6)[0], expected)
    data.workers = 2
    assert_same(take(photographs, data, 4, start_step=2)[0], expected[2:])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@needs_fast
def test_backends_draw_the_same_views(photographs, data_config, interpolation):
    data = data_config(image_size=32, crop="random_resized", flip=True, mean=(0.0,) * 3, std=(1.0,) * 3)
    data.interpolation = interpolation
    slow = take(photographs, data, 5)[0]
    data.image_backend = "fast"
    for a, b in zip(slow, take(photographs, data, 5)[0], strict=True):
        np.testing.assert_array_equal(a["label"], b["label"])
        # rounding to 8 bits, and clipping between the passes at the hard edges of these images
        assert np.abs(a["image"] - b["image"]).mean() * 255 < 0.5


def test_missing_package_is_told_before_the_first_batch(data_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    with pytest.raises(MissingPackageError, match="pip install 'aliasfree_jax.fast.'"):
        train_batches(numbered(4), data_config(image_backend="fast", **GREY), batch_size=2, seed=0)


def test_evaluation_needs_no_fast_packages(data_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    batches = list(eval_batches(numbered(4), data_config(image_backend="fast", **GREY), batch_size=4))
    assert len(batches) == 1


class OneFile:
    """A source of one encoded image."""

    class_names = ("a",)

    def __init__(self, file: bytes):
        self.file = file

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        return Example(self.file, 0, "x")


def pixels_of(source, data, train: bool) -> np.ndarray:
    """The first view of the source's image, as bytes."""
    batch = take(source, data, 1)[0][0] if train else next(eval_batches(source, data, batch_size=1))
    return np.rint(batch["image"][0] * 255)


@pytest.mark.parametrize("crop", ["none", "random", "random_resized", "evaluation"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_view_is_resized_as_asked(interpolation, crop, data_config, encoded):
    """A square image, used completely, since no other shape has its area. The view equals Pillow's resize."""
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    train = crop != "evaluation"
    fields = {"eval_crop_ratio": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": interpolation}
    fields |= {"crop": crop, "crop_scale": (1.0, 1.0)} if train else {}
    source = OneFile(encoded(image))
    expected = Image.fromarray(image).resize((8, 8), FILTERS[interpolation])
    np.testing.assert_array_equal(pixels_of(source, data_config(**fields), train), np.asarray(expected))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("backend", IMAGE_BACKENDS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_exif_orientation_counts_only_if_asked(kind, backend, train, data_config, encoded, request):
    if backend == "fast":
        request.getfixturevalue("fast_packages")
    turned = Image.Exif()
    turned[0x0112] = 6
    image = np.repeat(np.arange(8, dtype=np.uint8)[:, None, None] * 30, 8, 1).repeat(3, 2)  # darker above
    fields = {"eval_crop_ratio": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "image_backend": backend}
    plain = pixels_of(OneFile(encoded(image, kind)), data_config(**fields), train)
    source = OneFile(encoded(image, kind, exif=turned))
    np.testing.assert_array_equal(pixels_of(source, data_config(**fields), train), plain)
    upright = pixels_of(source, data_config(exif=True, **fields), train)
    np.testing.assert_array_equal(upright, np.rot90(plain, -1))


@pytest.mark.parametrize("train", [True, False])
def test_zero_padding_surrounds_normalised_images(train, data_config):
    plain = data_config(mean=(0.4,), std=(0.5,), erase_probability=1.0)
    padded = data_config(mean=(0.4,), std=(0.5,), erase_probability=1.0, zero_pad=3)
    batches = []
    for data in (plain, padded):
        source = numbered(4)
        batches.append(
            take(source, data, 1)[0][0] if train else next(eval_batches(source, data, batch_size=4))
        )
    small, large = (b["image"] for b in batches)
    assert large.shape == (4, 14, 14, 1)
    np.testing.assert_array_equal(large[:, 3:-3, 3:-3], small)
    assert np.abs(large).sum() == np.abs(small).sum()


def test_evaluation_from_384_pixels_on_is_warped(data_config):
    rows = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None, None], (1, 200, 60, 1))
    source = ArraySource(np.ascontiguousarray(rows), [0])
    seen = {}
    for view in ("auto", "crop"):
        data = data_config(image_size=384, eval_view=view, **GREY)
        image = np.rint(next(eval_batches(source, data, batch_size=1))["image"][0] * 255)
        seen[view] = image.min(), image.max()
    assert seen["auto"] == (0, 199)  # the whole height
    assert seen["crop"][0] > 60 and seen["crop"][1] < 140  # 52 of the 200 rows, in the middle


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 5)])
def test_eval_sees_every_example_once(data_config, count, size):
    batches = list(eval_batches(numbered(count), data_config(**GREY), batch_size=size))
    assert all(b["image"].shape == (size, 8, 8, 1) for b in batches)
    mask = np.concatenate([b["mask"] for b in batches]).astype(bool)
    labels = np.concatenate([b["label"] for b in batches])
    assert len(batches) == -(-count // size) and mask.sum() == count
    assert labels[mask].tolist() == list(range(count))
    assert not np.concatenate([b["image"] for b in batches])[~mask].any()


def test_eval_does_not_augment_and_works_with_threads(data_config, monkeypatch):
    monkeypatch.setattr(pipeline, "SMALL_IMAGE_BYTES", 0)
    data = data_config(crop="padded", flip=True, circular_shift=8, **GREY)
    source = DigitsSource("val", 8)
    images = np.concatenate([b["image"] for b in eval_batches(source, data, batch_size=100)])[:297]
    np.testing.assert_array_equal(images, [source[i].image for i in range(297)])


def test_eval_with_a_worker(data_config):
    batches = list(eval_batches(numbered(5), data_config(workers=1, **GREY), batch_size=4))
    assert [b["label"].tolist() for b in batches] == [[0, 1, 2, 3], [4, 0, 0, 0]]
    assert batches[1]["mask"].tolist() == [1, 0, 0, 0]


def test_workers_survive_the_signal_that_ends_a_job(random_views):
    """Launchers signal all processes of a job. The main one needs more batches to save a checkpoint."""
    random_views.workers = 1
    with closing(train_batches(gradients(9), random_views, batch_size=4, seed=3)) as stream:
        next(stream)
        workers = multiprocessing.active_children()
        assert workers
        for worker in workers:
            worker.terminate()  # sends SIGTERM
        batches = list(itertools.islice(stream, 6))
    random_views.workers = 0
    assert_same(batches, take(gradients(9), random_views, 7)[0][1:])


@pytest.mark.slow
def test_workers_end_with_the_main_process(tmp_path):
    program = tmp_path / "reads.py"
    program.write_text(
        "import multiprocessing, time\n"
        "import numpy as np\n"
        "from aliasfree_jax.config import base_config\n"
        "from aliasfree_jax.data import ArraySource, train_batches\n"
        "if __name__ == '__main__':\n"
        "    data = base_config().data\n"
        "    data.update({'workers': 1, 'image_size': 8})\n"
        "    source = ArraySource(np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, int))\n"
        "    stream = train_batches(source, data, batch_size=4, seed=0)\n"
        "    next(stream)\n"
        "    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(600)\n"
    )
    main = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, start_new_session=True)
    workers = main.stdout.readline().split()
    assert workers
    os.killpg(main.pid, signal.SIGTERM)  # as a launcher does
    assert main.wait(60) == -signal.SIGTERM
    for _ in range(100):
        if not any(Path(f"/proc/{int(worker)}").exists() for worker in workers):
            return
        time.sleep(0.1)
    os.killpg(main.pid, signal.SIGKILL)
    raise AssertionError("a worker still runs")


def test_corrupt_image_is_named(damaged_tree, data_config):
    with pytest.raises(DataError, match=r"train/cat/b.JPG: cannot decode.*data.corrupt = 'skip'"):
        take(FolderSource(damaged_tree, "train"), data_config(), 2)


def test_corrupt_image_is_skipped_and_counted(damaged_tree, data_config):
    source = FolderSource(damaged_tree, "train")
    data = data_config(corrupt="skip", crop="padded")
    batches, stream = take(source, data, 10)  # 40 examples: 8 epochs of 5, each with the bad one
    assert stream.skipped >= 8  # more if the replacement was the bad image again
    assert len(stream.first_skipped) == min(stream.skipped, pipeline.NAMES_KEPT)
    assert all("train/cat/b.JPG: cannot decode" in text for text in stream.first_skipped)
    assert all(b["mask"].all() for b in batches)
    again, other_stream = take(source, data, 10)
    assert_same(batches, again)
    data.workers = 1
    in_worker, worker_stream = take(source, data, 10)
    assert_same(batches, in_worker)
    assert other_stream.skipped == worker_stream.skipped == stream.skipped
    assert worker_stream.first_skipped == stream.first_skipped


def test_nothing_but_corrupt_images_ends(damaged_tree, data_config):
    for file in (damaged_tree / "train").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="101 training images in a row are unreadable"):
        take(FolderSource(damaged_tree, "train"), data_config(corrupt="skip"), 1)


def test_evaluation_never_skips_unasked(damaged_tree, data_config):
    source, data = FolderSource(damaged_tree, "train"), data_config(corrupt="skip")
    with pytest.raises(DataError, match="train/cat/b.JPG: cannot decode"):
        list(eval_batches(source, data, batch_size=2))
    stream = eval_batches(source, data, batch_size=2, skip=True)
    masks = [batch["mask"].tolist() for batch in stream]
    assert masks == [[1, 0], [1, 1], [1, 0]]  # the second image, and the padding
    assert stream.skipped == 1 and "b.JPG: cannot decode" in stream.first_skipped[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_number_of_channels_is_checked(data_config, workers):
    with pytest.raises(ConfigError, match="images have 1 channel:"):
        take(numbered(4), data_config(workers=workers), 1)


def test_nothing_to_do(data_config):
    with pytest.raises(ConfigError, match="batch_size must be positive, got 0"):
        train_batches(numbered(4), data_config(**GREY), batch_size=0, seed=0)


@pytest.mark.parametrize(
    ("workers", "threads"), [(0, False), (0, True), pytest.param(2, False, marks=pytest.mark.slow)]
)
def test_parts_are_the_rows_of_one_process(random_views, monkeypatch, workers, threads):
    if threads:
        monkeypatch.setattr(pipeline, "SMALL_IMAGE_BYTES", 0)
    source = gradients(9)
    whole = take(source, random_views, 5)[0]
    random_views.workers = workers
    parts = [take(source, random_views, 3, start_step=2, part=ProcessPart(i, 2))[0] for i in range(2)]
    for key in ("image", "label"):
        for first, second, both in zip(*parts, whole[2:], strict=True):
            np.testing.assert_array_equal(np.concatenate([first[key], second[key]]), both[key])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 13])
def test_parts_of_an_evaluation_count_every_example_once(data_config, count):
    """Also if the last batch has rows only for the first process: all processes get equally many batches."""
    data = data_config(**GREY)
    parts = [
        list(eval_batches(numbered(count), data, batch_size=8, part=ProcessPart(i, 4))) for i in range(4)
    ]
    assert {len(part) for part in parts} == {-(-count // 8)}
    assert all(batch["image"].shape == (2, 8, 8, 1) for part in parts for batch in part)
    seen = [b["label"][b["mask"] > 0] for batches in zip(*parts, strict=True) for b in batches]
    assert np.concatenate(seen).tolist() == list(range(count))


def test_a_share_exists_and_shares_of_training_are_equal(data_config):
    with pytest.raises(ConfigError, match="there is no block 4 of 4: blocks are counted from 0"):
        eval_batches(numbered(9), data_config(**GREY), batch_size=8, part=ProcessPart(4, 4))
    with pytest.raises(ConfigError, match="a batch of 6 cannot be read as 4 equal blocks"):
        train_batches(numbered(9), data_config(**GREY), batch_size=6, seed=0, part=ProcessPart(0, 4))
