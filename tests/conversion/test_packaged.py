"""The weights in the package: loaded by name, small, exact, and part of the wheel."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aliasfree_jax
from aliasfree_jax import list_pretrained, load_pretrained
from aliasfree_jax.config import base_config
from aliasfree_jax.conversion.publishing import IMAGES, NETWORK, PAGE, WEIGHTS, read_published
from aliasfree_jax.data import eval_batches, open_source
from aliasfree_jax.errors import CheckpointError
from aliasfree_jax.evaluation.evaluator import evaluate, predictor
from aliasfree_jax.evaluation.preparation import prepare
from aliasfree_jax.evaluation.stored import results_path
from aliasfree_jax.files import PACKAGED, elsewhere
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"
# Accuracy on 1,000 test images, evenly spread over the archive.
ACCURACY = {
    "convnext_afg_cifar": 0.744,
    "convnext_circular_cifar": 0.703,
    "resnet20_cifar": 0.824,
    "resnet20_cifar_afc": 0.855,
    "resnet20_cifar_afg": 0.85,
    "resnet20_cifar_aps": 0.839,
    "resnet20_cifar_circular_blur": 0.833,
    "resnet20_cifar_lps": 0.817,
}
LARGEST = 10e6  # bytes of all weights


def predicted(name, images):
    _, network, variables = load_pretrained(name)
    return jax.jit(network.apply)(variables, images)


def test_every_name_has_weights_and_a_card():
    assert list_pretrained() == sorted(ACCURACY)
    for name in list_pretrained():
        assert {path.name for path in (PACKAGED / name).iterdir()} == {WEIGHTS, NETWORK, IMAGES, PAGE}
        page = (PACKAGED / name / PAGE).read_text()
        assert '\nlicense: "apache-2.0"\n' in page and "accuracy" in page
        assert "/work" not in page and "/home" not in page  # no paths of the machine
    assert sum(path.stat().st_size for path in PACKAGED.rglob("*")) < LARGEST


@pytest.mark.parametrize("name", ACCURACY)
def test_the_named_network_is_that_of_the_directory(name):
    card, _, variables = load_pretrained(name)
    assert (card.image_size, len(card.class_names)) == (32, 10)
    jax.tree.map(np.testing.assert_array_equal, variables, read_published(PACKAGED / name)[2])


def test_shifts_change_the_plain_network_and_not_the_adaptive_ones():
    images = jax.random.normal(jax.random.key(0), (8, 32, 32, 3))
    moved = jnp.roll(images, (3, 5), (1, 2))
    change = {
        name: jnp.abs(predicted(name, images) - predicted(name, moved)).max()
        for name in ("resnet20_cifar", "resnet20_cifar_aps", "resnet20_cifar_lps")
    }
    # Rounding of logits of about 10 in float32.
    assert change.pop("resnet20_cifar") > 0.1
    assert max(change.values()) < 1e-4


@pytest.mark.parametrize("name", ["resnet20_cifar_afc", "resnet20_cifar_afg", "convnext_afg_cifar"])
def test_half_a_pixel_does_not_change_the_alias_free_networks(name):
    images = remove_nyquist(jax.random.normal(jax.random.key(0), (8, 32, 32, 3)))
    moved = fractional_shift(images, jnp.full((8, 2), 0.5))
    # Rounding of logits of about 10 in float32.
    assert jnp.abs(predicted(name, images) - predicted(name, moved)).max() < 1e-4


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CheckpointError, match="at resnet20_cifar_ups: .* Weights .*resnet20_cifar_aps"):
        load_pretrained("resnet20_cifar_ups")


def test_a_path_has_priority_over_a_name(tmp_path, monkeypatch):
    assert elsewhere("resnet20_cifar_aps") and not elsewhere("./resnet20_cifar_aps")
    assert results_path("resnet20_cifar_aps") == Path("resnet20_cifar_aps.eval.json")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20_cifar_aps").mkdir()
    assert not elsewhere("resnet20_cifar_aps")
    with pytest.raises(CheckpointError):
        load_pretrained("resnet20_cifar_aps")


@pytest.mark.slow
@pytest.mark.as_users  # 1,000 images take three times as long without optimisation
@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs CIFAR-10")
@pytest.mark.parametrize(("name", "accuracy"), ACCURACY.items())
def test_accuracy_on_1000_test_images(name, accuracy):
    card, network, variables = load_pretrained(name)
    config = base_config()
    config.data.source, config.data.path, config.data.eval_limit = "folder", str(ARCHIVE), 1000
    prepare(config.data, card, frozenset())
    source = open_source(config.data, train=False)
    results = evaluate(predictor(network, variables), eval_batches(source, config.data, batch_size=250))
    assert results["images"] == 1000
    # Tolerance: two images whose logits differ by rounding only.
    assert results["accuracy"] == pytest.approx(accuracy, abs=0.0025)


@pytest.mark.slow
def test_the_wheel_contains_the_weights(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    program = (
        "import aliasfree_jax, jax.numpy as jnp\n"
        "print(aliasfree_jax.__file__)\n"
        "_, network, variables = aliasfree_jax.load_pretrained('resnet20_cifar_aps')\n"
        "print(network.apply(variables, jnp.ones((1, 32, 32, 3))).shape)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.stdout.split("\n")[:2] == [f"{tmp_path}/site/aliasfree_jax/__init__.py", "(1, 10)"], (
        ended.stderr
    )
    assert aliasfree_jax.__file__ == str(ROOT / "aliasfree_jax" / "__init__.py")
