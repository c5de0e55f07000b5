"""Tests of the selection of measurements by name."""

import numpy as np
import pytest

from aliasfree_jax.config import base_config
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.preparation import View
from aliasfree_jax.evaluation.selection import ADVERSARIAL, RANDOM, black, select
from aliasfree_jax.validation import validate


def test_every_name_is_a_measurement_of_its_view():
    config = base_config()
    chosen = select(config, 64, random=RANDOM, adversarial=ADVERSARIAL, spatial=True)
    (plain, measured), (wide, in_windows) = chosen.views.items()
    assert (plain.margin, wide.margin) == (0, 16) and plain.interpolation == wide.interpolation == "bicubic"
    assert [m.name for m in in_windows] == ["crop", "bilinear"]
    assert [m.name for m in measured] == [
        "integer",
        "fractional",
        "zero_filled",
        *(f"adversarial_{kind}" for kind in ADVERSARIAL),
        "spatial_attack",
    ]
    assert all(m.about for m in (*measured, *in_windows))
    counts = {m.name: m.count for m in measured}
    assert counts["integer"] == counts["fractional"] == config.eval.shifts
    assert counts["adversarial_integer"] == 33**2 - 1 and counts["adversarial_fraction"] == 8 + 15
    assert counts["adversarial_half"] == 65**2 - 33**2
    assert counts["adversarial_continuous"] == 64 + 4 * 20 + 4  # points, steps of the ascent, its ends
    ((_, small),) = select(config, 32, adversarial=ADVERSARIAL).views.items()
    assert {m.name: m.count for m in small}["adversarial_integer"] == 32**2 - 1  # each roll once


def names(chosen):
    return {view[:2]: [m.name for m in measured] for view, measured in chosen.views.items()}


def test_presets_of_the_papers_are_resized_as_there():
    """The network's usual view is included for its accuracy. Overrides of the user hold for all views."""
    config, chosen = base_config(), {"presets": ["aps_consistency", "afc_integer"], "paper": True}
    found = select(config, 64, **chosen)
    assert names(found) == {(0, "bicubic"): ["afc_integer"], (0, "bilinear"): ["aps_consistency"]}
    assert found.resized == {"aps_consistency": "bilinear"}
    config.data.interpolation = "bilinear"
    found = select(config, 64, presets=["afc_integer"], paper=True)
    assert names(found) == {(0, "bilinear"): [], (0, "bicubic"): ["afc_integer"]}
    assert found.resized == {"afc_integer": "bicubic"}
    for options in ({"overridden": {"data.interpolation"}}, {"paper": False}):
        found = select(config, 64, **{**chosen, **options})
        assert [view.interpolation for view in found.views] == ["bilinear"] and not found.resized
    assert names(select(config, 64, random=["crop"])) == {(16, "bilinear"): ["crop"]}
    assert names(select(config, 64)) == {(0, "bilinear"): []}


def test_a_view_is_the_section_data_of_its_images():
    config = base_config()
    config.data.image_size = 224
    wide = View(16, "bilinear").data(config)
    assert (wide.image_size, wide.interpolation, wide.eval_view) == (256, "bilinear", "crop")
    plain = View(0, "bicubic").data(config)
    assert plain == config.data and plain is not config.data


def test_presets_share_a_view_and_what_they_have_in_common():
    config = base_config()
    chosen = select(config, 64, random=["integer"], presets=["afc_evaluate", "lps_consistency"])
    # The improved variant of afc_evaluate measures integer shifts.
    assert names(chosen) == {
        (0, "bicubic"): ["integer"],
        (16, "bicubic"): ["lps_shift", "lps_circular"],
    }
    chosen = select(config, 64, presets=["afc_crop_shift", "afc_integer"], paper=True)
    assert names(chosen) == {(0, "bicubic"): ["afc_integer"], (16, "bilinear"): ["afc_crop_shift"]}
    results = {name: {"worst_case_accuracy": 0.25} for view in names(chosen).values() for name in view}
    assert chosen.published(results) == {
        "afc_crop_shift": {"adversarial_crop_shift_shift_robust_score": 25},
        "afc_integer": {"full_adversarial_shift_robust_score": 0.25},
    }


def test_the_spatial_grids_take_their_constraint_and_black_from_the_configuration():
    config = base_config()
    config.eval.attack.rotation, config.data.mean, config.data.std = 4.0, (0.5,), (0.25,)
    _, (found,) = select(config, 38, presets=["afc_translation_grid"], paper=True).views.values()
    assert found.shifting.fill == (-2.0,) and found.shifting.stretched
    assert np.abs(found.shifts.points).max(0) == pytest.approx([1, 1, 0, 0])  # 4 / 280 of 38 + 2 * 16 pixels


def test_the_windows_of_aft_are_of_an_enlarged_image():
    config = base_config()
    config.data.update({"image_size": 32, "eval_crop_ratio": 1.0})
    found = select(config, 32, presets=["aft_crop_shift", "aft_bilinear_shift", "afc_evaluate"], paper=True)
    assert [[m.name for m in measured] for measured in found.views.values()] == [
        ["afc_evaluate"], ["aft_crop_shift"], ["aft_bilinear_shift"],
    ]  # fmt: skip
    sections = [view.data(config) for view in found.views]
    assert [data.image_size for data in sections] == [32, 32 + 2 * 16, 32 + 2]
    for data in sections[1:]:
        assert int(data.image_size / data.eval_crop_ratio) == data.image_size  # the whole shorter side
    assert found.resized == dict.fromkeys(("aft_crop_shift", "aft_bilinear_shift"), "bicubic, enlarged")


def test_windows_see_the_image_at_the_usual_scale():
    config = base_config()
    config.data.update({"image_size": 224, "eval_crop_ratio": 0.875})
    wide = View(16, "bicubic").data(config)
    assert wide.image_size == 256 and int(wide.image_size / wide.eval_crop_ratio) == 256
    wide = View(3, "bicubic").data(config)
    assert wide.image_size == 230 and int(wide.image_size / wide.eval_crop_ratio) == 256
    assert wide.eval_view == "crop" and config.data.eval_crop_ratio == 0.875
    with pytest.raises(ConfigError, match="need images of 258 pixels .* resized to 256 .* to at most 16"):
        View(17, "bicubic").data(config)
    config.data.zero_pad = 8
    with pytest.raises(ConfigError, match="border of zeros .data.zero_pad = 8"):
        View(3, "bicubic").data(config)


def test_black_is_black_before_normalisation():
    np.testing.assert_allclose(np.array(black((0.5, 0.2), (0.25, 0.1))) * (0.25, 0.1) + (0.5, 0.2), 0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"adversarial": ["integers"]}, "unknown --adversarial 'integers'. Did you mean 'integer'"),
        ({"random": ["crops"]}, "unknown kind of random shifts 'crops'. Did you mean 'crop'"),
        ({"presets": ["afc"]}, "unknown preset 'afc'"),
    ],
)
def test_unknown_names_are_explained(asked, message):
    with pytest.raises(ConfigError, match=message):
        select(base_config(), 64, **asked)


def test_settings_that_make_no_sense_are_faults_of_the_configuration():
    config = base_config()
    config.eval.finest_fraction, config.eval.worst_case_radius, config.eval.crop_margin = 1, 0, 0
    config.eval.attack.enlargement = 0.5
    with pytest.raises(ConfigError) as caught:
        validate(config)
    for field in (
        "finest_fraction must be at least 2",
        "worst_case_radius",
        "crop_margin",
        "enlargement must be at least 1",
    ):
        assert field in str(caught.value)
