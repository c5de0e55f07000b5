"""U-Nets of truly_shift_invariant_cnns: golden cases, conversion and export of every form, refusals."""

import re

import jax
import numpy as np
import pytest
from libraries import check_output, check_strictness, check_way_back, converted, unused_keys
from rule import make_array

from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import ModelCard, abstract_variables, save_model
from aliasfree_jax.conversion import from_original, load_pretrained, to_original
from aliasfree_jax.conversion.code_bases import original_of
from aliasfree_jax.conversion.description import described
from aliasfree_jax.conversion.recognition import normalised, recognise
from aliasfree_jax.conversion.to_files import torch_file
from aliasfree_jax.conversion.truly_shift_invariant_unets import SOURCE, UNETS
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.conversion.weight_files import read_state_dict
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

CASES = ["unet_4down_aps_64", "unet_4down_baseline_64"]
WIDTHS = [1, 2, 4, 8, 16]
SMALL = {"inner_channels_list": WIDTHS, "in_channels": 2, "out_channels": 3}


@pytest.mark.parametrize("name", CASES)
def test_the_golden_cases(name):
    check_output(UNETS, name, "float64")
    check_way_back(UNETS, name)
    check_strictness(UNETS, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_golden_cases_in_float32(name):
    check_output(UNETS, name, "float32")


@pytest.mark.slow
def test_the_comparison_can_fail():
    """Equal outputs of APS need the original's gain, which reduces constants to a quarter."""
    case, module, variables = converted(UNETS, CASES[0])
    sane = module.clone(upsampler=create_model("unet_aps").upsampler)
    output = jax.jit(sane.apply)(variables, case.inputs.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert np.abs(output - case.output).max() > 1e-2 * np.abs(case.output).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_key_is_used(name):
    # The gain of APS reduces the coarsest level's output to 1/256. Measured: 7e-5.
    assert list(unused_keys(UNETS, name, least=2e-5)) == []


def card_of(model: str, channels: int = 1, **options) -> ModelCard:
    given = {"image_size": 32, "mean": (0.0,) * channels, "std": (1.0,) * channels, "eval_crop_ratio": 1.0}
    return ModelCard(model, options, ("0",), channels=channels, step=0, origin="test", **given)


def state_of(model: str, options: dict) -> tuple[dict[str, np.ndarray], object]:
    """A state dict with computed values, and its network."""
    name, ours = UNETS.translate(model, options)
    module = create_model(name, **ours)
    shapes = abstract_variables(module, 32, options.get("in_channels", 1))
    variables = jax.tree.map(lambda leaf: make_array("x", leaf.shape), shapes)
    return to_original(SOURCE, model, options, variables), module


THREE = {**SMALL, "inner_channels_list": WIDTHS[:4]}
PADDINGS = ("circular", "zeros")
FORMS = [
    *((f"unet_4down{norm}", {"padding_mode": mode}) for norm in ("", "_instancenorm") for mode in PADDINGS),
    *(("unet_4down", {"padding_mode": mode, "bilinear": True}) for mode in PADDINGS),
    *(("unet_4down_aps", {"padding_mode": mode, "filter_size": 2}) for mode in PADDINGS),
    *(("unet_lpf", {"padding_mode": mode, "filter_size": 7}) for mode in PADDINGS),
    ("unet_3down", {**THREE, "padding_mode": "circular"}),
]


@pytest.mark.parametrize(("model", "options"), FORMS, ids=lambda value: str(value))
def test_every_form_is_recognised_and_written_again(model, options):
    options = {**SMALL, **options}
    state, module = state_of(model, options)
    assert recognise(normalised({f"module.{key}": value for key, value in state.items()})) == (
        SOURCE,
        model,
        options,
    )
    _, variables = from_original(SOURCE, model, options, state)
    name, ours = UNETS.translate(model, options)
    found, read_off = original_of(SOURCE, card_of(name, channels=2, **ours))
    assert found == model
    again = to_original(SOURCE, found, read_off, variables)
    assert again.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)


# Numbers for the original's default widths.
@pytest.mark.parametrize(
    ("model", "keys", "count"),
    [
        ("unet_4down_aps", 144, 31_042_369),
        ("unet_4down", 136, 31_042_369),
        ("unet_4down_instancenorm", 46, 31_030_593),
    ],
)
def test_keys_and_parameters(model, keys, count):
    entries = UNETS.table(model, {})
    name, ours = UNETS.translate(model, {})
    params = abstract_variables(create_model(name, **ours), 64, 1)["params"]
    assert (len(entries), sum(leaf.size for leaf in jax.tree.leaves(params))) == (keys, count)


def test_a_training_checkpoint_is_loaded_with_its_task(tmp_path):
    state, _ = state_of("unet_4down_aps", {**SMALL, "filter_size": 3})
    file = tmp_path / "model_best.pth.tar"
    file.write_bytes(torch_file({f"module.{key}": value for key, value in state.items()}, "state_dict"))
    card, module, variables = load_pretrained(file)
    assert (card.model, card.task, card.class_names) == ("unet_aps", "regression", ("0", "1", "2"))
    assert (card.channels, card.image_size, card.mean, card.std) == (2, 320, (0.0, 0.0), (1.0, 1.0))
    images = jax.ShapeDtypeStruct((1, 32, 32, 2), np.float32)
    assert jax.eval_shape(module.apply, variables, images).shape == (1, 32, 32, 3)


def test_the_command_writes_every_key_bit_for_bit(tmp_path, capsys):
    state, _ = state_of("unet_4down_aps", {**SMALL, "filter_size": 3})
    file, output = tmp_path / "weights.pth", tmp_path / "again.pth"
    file.write_bytes(torch_file(state))
    assert main(["convert", str(file), str(tmp_path / "converted")]) == 0
    assert main(["convert", f"--to={SOURCE}", str(tmp_path / "converted"), str(output)]) == 0
    assert "unet_4down_aps" in capsys.readouterr().out
    again = read_state_dict(output)
    assert again.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)


