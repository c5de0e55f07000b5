"""Tests of pictures, tables and eval.py for networks whose outputs are maps."""

import dataclasses
import io
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from mapping import LEVELS, SIDE, classes, smoothing, strided, target_scenes
from PIL import Image

from aliasfree_jax import cli
from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.config import base_config
from aliasfree_jax.data.augment import denormalize
from aliasfree_jax.data.sources import Example
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.evaluation.preparation import prepare
from aliasfree_jax.evaluation.report import compared, format_markdown, format_table
from aliasfree_jax.evaluation.report.gallery import draw_pictures, pictures_of
from aliasfree_jax.evaluation.report.map_pictures import map_frames, prediction_figure
from aliasfree_jax.evaluation.report.page import page
from aliasfree_jax.evaluation.report.pictured import IMAGE, Evaluated, read_results
from aliasfree_jax.evaluation.report.pictured_maps import decoded, encoded, map_results, voc_palette
from aliasfree_jax.evaluation.stored import stored_results

# ml_collections loads configuration files with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

NAMES = ("ground", "low", "high")
MEAN, STD = (0.5,) * 3, (0.25,) * 3
SEGMENTATION = {
    "images": 512,
    "mean_iou": 0.712,
    "pixel_accuracy": 0.931,
    "mean_accuracy": 0.8,
    "class_iou": {"ground": 0.9, "cat": None},
    "integer": {
        "about": "4 random shifts",
        "pairs": 2048,
        "consistency": 1.0,
        "worst_consistency": 0.99999,
        "accuracy": 0.93,
        "mean_iou": 0.71,
        "worst_case_accuracy": 0.9,
        "equivariance_db": -400.0,
        "worst_equivariance_db": -123.45,
    },
}
REGRESSION = {
    "images": 10,
    "psnr": 31.234,
    "ssim": 0.91234,
    "nmse": 0.0123,
    "fractional": {
        "pairs": 40,
        "equivariance_db": -61.25,
        "worst_equivariance_db": -40.0,
        "psnr": 31.0,
        "psnr_change": {"mean": 0.125, "max": 1.0},
        "moved_psnr": 65.0,
    },
}


def test_tables_say_what_the_numbers_are():
    text = format_table(SEGMENTATION)
    assert text.startswith("512 images, mean IoU 71.20%, pixel accuracy 93.10%\n")
    row = next(line for line in text.splitlines() if line.startswith("integer "))
    # Only exactly 1 is shown as 100%, and no difference at all is shown as "none", not in dB.
    assert row.split() == "integer 2048 100.00% 99.99% 93.00% 90.00% 71.00% none -123.5 dB".split()
    assert "consistency: share of pixels with the class" in text and "(image, shift) pairs" not in text
    assert "cat     does not occur" in text and "ground          90.00%" in text
    text = format_markdown(REGRESSION)
    assert text.startswith("10 images, PSNR 31.2 dB, SSIM 0.9123, NMSE 0.0123\n")
    assert "| fractional | 40 | -61.2 dB | -40.0 dB | 31.0 dB | 0.12 dB | 65.0 dB |" in text


def test_networks_of_maps_are_compared():
    rows = compared({"a": REGRESSION, "b": REGRESSION | {"psnr": 20.0}})
    assert ["PSNR, no shift", "31.2 dB", "20.0 dB"] in rows
    assert ["fractional: error", "-61.2 dB", "-61.2 dB"] in rows


def test_results_of_maps_are_read(tmp_path):
    for number, results in enumerate((SEGMENTATION, REGRESSION)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(results))
        assert read_results(path).results == results


def test_results_of_the_evaluation_that_chose_a_network_are_found(tmp_path):
    card = ModelCard("m", {}, NAMES, SIDE, 3, MEAN, STD, 1.0, 0, "test", task="segmentation")
    kept = {
        "images": 8,
        "mean_iou": 0.5,
        "pixel_accuracy": 0.75,
        "integer_consistency": 0.9,
        "chosen_by": "mean_iou",
        "chosen_on": "validation",
    }
    (tmp_path / "results.json").write_text(json.dumps(kept))
    found = stored_results(tmp_path, card, {"params": {"a": np.zeros(1)}})
    assert found["mean_iou"] == 0.5 and found["integer"]["consistency"] == 0.9
    assert format_table(found).startswith("8 images, mean IoU 50.00%, pixel accuracy 75.00%")


