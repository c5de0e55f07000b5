"""Tests of the preparation of images in eval.py: it belongs to the weights unless a field is overridden."""

import json
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from aliasfree_jax import cli
from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.config import base_config
from aliasfree_jax.data import ArraySource
from aliasfree_jax.data.augment import Preprocessing, denormalize
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.preparation import check_channels, prepare
from aliasfree_jax.evaluation.report import format_markdown, format_table, in_words
from aliasfree_jax.training.setup import make_card
from configs import imagenet_blur

# ml_collections loads configuration files with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"depths": [1, 1], "widths": [4, 8], "num_classes": 2}
SIDE, MEAN, STD = 48, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)
CARD = ModelCard("convnext_micro", OPTIONS, ("a", "b"), SIDE, 3, MEAN, STD, 0.75, 0, "x")
FIELDS = ("image_size", "zero_pad", "mean", "std", "eval_view", "eval_crop_ratio", "interpolation", "exif")


def card(**changes) -> ModelCard:
    return ModelCard.from_json(CARD.to_json() | changes)


OTHER = {"zero_pad": 8, "eval_view": "crop", "interpolation": "bilinear", "exif": True}
VALUES = {"image_size": 64, "mean": (0.1,) * 3, "std": (0.3,) * 3, "eval_crop_ratio": 0.5}
VALUES |= {"zero_pad": 1, "eval_view": "warp", "interpolation": "bicubic", "exif": False}


def test_all_of_the_preparation_comes_from_the_network():
    data = base_config().data
    preparation = prepare(data, card(**OTHER))
    assert [data[field] for field in FIELDS] == [32, 8, MEAN, STD, "crop", 0.75, "bilinear", True]
    assert preparation["overridden"] == {}
    assert in_words(preparation) == (
        "prepared for 32 x 32, ratio 0.75, bilinear, a border of 8 zeros, upright by EXIF"
    )


@pytest.mark.parametrize("field", FIELDS)
def test_a_named_field_is_the_users(field):
    """This also holds if the override equals the value in the configuration."""
    data, network = base_config().data, card(**OTHER).preparation()
    data[field] = VALUES[field]
    preparation = prepare(data, card(**OTHER), {f"data.{field}", "data.path", "eval.shifts"})
    assert data[field] == VALUES[field] != network[field]
    assert all(data[other] == network[other] for other in FIELDS if other != field)
    assert preparation["overridden"] == {field: {"used": VALUES[field], "network": network[field]}}
    assert f"; overridden: {field} (network: {network[field]})" in in_words(preparation)


def test_a_run_is_evaluated_as_it_was_trained():
    config = imagenet_blur.get_config()
    config.data.update({"zero_pad": 16, "eval_view": "crop", "exif": True})
    data = base_config().data
    prepare(data, make_card(config, ["a"], ""))
    assert [data[field] for field in FIELDS] == [config.data[field] for field in FIELDS]
    assert Preprocessing.from_config(data).input_size == 256


def test_the_header_says_what_was_used():
    preparation = prepare(base_config().data, CARD, {"data.mean"}) | {"presets": {"afc_grid": "bilinear"}}
    results = {"images": 2, "accuracy": 0.5, "preparation": preparation}
    expected = (
        "prepared for 48 x 48, ratio 0.75, bicubic; overridden: mean (network: (0.5, 0.4, 0.3)); "
        "afc_grid: bilinear, as in the original"
    )
    assert format_table(results).splitlines() == ["2 images, accuracy 50.00%", expected]
    assert format_markdown(results).splitlines()[-1] == expected


def test_another_number_of_channels_is_explained():
    data = base_config().data
    data.std = (0.5,)
    with pytest.raises(
        ConfigError, match="data.std has 1 numbers, but the network has 3 input channels: set one"
    ):
        prepare(data, CARD, {"data.std"})
    grey = ArraySource(np.zeros((1, 8, 8, 1), np.uint8), [0])
    with pytest.raises(
        ConfigError, match="network has 3 input channels, but the images have 1: .*data.source"
    ):
        check_channels(grey, CARD)
    check_channels(ArraySource(np.zeros((1, 8, 8, 3), np.uint8), [0]), CARD)


@pytest.fixture
def evaluate(eval_program, monkeypatch, capsys, tmp_path):
    """Runs eval.py in this process, without a network, on the images of a folder.

    Returns the results, the printed text, and for each pass the names of its measurements and the images.
    """
    module = eval_program
    passes = []

    def shift_report(predict, batches, measurements, images, devices, progress=True, **others):
        seen = np.concatenate([batch["image"] for batch in batches])[:images]
        passes.append(([m.name for m in measurements], denormalize(seen, MEAN, STD)))
        return {"images": images, "accuracy": 0.5, **{m.name: {"pairs": images} for m in measurements}}

    monkeypatch.setattr(module, "shift_report", shift_report)
    monkeypatch.setattr(module.Selection, "published", lambda selection, results: {})
    monkeypatch.setattr(module, "predictor", lambda module, variables, devices: None)
    monkeypatch.setattr(module, "load_for_command", lambda path, flag: (CARD, None, {}))

    def run(images: Path, *arguments: str):
        for name in module.own_flags:
            flags.FLAGS[name].unparse()
        for name in [name for name in flags.FLAGS if name.split(".")[0] == "config"]:
            delattr(flags.FLAGS, name)
        always = [f"--checkpoint={tmp_path}", f"--config={ROOT}/configs/quickstart.py"]
        always += ["--config.data.source=folder", f"--config.data.path={images}"]
        cli.parse(["eval.py", *always, f"--output={tmp_path}/out.json", *arguments])
        passes.clear()
        module.main(flags.FLAGS.config)
        return json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out, passes

    run.module = module
    return run


PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8))
PHOTOGRAPH = PHOTOGRAPH.resize((144, 96), Image.Resampling.BICUBIC)
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of two classes with the same image. Its EXIF data says that it must be rotated."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in "ab":
        path = tmp_path / "images/val" / name / "0.png"
        path.parent.mkdir(parents=True)
        PHOTOGRAPH.save(path, exif=turned)
    return tmp_path / "images"


def seen(passes) -> np.ndarray:
    ((_, images),) = passes
    return images[0]


def original(kind, side=48, image=PHOTOGRAPH) -> np.ndarray:
    """The result of torchvision's Resize(64) and CenterCrop(side) for an image with the ratio 3 : 2."""
    width, height = (96, 64) if image.width > image.height else (64, 96)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image.resize((width, height), kind).crop((left, top, left + side, top + side)))


def test_images_are_prepared_for_the_weights(evaluate, images):
    """The configuration, with 32 pixels and one channel, has no effect."""
    results, printed, passes = evaluate(images, "--integer_shifts")
    assert (
        printed.count("prepared for 48 x 48, ratio 0.75, bicubic\n") == 2
    )  # before the evaluation, and in the header
    assert results["data"]["image_size"] == 48 and results["data"]["mean"] == list(MEAN)
    np.testing.assert_array_equal(seen(passes), original(BICUBIC))


def test_what_is_overridden_by_name_is_used_and_told(evaluate, images):
    results, printed, passes = evaluate(images, "--config.data.interpolation=bilinear")
    assert "ratio 0.75, bilinear; overridden: interpolation (network: bicubic)\n" in printed
    assert results["preparation"]["overridden"] == {
        "interpolation": {"used": "bilinear", "network": "bicubic"}
    }
    np.testing.assert_array_equal(seen(passes), original(BILINEAR))
    _, printed, passes = evaluate(images, "--config.data.exif=True")
    assert "upright by EXIF; overridden: exif (network: False)" in printed
    upright = PHOTOGRAPH.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(seen(passes), original(BICUBIC, image=upright))


def test_an_override_with_the_configurations_value_counts(evaluate, images):
    _, printed, passes = evaluate(images, "--config.data.image_size=32", "--noconfig.data.exif")
    assert (
        "prepared for 32 x 32, ratio 0.75, bicubic; overridden: image_size (network: 48), exif\n" in printed
    )
    assert seen(passes).shape == (32, 32, 3)


def test_windows_and_presets_are_prepared_for_the_weights(evaluate, images):
    margin = "--config.eval.crop_margin=8"
    chosen = ["--presets=blurpool_consistency,aps_cifar_circular", "--paper", "--crop_shifts", margin]
    results, printed, passes = evaluate(images, *chosen)
    assert "ratio 0.75, bicubic; blurpool_consistency: bilinear, as in the original\n" in printed
    assert results["preparation"]["presets"] == {"blurpool_consistency": "bilinear"}
    assert [names for names, _ in passes] == [["aps_cifar_circular"], ["crop"], ["blurpool_consistency"]]
    for (_, found), expected in zip(
        passes, (original(BICUBIC), original(BICUBIC, 64), original(BILINEAR, 64)), strict=True
    ):
        np.testing.assert_array_equal(found[0], expected)
    results, _, passes = evaluate(images, *chosen, "--config.data.interpolation=bicubic")
    assert results["preparation"]["presets"] == {} and len(passes) == 2  # an override holds for all
    with pytest.raises(ConfigError, match="windows need images of 66 pixels .input 48, .* resized to 64"):
        evaluate(images, "--crop_shifts", "--config.eval.crop_margin=9")


def test_corrupted_images_are_prepared_for_the_weights(evaluate, images, monkeypatch):
    """Except that the images are already cropped: the ratio is 1."""
    seen = []

    def measured_once(directory, clean, measure, tell, **how):
        seen.append(measure(clean))
        return {"corruptions": {}, "mce": None, "mean_error": 0.0, "missing": []}

    monkeypatch.setattr(evaluate.module, "corruptions_in", lambda directory: None)
    monkeypatch.setattr(evaluate.module, "evaluate_corruptions", measured_once)
    asked = ("--imagenet_c=here", "--integer_shifts", "--config.data.interpolation=bilinear")
    _, _, passes = evaluate(images, *asked)
    assert len(seen) == 1 and [names for names, _ in passes] == [["integer"]] * 2
    np.testing.assert_array_equal(passes[0][1][0], original(BILINEAR))
    whole = PHOTOGRAPH.resize((72, 48), BILINEAR).crop((12, 0, 60, 48))
    np.testing.assert_array_equal(passes[1][1][0], np.asarray(whole))


def test_the_accuracy_is_that_of_the_networks_own_preparation(evaluate, images):
    """This also holds if only a preset with other images is measured."""
    _, _, passes = evaluate(images, "--presets=aps_consistency", "--paper")
    assert [names for names, _ in passes] == [[], ["aps_consistency"]]
    np.testing.assert_array_equal(passes[0][1][0], original(BICUBIC))
    np.testing.assert_array_equal(passes[1][1][0], original(BILINEAR))
