"""The benchmark command and the pages written from its results."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aliasfree_jax.commands import program
from benchmarks import input_pipeline, networks, page, roofline, transformed
from benchmarks.__main__ import define, main
from benchmarks.timing import machine

ROOT = Path(__file__).resolve().parent.parent


def test_the_pages_in_docs_are_those_of_the_results(tmp_path):
    shutil.copy(page.DOCS / "benchmarks.md", tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in page.write_pages(tmp_path)]
    assert names == ["results/benchmarks_cpu.md", "results/benchmarks_gpu.md", "benchmarks.md"]
    for name in names:
        text = (page.DOCS / name).read_text()
        assert (tmp_path / name).read_text() == text, "run python -m benchmarks.page"


def test_bounds_equal_a_case_computed_by_hand():
    device = roofline.Device("one", 1e-12, 1e-12)  # one operation a second, one byte a second
    assert device.milliseconds(2, 1) == 4e3  # 4 operations against 2 bytes
    assert device.milliseconds(0.5, 3) == 6e3
    rows = roofline.measure()
    assert rows[-1]["MLP, fused"] == pytest.approx(sum(row["MLP, fused"] for row in rows[:-1]))


def test_a_precision_that_does_not_exist_is_refused_before_anything_runs(capsys):
    assert program(define, main, None)(["--precision=float16"]) == 2
    assert "=float16" in (said := capsys.readouterr().err) and "bfloat16" in said


def test_a_section_that_cannot_run_is_refused_before_anything_runs(capsys):
    assert program(define, main, "")(["--quick", "--only=operations", "--only=xcit-nano"]) == 2
    out, err = capsys.readouterr()
    assert "--only=xcit-nano cannot run: --quick has no section of large networks" in err and not out


def test_pages_have_every_network_that_is_measured():
    tasks = {
        "networks": networks.tasks(4, 224, "tiny", "float32", False, False),
        "resnets": networks.resnet_tasks(4, "float32"),
        "cifar": networks.cifar_tasks("float32"),
        **{f"xcit-{size}": networks.xcit_tasks(f"{size}_12_p16", 4, "float32") for size in ("nano", "small")},
    }
    assert set(tasks) == set(page.NETWORKS) == set(page.GOALS)
    for section, all_tasks in tasks.items():
        times = {"forward_ms": 1.0, "gradient_ms": 2.0, "step_images_per_s": 3.0, "peak_mib": 4}
        rows = [{**task, **times} for task in all_tasks]
        compared = page.comparisons(section, rows)
        assert "plain" in {row["label"] for row in rows} and page.network_table(rows)
        assert all(line["ratio of times"] for line in compared) and compared


def test_a_worker_that_fails_ends_the_measurement():
    task = networks.tasks(1, 32, "minute", "float32", True, False)[0]
    with pytest.raises(RuntimeError, match="a worker ended with status 1"):
        networks.measure([task], 1, False)


def test_the_input_is_measured_step_by_step():
    pytest.importorskip("cykooz_resizer", reason="needs pip install 'aliasfree_jax[fast]'")
    before = os.sched_getaffinity(0)
    rows = input_pipeline.measure_core([input_pipeline.MadeUp(1)[0].image], 1)
    assert os.sched_getaffinity(0) == before
    assert [row.pop("step") for row in rows] == ["decode", "crop, resize, flip", "decode, crop, resize, flip"]
    assert all(value > 0 for row in rows for value in row.values())


@pytest.mark.slow
def test_transformed_networks_stand_beside_the_native_one(monkeypatch):
    small = {"depths": (1, 1), "widths": (4, 8)}
    monkeypatch.setattr(transformed, "own", functools.partial(transformed.own, **small))
    monkeypatch.setattr(transformed, "SAMPLERS", {"polyphase": "polyphase"})
    monkeypatch.setattr(transformed.importlib.util, "find_spec", lambda _: None)  # without Haiku
    rows = transformed.measure(2, 32, 1, "float32")
    assert [(row["pass"], row["network"]) for row in rows] == [
        (call, name) for call in ("forward", "gradient") for name in ("native", "ours, transformed")
    ]
    section = {"command": "", "date": "", "machine": machine(), "rows": rows}
    assert "ours, transformed" in page.machine_section("here", {"transform": section})


@pytest.mark.slow
def test_the_quick_benchmark_measures_every_section(tmp_path):
    pytest.importorskip("cykooz_resizer", reason="needs pip install 'aliasfree_jax[fast]'")
    out = tmp_path / "quick.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--repetitions", "1", "--output", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    stored = json.loads(out.read_text())
    assert set(stored) == {"networks", "operations", "memory", "compile", "precision", "input"}
    assert {row["label"] for row in stored["networks"]["rows"]} == {"plain", "alias-free"}
    assert all(row["step_ms"] > 0 for row in stored["networks"]["rows"])
    assert set(page.TITLES) == set(stored["operations"]["rows"])
    assert "### Precision" in page.machine_section("here", stored)
    assert "### Reading images" in page.machine_section("here", stored)
