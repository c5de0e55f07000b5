"""timm's VGG, DenseNet and MobileNet-v2: golden cases, recognition and refusals."""

import described
import numpy as np
import pytest
from libraries import check_output, check_strictness, check_way_back, unused_keys

from aliasfree_jax.conversion.timm_chains import (
    TIMM_DENSENET,
    TIMM_MOBILENET,
    TIMM_VGG,
    recognise_timm_mobilenet,
    recognise_timm_vgg,
)
from aliasfree_jax.errors import ConversionError

BASES = {
    "timm_vgg11_bn_64": TIMM_VGG,
    "timm_densenet121_64": TIMM_DENSENET,
    "timm_mobilenetv2_100_64": TIMM_MOBILENET,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_outputs_and_the_way_back(name):
    check_output(BASES[name], name, "float32")
    check_way_back(BASES[name], name)


@pytest.mark.slow
def test_float64():
    check_output(TIMM_MOBILENET, "timm_mobilenetv2_100_64", "float64")


@pytest.mark.slow
def test_every_key_is_used():
    assert list(unused_keys(TIMM_MOBILENET, "timm_mobilenetv2_100_64")) == []


def test_missing_and_further_keys_are_named():
    check_strictness(TIMM_MOBILENET, "timm_mobilenetv2_100_64")


@pytest.mark.parametrize("name", BASES)
def test_the_table_has_the_keys_of_the_file(name):
    meta = described.meta(name)
    entries = BASES[name].table(meta["model"], meta["options"])
    assert {entry.key for entry in entries} == set(described.shapes(name))
    headless = {entry.key for entry in BASES[name].table(meta["model"], {"num_classes": 0})}
    assert {key.rsplit(".", 1)[0] for key in set(described.shapes(name)) - headless} in (
        {"head.fc"},
        {"classifier"},
    )


def test_networks_are_recognised():
    vgg, densenet, mobilenet = (described.shapes(name) for name in BASES)
    assert recognise_timm_vgg(vgg) == ("vgg11_bn", {})
    assert recognise_timm_mobilenet(mobilenet) == ("mobilenetv2_100", {})
    assert recognise_timm_vgg(vgg | {"head.fc.bias": np.zeros(7)}) == ("vgg11_bn", {"num_classes": 7})
    grey = mobilenet | {"conv_stem.weight": np.zeros((32, 1, 3, 3))}
    assert recognise_timm_mobilenet(grey) == ("mobilenetv2_100", {"in_chans": 1})
    without_norms = {key: value for key, value in vgg.items() if value.ndim != 1 or "bias" in key}
    assert recognise_timm_vgg(without_norms) == ("vgg11", {})
    others = [described.shapes(f"blurpool_{name}_64") for name in ("vgg11_lpf4", "mobilenet_v2_lpf4")]
    for state in ({}, densenet, *others):
        assert recognise_timm_vgg(state) is recognise_timm_mobilenet(state) is None
    assert recognise_timm_vgg(mobilenet) is recognise_timm_mobilenet(vgg) is None


def test_damaged_files_are_recognised_or_not_without_an_error():
    for name, recognise in (("vgg11_bn", recognise_timm_vgg), ("mobilenetv2_100", recognise_timm_mobilenet)):
        state = described.shapes(f"timm_{name}_64")
        for key in ("features.0.weight", "conv_stem.weight", "head.fc.bias", "blocks.1.0.conv_pwl.weight"):
            for shape in ((), (1,), (1, 1, 1, 1, 1)):
                found = recognise({**state, key: np.zeros(shape)})
                assert found is None or found[0] == name


def test_other_widths_of_mobilenet_are_recognised_and_refused():
    wide = described.shapes("timm_mobilenetv2_100_64") | {
        "conv_stem.weight": np.zeros((48, 3, 3, 3)),
        "blocks.0.0.conv_pw.weight": np.zeros((24, 48, 1, 1)),
        "blocks.1.0.conv_pwl.weight": np.zeros((32, 144, 1, 1)),
    }
    model, options = recognise_timm_mobilenet(wide)
    assert model == "mobilenetv2_140"
    with pytest.raises(ConversionError, match="timm's mobilenetv2_140 has channels that are rounded"):
        TIMM_MOBILENET.translate(model, options)
    # EfficientNets have these names and more.
    assert recognise_timm_mobilenet(wide | {"blocks.0.0.se.conv_reduce.weight": np.zeros(1)}) is None


@pytest.mark.parametrize(
    ("base", "model", "options", "message"),
    [
        (TIMM_VGG, "vgg11bn", {}, "unknown VGG of timm 'vgg11bn'. Did you mean 'vgg11_bn'"),
        (TIMM_VGG, "vgg11", {"mlp_ratio": 0.5}, "mlp_ratio=0.5 has a hidden layer of another width"),
        (TIMM_VGG, "vgg11", {"global_pool": ""}, "global_pool='' has another pooling"),
        (TIMM_VGG, "vgg11", {"num_classes": "many"}, "num_classes='many': expected a value such as 1000"),
        (TIMM_DENSENET, "densenetblur121d", {}, "has a stem of three convolutions and blurs. No"),
        (
            TIMM_DENSENET,
            "densenet264d",
            {},
            "has a stem of three convolutions. No network of this package has that",
        ),
        (TIMM_DENSENET, "densenet121", {"aa_layer": "blurpc"}, "aa_layer='blurpc' has blurs where timm"),
        (TIMM_MOBILENET, "mobilenetv2_100", {"pad_type": "same"}, "pad_type='same' has another padding"),
        (TIMM_MOBILENET, "mobilenetv2_100", {"drop": 0.1}, "unknown option of timm's mobilenetv2_100 'drop'"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(base, model, options, message):
    with pytest.raises(ConversionError, match=message):
        base.translate(model, options)
