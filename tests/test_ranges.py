"""Tests that every number of a configuration has a range, and that values outside it are refused."""

import importlib
import math
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from aliasfree_jax.config import FIELDS, base_config, fields
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.legal_values import Range, Several
from aliasfree_jax.validation import validate

RANGES = {field: legal for field, (_, legal) in FIELDS.items() if isinstance(legal, Range | Several)}
CONFIGS = sorted(
    path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py") if path.stem != "__init__"
)


def numeric_fields(config, prefix=""):
    """Fields with numbers. Empty lists count too, except `eval.during`, which has names."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from () if name == "options" else numeric_fields(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            if name != "during" and not (value and all(isinstance(v, str) for v in value)):
                yield prefix + name
        elif not isinstance(value, bool | str):
            yield prefix + name


def changed(field, value, base=None):
    """A whole configuration with one changed field of any type, as a file may contain it."""
    config = (base or base_config()).to_dict()
    *sections, name = field.split(".")
    section = config
    for key in sections:
        section = section[key]
    assert name in section
    section[name] = value
    return ConfigDict(config)


def test_every_number_has_a_range_and_every_range_a_number():
    assert sorted(numeric_fields(base_config())) == sorted(RANGES)


def faults_of_numbers(config):
    values = fields(config.to_dict())
    return [field for field, legal in RANGES.items() if legal.fault(values[field])]


def bad_values(legal):
    if isinstance(legal, Several):
        yield from (3, "3", None, (math.nan,), (True,), ("1",))
        yield from ((bad,) * max(1, legal.fewest) for bad in bad_values(legal.each))
        if legal.ascending:
            good = [element for element in good_values(legal.each) if element != legal.each.least][-2:]
            yield tuple(
                sorted({*good, good[-1] / 2 if not legal.each.whole else good[-1] + 1}, reverse=True)
            )[:2]
        if legal.fewest:
            yield ()
        return
    yield from (math.nan, math.inf, -math.inf, True, False, "1", None, 1 + 1j)
    if legal.whole:
        yield from (legal.least + 0.5, legal.least + 1.0)
    if legal.least > -math.inf:
        yield legal.least if legal.above else legal.least - 1
    if legal.most < math.inf:
        yield legal.most if legal.below else legal.most + 1


def good_values(legal):
    if isinstance(legal, Several):
        count = max(1, legal.fewest)
        yield from ((good,) * count for good in good_values(legal.each))
        yield from ([good] * count for good in good_values(legal.each))
        return
    low = legal.least if legal.least > -math.inf else -3
    yield low + 0.25 if legal.above else low
    high = legal.most if legal.most < math.inf else low + 1000
    yield high - 0.25 if legal.below else high


@pytest.mark.parametrize("field", RANGES)
def test_numbers_outside_of_their_range_are_refused_by_name(field):
    for value in bad_values(RANGES[field]):
        with pytest.raises(ConfigError, match=f"- {field} must .*, got "):
            validate(changed(field, value))
    for value in good_values(RANGES[field]):
        assert faults_of_numbers(changed(field, value)) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer.weight_decay", -0.1, "must not be negative, got -0.1"),
        ("optimizer.b2", 1.0, r"must lie in \[0, 1\), got 1.0"),
        ("data.crop_padding", -4, "must not be negative, got -4"),
        ("data.image_size", 32.5, "must be a whole number, got 32.5"),
        ("data.image_size", 0, "must be positive, got 0"),
        ("eval.max_shift", 0, "must be positive, got 0"),
        ("eval.finest_fraction", 1, "must be at least 2, got 1"),
        ("train.total_epochs", math.inf, "must be finite, got inf"),
        ("train.total_epochs", True, "must be a number, got True"),
        ("train.temperature.every_epochs", 0.0, "must be positive, got 0.0"),
        ("train.temperature.targets", (1.5,), r"must hold elements of which each must lie in \(0, 1\], got"),
        ("data.std", (0.2, 0.0, 0.2), "must hold elements of which each must be positive, got"),
        ("data.mean", 0.5, "must be a list of numbers, got 0.5"),
        ("data.mean", (), "must have 1 or more elements, got"),
        ("data.crop_scale", (1.0, 0.08), "must be in ascending order, got"),
        ("data.crop_scale", (0.5,), "must have 2 elements, got"),
        ("seed", -1, r"must lie in \[0, 4294967295\], got -1"),
    ],
)
def test_what_is_said_of_a_number(field, value, message):
    with pytest.raises(ConfigError, match=f"- {field} {message}"):
        validate(changed(field, value))


def test_all_faults_are_told_at_once():
    config = changed("optimizer.weight_decay", -1.0, changed("eval.max_shift", 0))
    with pytest.raises(ConfigError, match=r"weight_decay(.|\n)*- eval.max_shift"):
        validate(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_recipes_lie_in_their_ranges(name):
    assert faults_of_numbers(importlib.import_module(f"configs.{name}").get_config()) == []


def test_an_end_that_is_left_out():
    assert Range(0, 1, above=True, below=True).fault(0) == "lie in (0, 1)"
    assert Range(0, 1, above=True, below=True).fault(0.5) is None
