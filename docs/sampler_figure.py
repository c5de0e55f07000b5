"""Draws docs/samplers.png: how shifts change the output of each sampler, and what it costs.

python docs/sampler_figure.py              measures (a minute, CPU), writes docs/samplers.json, and draws
python docs/sampler_figure.py --redraw     draws the numbers in docs/samplers.json again

One small random network for every sampler: two stages of convolution, norm, activation and sampling by 2,
then global pooling and a linear layer. All layers except the sampler commute with every circular shift, so
the sampler alone changes the logits. The images are noise with the spectrum of photographs.
"""

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aliasfree_jax.commands import program, refuse  # noqa: E402
from aliasfree_jax.layers import (  # noqa: E402
    AdaptiveBlurPool,
    AdaptivePolyphase,
    BlurPool,
    Conv,
    Factory,
    IdealDownsample,
    LearnedPolyphase,
    MaxBlurPool,
    SpatialNorm,
    Subsample,
    UpPolynomial,
)
from aliasfree_jax.models import create_model  # noqa: E402
from aliasfree_jax.models.command import size_of  # noqa: E402
from aliasfree_jax.ops import fractional_shift, remove_nyquist  # noqa: E402


@dataclass(frozen=True)
class Kind:
    """A sampler of the picture.

    Attributes:
      layer: makes the layer of stride 2.
      padding: whether convolutions need circular padding. Samplers that are never exact work with any.
      resnet: options of the ResNet-18 with this sampler, all with circular padding; None: there is none.
    """

    layer: Callable[..., Any]
    padding: str
    resnet: dict[str, Any] | None


def _resnet(sampler: Any) -> dict[str, Any]:
    return {"sampler": sampler, "padding": "circular", "stem": {"name": "image", "pool_padding": "circular"}}


KINDS = {
    "subsample": Kind(Subsample, "optional", _resnet("subsample")),
    "max pool": Kind(Factory(MaxBlurPool, padding="CIRCULAR", sampler=Subsample), "optional", None),
    "blur": Kind(BlurPool, "optional", _resnet("blur")),
    "adaptive blur": Kind(AdaptiveBlurPool, "optional", _resnet("adaptive_blur")),
    "polyphase": Kind(AdaptivePolyphase, "needed", _resnet("polyphase")),
    "learned polyphase": Kind(LearnedPolyphase, "needed", _resnet("learned_polyphase")),
    "ideal": Kind(IdealDownsample, "needed", _resnet("ideal")),
}
SIDE, IMAGES, SEEDS = 32, 8, 2
WHOLE = ((1, 0), (0, 1), (1, 1), (2, 3), (5, 7))  # pixels
HALF = ((0.5, 0), (0, 0.5), (0.5, 0.5), (1.5, 2.5), (4.5, 7.5))
MAP = (1, 56, 56, 64)  # of the map for which the cost is counted
OUTPUT = ROOT / "docs" / "samplers"
BLUE, RED = "#0072B2", "#D55E00"  # of Okabe and Ito's palette, safe for the colour-blind


class Network(nn.Module):
    """Two stages with the sampler, then 10 logits."""

    sampler: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images [N, H, W, C] to logits [N, 10]."""
        for features in (32, 64):
            x = UpPolynomial()(SpatialNorm()(Conv(features, 3)(x)))
            x = self.sampler(strides=2)(x)
        return nn.Dense(10)(x.mean((1, 2)))


def images(seed: int) -> jax.Array:
    """Noise whose amplitude falls as 1 / frequency, as that of photographs does."""
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)) * SIDE
    spectrum = np.fft.fft2(np.random.default_rng(seed).normal(size=(IMAGES, 3, SIDE, SIDE)))
    found = np.fft.ifft2(spectrum / np.maximum(frequencies, 1)).real
    normalised = found / found.std(axis=(1, 2, 3), keepdims=True)
    return remove_nyquist(jnp.asarray(normalised.transpose(0, 2, 3, 1), jnp.float32))


def change(kind: Kind) -> dict[str, dict[str, float]]:
    """Mean and largest change of the logits relative to the largest logit: images, shifts, weights."""
    network = Network(kind.layer)
    init, apply = jax.jit(network.init), jax.jit(network.apply)
    found: dict[str, list[Any]] = {"whole": [], "half": []}
    for seed in range(SEEDS):
        x = images(seed)
        variables = init(jax.random.key(seed), x)
        logits = apply(variables, x)
        moved = [("whole", jnp.roll(x, shift, (1, 2))) for shift in WHOLE]
        moved += [("half", fractional_shift(x, shift)) for shift in HALF]
        for which, image in moved:
            difference = jnp.abs(apply(variables, image) - logits).max(-1)
            found[which].append(difference / jnp.abs(logits).max(-1))
    return {
        which: {"mean": float(np.mean(values)), "max": float(np.max(values))}
        for which, values in found.items()
    }


def cost(kind: Kind) -> dict[str, float]:
    """Arithmetic and parameters of a sampler, relative to a 3 x 3 convolution on the same map."""

    def counted(module: nn.Module) -> tuple[float, int]:
        x = jax.ShapeDtypeStruct(MAP, jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))
        compiled = jax.jit(module.apply).lower(variables, x).compile()
        return float(compiled.cost_analysis().get("flops", 0.0)), parameters  # XLA's own count

    (own, parameters), (unit, of_unit) = counted(kind.layer(strides=2)), counted(Conv(MAP[-1], 3))
    return {"arithmetic": own / unit, "parameters": parameters / of_unit}


def measure() -> dict[str, Any]:
    """All numbers of the picture and of the page's table."""
    found: dict[str, Any] = {}
    for name, kind in KINDS.items():
        found[name] = {**change(kind), **cost(kind)}
        if kind.resnet is not None:
            parameters, products = size_of(create_model("resnet18", **kind.resnet), 224)
            found[name]["resnet18"] = {"parameters": parameters, "multiply_adds": products}
        print(name, json.dumps(found[name]), flush=True)
    return {
        "command": "python docs/sampler_figure.py",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "samplers": found,
    }


