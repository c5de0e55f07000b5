"""The report on layers: what it finds in known networks, and that the guide's snippets run."""

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.evaluation.layer_errors import format_layers, layer_errors
from aliasfree_jax.models import create_model

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "changing_your_network.md"


class Net(nn.Module):
    strides: int = 2
    padding: str = "CIRCULAR"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), padding="CIRCULAR", name="conv1")(x))
        x = nn.Conv(8, (3, 3), strides=self.strides, padding=self.padding, name="conv2")(x)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


def report(module, draw, shift, side=16):
    x = draw(2, side, side, 3)
    variables = module.init(jax.random.key(1), x)
    return {layer.path: layer for layer in layer_errors(module, variables, x, shift)}


def test_the_stride_is_found(draw):
    layers = report(Net(), draw, (1, 1))
    assert [path for path, layer in layers.items() if layer.breaks] == ["conv2"]
    assert layers["conv1"].after < 1e-5 < 1e-2 < layers["conv2"].after
    assert layers["conv2"].before < 1e-5 and layers["conv2"].shape == (2, 8, 8, 8)
    assert layers["head"].before > 1e-4 and not layers["head"].breaks  # not the head's doing
    assert list(layers) == ["conv1", "conv2", "head", ""]


def test_padding_is_found(draw):
    layers = report(Net(strides=1, padding="SAME"), draw, (1, 1))
    assert [path for path, layer in layers.items() if layer.breaks] == ["conv2"]


def test_shifts_by_the_stride_break_nothing(draw):
    assert not any(layer.breaks for layer in report(Net(), draw, (2, 4)).values())


def test_a_nonlinearity_breaks_fractions_of_a_pixel_only(draw):
    class Pointwise(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="head")(nn.relu(nn.Conv(8, (1, 1), name="conv")(x)).mean((1, 2)))

    assert not any(layer.breaks for layer in report(Pointwise(), draw, (1, 3), 15).values())
    broken = [path for path, layer in report(Pointwise(), draw, (0.5, 0.5), 15).items() if layer.breaks]
    assert broken == [""]  # ReLU is called outside any layer but the network itself


@pytest.mark.parametrize(
    ("name", "shift", "side"),
    [
        pytest.param("convnext_aps_micro", (3, 1), 32, marks=pytest.mark.slow),
        pytest.param("convnext_afc_micro", (0.5, 0.3), 32, marks=pytest.mark.slow),
        pytest.param("resnet20_cifar_lps", (1, 2), 16, marks=pytest.mark.slow),
    ],
)
def test_exact_networks_have_no_such_layer(name, shift, side, draw):
    options = {"depths": (1, 1)} if "convnext" in name else {"depths": (1, 1, 1), "widths": (4, 4, 4)}
    layers = report(create_model(name, num_classes=3, **options), draw, shift, side)
    assert not [layer for layer in layers.values() if layer.breaks] and "head" in layers


def test_the_table_marks_what_breaks(draw):
    lines = format_layers(list(report(Net(), draw, (1, 1)).values())).splitlines()
    assert lines[0].split() == ["layer", "output", "error", "before", "after"]
    assert [line for line in lines if line.endswith("<- breaks")] == [lines[2]]
    assert lines[2].startswith("conv2 (Conv)") and "8x8x8" in lines[2]


def test_what_cannot_be_looked_at_is_refused():
    with pytest.raises(ShapeError, match="expected floating-point images"):
        layer_errors(Net(), {}, jnp.zeros((4, 4, 3)))

    class Nothing(nn.Module):
        def __call__(self, x):
            return jnp.zeros(3)

    with pytest.raises(ShapeError, match="no layer of the network has an output"):
        layer_errors(Nothing(), {}, jnp.zeros((1, 4, 4, 3)))


@pytest.mark.parametrize("number", range(3))
def test_the_guides_snippets_run(number, capsys):
    snippets = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(snippets) == 3
    exec(compile(snippets[number], f"{GUIDE.name}, snippet {number + 1}", "exec"), {"__name__": "guide"})
    if number == 0:
        broken = [line for line in capsys.readouterr().out.splitlines() if line.endswith("<- breaks")]
        assert len(broken) == 1 and broken[0].startswith("conv2")
