"""Tests of ImageNet-C: the distributed folders, and both mean errors."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from aliasfree_jax.config import base_config
from aliasfree_jax.data import FolderSource, eval_batches
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.imagenet_c import (
    ALEXNET_ERRORS,
    CORRUPTIONS,
    corruptions_in,
    evaluate_corruptions,
    summarise,
)
from aliasfree_jax.evaluation.report import format_table

CLASSES = ("n01440764", "n01443537")
# The distributed archives with their corruptions.
ARCHIVES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}


def write(folder, brightness):
    """Writes two dark images of class 0 and two bright ones of class 1, all brighter by `brightness`."""
    for k, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            level = np.full((8, 8, 3), min(255, 60 + 120 * k + brightness + i), np.uint8)
            Image.fromarray(level).save(folder / name / f"{i}.JPEG")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet-c")
    write(root / "clean" / "val", 0)
    for name in ("fog", "saturate"):
        for severity in range(1, 6):
            write(root / name / str(severity), 30 * severity if name == "fog" else 0)
    return root


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """All 19 corruptions in the folders of the five archives, with one tiny image per class."""
    root = tmp_path_factory.mktemp("imagenet-c")
    for archive, names in ARCHIVES.items():
        for name in names:
            for severity in range(1, 6):
                for label in CLASSES:
                    place = root / archive / name / str(severity) / label
                    place.mkdir(parents=True)
                    Image.new("RGB", (2, 2)).save(place / "ILSVRC2012_val_00000293.JPEG")
    return root


def test_both_layouts_are_read(distributed, directory):
    assert list(corruptions_in(distributed)) == list(CORRUPTIONS)
    assert corruptions_in(distributed)["defocus_blur"] == distributed / "blur" / "defocus_blur"
    clean = FolderSource(directory / "clean", "val")
    seen = []
    results = evaluate_corruptions(
        distributed, clean, lambda source: seen.append(source[0].name) or {"accuracy": 0.5}
    )
    assert len(seen) == 19 * 5 and seen[0].endswith(
        "/noise/gaussian_noise/1/n01440764/ILSVRC2012_val_00000293.JPEG"
    )
    assert results["mean_error"] == 0.5 and results["missing"] == [] and results["mce"] is not None
    # The folder of one archive is also a valid directory; it has the other layout.
    assert list(corruptions_in(distributed / "weather")) == list(ARCHIVES["weather"])
    assert list(corruptions_in(directory)) == ["fog", "saturate"]


def test_alexnets_errors_are_the_published_ones():
    """The values published by the benchmark's authors, in the order of the paper's tables."""
    assert [f"{100 * error:.4f}" for error in ALEXNET_ERRORS.values()] == (
        "88.6428 89.4468 92.2640 81.9880 82.6268 78.5948 79.8360 86.6816 82.6572 81.9324 56.4592 85.3204 "
        "64.6056 71.7840 60.6500"
    ).split()
    names = [name for archive in ("noise", "blur", "weather", "digital") for name in ARCHIVES[archive]]
    assert list(ALEXNET_ERRORS) == names


def bright(images):
    """Class 1 if the mean is above 130."""
    mean = np.asarray(images).mean((1, 2, 3)) * 255
    return np.stack([130 - mean, mean - 130], axis=-1)


def test_every_severity_is_measured(directory):
    data = ConfigDict(base_config().data)
    data.image_size, data.eval_crop_ratio, data.mean, data.std = 8, 1.0, (0.0,) * 3, (1.0,) * 3
    clean, seen = FolderSource(directory / "clean", "val"), []

    def measure(source):
        seen.append(len(source))
        return evaluate(bright, eval_batches(source, data, batch_size=3))

    results = evaluate_corruptions(directory, clean, measure)
    assert seen == [4] * 10
    # Fog: from severity 3 on the dark images exceed 130 (60 + 90), so half of the images are wrong.
    assert results["corruptions"]["fog"]["error"] == pytest.approx((0 + 0 + 0.5 * 3) / 5)
    assert results["corruptions"]["fog"]["severities"]["5"] == {"images": 4, "accuracy": 0.5}
    assert results["corruptions"]["saturate"] == {
        "error": 0,
        "severities": {str(s): {"images": 4, "accuracy": 1.0} for s in range(1, 6)},
    }
    assert (results["mean_error"], results["mce"]) == (pytest.approx(0.15), None)
    table = format_table({"images": 4, "accuracy": 1.0, "imagenet_c": results})
    assert "mean of 2" in table and "15.00%" in table and "mCE" not in table
    assert "missing, so not in the mean: gaussian_noise, shot_noise, impulse_noise" in table
    assert len(results["missing"]) == 17


def test_both_means_by_hand():
    assert len(CORRUPTIONS) == 19 and len(ALEXNET_ERRORS) == 15
    errors = {name: 0.01 * (i + 1) for i, name in enumerate(CORRUPTIONS)}
    results = {
        name: {str(s): {"accuracy": 1 - error + 0.001 * (s - 3)} for s in range(1, 6)}
        for name, error in errors.items()
    }
    found = summarise(results)
    assert found["mean_error"] == pytest.approx(0.01 * 10)  # mean of 1 to 19 hundredths
    expected = np.mean([errors[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items()])
    assert found["mce"] == pytest.approx(expected)
    same = {name: {"1": {"accuracy": 1 - alexnet}} for name, alexnet in ALEXNET_ERRORS.items()}
    assert summarise(same)["mce"] == pytest.approx(1)  # AlexNet has 100 %
    assert "100.00% (mCE)" in format_table({"images": 1, "accuracy": 1, "imagenet_c": summarise(same)})


def test_directories_that_are_something_else_are_explained(directory, tmp_path):
    with pytest.raises(DataError, match="no corruption in .*for example, 'gaussian_noise'"):
        corruptions_in(tmp_path)
    (tmp_path / "blur.tar").touch()
    with pytest.raises(DataError, match="Unpack these archives: blur.tar."):
        corruptions_in(tmp_path)
    for severity in "1235":
        (tmp_path / "frost" / severity).mkdir(parents=True)
    with pytest.raises(DataError, match="is incomplete: .*/frost/4 missing"):
        corruptions_in(tmp_path)
    (tmp_path / "weather" / "frost").mkdir(parents=True)
    with pytest.raises(DataError, match="frost exists twice: .*/frost and .*/weather/frost. Remove one"):
        corruptions_in(tmp_path)
    other = tmp_path / "other"
    write(other / "val", 0)
    (other / "val" / CLASSES[1]).rename(other / "val" / "n01484850")
    clean = FolderSource(other, "val")
    with pytest.raises(DataError, match="fog/1: ImageNet-C has 2 classes.*'n01443537'.*is 'n01484850'"):
        evaluate_corruptions(directory, clean, lambda source: {})


def test_byproducts_are_no_corruptions_and_an_empty_class_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "clean" / "val", 0)
    for severity in range(1, 6):
        write(tmp_path / "fog" / str(severity), 0)
    (tmp_path / "@eaDir" / "fog" / "1").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert corruptions_in("~") == {"fog": tmp_path / "fog"}
    for path in (tmp_path / "fog/1" / CLASSES[0]).iterdir():
        path.unlink()
    clean = FolderSource(tmp_path / "clean", "val")
    with (
        pytest.warns(UserWarning, match="class folders without images"),
        pytest.raises(
            DataError, match=f"fog/1 has no images of 1 classes that the clean data has: {CLASSES[0]}"
        ),
    ):
        evaluate_corruptions("~", clean, lambda source: {})
    with pytest.raises(DataError, match="no directory .*nowhere .--imagenet_c"):
        corruptions_in(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--imagenet_c is 's3://c', an address"):
        corruptions_in("s3://c")
