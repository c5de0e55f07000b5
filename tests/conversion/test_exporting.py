"""Exported networks: the outputs of the files, the platforms, and the refused networks."""

import json

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import ModelCard, save_model
from aliasfree_jax.conversion import exporting, stablehlo
from aliasfree_jax.conversion.exporting import check_output, export
from aliasfree_jax.conversion.stablehlo import ExportError, programs, serialized
from aliasfree_jax.errors import ConfigError, MissingPackageError
from aliasfree_jax.foreign import build
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.choices import CHOICES, assume, choices

# As in tests/models/test_equivariance.py: the largest change by float32 rounding, the smallest by aliasing.
SINGLE, BROKEN = 2e-5, 1e-3
MICRO = {"depths": (1, 1), "widths": (8, 16), "num_classes": 10}
RESNET = {"depths": (1, 1), "widths": (4, 8), "num_classes": 10}
UNET = {"widths": (4, 8), "num_classes": 2}
WHOLE, FRACTIONAL = [(1.0, 0.0), (-3.0, 5.0)], [(0.5, 0.5), (1 / 3, 7.77)]
PREPARED = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.1)}

NETS = """
import flax.linen as nn


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Conv(8, (3, 3), 2, padding="CIRCULAR")(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(10)(nn.relu(nn.Conv(8, (3, 3), 2, padding="CIRCULAR")(x)).mean((1, 2)))


def make_network():
    return Network()
"""


class Pointwise(nn.Module):
    """A very small network that applies a function to its feature map."""

    function: object = staticmethod(lambda maps: maps)

    @nn.compact
    def __call__(self, images, *, train=False):
        return self.function(nn.Dense(2)(images)).mean((1, 2))


def card_of(name, side=32, **options):
    return ModelCard(
        name, options, tuple("abcdefghij"), side, 3, *PREPARED.values(), 0.875, 7, "configs/mine.py"
    )


def moved(image, shift):
    """The image after a circular shift by (down, right) pixels, with numpy's FFT in float64."""
    y = image.astype(np.float64)
    for axis, pixels in zip((1, 2), shift, strict=True):
        turns = np.fft.fftfreq(y.shape[axis]) * pixels
        y = np.fft.ifft(
            np.fft.fft(y, axis=axis) * np.exp(-2j * np.pi * turns).reshape(-1, *[1] * (3 - axis)), axis=axis
        ).real
    return y.astype(image.dtype)


def changes(path, image, shifts):
    """The relative change of the reloaded file's logits for each shift, from one call of 1 + n images."""
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    images = np.concatenate([image, *(moved(image, shift) for shift in shifts)])
    logits = np.asarray(exported.call(images))
    return np.abs(logits[1:] - logits[0]).max(axis=1) / np.abs(logits[0]).max()


def text(apply, variables, *platforms, batch=None):
    content = serialized(apply, variables, (32, 32, 3), platforms, batch)
    return jax.export.deserialize(bytearray(content)).mlir_module()


@pytest.fixture
def pointwise():
    def make(**fields):
        variables = Pointwise().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
        return card_of("pointwise", 8), Pointwise(**fields), variables

    return make


