"""Tests docs/changing_your_network.md: its code blocks, its commands and its tables.

"Exact" means a change of less than 1e-5 of the result: float32 rounding of at most about a hundred sums.
Operations that break invariance change it by more than 1e-3.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax import check, create_model, layers
from aliasfree_jax.commands import program
from aliasfree_jax.conversion import audit_command
from aliasfree_jax.layers import (
    AdaptivePolyphase,
    BlurPool,
    Conv,
    Factory,
    IdealDownsample,
    IdealUpsample,
    LearnedPolyphase,
    LowpassPolynomial,
    MaxBlurPool,
    PolyphaseUpsample,
    SampledConv,
    SpatialNorm,
    Subsample,
    UpGate,
    UpPolynomial,
    UpSelfGate,
)
from aliasfree_jax.ops import fractional_shift, remove_nyquist
from aliasfree_jax.transform import command as checking
from experiments import public_resnet

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "changing_your_network.md"
TEXT = GUIDE.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


SMALL = (
    *("--config.data.image_size=16", "--config.data.train_limit=32", "--config.data.eval_limit=16"),
    *("--config.train.batch_size=16", "--config.train.total_epochs=1", "--config.optimizer.warmup_epochs=0"),
    *("--config.eval.shifts=2", "--config.eval.batch_size=16", "--config.eval.max_shift=8"),
)


def run(numbers):
    """Runs these code blocks and returns their variables."""
    names = {"__name__": "guide"}
    for number in numbers:
        exec(compile(BLOCKS[number], f"{GUIDE.name}, block {number}", "exec"), names)
    return names


def test_the_page_checks_and_transforms(capsys):
    names = run([0, 1, 2])
    assert re.search(r"in Mine/conv1\n.*in Mine\n", capsys.readouterr().out, re.DOTALL)
    found = check(names["network"].apply, names["variables"], names["images"], argnums=1)
    assert [(finding.within, finding.reason.split(" by ")[0]) for finding in found] == [
        ("Mine/conv1", "a strided convolution"),
        ("Mine/conv1", "pads"),
        ("Mine/conv2", "pads"),
        ("Mine", "a strided max pool"),
    ]
    found = check(names["network"].apply, names["variables"], names["images"], argnums=1, shifts="fractions")
    assert [finding.operation for finding in found if finding.shifts == "fractions"].count("relu") == 2


@pytest.mark.slow
def test_all_blocks_are_one_program(capsys):
    run(range(len(BLOCKS)))
    said = capsys.readouterr().out
    assert len(re.findall(r"^conv1 .* breaks first$", said, re.MULTILINE)) == 2
    assert "conv1 (conv_general_dilated)" in said and "a strided convolution by 2" in said


def test_the_accuracy_is_the_one_that_was_measured():
    measured = {name: accuracy for name, accuracy, *_ in public_resnet.table("ResNet-20")}
    from_, to = re.search(r"from\n([\d.]+) % to ([\d.]+) %", TEXT).groups()
    assert (from_, to) == (measured["as trained"], measured["polyphase"])


def test_the_commands_are_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_file.py").write_text(BLOCKS[0])
    (python, _, _, name, *arguments), *_ = COMMANDS
    assert (python, name) == ("python", "check")
    with pytest.raises(SystemExit, match="1"):  # there are findings
        program(checking.define, checking.main, None)(arguments)
    assert "my_file.py:make_network: 7 findings" in capsys.readouterr().out


@pytest.mark.slow
def test_the_training_commands(tmp_path):
    (tmp_path / "my_file.py").write_text(BLOCKS[0])
    train = [words[2:] for words in COMMANDS if words[1] == "train.py"]
    assert len(train) == 2
    for words in train:
        subprocess.run(
            [sys.executable, ROOT / "train.py", *words, *SMALL],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
    results = json.loads((tmp_path / "runs/exact/results.json").read_text())
    assert results["integer"]["consistency"] == 1


@pytest.mark.slow
def test_the_audit_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_file.py").write_text(BLOCKS[0])
    arguments = next(words[4:] for words in COMMANDS if words[3:4] == ["audit"])
    assert program(audit_command.define, audit_command.main, None)(arguments) == 0
    assert "conv1 (conv_general_dilated)" in capsys.readouterr().out


# The networks of this package.


def test_weights_of_a_plain_network_fit():
    def shapes(name):
        images = jnp.zeros((1, 64, 64, 3))
        return jax.eval_shape(create_model(name).init, jax.random.key(0), images)

    assert shapes("resnet18") == shapes("resnet18_aps")  # resnet50 only has other blocks


@pytest.mark.slow
def test_an_exact_sampler_alone_is_not_enough():
    with pytest.warns(UserWarning, match="ResNet/stem/conv: a strided convolution"):
        module = create_model("resnet50", sampler="polyphase")
    images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    variables = jax.jit(module.init)(jax.random.key(1), images)
    apply = jax.jit(module.apply)
    logits, moved = apply(variables, images), apply(variables, jnp.roll(images, (1, 1), (1, 2)))
    assert 0.05 < jnp.abs(moved - logits).max() / jnp.abs(logits).max() < 0.2  # "by 10 %"


# The layers of each row of the table in "By hand".

RELU, MEAN = nn.relu, lambda x: x.mean((1, 2))
FLAT = lambda x: x.reshape(len(x), -1)  # noqa: E731


class WithPhase(nn.Module):
    """Samples, and upsamples at the sampler's phase."""

    @nn.compact
    def __call__(self, x):
        y, phase = AdaptivePolyphase(2).with_phase(x)
        return PolyphaseUpsample(2, BlurPool)(y, phase)


