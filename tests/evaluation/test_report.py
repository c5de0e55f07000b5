"""The report of a module, and its table."""

import json
from functools import cache

import flax.linen as nn
import jax
import numpy as np
import pytest

from aliasfree_jax.evaluation.evaluator import predictor, shift_report
from aliasfree_jax.evaluation.measurements import fractional_shifts, integer_shifts
from aliasfree_jax.evaluation.report import format_markdown, format_table

SETTINGS = {"shifts": 4, "max_shift": 32, "seed": 1}


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


@cache
def network(stride):
    module = Pooled(stride)
    image = np.zeros((1, 12, 12, 2), np.float32)
    return predictor(module, jax.jit(lambda: module.init(jax.random.key(0), image, train=False))())


def report(stride, source=None, *, kinds=(integer_shifts,), progress=False, **settings):
    measurements = [kind(12, **{**SETTINGS, **settings}) for kind in kinds]
    return shift_report(network(stride), source or batches(), measurements, images=6, progress=progress)


def test_report_tells_networks_apart_and_is_json():
    exact, aliasing = report(1), report(4)
    assert exact["integer"]["logit_change"]["max"] < 1e-5  # float32 rounding of a mean of 144
    assert aliasing["integer"]["logit_change"]["max"] > 1e-2
    assert exact["images"] == 6 and exact["integer"]["pairs"] == 24
    assert exact["integer"]["about"].startswith(
        "4 random shifts per image, up to 11 whole pixels on each axis (not 32"
    )
    assert json.loads(json.dumps(exact)) == exact


def test_the_seed_decides():
    first = report(4)
    assert report(4, list(batches())) == first
    assert report(4, seed=2)["integer"] != first["integer"]


def test_progress_is_shown_on_request(capsys):
    report(1, progress=True)
    assert "30.0/30.0" in capsys.readouterr().err  # 6 images, unshifted and under 4 shifts
    report(1)
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
    return {"images": 360, "accuracy": 0.98611, "card": {"model": "m"}, **kinds}


def example():
    parts = {"1/2": part(720, 1.0), "real": part(720, 0.5)}
    about = "8 random shifts per image"
    return results(
        integer=part(2880, 1.0, worst_case_accuracy=0.5, about=about),
        fractional=part(2880, 0.999999, worst_case_accuracy=0.25, about=about, parts=parts),
        worst={"pairs": 7, "worst_case_accuracy": 0.125},
    )


def test_table_is_aligned_and_complete():
    lines = format_table(example()).splitlines()
    assert lines[0] == "360 images, accuracy 98.61%"
    head, rule, integer, fractional, halves, real, worst = lines[2:9]
    assert set(rule) == {"-"} and len(rule) == len(head) == len(integer) == len(real)
    for row in (integer, fractional, halves, real):
        assert row[head.index("pairs") + len("pairs")] == " "
    changes = ["1.2e-08", "5.0e-01"] * 2
    assert integer.split() == ["integer", "2880", "100.00%", "75.00%", "50.00%", *changes]
    assert fractional.split()[2] == "99.99%"  # one exception in a million is not 100 %
    assert halves.split()[:3] == ["1/2", "720", "100.00%"]
    assert worst.split() == ["worst", "7", "12.50%"] and worst.endswith("12.50%")
    assert lines[10] == "integer, fractional: 8 random shifts per image"
    assert any(line.startswith("worst case: ") for line in lines)
    assert not any(line.endswith(" ") or "two agree" in line for line in lines)


def test_markdown_says_the_same():
    lines = format_markdown(example()).splitlines()
    assert lines[0] == "360 images, accuracy 98.61%"
    assert lines[2].startswith("| shifts | pairs | consistency | accuracy | worst case | mean dp |")
    assert lines[3] == "|" + "---|" * lines[2].count(" | ") + "---|"
    assert lines[4].startswith("| integer | 2880 | 100.00% | 75.00% | 50.00% | 1.2e-08 |")
    assert lines[6].startswith("| &nbsp;&nbsp;1/2 | 720 |")
    assert "- integer, fractional: 8 random shifts per image" in lines


@pytest.mark.parametrize("kinds", [{}, {"integer": part(8, 1.0, worst_case_accuracy=1.0)}])
@pytest.mark.parametrize("form", [format_table, format_markdown])
def test_table_of_less(kinds, form):
    table = form(results(**kinds))
    assert ("integer" in table) == bool(kinds)
    assert "fractional" not in table and "card" not in table


def test_a_table_of_all_kinds():
    found = report(4, kinds=(integer_shifts, fractional_shifts))
    assert len(format_table(found).splitlines()) == 2 + 2 + 6 + 1 + 6
