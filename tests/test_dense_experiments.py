"""Experiments with U-Nets: stored results, tables and the command."""

import json
from types import SimpleNamespace

import pytest

from aliasfree_jax.errors import DataError
from experiments import dense
from experiments.dense import TASKS, path_of, perform, table


def stored(task):
    how = TASKS[task]
    return {
        (variant, seed): json.loads(path_of(task, variant, seed).read_text())
        for variant in how.variants
        for seed in how.seeds
    }


def test_segmentation_is_exact_where_theory_says_so_and_nowhere_else():
    for (variant, seed), found in stored("segmentation").items():
        assert found["seed"] == seed and found["card"]["task"] == "segmentation"
        assert found["card"]["model"] == f"unet_micro_{variant}" and found["images"] == 512
        circular, fractional = found["published"]["lps_massc"]["circular"], found["fractional"]["consistency"]
        assert (circular == 100) == (variant in ("lps", "afc"))
        assert (found["adversarial_integer"]["worst_consistency"] == 1) == (variant in ("lps", "afc"))
        # float32 rounding decides single pixels between two classes.
        assert (fractional > 1 - 1e-5) == (variant == "afc")


def test_denoising_is_exact_where_theory_says_so_and_nowhere_else():
    for (variant, _), found in stored("denoising").items():
        assert found["card"]["task"] == "regression" and found["images"] == 1000 and found["psnr"] > 20
        # float32 allows about -120 dB, and aliases cause far larger errors. In a few of 4,000 pairs, two
        # phases have equal norms up to rounding, so APS may choose the other one.
        assert (found["integer"]["equivariance_db"] < -75) == (variant in ("aps", "afc"))
        assert (found["fractional"]["equivariance_db"] < -120) == (variant == "afc")


@pytest.mark.parametrize("task", TASKS)
def test_a_table_has_a_row_for_each_variant(task):
    rows = table(task)
    assert len(rows) == 1 + len(TASKS[task].variants)
    assert {len(row) for row in rows} == {1 + len(TASKS[task].columns)}


def test_without_results_there_is_no_table(monkeypatch, tmp_path):
    monkeypatch.setattr(dense, "RESULTS", tmp_path)
    with pytest.raises(DataError, match=r"has no results of denoising\. Run python -m experiments\.dense"):
        table("denoising")


def test_a_run_is_the_two_programs(monkeypatch, tmp_path):
    commands = []

    def run(command, cwd):
        commands.append(command[1:])
        workdir = tmp_path / "denoising-aps-0"
        workdir.mkdir(exist_ok=True)
        found = {"checkpoint": "x", "data": {"path": "/somewhere"}, "psnr": 30.0}
        (workdir / "eval.json").write_text(json.dumps(found))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(dense, "TRAININGS", tmp_path)
    monkeypatch.setattr(dense.subprocess, "run", run)
    found = perform("denoising", "aps", 0, "/data/images")
    assert [command[0] for command in commands] == ["train.py", "eval.py"]
    assert all("--config.data.path=/data/images" in command for command in commands)
    assert "--config=configs/unet_denoise.py:aps" in commands[0] and "--integer_shifts" in commands[1]
    assert found["psnr"] == 30 and found["data"]["path"] == "" and found["checkpoint"] == "denoising-aps-0"
    monkeypatch.setattr(dense.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=2))
    with pytest.raises(DataError, match=r"python train.py .* failed with status 2"):
        perform("denoising", "aps", 0, "")
