"""Program of one of several processes: evaluates its part of every batch and prints the results as JSON.

python evaluating_process.py PORT COUNT INDEX
"""

import dataclasses
import json
import sys

import flax.linen as nn
import jax
import numpy as np
from classifiers import WEIGHTS, labelled, smooth_noise

from aliasfree_jax.evaluation.adversarial import adversarial_continuous, adversarial_integer
from aliasfree_jax.evaluation.evaluator import predictor, shift_report
from aliasfree_jax.evaluation.measurements import crop_shifts, integer_shifts
from aliasfree_jax.evaluation.pixel_classes import CompareClasses
from aliasfree_jax.evaluation.shifting import Circular

SIDE, MARGIN, BATCH, BATCHES = 16, 2, 12, 2


class Strided(nn.Module):
    """`classifiers.strided` as a module."""

    @nn.compact
    def __call__(self, images, train):
        return jax.nn.gelu(images[:, ::4, ::4]).mean((1, 2)) @ WEIGHTS


class Mapping(nn.Module):
    """Every second pixel as logits of three classes."""

    @nn.compact
    def __call__(self, images, train):
        return images[:, ::2, ::2].repeat(2, 1).repeat(2, 2)


def results(count, index):
    """Results of the process with this index."""
    # Labels are computed on the host: every process needs all of them before the images are divided.
    logits = lambda x: np.asarray(jax.device_get(Strided().apply({}, x, False)))  # noqa: E731
    data, own = labelled(logits, smooth_noise(BATCH * BATCHES, SIDE + 2 * MARGIN), MARGIN), BATCH // count
    starts = [BATCH * k + own * index for k in range(BATCHES)]
    batches = [{name: array[s : s + own] for name, array in data.items()} for s in starts]
    way = Circular(margin=MARGIN)
    wanted = [
        crop_shifts(shifts=3, margin=MARGIN, seed=0),
        dataclasses.replace(adversarial_integer(SIDE, 2), shifting=way),
        dataclasses.replace(adversarial_continuous(1.0), shifting=way),
    ]
    how = {"images": BATCH * BATCHES, "progress": False}
    of_maps = [batch | {"label": batch["image"][..., 0].astype(int) % 3} for batch in batches]
    shifts = [integer_shifts(SIDE, shifts=2, max_shift=3, seed=0)]
    maps = shift_report(predictor(Mapping(), {}), of_maps, shifts, compare=CompareClasses(), **how)
    return shift_report(predictor(Strided(), {}), batches, wanted, **how) | {"maps": maps}


if __name__ == "__main__":
    port, count, index = map(int, sys.argv[1:])
    jax.distributed.initialize(f"localhost:{port}", num_processes=count, process_id=index)
    print(json.dumps(results(count, index)))