OF_ROW = {  # columns: instead of, to be better, exact for whole pixels, exact for fractions too
    "strided convolution": (
        [nn.Conv(8, (3, 3), strides=2, padding="CIRCULAR"), RELU],
        [[Conv(8, 3), RELU, BlurPool(2)]],
        [[Conv(8, 3), RELU, AdaptivePolyphase(2)], [Conv(8, 3), RELU, LearnedPolyphase(2)]],
        [[SampledConv(8, 3, 2, IdealDownsample)]],
    ),
    "max pool of k by s": (
        [lambda x: nn.max_pool(x, (2, 2), (2, 2))],
        [[MaxBlurPool(2, 2, "CIRCULAR")]],
        [
            [MaxBlurPool(2, 2, "CIRCULAR", AdaptivePolyphase)],
            [MaxBlurPool(3, 2, "CIRCULAR", AdaptivePolyphase)],
        ],
        [[IdealDownsample(2)]],
    ),
    "a sampler that aliases": (
        [Subsample(2)],
        [[BlurPool(2)]],
        [[AdaptivePolyphase(2)]],
        [[IdealDownsample(2)]],
    ),
    "average pool by s": (
        [lambda x: nn.avg_pool(x, (2, 2), (2, 2))],
        [[BlurPool(2)]],
        [[AdaptivePolyphase(2)]],
        [[IdealDownsample(2)]],
    ),
    "zero padding": ([Conv(8, 3, padding="ZERO")], [], [[Conv(8, 3)]], [[Conv(8, 3)]]),
    "ReLU, GELU": (
        [RELU],
        [],
        [],
        [
            [UpPolynomial()],
            [UpSelfGate()],
            [nn.Dense(8), UpGate(), nn.Dense(4)],
            [LowpassPolynomial(cutoff=1 / 2), IdealDownsample(2)],
        ],
    ),
    "activation of a residual sum": ([RELU], [], [], []),
    "layer norm over channels": (
        [nn.LayerNorm()],
        [],
        [],
        [[SpatialNorm()], [layers.BatchNorm()], [layers.InstanceNorm()]],
    ),
    "upsampling by s": (
        [lambda x: x.repeat(2, 1).repeat(2, 2)],
        [[PolyphaseUpsample(2, BlurPool)]],
        [[WithPhase()]],
        [[IdealUpsample(2)]],
    ),
    "flattening before linear layers": (
        [FLAT, nn.Dense(4)],
        [],
        [[MEAN, nn.Dense(4)]],
        [[MEAN, nn.Dense(4)]],
    ),
    "global average pool": ([MEAN, nn.Dense(4)], [], [[MEAN, nn.Dense(4)]], [[MEAN, nn.Dense(4)]]),
}


def change(parts, shift):
    """The relative change of the power of a network's maps, summed over all positions."""
    network = nn.Sequential(parts)

    @jax.jit
    def both(x):
        still = remove_nyquist(x) if any(s % 1 for s in shift) else x
        variables = network.init(jax.random.key(1), still)

        def power(x):
            y = network.apply(variables, x)
            return (y**2).mean((1, 2)) if y.ndim == 4 else y

        y, moved = power(still), power(fractional_shift(still, shift))
        return jnp.linalg.norm(moved - y) / jnp.linalg.norm(y)

    x = np.random.default_rng(0).standard_normal((8, 8, 8, 4))
    return float(both(jnp.asarray(x, jnp.float32)))


def rows_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


TABLE = rows_of(re.search(r"^\| instead of .*?(?=\n\n)", TEXT, re.DOTALL | re.MULTILINE)[0])


def test_every_row_is_tried():
    assert [row[0].startswith(key) for row, key in zip(TABLE, OF_ROW, strict=True)] == [True] * len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0][:20])
def test_a_row_holds(row):
    instead, better, whole, fractions = next(parts for key, parts in OF_ROW.items() if row[0].startswith(key))
    for cell, found in zip(row[1:], (better, whole, fractions), strict=True):
        assert bool(cell) >= bool(found)
        for name in re.findall(r"`(\w+)\(", cell):
            assert hasattr(layers, name), name
    shift = (1.0, 3.0) if better or whole else (0.5, 1.3)
    before = change(instead, shift)
    if not row[0].startswith(("global average", "upsampling")):  # they break nothing, or fractions only
        assert before > 1e-3
    assert all(change(parts, (1.0, 3.0)) < before for parts in better if "upsampling" not in row[0])
    assert all(change(parts, (1.0, 3.0)) < 1e-5 for parts in whole)
    assert all(change(parts, (0.5, 1.3)) < 1e-5 for parts in fractions)


def test_blurpools_own_table():
    """The layers of the last column equal those of the middle column, with BlurPool's filter."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 4)), jnp.float32)
    blur = Factory(BlurPool, kernel_size=4, padding="REFLECT")
    pooled = nn.max_pool(x, (2, 2), (1, 1))
    np.testing.assert_array_equal(
        MaxBlurPool(2, 2, sampler=blur).apply({}, x), blur(strides=2).apply({}, pooled)
    )
    assert (BlurPool().kernel_size, BlurPool().padding, BlurPool().strides) == (3, "CIRCULAR", 2)
    names = re.search(r"^\| PyTorch .*?(?=\n\n)", TEXT, re.DOTALL | re.MULTILINE)[0]
    assert [row[2] for row in rows_of(names)] == [
        "`MaxBlurPool(2, 2)`",
        "`Conv(C, 3)`, `nn.relu`, `BlurPool(2)`",
        "`BlurPool(2)`",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.Sequential([Conv(8, 3), nn.relu, BlurPool(2)]).init(jax.random.key(0), x)