def test_ideal_filters_are_asked_for(tmp_path):
    """A file with sinc_mode has no filters, like a file that lost them."""
    state, module = state_of("unet_lpf", {**SMALL, "sinc_mode": True})
    file = tmp_path / "weights.pth"
    file.write_bytes(torch_file(state))
    with pytest.raises(
        UndecidedError, match=r"whose filters were not saved, or one without filters \(sinc_mode true"
    ):
        load_pretrained(file)
    for options, sampler in (({"sinc_mode": True}, "ideal"), ({"filter_size": 3}, "polyphase")):
        given = {**SMALL, **options}
        _, found, _ = load_pretrained(file, source=SOURCE, model="unet_lpf", options=given)
        assert (described(found) == described(module)) == (sampler == "ideal")


@pytest.mark.parametrize("side", [8, 9, 10, 12, 15, 22])
def test_sinc_mode_is_the_ideal_filter_of_square_maps(side, draw):
    """The original clears these rows and columns of the spectrum. For rectangles, only the height decides."""
    x = np.asarray(draw(1, side, side, 2))
    first = -(-side // 4)
    spectrum = np.fft.fft2(x, axes=(1, 2))
    spectrum[:, first : side - first + 1] = spectrum[:, :, first : side - first + 1] = 0
    network = create_model(UNETS.translate("unet_lpf", {"sinc_mode": True})[0])
    filtered = network.sampler(strides=2).apply({}, x, method="filter")
    # Float32 rounding.
    np.testing.assert_allclose(filtered, np.fft.ifft2(spectrum, axes=(1, 2)).real, rtol=0, atol=2e-6)


def test_filters_of_aps_that_were_left_out_are_asked_for(tmp_path):
    state, _ = state_of("unet_4down_aps", {**SMALL, "filter_size": 3})
    file = tmp_path / "weights.pth"
    file.write_bytes(torch_file({key: v for key, v in state.items() if not key.endswith("filt")}))
    with pytest.raises(UndecidedError, match=r"the blur filters down1.maxpool.2.filt.*filter_size"):
        load_pretrained(file)
    card, _, _ = load_pretrained(file, options={"filter_size": 3})
    assert card.options["upsampler"]["inner"]["kernel_size"] == 3


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("unet_4down_abs", {}, "unknown network of .*/unet 'unet_4down_abs'. Did you mean 'unet_4down_aps'"),
        ("UNet_3down_aps", {}, "UNet_3down_aps of .* cannot be converted: the original fails to build it"),
        ("unet_4down_aps", {"bilinear": True}, "unknown option of unet_4down_aps of .* 'bilinear'"),
        ("unet_4down", {"filter_size": 3}, "unknown option of unet_4down of .* 'filter_size'"),
        ("unet_4down", {"padding_mode": "reflect"}, "unknown padding_mode of"),
        ("unet_3down", SMALL, r"unet_3down needs 4 widths, got inner_channels_list=\[1, 2, 4, 8, 16\]"),
        (
            "unet_lpf",
            {"inner_channels_list": [4, 8, 12]},
            r"twice the width before, got .*\[4, 8, 12\]",
        ),
    ],
)
def test_what_the_original_does_not_have_is_refused(model, options, message):
    with pytest.raises(ConversionError, match=message):
        from_original(SOURCE, model, options, {})


def test_the_classes_names_are_taken_too():
    assert UNETS.translate("UNet_4down_InstanceNorm", {})[0] == "unet_instance"


def test_our_own_networks_are_not_taken_for_theirs(tmp_path):
    """Errors list the differences: the gain of APS, ideal sampling."""
    for name, lines in (
        ("unet_aps", "upsampler.gain: ours None, theirs 1.0"),
        ("unet_afc", "activation: ours UpPoly"),
    ):
        with pytest.raises(ConversionError, match=re.escape(lines)):
            original_of(SOURCE, card_of(name))
    other = card_of("resnet18_aps", num_classes=1)
    with pytest.raises(ConversionError, match="network: ours ResNet, theirs UNet"):
        original_of(SOURCE, other)
    # And these U-Nets do not match networks of other code bases.
    for source in ("torchvision", "timm", "learnable_polyphase_sampling", "alias_free_convnets"):
        with pytest.raises(ConversionError, match=re.escape(f"Pass --to={SOURCE}")):
            original_of(source, card_of("unet_circular"))


def test_a_run_of_another_task_than_classification_has_a_way_there(tmp_path):
    module = create_model("unet_circular", widths=WIDTHS)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_variables(module, 32, 1))
    directory = save_model(tmp_path / "run", card_of("unet_circular", widths=WIDTHS), variables)
    assert main(["convert", f"--to={SOURCE}", str(directory), str(tmp_path / "file.safetensors")]) == 0
    card, _, _ = load_pretrained(tmp_path / "file.safetensors")
    assert card.task == "regression"