def _style(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title, loc="left", fontsize=15, fontweight="bold", pad=30)
    axes.text(0, 1.03, note, transform=axes.transAxes, fontsize=12, color="#555555")
    axes.tick_params(labelsize=13, length=0, which="both")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def draw(results: dict[str, Any], path: Path) -> None:
    """Changes of the logits on the left, cost on the right, a row for each sampler."""
    names = list(KINDS)
    rows = np.arange(len(names))[::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.6), width_ratios=(5, 4), layout="constrained")
    left.axvspan(1e-8, 1e-5, color="#E9F3EC")
    left.text(1.3e-8, 6.55, "exact in float32", fontsize=12, color="#2E7D4F", va="center")
    for row, name in zip(rows, names, strict=True):
        left.axhline(row, color="#E4E4E4", linewidth=1, zorder=0)
        for which, colour, offset in (("whole", BLUE, 0.13), ("half", RED, -0.13)):
            value = max(results["samplers"][name][which]["max"], 2e-8)
            left.plot(value, row + offset, "o", color=colour, markersize=10)
    left.set_xscale("log")
    left.set_xlim(1e-8, 3)
    left.set_ylim(-0.6, 6.8)
    left.set_yticks(rows, names)
    left.plot([], [], "o", color=BLUE, markersize=10, label="whole pixels")
    left.plot([], [], "o", color=RED, markersize=10, label="half pixels")
    left.legend(
        loc="upper right",
        ncols=2,
        fontsize=12,
        frameon=False,
        handletextpad=0.1,
        columnspacing=1,
        borderpad=0,
    )
    _style(left, "Change of the logits under shifts", "largest of 80 cases, relative to the largest logit")
    shares = [results["samplers"][name]["arithmetic"] for name in names]
    right.barh(rows, [100 * share for share in shares], color="#7A7A7A", height=0.5)
    for row, name, share in zip(rows, names, shares, strict=True):
        right.text(100 * share + 4, row, _percent(share), fontsize=13, va="center")
        extra = results["samplers"][name]["parameters"]
        right.text(225, row, _percent(extra), fontsize=13, va="center", ha="center")
        right.text(310, row, KINDS[name].padding, fontsize=13, va="center", ha="center")
    for place, words in ((225, "extra\nparameters"), (310, "circular\npadding")):
        right.text(place, 6.95, words, fontsize=12, ha="center", va="bottom", color="#555555")
    right.set_yticks([])
    right.set_ylim(-0.6, 6.8)
    right.set_xlim(0, 350)
    right.set_xticks([0, 50, 100], ["0", "50 %", "100 %"])
    _style(right, "Cost", "of a 3 x 3 convolution")
    figure.savefig(path, dpi=160, facecolor="white")
    plt.close(figure)


def define(values: flags.FlagValues) -> None:
    """The flags."""
    flags.DEFINE_bool("redraw", False, "draw the stored numbers", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Measures or reads the numbers, then draws."""
    refuse(arguments)
    numbers = OUTPUT.with_suffix(".json")
    if not values.redraw:
        numbers.write_text(json.dumps(measure(), indent=1) + "\n")
    draw(json.loads(numbers.read_text()), OUTPUT.with_suffix(".png"))
    print(f"wrote {numbers} and {OUTPUT.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))
