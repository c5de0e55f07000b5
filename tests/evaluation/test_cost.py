"""Tests of the cost of a worst case relative to plain forward passes in the same run."""

import statistics
import time

import jax
import numpy as np
import pytest
from classifiers import labelled

from aliasfree_jax import create_model
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate
from aliasfree_jax.evaluation.presets import PresetConfig
from aliasfree_jax.evaluation.reductions import Change
from aliasfree_jax.evaluation.selection import preset
from aliasfree_jax.evaluation.shift_sets import Grid

SIDE, BATCH = 32, 16


@pytest.mark.slow
@pytest.mark.as_users  # without optimisation the forward passes would hide all other costs
def test_the_integer_worst_case_costs_what_its_forwards_do():
    """961 shifts of a CIFAR ResNet cost at most 1.1 times 961 forward passes; far less with early exit."""
    module = create_model("resnet20_cifar", num_classes=10)
    images = np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    variables = jax.jit(lambda: module.init(jax.random.key(0), images, train=False))()
    # Logits of random weights differ little between images. Subtracting their mean balances the classes.
    usual = module.apply(variables, images, train=False).mean(0)
    predict = jax.jit(lambda x: module.apply(variables, x, train=False) - usual)
    (wanted,) = preset("afc_integer", PresetConfig(SIDE), paper=True).measurements
    part = Grid(wanted.shifts.points[::32])  # all shifts cost the same
    every = Measurement("every", part, reductions=(*wanted.reductions, Change("margin")))
    batch = labelled(predict, images)

    def seconds(run):
        began = time.process_time()  # time of this process, which other programs do not disturb
        run()
        return time.process_time() - began

    def forwards():
        for _ in range(1 + part.count):
            np.asarray(predict(images))

    def without_exit():
        assert evaluate(predict, [batch], [every])["every"]["pairs"] == part.count * BATCH

    def with_exit():
        assert evaluate(predict, [batch], [wanted])[wanted.name]["worst_case_accuracy"] < 0.2

    without_exit()  # compiles
    rounds = [(seconds(without_exit), seconds(forwards)) for _ in range(5)]
    ratios = [own / plain for own, plain in rounds]
    assert statistics.median(ratios) < 1.1, ratios
    # The network is fragile: with early exit, all 961 shifts cost less than a quarter.
    assert seconds(with_exit) < 8 * statistics.median(own for own, _ in rounds)
