"""Tests of the documentation that do not build the site. CI builds it with warnings as errors."""

from pathlib import Path

import pytest

from aliasfree_jax import layers, models, ops, transform

ROOT = Path(__file__).parents[1]
MOST_LINES_OF_README = 150


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES_OF_README


@pytest.mark.parametrize("package", [layers, models, ops, transform], ids=lambda package: package.__name__)
def test_the_reference_has_a_page_for_every_public_package(package):
    name = package.__name__.rpartition(".")[2]
    assert f"::: {package.__name__}\n" in (ROOT / "docs" / "api" / f"{name}.md").read_text()
