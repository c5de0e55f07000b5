"""docs/originals.md: each command line of the originals' READMEs has a counterpart that asks for the same.

Our lines are parsed by the programs themselves, the originals' by `originals_flags`. The networks of both are
compared, and built abstractly: shapes without values.
"""

import functools
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import originals_flags
import pytest
from absl import flags
from ml_collections import ConfigDict
from originals_networks import (
    builds,
    equal,
    expected_training,
    network_of,
    original,
    ours,
    plain,
)
from originals_readmes import code, command_lines, flags_in

from aliasfree_jax.__main__ import COMMANDS
from aliasfree_jax.config import fields
from aliasfree_jax.conversion import command as converting
from aliasfree_jax.conversion.code_bases import SOURCES
from aliasfree_jax.evaluation.selection import select
from aliasfree_jax.layers import BlurPool, Factory, MaxBlurPool

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT.parent / "shared" / "seeds"
DATA = json.loads((ROOT / "docs" / "originals.json").read_text())
README = {readme["file"]: readme for readme in DATA["readmes"]}
# Different command lines and flags of each README.
COUNTS = {
    "antialiased_cnns.README.md": (14, 5),
    "antialiased_cnns.README_IMAGENET.md": (58, 12),
    "truly_shift_invariant_cnns.README.md": (5, 3),
    "learnable_polyphase_sampling.README.md": (5, 3),
    "alias_free_convnets.README.md": (8, 0),
}
ROWS = [{**row, "file": file} for file, readme in README.items() for row in readme["lines"] + readme["flags"]]
# Tracing these takes seconds each. Their fields and options are compared in the fast tests too.
LARGE = ("101", "152", "densenet", "mobilenet", "resnext", "wide")


def variants(row):
    """A row with each value of its placeholders, such as FILTER_SIZE."""
    ((name, values),) = row.get("values", {"\n": ["\n"]}).items()
    for value in values:
        yield {
            **row,
            "original": row["original"].replace(name, value),
            "ours": row["ours"].replace(name, value),
        }


OURS = [each for row in ROWS if row["ours"] for each in variants(row)]


def of_program(name):
    return [row for row in OURS if row["ours"].startswith(f"python {name}.py ")]


