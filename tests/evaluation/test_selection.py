"""From names to measurements."""

import numpy as np
import pytest

from aliasfree_jax.config import base_config, validate
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.selection import ADVERSARIAL, RANDOM, black, select, wide_view


def test_every_name_is_a_measurement_of_its_view():
    config = base_config()
    chosen = select(config, 64, random=RANDOM, adversarial=ADVERSARIAL, spatial=True)
    assert [m.name for m in chosen.wide] == ["crop", "bilinear"]
    assert [m.name for m in chosen.plain] == [
        "integer",
        "fractional",
        "zero_filled",
        *(f"adversarial_{kind}" for kind in ADVERSARIAL),
        "spatial_attack",
    ]
    assert all(m.about for m in (*chosen.plain, *chosen.wide))
    counts = {m.name: m.count for m in chosen.plain}
    assert counts["integer"] == counts["fractional"] == config.eval.shifts
    assert counts["adversarial_integer"] == 33**2 - 1 and counts["adversarial_fraction"] == 8 + 15
    assert counts["adversarial_half"] == 65**2 - 33**2
    assert counts["adversarial_continuous"] == 64 + 4 * 20 + 4  # points, steps of the ascent, its ends
    small = select(config, 32, adversarial=ADVERSARIAL)
    assert {m.name: m.count for m in small.plain}["adversarial_integer"] == 32**2 - 1  # each roll once


def test_presets_share_a_view_and_what_they_have_in_common():
    config = base_config()
    chosen = select(config, 64, random=["integer"], presets=["afc_evaluate", "lps_consistency"])
    assert [m.name for m in chosen.plain] == ["integer"]  # the sane afc_evaluate is that
    assert [m.name for m in chosen.wide] == ["lps_shift", "lps_circular"]
    chosen = select(config, 64, presets=["afc_crop_shift", "afc_integer"], paper=True)
    assert [[m.name for m in view] for view in (chosen.plain, chosen.wide)] == [
        ["afc_integer"],
        ["afc_crop_shift"],
    ]
    results = {m.name: {"worst_case_accuracy": 0.25} for m in (*chosen.plain, *chosen.wide)}
    assert chosen.published(results) == {
        "afc_crop_shift": {"adversarial_crop_shift_shift_robust_score": 25},
        "afc_integer": {"full_adversarial_shift_robust_score": 0.25},
    }


def test_the_spatial_grids_take_their_constraint_and_black_from_the_configuration():
    config = base_config()
    config.eval.attack.rotation, config.data.mean, config.data.std = 4.0, (0.5,), (0.25,)
    (found,) = select(config, 56, presets=["afc_spatial_grid"], paper=True).plain
    assert found.shifting.fill == (-2.0,) and found.shifting.stretched
    assert np.abs(found.shifts.points).max(0) == pytest.approx([0.8, 0.8, 4, 0])


def test_windows_see_the_image_at_the_usual_scale():
    data = base_config().data
    data.eval_crop_ratio = 0.875
    wide = wide_view(data, 224, 16)
    assert wide.image_size == 256 and int(wide.image_size / wide.eval_crop_ratio) == 256
    wide = wide_view(data, 224, 3)
    assert wide.image_size == 230 and int(wide.image_size / wide.eval_crop_ratio) == 256
    assert wide.eval_view == "crop" and data.eval_crop_ratio == 0.875
    with pytest.raises(ConfigError, match="need images of 258 pixels .* resized to 256 .* is at most 16"):
        wide_view(data, 224, 17)
    data.zero_pad = 8
    with pytest.raises(ConfigError, match="border of zeros .data.zero_pad = 8"):
        wide_view(data, 224, 3)


def test_black_is_black_before_normalisation():
    np.testing.assert_allclose(np.array(black((0.5, 0.2), (0.25, 0.1))) * (0.25, 0.1) + (0.5, 0.2), 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"adversarial": ["integers"]}, "unknown --adversarial 'integers'. Did you mean 'integer'"),
        ({"random": ["crops"]}, "unknown kind of random shifts 'crops'. Did you mean 'crop'"),
        ({"presets": ["afc"]}, "unknown preset 'afc'"),
    ],
)
def test_unknown_names_are_explained(names, message):
    with pytest.raises(ConfigError, match=message):
        select(base_config(), 64, **names)


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
