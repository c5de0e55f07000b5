"""Tests that two real processes get the results of one: windows, worst cases with early exit, search."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import evaluating_process
import numpy as np
import pytest

PROGRAM = Path(evaluating_process.__file__)


def evaluated(count):
    """Results of each of `count` processes with two devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
        "PYTHONPATH": f"{PROGRAM.parents[2]}{os.pathsep}{PROGRAM.parent}",
    }
    running = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(port), str(count), str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.slow
def test_processes_change_nothing():
    alone = evaluating_process.results(count=1, index=0)
    first, second = evaluated(2)
    assert first == second and alone["images"] == first["images"] == 24
    for name in ("crop", "adversarial_integer", "adversarial_continuous"):
        assert first[name]["worst_case_accuracy"] == alone[name]["worst_case_accuracy"] < 1
        assert first[name]["pairs"] == alone[name]["pairs"]
    assert first["maps"]["class_iou"] == alone["maps"]["class_iou"]
    found = [result["maps"]["integer"]["equivariance_db"] for result in (alone, first)]
    np.testing.assert_allclose(*found, rtol=1e-5)
    # tolerance: float32 sums have other parts
    changes = [result["crop"]["logit_change"]["mean"] for result in (alone, first)]
    np.testing.assert_allclose(*changes, rtol=1e-5)
