"""Tests of eval.py as a user calls it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

from aliasfree_jax import cli, create_model
from aliasfree_jax.checkpoint import ModelCard, abstract_variables, load_model, save_model, weights_sha256
from aliasfree_jax.errors import ConfigError, DataError

# ml_collections loads configuration files with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = f"--config={ROOT}/configs/quickstart.py"


def evaluate(*arguments):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, ROOT / "eval.py", *arguments], env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A random one-channel network for ten classes, saved like a converted network."""
    options = {"num_classes": 10, "depths": (1,), "widths": (8,)}
    module = create_model("convnext_aps_micro", **options)
    rng = np.random.default_rng(0)
    shapes = abstract_variables(module, image_size=32, channels=1)
    variables = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes)
    names = tuple(map(str, range(10)))
    card = ModelCard("convnext_aps_micro", options, names, 32, 1, (0.25,), (0.5,), 1.0, 0, "test")
    return save_model(tmp_path_factory.mktemp("weights") / "random", card, variables)


def test_a_network_outside_a_run_is_evaluated_with_a_configuration(network):
    (network / "results.json").write_text(
        '{"accuracy": 0.5, "chosen_by": "accuracy", "chosen_on": "test"}'
    )  # a file like that in <run>/best
    ended = evaluate(
        f"--checkpoint={network}",
        QUICKSTART,
        f"--output={network.parent}",  # an existing directory
        "--integer_shifts",
        "--config.data.eval_limit=20",
        "--config.eval.shifts=2",
        "--config.eval.batch_size=8",
    )
    assert ended.returncode == 0, ended.stderr
    chosen = "the best accuracy of test images, so results on them are too good"
    assert f"chosen as      {chosen}\n" in ended.stdout
    assert "network        convnext_aps_micro" in ended.stdout and "20 images, accuracy" in ended.stdout
    results = json.loads((network.parent / "random.eval.json").read_text())
    assert results["chosen_as"] == chosen and results["weights"] == weights_sha256(load_model(network)[2])
    assert results["images"] == 20 and results["integer"]["pairs"] == 40
    assert results["data"]["mean"] == [0.25]  # from the network, not from the configuration
    assert "fractional" not in results


def test_several_checkpoints_are_compared_in_a_table(network, tmp_path):
    ended = evaluate(
        *(f"--checkpoint={network}", "--checkpoint=resnet20_cifar_aps", "--accept_class_names"),
        *(QUICKSTART, "--config.data.eval_limit=20", f"--output={tmp_path}", "--integer_shifts"),
        *("--config.eval.shifts=1", "--config.eval.batch_size=20"),
    )
    # The digits have one channel, but the second network needs three. The first one's results are kept.
    assert ended.returncode == 2 and "3 input channels" in ended.stderr, ended.stderr
    assert (tmp_path / "random.eval.json").exists()
    ended = evaluate(
        *(f"--checkpoint={network}", f"--checkpoint={shutil.copytree(network, tmp_path / 'copy')}"),
        *(QUICKSTART, "--config.data.eval_limit=20", f"--output={tmp_path}", "--integer_shifts"),
        *("--config.eval.shifts=1", "--config.eval.batch_size=20"),
    )
    assert ended.returncode == 0, ended.stderr
    heading, _, accuracy, *_ = ended.stdout.split("\n\n")[-1].splitlines()
    assert heading.split() == [str(network), str(tmp_path / "copy")]
    assert accuracy.split()[:3] == ["accuracy,", "no", "shift"] and len(set(accuracy.split()[3:])) == 1
    assert (tmp_path / "copy.eval.md").exists()


def test_bad_checkpoints_end_the_program_before_the_first_evaluation(network, tmp_path):
    ended = evaluate(f"--checkpoint={network}", "--checkpoint=resnet20_cifar_ups", QUICKSTART)
    assert ended.returncode == 2 and "Weights in this package:" in ended.stderr and not ended.stdout
    other = shutil.copytree(network, tmp_path / "other" / network.name)
    both = evaluate(f"--checkpoint={network}", f"--checkpoint={other}", f"--output={tmp_path}", QUICKSTART)
    assert both.returncode == 2 and "several checkpoints would write to one file" in both.stderr


@pytest.mark.slow
def test_everything_in_one_run(network, tmp_path):
    output = tmp_path / "all.json"
    ended = evaluate(
        f"--checkpoint={network}",
        QUICKSTART,
        "--adversarial=integer,fraction,continuous",
        "--zero_filled_shifts",
        "--crop_shifts",
        "--spatial_attack",
        "--presets=aps_consistency,afc_crop_shift",
        "--paper",
        "--pictures",
        "--config.eval.pictured_image=3",
        "--config.data.eval_limit=20",
        "--config.eval.batch_size=10",
        "--config.eval.crop_margin=2",
        "--config.data.eval_crop_ratio=0.8",
        "--config.eval.worst_case_radius=2",
        "--config.eval.shifts=2",
        f"--output={output}",
    )
    assert ended.returncode == 0, ended.stderr
    results, page = json.loads(output.read_text()), output.with_suffix(".md").read_text()
    kinds = ["adversarial_integer", "adversarial_fraction", "adversarial_continuous"]
    for name in [*kinds, "zero_filled", "crop", "spatial_attack", "aps_consistency", "afc_crop_shift"]:
        assert results[name]["pairs"] > 0 and f"| {name} |" in page and f"\n{name} " in ended.stdout
    assert results["aps_consistency"]["pair_consistency"] == 1  # an APS network
    by_radius = results["adversarial_integer"]["worst_case_by_radius"]
    assert by_radius == [results["accuracy"]] * 3
    assert results["published"]["aps_consistency"]["consistency"] == 100
    assert re.search(r"aps_consistency +consistency +100\n", ended.stdout)
    assert "100%" in ended.stderr  # the progress bar is complete
    check_pictures(output, results)
    assert f"{output}, {output.with_suffix('.md')}, {output.with_suffix('.html')}\n" in ended.stdout


def check_pictures(output, results):
    assert results["shift_plane"]["pairs"] == 20 * 24 and results["eval"]["worst_case_radius"] == 2
    assert results["pictured_image"]["index"] == 3
    page = output.with_suffix(".html").read_text()
    assert page.count("<img") == 5 and "No picture" not in page
    assert "<td>convnext_aps_micro</td>" in page and f"<td>{results['machine']}</td>" in page
    names = ("accuracy_map.png", "consistency_map.png", "features.png", "slide.gif", "worst_case.png")
    drawn = {path.name for path in output.parent.glob("all_*")}
    assert drawn == {f"all_{name}" for name in names}


def test_what_cannot_be_measured_is_explained(network, eval_program):
    """The error is raised before anything is measured."""
    arguments = [f"--checkpoint={network}", QUICKSTART, "--imagenet_c=/nowhere", "--crop_shifts"]
    cli.parse(["eval.py", *arguments])
    with pytest.raises(DataError, match="no directory /nowhere .--imagenet_c"):
        eval_program.main(flags.FLAGS.config)


def test_without_a_configuration_it_says_which_to_pass(network, eval_program):
    def stored():
        return cli.stored_config(eval_program.checkpoints()[0])

    message = f"{network} is not part of a run.*--config=configs/"
    with pytest.raises(ConfigError, match=message):
        cli.parse(["eval.py", f"--checkpoint={network}", "--integer_shifts"], stored)
