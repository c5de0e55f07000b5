"""Measures a classifier of another library under shifts. Any function from images to logits works.

    python examples/any_function.py                     a function of NumPy arrays
    python examples/any_function.py --torch             the same as a PyTorch module, if torch is installed

Random shifts and worst cases over grids only need forward passes. The search over real-valued shifts
differentiates the network, so it needs a JAX function (see flax_network.py).
"""

import sys
from collections.abc import Callable

import numpy as np
from absl import flags

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.evaluation.adversarial import adversarial_integer
from aliasfree_jax.evaluation.evaluator import shift_report
from aliasfree_jax.evaluation.measurements import fractional_shifts, integer_shifts
from aliasfree_jax.evaluation.presets import PresetConfig
from aliasfree_jax.evaluation.report import format_table
from aliasfree_jax.evaluation.selection import preset

SIDE, CLASSES, IMAGES = 32, 5, 48
WEIGHTS = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
Classifier = Callable[[np.ndarray], np.ndarray]


def numpy_classifier() -> Classifier:
    """A function from images `[N, H, W, 3]` to logits: every fourth sample, rectified and averaged."""

    def predict(images: np.ndarray) -> np.ndarray:
        seen = np.asarray(images)[:, ::4, ::4]  # the evaluator passes JAX arrays
        return (np.maximum(seen, 0).mean((1, 2)) - 0.4) @ WEIGHTS

    return predict


def torch_classifier() -> Classifier:
    """The same function as a PyTorch module, whose input is `[N, 3, H, W]`."""
    import torch

    last = torch.nn.Linear(3, CLASSES)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(WEIGHTS.T))
        last.bias.copy_(torch.from_numpy(-0.4 * WEIGHTS.sum(0)))
    every_fourth = torch.nn.MaxPool2d(1, stride=4)
    average = torch.nn.AdaptiveAvgPool2d(1)
    module = torch.nn.Sequential(every_fourth, torch.nn.ReLU(), average, torch.nn.Flatten(), last).eval()

    @torch.no_grad()
    def predict(images: np.ndarray) -> np.ndarray:
        channels_first = np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2))
        return module(torch.from_numpy(channels_first)).numpy()

    return predict


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_bool("torch", False, "measure the PyTorch module", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Measures the classifier on random images. Its own predictions are the labels."""
    refuse(arguments)
    predict = torch_classifier() if values.torch else numpy_classifier()
    images = np.random.default_rng(1).normal(size=(IMAGES, SIDE, SIDE, 3)).astype(np.float32)
    batch = {"image": images, "label": predict(images).argmax(-1), "mask": np.ones(IMAGES)}

    draws = {"shifts": 8, "max_shift": 8, "seed": 0}
    paper = preset("afc_fraction", PresetConfig(SIDE), paper=True)  # computed like the paper's program
    wanted = [
        integer_shifts(SIDE, **draws),
        fractional_shifts(SIDE, **draws),
        adversarial_integer(SIDE, radius=2),
        *paper.measurements,
    ]
    results = shift_report(predict, [batch], wanted, images=IMAGES)
    print(format_table(results | {"published": {"afc_fraction": paper.published(results)}}))


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))
