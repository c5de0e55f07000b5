"""Parameters and multiply-adds of networks by command, compared with hand counts and published figures."""

import jax
import jax.numpy as jnp
import pytest
from absl import flags

from aliasfree_jax import create_model
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers import Conv, DepthwiseConv
from aliasfree_jax.models import command
from aliasfree_jax.ops.resample import ideal_downsample


def run(capsys, *line: str) -> list[list[str]]:
    """Returns the words of each line that the command prints."""
    values = flags.FlagValues()
    command.define(values)
    command.main(values, values(["models", *line])[1:])
    return [row.split() for row in capsys.readouterr().out.splitlines()]


def counted(function, *shapes: tuple[int, ...]) -> int:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return command.multiply_adds(jax.make_jaxpr(function)(*arrays).jaxpr)


def of_layer(layer, *shape: int) -> int:
    return counted(lambda x: layer.init_with_output(jax.random.key(0), x), shape)


def scanned(x, w):
    return jax.lax.scan(lambda carry, _: (carry @ w, None), x, length=7)[0]


def chosen(x, w):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: of_layer(Conv(6, 3, 2, "ZERO"), 2, 8, 10, 5), 2 * (4 * 5 * 6) * (3 * 3 * 5)),
        (lambda: of_layer(Conv(6, 3, feature_group_count=2), 1, 8, 8, 4), (8 * 8 * 6) * (3 * 3 * 2)),
        # Few channels: a product over patches on CPUs.
        (lambda: of_layer(Conv(8, 4, 1, "VALID"), 1, 8, 8, 3), (5 * 5 * 8) * (4 * 4 * 3)),
        (lambda: of_layer(DepthwiseConv((7, 5)), 1, 8, 8, 4), (8 * 8 * 4) * (7 * 5)),
        (lambda: counted(lambda x, w: x @ w, (2, 3, 4, 5), (5, 6)), 2 * 3 * 4 * 5 * 6),
        (lambda: counted(scanned, (2, 5), (5, 5)), 7 * 2 * 5 * 5),
        (lambda: counted(chosen, (2, 5), (5, 5)), 2 * 2 * 5 * 5),
        (lambda: counted(jax.checkpoint(lambda x, w: x @ w), (2, 5), (5, 5)), 2 * 5 * 5),
        # Rows, then columns: 8 x 8 to 4 x 8 to 4 x 4.
        (lambda: counted(ideal_downsample, (1, 8, 8, 3)), 3 * (4 * 8 * 8 + 4 * 4 * 8)),
    ],
)
def test_by_hand(found, expected):
    assert found() == expected


KNOWN = {
    "resnet50": (25_557_032, 4.09),
    "vgg16": (138_357_544, 15.47),
    "convnext_tiny": (28_589_128, 4.46),
    "densenet121": (7_978_856, 2.83),
    # 0.30 if the convolutions are strided. Here, depthwise convolutions run at stride 1 with every sampler.
    "mobilenet_v2": (3_504_872, 0.31),
}
SLOW = {"densenet121", "mobilenet_v2"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in KNOWN])
def test_the_fields_figures(name):
    parameters, multiply_adds = command.size_of(create_model(name), 224)
    assert (parameters, round(multiply_adds / 1e9, 2)) == KNOWN[name]


def test_the_list(capsys):
    head, *rows = run(capsys, "basic*", "--image_size=32")
    assert head == ["parameters", "multiply-adds", "(G,", "at", "32", "x", "32)"]
    parameters = 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 32 + 32 + 64 + 64 + 64 * 10 + 10
    products = 32**2 * 9 * (3 * 32 + 32 * 32) + 16**2 * 9 * (32 * 64 + 64 * 64) + 64 * 10
    assert rows == [[name, f"{parameters:,}", f"{products / 1e9:.3f}"] for name in ("basic", "basic_blur")]


def test_images_that_are_too_small_are_said_in_their_line(capsys):
    _, row = run(capsys, "vgg11", "--image_size=16")
    assert " ".join(row).startswith("vgg11 images of 16 x 16 are too small")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["resnet51"], "unknown model 'resnet51'. Did you mean 'resnet50'"),
        (["resnet18", "resnet34"], "expected one pattern of names, got resnet18 resnet34: quote it"),
    ],
)
def test_other_lines_are_refused(line, message, capsys):
    with pytest.raises(ConfigError, match=message):
        run(capsys, *line)
    with pytest.raises(flags.IllegalFlagValueError, match="image_size"):
        run(capsys, "--image_size=0")
