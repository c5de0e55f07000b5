"""Draws docs/shift_curve.png: how circular shifts of the image change the outputs of three small networks.

    python docs/shift_curve.py                trains the three networks on the digits first (minutes, CPU)
    python docs/shift_curve.py --runs=A,B,C   uses finished runs: plain, polyphase, alias-free
    python docs/shift_curve.py --redraw       draws the stored numbers of docs/shift_curve.json again

All three networks are trained with configs/quickstart.py. Only the network differs. Test images are shifted
along the diagonal in steps of 1/8 pixel, by ideal (band-limited, circular) interpolation.

Polyphase sampling selects by the l1 norm here, not by l2. The digits are enlarged by ideal interpolation, so
they contain only low frequencies. All polyphase components of such an image have the same l2 norm. Rounding
would then decide, and the network would not be exact even for whole pixels.
"""

import json
import os
import platform
import runpy
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import jax
import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aliasfree_jax.checkpoint import load_model  # noqa: E402
from aliasfree_jax.commands import program, refuse  # noqa: E402
from aliasfree_jax.data import eval_batches, open_source  # noqa: E402
from aliasfree_jax.errors import ConfigError  # noqa: E402
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate, predictor  # noqa: E402
from aliasfree_jax.evaluation.shift_sets import Grid  # noqa: E402
from aliasfree_jax.training.loop import run  # noqa: E402


@dataclass(frozen=True)
class Network:
    """A curve of the picture.

    Attributes:
      model: Name of the network.
      options: Its options.
      label: Text beside the curve.
      colour: From the palette of Okabe and Ito, which is safe for the colour-blind.
      at: Position (shift, value) of the label in each of the two panels.
    """

    model: str
    options: dict[str, Any]
    label: str
    colour: str
    at: tuple[tuple[float, float], tuple[float, float]]


NETWORKS = (
    Network("convnext_micro", {}, "plain ConvNeXt", "#D55E00", ((0.12, 3.5), (1.2, 77.2))),
    Network(
        "convnext_aps_micro",
        {"sampler": {"name": "polyphase", "criterion": "l1"}},
        "polyphase sampling",
        "#0072B2",
        ((0.12, 1e-3), (0.12, 83.8)),
    ),
    Network("convnext_afc_micro", {}, "alias-free", "#009E73", ((0.12, 2e-6), (0.12, 100.7))),
)
STEPS_PER_PIXEL, LARGEST = 8, 2  # shifts: steps per pixel, and the largest shift in pixels
OUTPUT = ROOT / "docs" / "shift_curve"


def quickstart() -> ConfigDict:
    """Returns the configuration of all three networks."""
    return runpy.run_path(str(ROOT / "configs" / "quickstart.py"))["get_config"]()


def trained(network: Network, root: Path) -> tuple[Any, Any, float]:
    """Trains a network in a new run. Returns module, variables and seconds."""
    config = quickstart()
    config.model.name = network.model
    config.model.options.update(network.options)
    began = time.perf_counter()
    summary = run(config, root / network.model)
    return summary.module, summary.variables, time.perf_counter() - began


def curve(module: Any, variables: Any, config: ConfigDict) -> list[dict[str, Any]]:
    """Measures how predictions change under the shifts 0, 1/8, ..., 2 pixels, over all test images."""
    steps = range(STEPS_PER_PIXEL * LARGEST + 1)
    measurements = []
    for step in steps:
        whole, rest = divmod(step, STEPS_PER_PIXEL)
        # A shift of integer type moves whole pixels without interpolation.
        pixels = step / STEPS_PER_PIXEL if rest else whole
        measurements.append(Measurement(str(step), Grid(np.array([[pixels, pixels]]))))
    batches = eval_batches(
        open_source(config.data, train=False), config.data, batch_size=config.eval.batch_size
    )
    results = evaluate(predictor(module, variables), batches, measurements)
    return [{"shift": step / STEPS_PER_PIXEL} | results[str(step)] for step in steps]


def measure(runs: list[str]) -> dict[str, Any]:
    """Measures the curves of the three networks, and records how they were made."""
    config, networks = quickstart(), {}
    root = ROOT / "runs" / f"shift_curve-{time.strftime('%Y%m%d-%H%M%S')}"
    for i, network in enumerate(NETWORKS):
        if runs:
            _, module, variables = load_model(runs[i])
            seconds = None
        else:
            module, variables, seconds = trained(network, root)
        began = time.perf_counter()
        points = curve(module, variables, config)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        networks[network.model] = {
            "options": network.options,
            "parameters": parameters,
            "training_seconds": seconds,
            "measuring_seconds": time.perf_counter() - began,
            "points": points,
        }
    return {
        "command": " ".join(["python", "docs/shift_curve.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, device {jax.devices()[0].device_kind}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "test_images": networks[NETWORKS[0].model]["points"][0]["pairs"],
        "networks": networks,
    }


def _style(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title, loc="left", fontsize=16, fontweight="bold", pad=30)
    axes.text(0, 1.035, note, transform=axes.transAxes, fontsize=12, color="#555555")
    axes.set_xlabel("circular shift along the diagonal, pixels", fontsize=13)
    axes.set_xlim(0, LARGEST)
    axes.set_xticks(np.arange(0, LARGEST + 0.1, 0.5))
    axes.tick_params(labelsize=12, length=0, which="both")
    axes.grid(axis="y", color="#E4E4E4", linewidth=1)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the change of the logits and the consistency over the shift, side by side."""
    layout = ConstrainedLayoutEngine(wspace=0.08, w_pad=0.15, h_pad=0.12)
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), layout=layout)
    line = {"linewidth": 2.5, "marker": "o", "markersize": 5.5, "clip_on": False}
    for network in NETWORKS:
        points = results["networks"][network.model]["points"]
        moved = points[1:]  # shift 0 has no change, and a logarithmic axis has no zero
        x = [p["shift"] for p in moved]
        mean, largest = ([p["logit_change"][which] for p in moved] for which in ("mean", "max"))
        left.fill_between(x, mean, largest, color=network.colour, alpha=0.15, linewidth=0)
        left.plot(x, mean, color=network.colour, **line)
        share = [100 * p["consistency"] for p in points]
        right.plot([p["shift"] for p in points], share, color=network.colour, **line)
        for axes, place in zip((left, right), network.at, strict=True):
            axes.text(*place, network.label, color=network.colour, fontsize=13, fontweight="bold")
    left.set_yscale("log")
    left.set_ylim(5e-9, 20)
    right.set_ylim(74, 102)
    images = results["test_images"]
    _style(left, "Change of the logits", "relative to the largest logit; line: mean, band: up to the worst")
    _style(right, "Predictions that stay the same", f"share of {images} test images, %")
    figure.savefig(path, dpi=160, facecolor="white")
    plt.close(figure)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_list("runs", [], "finished runs to use: plain, polyphase, alias-free", flag_values=values)
    flags.DEFINE_bool("redraw", False, "draw the stored numbers again", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Measures the numbers or reads the stored ones, then draws."""
    refuse(arguments)
    if len(values.runs) not in (0, len(NETWORKS)):
        raise ConfigError(
            f"--runs={','.join(values.runs)}: expected {len(NETWORKS)} runs (plain, polyphase, alias-free)."
        )
    numbers = OUTPUT.with_suffix(".json")
    if not values.redraw:
        numbers.write_text(json.dumps(measure(values.runs), indent=1) + "\n")
    draw(json.loads(numbers.read_text()), OUTPUT.with_suffix(".png"))
    print(f"wrote {numbers} and {OUTPUT.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))
