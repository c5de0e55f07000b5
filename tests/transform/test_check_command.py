"""`python -m aliasfree_jax check`: its output and exit status."""

import pytest

from aliasfree_jax.__main__ import main

NETS = """
import flax.linen as nn
import jax.numpy as jnp
from aliasfree_jax.layers import AdaptivePolyphase


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = AdaptivePolyphase(2)(nn.relu(x))
        return nn.Dense(2)(x.mean((1, 2)))


class Strided(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(4, (3, 3), strides=2, padding="CIRCULAR")(x).mean((1, 2))  # line 19


def make_network():
    return Network()


def with_arguments():
    return Network(), None, {"train": False}


def trained():
    return Network(), None, {"train": True}


def function():
    return lambda x: x[:, ::2].mean((1, 2))  # line 35


def with_variables():
    return (lambda scale, x: (x * scale).mean((1, 2))), jnp.ones(3)


def of_a_library():
    import flaxmodels

    network = flaxmodels.ResNet18(output="logits", pretrained=None, normalize=False, num_classes=3)
    return network, None, {"train": False}


def number():
    return 3


def flat():
    return lambda x: x @ jnp.ones((5, 2))


def wrong():
    return Network(), None, 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)


def status(*line: str) -> int:
    try:
        return main(["check", *line])
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        (["nets.py:make_network"], "nets.py:make_network: no findings"),
        (["nets.py:with_arguments"], "no findings"),
        (["nets.py:with_variables", "--shifts=all"], "no findings"),
        (["resnet18_cifar_aps", "--image=32,32,3"], "resnet18_cifar_aps: no findings"),
    ],
)
def test_invariant_networks(line, printed, nets, capsys):
    assert status(*line) == 0
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        (["nets.py:Strided"], ["nets.py:Strided: 1 finding\nnets.py:19  conv", "in Strided/Conv_0\n"]),
        (["nets.py:function"], ["nets.py:35  slice  whole pixels"]),
        (["nets.py:make_network", "--shifts=all"], ["relu", "fractions", "polyphase_components"]),
        (["nets.py:make_network", "nets.py:function"], ["network: no findings", "function: 1 finding\n"]),
        (["nets.py:make_network", "--image=31,32,3"], ["a map of 31 x 32 is sampled by 2 x 2"]),
        (["resnet20_cifar", "--image=32,32,3"], ["resnet20_cifar: ", "in ResNet/stem/conv"]),
    ],
)
@pytest.mark.filterwarnings("ignore:a map of")
def test_findings_end_with_1(line, printed, nets, capsys):
    assert status(*line) == 1
    out = capsys.readouterr().out
    assert all(text in out for text in printed), out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "nothing to check. Pass my_file.py:make_network"),
        (["resnet18_ap"], "'resnet18_ap' is neither my_file.py:make_network nor a network of this package"),
        (["nowhere.py:make"], "there is no file nowhere.py"),
        (["nets.py:make_networks"], "unknown function 'make_networks'. Did you mean 'make_network'"),
        (["nets.py:number"], "nets.py:number() returned int: expected a flax.linen.Module"),
        (["nets.py:wrong"], "returned arguments of type int: expected a mapping"),
        (["nets.py:flat"], "flat does not run on images of 224,224,3 ("),
        (["nets.py:trained"], "trained does not run on images of 224,224,3 ("),
        (["nets.py:make_network", "--image=8,8"], "--image=8,8: expected rows,columns,channels"),
        (["nets.py:make_network", "--shifts=half"], "should be one of"),
    ],
)
def test_mistakes_end_with_2(line, message, nets, capsys):
    assert status(*line) == 2
    assert message in capsys.readouterr().err


def test_a_network_of_a_library_has_the_librarys_lines(nets, capsys):
    pytest.importorskip("flaxmodels")
    assert status("nets.py:of_a_library", "--image=64,64,3") == 1
    out = capsys.readouterr().out
    assert "\nflaxmodels/resnet/resnet.py:" in out and "in ResNet/BasicBlock_2/Conv_0" in out