def test_the_command_exports_a_checkpoint(tmp_path, randomised, draw, capsys):
    module = create_model("convnext_afc_micro", **MICRO)
    variables = randomised(module, 1, 32, 32, 3)
    save_model(tmp_path / "run", card_of("convnext_afc_micro", **MICRO), variables)
    output = tmp_path / "afc.stablehlo"
    assert main(["export", str(tmp_path / "run"), str(output)]) == 0
    told = capsys.readouterr().out
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert f"{count:,} parameters, images [b, 32, 32, 3], largest difference " in told
    assert "(cpu, cuda)" in told  # the TPU's program is the GPU's
    assert {path.name for path in tmp_path.iterdir()} == {"run", "afc.stablehlo", "afc.stablehlo.json"}

    described = json.loads((tmp_path / "afc.stablehlo.json").read_text())
    assert described["input"]["shape"] == ["b", 32, 32, 3] and described["platforms"] == [
        "cpu",
        "cuda",
        "tpu",
    ]
    assert described["card"]["mean"] == list(PREPARED["mean"])
    assert described["card"]["class_names"] == list("abcdefghij") and described["jax"] == jax.__version__

    lines = told[told.index("load  ") :].split("\n")
    names = {"images": np.asarray(draw(5, 32, 32, 3))}  # neither of the numbers that were compared
    exec("\n".join(line[15:] for line in lines), names)
    np.testing.assert_allclose(names["outputs"], module.apply(variables, names["images"]), atol=1e-5)
    shifts = WHOLE + FRACTIONAL
    assert changes(output, names["images"][:1], shifts).max() < SINGLE
    assert b"\0fft_v1\0" not in output.read_bytes()


def test_each_platform_has_its_own_choices(randomised):
    module = create_model("convnext_afc_micro", **MICRO)
    variables = randomised(module, 1, 32, 32, 3)
    grouped = "feature_group_count = 8 "
    cpu, both = (text(module.apply, variables, *names) for names in (("cpu",), ("cpu", "tpu")))
    assert grouped not in cpu and grouped in both
    assert "stablehlo.fft" not in both


def test_functions_are_traced_again_under_another_row():
    @jax.jit
    def depthwise(x):
        return x + (choices().depthwise == "conv")

    for row, expected in ((CHOICES["cpu"], 0), (CHOICES["gpu"], 1), (CHOICES["cpu"], 0)):
        with assume(row):
            assert depthwise(0) == expected
    assert choices() is CHOICES["cpu"]