def parse(name, rows):
    """What a program makes of the rows' lines, as `parsed_lines` has it."""
    lines = [row["ours"].removeprefix(f"python {name}.py ") for row in rows]
    parser = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "parsed_lines.py"), name]
    done = subprocess.run(parser, input=json.dumps(lines), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return [
        SimpleNamespace(**{"error": None, "fields": fields(one.get("config", {})), **one}) for one in found
    ]


@functools.cache
def trainings():
    rows = of_program("train")
    return list(zip(rows, parse("train", rows), strict=True))


@functools.cache
def evaluations():
    rows = of_program("eval")
    return list(zip(rows, parse("eval", rows), strict=True))


def config_of(found):
    return ConfigDict(found.config)


# ---------------------------------------------------------------- the data, the page, the READMEs


def test_the_data_have_all_lines():
    for file, readme in README.items():
        originals = [row["original"] for row in readme["lines"]]
        assert len(set(originals)) == len(originals)
        assert (len(originals), len(readme["flags"])) == COUNTS[file]
    assert set(README) == set(COUNTS)
    for row in ROWS:
        assert row["ours"] or row["note"].startswith(("Not needed", "Not offered")), row


def missing(text, readme):
    """What a README has and the data have not."""
    lines = {row["original"] for row in readme["lines"]}
    known = {row["original"] for row in readme["flags"]} | {
        row["original"].split()[0] for row in readme["flags"]
    }
    edits = {part for edit in DATA["edits"] for part in (edit["original"], *edit["replacement"])}
    whole = "; ".join([*edits, *(", ".join(edit["replacement"]) for edit in DATA["edits"])])
    return [
        *(line for line in command_lines(text) if line not in lines),
        *(flag for flag in flags_in(text) if flag not in known),
        *(layer for layer in code(text) if layer.replace("nn.", "") not in whole),
    ]


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the originals' READMEs are not in the repository")
@pytest.mark.parametrize("file", COUNTS)
def test_nothing_of_the_readmes_is_missing(file):
    text = (SEEDS / file).read_text()
    assert missing(text, README[file]) == []
    assert {row["original"] for row in README[file]["lines"]} <= set(command_lines(text))
    invented = "\n```bash\npython main.py -a resnet50_lpf9 -e\n```\nand `--new_flag`, `nn.LPPool2d(2, K)`\n"
    assert len(missing(text + invented, README[file])) == 3


def test_the_page_has_the_data():
    tables = runpy.run_path(str(ROOT / "docs" / "originals_tables.py"))
    page = tables["PAGE"].read_text()
    assert tables["filled"](page, tables["tables"](DATA)) == page, "run python docs/originals_tables.py"
    for row in ROWS:
        assert row.get("name", row["original"]) in page
    assert "Not offered: the ensembles" in page


# ---------------------------------------------------------------- trainings


def is_training(row):
    return " main.py " in row["original"]


def test_trainings_have_the_originals_networks_and_hyper_parameters():
    compared = 0
    for row, found in trainings():
        assert found.error is None, f"{row['ours']}: {found.error}"
        config = config_of(found)
        if not is_training(row):
            continue
        network, wanted = expected_training(row)
        assert plain(ours(config)) == plain(network), row["original"]
        for field, value in wanted.items():
            have = found.workdir if field == "workdir" else found.fields[field]
            assert equal(have, value), (row["original"], field)
        compared += 1
    assert compared == 4 + 10 + 2 + 7 + 4


def test_the_fields_of_flags_are_set():
    for row, found in trainings():
        for field, value in row.get("fields", {}).items():
            assert equal(found.fields[field], value), (row["original"], field)


def test_other_flags_give_other_fields():
    """The comparison can fail: the same line with one other flag."""
    (row, found), *_ = [(row, found) for row, found in trainings() if "vgg16_lpf4" in row["original"]]
    for flag in ("-b 64", "--lr .1", "-ep 9", "-a vgg16_lpf3"):
        network, wanted = expected_training({**row, "original": f"{row['original']} {flag}"})
        wanted.pop("workdir")
        same = all(equal(found.fields[field], value) for field, value in wanted.items())
        assert not (same and plain(network) == plain(ours(config_of(found))))
    with pytest.raises(ValueError, match="--invented"):
        expected_training({**row, "original": f"{row['original']} --invented"})


# ---------------------------------------------------------------- evaluations


def test_evaluations_name_the_originals_network_and_metric():
    compared = 0
    for row, found in evaluations():
        assert found.error is None, f"{row['ours']}: {found.error}"
        config = config_of(found)
        chosen = select(config, config.data.image_size, presets=found.presets, paper=found.paper)
        assert bool(chosen.presets) == bool(found.presets)
        if not is_training(row):
            continue
        asked = originals_flags.blurpool(row["original"])
        network = network_of(found.checkpoint)
        source, options = (
            ("antialiased-cnns", {"filter_size": asked.taps}) if asked.taps else ("torchvision", {})
        )
        assert network == original(source, asked.model, options), row["original"]
        if asked.taps:
            assert network.sampler(parent=None).kernel_size == asked.taps
            assert found.checkpoint.endswith("_finetune") == asked.pretrained
        assert found.presets == (["blurpool_consistency"] if asked.shifts else [])
        assert found.paper == asked.shifts
        assert found.fields["train.devices"] == (0 if asked.gpu is None else 1)
        if asked.shifts:
            assert found.fields["eval.batch_size"] == asked.batch == 8
        compared += 1
    assert compared == 2 * 4 + 2 * 23


# ---------------------------------------------------------------- networks


def networks(*, large):
    """The networks of all trainings and evaluations and the sides of their images, by their names."""
    found = {
        config_of(one).model.name: (ours(config_of(one)), one.fields["data.image_size"])
        for _, one in trainings()
    }
    found |= {
        one.checkpoint: (network_of(one.checkpoint), 224) for row, one in evaluations() if is_training(row)
    }
    return {name: made for name, made in found.items() if any(word in name for word in LARGE) == large}


def test_the_networks_take_their_images():
    assert len(networks(large=False)) > 20
    for name, (network, side) in networks(large=False).items():
        assert builds(network, side), name


@pytest.mark.slow
def test_the_large_networks_take_their_images():
    assert len(networks(large=True)) > 12
    for name, (network, side) in networks(large=True).items():
        assert builds(network, side), name


# ---------------------------------------------------------------- other commands


def test_other_commands_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rest = [row["ours"] for row in OURS if not re.match(r"python (train|eval)\.py", row["ours"])]
    for line in rest:
        words = shlex.split(line)
        if words[:2] == ["pip", "install"]:
            (target,) = [word for word in words if word.startswith(".")]
            assert set(re.findall(r"\w+", target)) <= set(extras)
            assert "-c" not in words or (ROOT / words[words.index("-c") + 1]).is_file()
        elif words[:3] == ["python", "-m", "aliasfree_jax"]:
            assert words[3] == "convert" and words[3] in COMMANDS
            values = flags.FlagValues()
            values.set_gnu_getopt(True)
            converting.define(values)
            _, *arguments = values(["", *words[4:]])
            assert values.to in SOURCES and len(arguments) == 2
        elif words[:2] == ["jupyter", "notebook"]:
            assert list((ROOT / words[2]).glob("*.ipynb"))
        else:
            assert line in ("python3 -m venv .venv", "source .venv/bin/activate")


@pytest.mark.parametrize("edit", DATA["edits"], ids=lambda edit: edit["original"].split("(")[0])
@pytest.mark.parametrize(("window", "stride", "taps"), [(2, 2, 4), (3, 2, 3), (3, 2, 5)])
def test_the_edits_sample_and_blur(edit, window, stride, taps):
    """They have the size that PyTorch gives, and the taps; a blur of constants is the constant."""
    names = {"K": window, "S": stride, "M": taps, "C_out": 6, "nn": nn}
    names |= {"BlurPool": BlurPool, "MaxBlurPool": MaxBlurPool, "Factory": Factory}
    made = eval(f"[{edit['ours']}]", names)
    network = nn.Sequential(made)
    images = jnp.ones((1, 16, 16, 6))
    result = network.apply(network.init(jax.random.key(0), images), images)
    side = 16 - window + 1 if "MaxPool2d" in edit["original"] else 16
    assert result.shape == (1, -(-side // stride), -(-side // stride), 6)
    if "Conv2d" not in edit["original"]:
        np.testing.assert_allclose(result, 1, rtol=1e-6)  # rounding of at most 25 sums
    last = made[-1] if isinstance(made[-1], BlurPool) else made[-1].sampler(parent=None)
    assert (last.kernel_size, last.padding) == (taps, "REFLECT")
