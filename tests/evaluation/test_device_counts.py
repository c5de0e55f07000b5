"""Tests that results do not depend on the batch size and the number of devices and processes.

The classifier adds small whole numbers, which is exact in float32: equal shifts give equal bits.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import jax
import numpy as np
import pytest

from aliasfree_jax.config import base_config
from aliasfree_jax.data import ArraySource, ProcessPart, eval_batches
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate, shift_report
from aliasfree_jax.evaluation.presets import PresetConfig
from aliasfree_jax.evaluation.reductions import ACCURACY, CONSISTENCY, WORST_CASE, Change, Counts, PerShift
from aliasfree_jax.evaluation.search import Ascent
from aliasfree_jax.evaluation.selection import preset
from aliasfree_jax.evaluation.shift_sets import Grid, random_fraction, random_integer, square
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh

SIDE, CLASSES = 8, 5
RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 8, (14, 4 * SIDE + 4, 4 * SIDE + 4, 1)).astype(np.float32)
WEIGHTS = RNG.integers(-3, 4, (SIDE * SIDE, CLASSES)).astype(np.float32)


@jax.jit
def sums(images):
    return images[:, :SIDE, :SIDE].reshape(len(images), -1) @ WEIGHTS


LABELS = np.asarray(sums(IMAGES).argmax(-1), np.int32)


@dataclass(frozen=True)
class Where:
    """A reduction that returns the shifts of each image."""

    until_fooled: ClassVar[bool] = False

    def count(self, table):
        return Counts({"where": table.where.swapaxes(0, 1).tolist()})

    def result(self, counts):
        return {"where": counts.total["where"]}


def batches(images, size, processes=1, local=1, side=SIDE):
    """Batches as `evaluated_batches` makes them from the parts of several processes."""
    own = -(-size // processes)
    rows = own + -own % local
    for first in range(0, images, size):
        parts = []
        for process in range(processes):
            here = np.arange(first + process * own, first + min((process + 1) * own, size))
            here = here[here < images]
            missing = [(0, rows - len(here))]
            parts.append(
                {
                    "image": np.pad(IMAGES[here, :side, :side], missing + [(0, 0)] * 3),
                    "label": np.pad(LABELS[here], missing),
                    "mask": np.pad(np.ones(len(here), np.float32), missing),
                }
            )
        yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def measurements():
    key = jax.random.key(5)
    whole, parts = random_integer(2, 3, key), random_fraction(2, 2, None, key)
    grid = random_fraction(2, 2, 3, key)
    return (
        Measurement("sets", {"whole": whole, "also": square(1)}, reductions=(ACCURACY, CONSISTENCY, Where())),
        Measurement("worst", square(2), reductions=(WORST_CASE,)),
        Measurement("pixels", Grid(np.array([[1, 2]])), reductions=(PerShift(), Change("logit_change"))),
        Measurement("real", parts, reductions=(Where(),)),
        Measurement("thirds", grid, reductions=(Where(),)),
    )


def without_means(results):
    """Removes means: the last bit of float64 sums depends on the end of a batch."""
    return {k: without_means(v) if isinstance(v, dict) else v for k, v in results.items() if k != "mean"}


@pytest.mark.parametrize("images", [1, 13])
def test_any_batch_size_device_and_process_count_sees_the_same_shifts(images):
    wanted = evaluate(sums, batches(images, 8), measurements())
    assert len(wanted["real"]["where"]) == images
    # Batches of 1, 4, 8, 8 and 4 rows: equal sizes share a compiled program.
    for size, processes, local in [(1, 1, 1), (3, 1, 4), (5, 2, 2), (5, 4, 1), (2, 4, 1)]:
        found = evaluate(sums, batches(images, size, processes, local), measurements())
        assert without_means(found) == without_means(wanted), (size, processes, local)


def test_filling_does_not_change_a_bit_of_any_result():
    plain = evaluate(sums, batches(14, 7), measurements())
    for devices in (2, 4):  # a batch of 7 is padded to 8
        placed = evaluated_batches(batches(14, 7), make_mesh(devices))
        assert evaluate(sums, placed, measurements()) == plain, devices


def test_a_search_finds_the_same_on_all_device_counts():
    search = Measurement(
        "found", square(1), reductions=(WORST_CASE,), refine=Ascent((-2.0, -2.0), (2.0, 2.0), steps=3)
    )
    kept = (IMAGES, LABELS)
    found = [
        evaluate(sums, evaluated_batches(batches(len(kept[0]), size), make_mesh(devices)), (search,))
        for size, devices in ((14, 1), (14, 4), (5, 3))
    ]
    assert found[0] == found[1] == found[2] and 0 < found[0]["found"]["pairs"]


PAPER = ("aps_consistency", "aps_cifar_circular", "lps_consistency", "afc_integer_rand10")


@pytest.mark.parametrize("paper", [False, True])
def test_presets_draw_for_the_batches_that_were_asked_for(paper):
    """Two measurements share a stream. The last batch of the mean over batches is not full."""

    def found(processes, local, size=7):
        setting = PresetConfig(side=4 * SIDE, seed=1, margin=2)
        chosen = [preset(name, setting, paper=paper).measurements for name in PAPER]
        images = batches(13, size, processes, local, side=4 * SIDE + 4)
        return without_means(evaluate(sums, images, [each for wanted in chosen for each in wanted]))

    wanted = found(1, 1)
    for processes, local in [(1, 4), (2, 2)]:  # 8 rows
        assert found(processes, local) == wanted
    if not paper:
        assert found(1, 4, size=8) == wanted


def test_shares_of_a_batch_hold_its_images_in_order_and_no_other():
    """With any number of processes, a preset gets the batches of the original program."""
    data = base_config().data
    data.update({"image_size": SIDE, "mean": (0.5,), "std": (0.5,), "eval_crop_ratio": 1.0})
    for images, size, count in product((1, 7, 13), (1, 5, 8), (1, 2, 3, 4)):
        source = ArraySource(np.zeros((images, SIDE, SIDE, 1), np.uint8), np.arange(images) % 13)
        shares = [
            list(eval_batches(source, data, batch_size=size, part=ProcessPart(i, count)))
            for i in range(count)
        ]
        assert len({batch["image"].shape for share in shares for batch in share}) == 1
        for number, rows in enumerate(zip(*shares, strict=True)):
            labels, mask = (np.concatenate([row[name] for row in rows]) for name in ("label", "mask"))
            assert labels[mask > 0].tolist() == [*range(number * size, min((number + 1) * size, images))]


def test_the_work_is_divided_over_as_many_devices_as_asked_for():
    seen = []

    def noted(images):
        seen.append(len(images.sharding.device_set))
        return sums(images)

    reports = {
        devices: shift_report(
            noted, batches(7, 7), measurements()[:2], images=7, devices=devices, progress=False
        )
        for devices in (0, 1, 3)
    }
    assert {*seen} == {1, 3, 4} and reports[0] == reports[1] == reports[3]