FAMILIES = {
    "convnext_micro": MICRO,
    "convnext_afg_micro": MICRO,
    "convnext_aps_micro": MICRO,
    "resnet20_cifar_aps": RESNET,
    "resnet20_cifar_lps": RESNET,
    "resnet20_cifar_afc": RESNET,
    "resnet20_cifar_blur": RESNET,
    "unet_micro_afc": UNET,
    "unet_micro_aps": UNET,
    "deeplabv3plus_resnet20_cifar_lps": {"num_classes": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name, tmp_path, randomised, draw):
    options = FAMILIES[name]
    module = create_model(name, **options)
    variables = randomised(module, 1, 32, 32, 3)
    output = tmp_path / "network.stablehlo"
    written = export(output, card_of(name, **options), module, variables)
    assert written.difference <= exporting.TOLERANCE * written.largest and written.notes == ()
    if options in (MICRO, RESNET):
        whole, fractional = (
            changes(output, np.asarray(draw(1, 32, 32, 3)), shifts) for shifts in (WHOLE, FRACTIONAL)
        )
        exact = [kind in name for kind in ("af", "aps", "lps")]
        assert (whole.max() < SINGLE) if any(exact) else (whole.min() > BROKEN)
        assert (fractional.max() < SINGLE) if exact[0] else (fractional.min() > BROKEN)


@pytest.mark.slow
def test_features_and_other_sizes(tmp_path, randomised):
    options = {**RESNET, "num_classes": 0}
    module = create_model("resnet20_cifar_aps", **options)
    variables = randomised(module, 1, 32, 32, 3)
    written = export(
        tmp_path / "features.stablehlo",
        card_of("resnet20_cifar_aps", **options),
        module,
        variables,
        platforms=("tpu",),
        image_size=16,
        batch=2,
    )
    assert written.shape == (2, 16, 16, 3) and written.compared == ("tpu",)
    exported = jax.export.deserialize(bytearray(written.path.read_bytes()))
    assert exported.out_avals[0].shape == (2, 8) and exported.platforms == ("tpu",)
    assert json.loads((tmp_path / "features.stablehlo.json").read_text())["card"]["image_size"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["polyphase", None])
def test_a_network_of_the_user(sampler, tmp_path, draw):
    (tmp_path / "nets.py").write_text(NETS)
    name = f"{tmp_path / 'nets.py'}:make_network"
    module = build(name, {}, {"sampler": sampler} if sampler else {})
    variables = module.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    export(tmp_path / "mine.stablehlo", card_of(name), module, variables)
    whole = changes(tmp_path / "mine.stablehlo", np.asarray(draw(1, 32, 32, 3)), WHOLE)
    assert whole.max() < SINGLE if sampler else whole.min() > BROKEN


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "net.tflite",
            r"net.tflite must end in .*\.stablehlo.*: the ending selects the format. To write a ",
        ),
        ("there.stablehlo", "there.stablehlo exists already. Choose another name, or remove it first."),
        ("described.stablehlo", "described.stablehlo.json exists already"),
    ],
)
def test_files_that_cannot_be_written(output, message, tmp_path):
    for name in ("there.stablehlo", "described.stablehlo.json"):
        (tmp_path / name).touch()
    with pytest.raises(ExportError, match=message):
        check_output(tmp_path / output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "expected two arguments, CHECKPOINT and OUT (the new file), got ['run']."),
        (["run", "a.stablehlo", "--platforms=cpu,cdua"], "unknown platform 'cdua'. Did you mean 'cuda'?"),
        (
            ["run", "a.stablehlo", "--platforms="],
            "no platform is given. Expected one or more of cpu, cuda, rocm, tpu.",
        ),
        (["run", "a.stablehlo", "--batch=0"], "flag --batch=0: 0 is not a positive integer"),
        (["run", "a.stablehlo"], "no checkpoint at run: there is no such file or directory."),
        (["run", "gs://b/a.stablehlo"], "the file to write is 'gs://b/a.stablehlo', an address"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def refused(tmp_path, loaded, message, error=ExportError, **options):
    with pytest.raises(error, match=message):
        export(tmp_path / "net.stablehlo", *loaded, platforms=("cpu",), **options)
    assert not list(tmp_path.iterdir())


def test_an_fft_is_refused(tmp_path, pointwise):
    loaded = pointwise(function=lambda maps: jnp.fft.fft2(maps, axes=(1, 2)).real)
    refused(tmp_path, loaded, 'contains an FFT, .*Build the network with method="matmul" or "auto"')


def test_an_unknown_number_of_images_is_refused(tmp_path, pointwise):
    loaded = pointwise(function=lambda maps: maps * np.ones(int(maps.shape[0]))[:, None, None, None])
    refused(tmp_path, loaded, r"(?s)for images \[b, 8, 8, 3\] .*known number of images, pass --batch=NUMBER")
    assert export(tmp_path / "net.stablehlo", *loaded, batch=2).shape == (2, 8, 8, 3)


def test_a_wrong_image_size_is_refused(tmp_path):
    module = create_model("convnext_afc_micro", **MICRO)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    loaded = card_of("convnext_afc_micro", **MICRO), module, variables
    refused(tmp_path, loaded, "images of 1 x 1 are too small", Exception, image_size=1)


def test_an_unstable_operation_is_refused(tmp_path, pointwise):
    def foreign(maps):
        return jax.ffi.ffi_call("mine", jax.ShapeDtypeStruct(maps.shape, maps.dtype))(maps)

    refused(tmp_path, pointwise(function=foreign), "(?s)JAX exports only operations that it keeps stable")


def test_a_large_network_is_refused(tmp_path, pointwise, monkeypatch):
    monkeypatch.setattr(stablehlo, "LIMIT", 20)
    refused(tmp_path, pointwise(), "the network has 0.0 GiB of weights, but a file of jax.export must be")


def test_a_missing_package_is_named(tmp_path, pointwise, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "flatbuffers", None)
    refused(tmp_path, pointwise(), "a file of jax.export needs flatbuffers", MissingPackageError)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda y: y * 1.01, "the program for cpu differs from the network by .*more than rounding explains"),
        (lambda y: y[:, :1], r"returns arrays of shapes \[\(1, 1\)\], and the network returns \[\(1, 2\)\]"),
        (lambda y: y * np.nan, "the program for cpu differs from the network by nan"),
        (lambda y: 1 / 0, r"the program for cpu does not run \(ZeroDivisionError"),
    ],
)
def test_a_file_that_disagrees_is_removed(wrong, message, tmp_path, pointwise, monkeypatch):
    def spoilt(path):
        yield from ((name, lambda x, run=run: wrong(np.asarray(run(x)))) for name, run in programs(path))

    form = exporting.FORMATS[".stablehlo"]
    monkeypatch.setitem(exporting.FORMATS, ".stablehlo", exporting.dataclasses.replace(form, programs=spoilt))
    refused(tmp_path, pointwise(), message)


