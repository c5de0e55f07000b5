"""The report of a module, and its table."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from aliasfree_jax.evaluation.report import format_table, shift_report

SETTINGS = {"shifts": 4, "max_shift": 32, "seed": 1, "progress": False}


class Pooled(nn.Module):
    """Convolution with a stride, batch statistics, global mean."""

    stride: int

    @nn.compact
    def __call__(self, images, *, train):
        y = nn.Conv(6, (3, 3), strides=self.stride, padding="CIRCULAR", name="conv")(images)
        y = nn.gelu(nn.BatchNorm(use_running_average=not train, name="norm")(y))
        return nn.Dense(3, name="head")(y.mean((1, 2)))


def batches():
    rng = np.random.default_rng(0)
    for mask in ([1, 1, 1, 1], [1, 1, 0, 0]):
        images = rng.normal(size=(4, 12, 12, 2)).astype(np.float32)
        yield {"image": images, "label": rng.integers(0, 3, 4), "mask": np.array(mask, np.float32)}


def report(stride, source=batches, **settings):
    module = Pooled(stride)
    variables = module.init(jax.random.key(0), np.zeros((1, 12, 12, 2), np.float32), train=False)
    return shift_report(
        module, variables, source, **{"integer": True, "fractional": False, **SETTINGS, **settings}
    )


def test_report_tells_networks_apart_and_is_json():
    exact, aliasing = report(1), report(4)
    assert exact["integer"]["logit_change"]["max"] < 1e-5  # float32 rounding of a mean of 144
    assert aliasing["integer"]["logit_change"]["max"] > 1e-2
    assert exact["images"] == 6 and exact["integer"]["pairs"] == 24
    assert exact["integer"]["max_shift"] == 11
    assert exact["settings"] == {"shifts": 4, "max_shift": 32, "seed": 1}
    assert json.loads(json.dumps(exact)) == exact


def test_batches_may_be_a_list_or_a_function_and_the_seed_decides():
    first = report(4)
    assert report(4, list(batches())) == first
    assert report(4, seed=2)["integer"] != first["integer"]


def test_progress_is_shown_on_request(capsys):
    report(1, integer=False, progress=True, batch_count=2)
    assert "2/2" in capsys.readouterr().err
    report(1, integer=False)
    assert capsys.readouterr().err == ""


def part(pairs, consistency, **more):
    changes = {"mean": 1.25e-8, "max": 0.5}
    return {
        "pairs": pairs,
        "consistency": consistency,
        "accuracy": 0.75,
        "probability_change": changes,
        "logit_change": changes,
        **more,
    }


def results(**kinds):
    return {
        "images": 360,
        "accuracy": 0.98611,
        "settings": {"shifts": 8, "max_shift": 32, "seed": 0},
        **kinds,
    }


def test_table_is_aligned_and_complete():
    grids = {"1/2": part(720, 1.0), "real": part(720, 0.5)}
    table = format_table(
        results(
            integer=part(2880, 1.0, worst_case_accuracy=0.5, max_shift=31),
            fractional=part(2880, 0.999999, worst_case_accuracy=0.25, max_shift=31, grids=grids),
        )
    )
    lines = table.splitlines()
    assert lines[0] == "360 images, accuracy 98.61%"
    assert lines[1].startswith("8 random shifts an image, each axis up to 31 whole pixels (not 32:")
    head, rule, integer, fractional, halves, real = lines[3:9]
    assert set(rule) == {"-"} and len(rule) == len(head) == len(integer) == len(real)
    for row in (integer, fractional, halves, real):
        assert row[head.index("pairs") + len("pairs")] == " "
    changes = ["1.2e-08", "5.0e-01"] * 2
    assert integer.split() == ["integer", "2880", "100.00%", "75.00%", "50.00%", *changes]
    assert fractional.split()[2] == "99.99%"  # one exception in a million is not 100 %
    assert halves.split()[:5] == ["halves", "of", "a", "pixel", "720"]
    assert "worst case" in table and not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("kinds", [{}, {"integer": part(8, 1.0, worst_case_accuracy=1.0, max_shift=32)}])
def test_table_of_less(kinds):
    table = format_table(results(**kinds))
    assert ("integer" in table) == bool(kinds)
    assert "fractional" not in table and "not 32" not in table