def test_the_palette_is_that_of_voc():
    """The first colours in the documentation of the devkit; 255 is the colour of borders."""
    palette = voc_palette()
    assert palette[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[[8, 20, 255]].tolist() == [[64, 0, 0], [0, 64, 128], [224, 224, 192]]
    assert len(np.unique(palette, axis=0)) == 256


def configuration(task):
    config = base_config()
    config.task, config.data.mean, config.data.std = task, MEAN, STD
    config.eval.worst_case_radius = 1
    return config


def pictured(network, task, name, **others):
    images, label = target_scenes(1)
    config = configuration(task)
    target = label[0] if task == "segmentation" else images[0]
    maps = map_results(network, images[0], target, config)
    shown = {"index": 0, "png": encoded(denormalize(images[0], MEAN, STD)), "maps": maps}
    results = {"segmentation": SEGMENTATION, "regression": REGRESSION}[task]
    return Evaluated(name, json.loads(json.dumps(results | {IMAGE: shown} | others)))


def test_what_is_kept_of_a_segmented_image():
    images, label = target_scenes(1)
    exact, found = (
        pictured(network, "segmentation", "n").part(IMAGE, "maps") for network in (classes, strided(classes))
    )
    palette = voc_palette()
    np.testing.assert_array_equal(decoded(found["target"]), palette[label[0]])
    still = np.asarray(strided(classes)(images)).argmax(-1)[0]
    moved = np.asarray(strided(classes)(np.roll(images, (1, 1), (1, 2)))).argmax(-1)[0]
    back = np.roll(moved, (-1, -1), (0, 1))
    np.testing.assert_array_equal(decoded(found["still"]), palette[still])
    np.testing.assert_array_equal(decoded(found["back"]), palette[back])
    np.testing.assert_array_equal(decoded(found["difference"])[..., 0] != 128, still != back)
    assert found["largest_difference"] == 1 and exact["largest_difference"] == 0
    slide = found["slide"]
    assert slide["shifts"] == [[0, 0], [0.5, 0.5], [1, 1]] and len(slide["predictions"]) == 3
    np.testing.assert_array_equal(decoded(slide["predictions"][2]), palette[moved])
    assert slide["changes"] == pytest.approx([0, slide["changes"][1], (still != back).mean()], abs=1e-6)
    assert exact["slide"]["changes"][::2] == [0, 0]


def test_what_is_kept_of_a_denoised_image():
    exact, found = (
        pictured(network, "regression", "n").part(IMAGE, "maps")
        for network in (smoothing, strided(smoothing))
    )
    assert exact["largest_difference"] == 0 and found["largest_difference"] > 0.01
    grey = decoded(found["difference"])[..., 0].astype(int) - 128
    assert np.abs(grey).max() == 127 and grey.min() < 0 < grey.max()
    assert max(exact["slide"]["changes"]) < -120 < -30 < max(found["slide"]["changes"])  # dB


@pytest.mark.parametrize(
    ("task", "network"), [("segmentation", strided(classes)), ("regression", strided(smoothing))]
)
def test_pictures_and_the_page(task, network):
    networks = [pictured(network, task, "first"), pictured(network, task, "second")]
    figure = prediction_figure(networks)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["image", "target", "prediction", "shifted by (1, 1), moved back"]
    assert titles[4].startswith("difference, ") and titles[:5] == titles[5:]
    shown = np.asarray(figure.axes[2].images[0].get_array())
    np.testing.assert_array_equal(shown, decoded(networks[0].part(IMAGE, "maps", "still")))
    drawn = draw_pictures(networks)
    assert list(drawn) == ["predictions.png", "slide.gif"]
    with Image.open(io.BytesIO(drawn["slide.gif"])) as animation:
        assert animation.n_frames == 3
    text = page(networks, drawn)
    assert text.count("<img") == 2 and "No picture" not in text and "worst_case" not in text.split("<img")[0]
    bare = Evaluated("bare", {"images": 1, "mean_iou": 1.0, "pixel_accuracy": 1.0})
    missing = draw_pictures([bare])
    assert "No picture: the results of bare have no pictured_image" in page([bare], missing)


def test_an_animation_shows_one_image():
    first = pictured(classes, "segmentation", "a")
    other = json.loads(json.dumps(first.results))
    other[IMAGE]["png"] = encoded(np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(DataError, match="a and b were evaluated with different images or shifts"):
        list(map_frames([first, Evaluated("b", other)]))
    assert [picture.of_maps for picture in pictures_of([first])] == [True, True]


class Levels(nn.Module):
    """The network `classes` of `mapping`, sampled at every second pixel, with a parameter."""

    @nn.compact
    def __call__(self, images, train=False):
        scale = self.param("scale", nn.initializers.ones, ())
        logits = -scale * jnp.square(smoothing(images)[:, ::2, ::2, :1] - LEVELS)
        return jnp.repeat(jnp.repeat(logits, 2, 1), 2, 2)


class Scenes:
    """A source of segmentation."""

    class_names, task = NAMES, "segmentation"

    def __init__(self):
        self.images, self.label = target_scenes(5)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = np.clip(self.images[index] * STD[0] + MEAN[0], 0, 1).astype(np.float32)
        return Example(image, self.label[index], f"scene {index}")


@pytest.fixture
def program(eval_program, monkeypatch):
    """eval.py with a network and scenes."""
    module, opened = Levels(), []
    variables = module.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    card = ModelCard("levels", {}, NAMES, SIDE, 3, MEAN, STD, 1.0, 0, "test", task="segmentation")
    monkeypatch.setattr(eval_program, "load_for_command", lambda *_: (card, module, variables))

    def open_source(data, *, train, task):
        opened.append((train, task))
        return Scenes()

    monkeypatch.setattr(eval_program, "open_source", open_source)
    eval_program.opened = opened
    return eval_program


def evaluate(program, tmp_path, *arguments):
    common = ["--checkpoint=nowhere", "--config=configs/quickstart.py", "--config.eval.shifts=2"]
    common += [f"--output={tmp_path}/found.json", "--config.eval.max_shift=4", "--config.eval.batch_size=4"]
    cli.parse(["eval.py", *common, *arguments])
    program.main(flags.FLAGS.config)


def test_eval_measures_segmentation(program, tmp_path, capsys):
    few = ["--config.eval.worst_case_radius=1", "--config.eval.crop_margin=4"]
    asked = ["--integer_shifts", "--zero_filled_shifts", "--presets=lps_massc", "--pictures"]
    evaluate(program, tmp_path, *asked, *few)
    assert program.opened == [(False, "segmentation")]
    results = json.loads((tmp_path / "found.json").read_text())
    assert results["images"] == 5 and results["integer"]["pairs"] == 10
    assert set(results["class_iou"]) == set(NAMES) and results["card"]["task"] == "segmentation"
    assert 0.5 < results["lps_massc_circular"]["consistency"] < 1
    told = capsys.readouterr().out
    assert "5 images, mean IoU " in told and "\nzero_filled " in told
    assert "No picture" not in (tmp_path / "found.html").read_text()
    assert (tmp_path / "found_predictions.png").exists() and (tmp_path / "found_slide.gif").exists()
    images, label = target_scenes(5)
    assert results["pixel_accuracy"] > 0.7 and images.shape[:3] == label.shape


@pytest.mark.parametrize(
    "asked", ["--bilinear_shifts", "--adversarial=continuous", "--spatial_attack", "--imagenet_c=/nowhere"]
)
def test_eval_refuses_what_is_not_for_maps(program, tmp_path, asked):
    with pytest.raises(
        ConfigError, match=f"{asked.removesuffix('=/nowhere')}: not available for task = 'segm"
    ):
        evaluate(program, tmp_path, asked)
    assert not (tmp_path / "found.json").exists()


def test_masks_are_not_squeezed_and_that_is_told():
    config = configuration("segmentation")
    card = ModelCard("m", {}, NAMES, 513, 3, MEAN, STD, 1.0, 0, "test", task="segmentation")
    assert prepare(config.data, card)["images"].startswith("513 x 513, ratio 1")
    other = dataclasses.replace(card, task="classification")
    assert prepare(config.data, other)["images"].startswith("513 x 513, warped")