def test_outputs_that_are_not_finite_are_refused(tmp_path, pointwise):
    refused(tmp_path, pointwise(function=lambda maps: maps / 0), "values that are not finite")


def test_a_program_that_runs_elsewhere_only_is_noted(tmp_path, pointwise, monkeypatch):
    def absent(images):
        raise RuntimeError("no such device\nmore")

    def two(path):
        yield from programs(path)
        yield "cuda", absent

    form = exporting.FORMATS[".stablehlo"]
    monkeypatch.setitem(exporting.FORMATS, ".stablehlo", exporting.dataclasses.replace(form, programs=two))
    written = export(tmp_path / "net.stablehlo", *pointwise(), platforms=("cpu",))
    assert written.compared == ("cpu",)
    assert written.notes == ("the program for cuda does not run here and was not compared: no such device",)


def test_half_precision_is_compared_with_its_own_tolerance(pointwise):
    _, module, variables = pointwise()
    for function, expected in (
        (module.apply, exporting.TOLERANCE),
        (lambda v, x: module.apply(v, x.astype("bfloat16")), exporting.HALF_TOLERANCE),
    ):
        assert exporting._tolerance(jax.jit(function), variables, (3, 8, 8, 3)) == expected


def test_a_network_for_one_number_of_images_is_exported_for_it(tmp_path, pointwise):
    """Nothing calls the network with another number: its linear layer would not fit."""

    class Flat(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            return nn.Dense(2)(images.reshape(1, -1))

    card, _, _ = pointwise()
    variables = Flat().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert export(tmp_path / "net.stablehlo", card, Flat(), variables, batch=1).shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("platforms", "message"), [((), "no platform is given"), (("gpu",), "unknown platform 'gpu'")]
)
def test_unknown_platforms_are_refused(platforms, message, tmp_path, pointwise):
    with pytest.raises(ConfigError, match=message):
        export(tmp_path / "net.stablehlo", *pointwise(), platforms=platforms)


def test_onnx_needs_an_older_jax(tmp_path, pointwise, monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    with pytest.raises(ExportError, match=r"jax2onnx needs jax 0\.10, but this is jax .*Python 3.11"):
        export(tmp_path / "net.onnx", *pointwise())


def test_onnx(tmp_path, pointwise):
    pytest.importorskip("jax2onnx")
    written = export(tmp_path / "net.onnx", *pointwise())
    assert written.shape == ("b", 8, 8, 3) and written.compared == ("onnxruntime",)
    lines, names = exporting.FORMATS[".onnx"].loading(written.path), {"images": np.ones((5, 8, 8, 3), "f")}
    exec("\n".join(lines), names)
    assert names["outputs"].shape == (5, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "batch"), [("convnext_afc_micro", MICRO, 2), ("resnet20_cifar_aps", RESNET, None)]
)
def test_onnx_of_whole_networks(name, options, batch, tmp_path, randomised):
    pytest.importorskip("jax2onnx")
    module = create_model(name, **options)
    variables = randomised(module, 1, 32, 32, 3)
    written = export(tmp_path / "net.onnx", card_of(name, **options), module, variables, batch=batch)
    assert written.difference <= exporting.TOLERANCE * written.largest
