"""Measures your own Flax network under shifts: random shifts, worst cases, and feature maps.

    python examples/flax_network.py

The network has a stride, so it aliases. With `anti_aliased`, it blurs before it subsamples. The weights here
are random: replace them, the module and the images by your own.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.evaluation.adversarial import (
    adversarial_continuous,
    adversarial_fraction,
    adversarial_integer,
)
from aliasfree_jax.evaluation.comparison import CompareFeatures
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate, shift_report
from aliasfree_jax.evaluation.measurements import integer_shifts
from aliasfree_jax.evaluation.reductions import Change
from aliasfree_jax.evaluation.report import format_table
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.ops import blur

SIDE, CLASSES, IMAGES, BATCH = 32, 5, 64, 32


class Network(nn.Module):
    """Two convolutions, the second at half the resolution.

    Attributes:
      anti_aliased: whether to blur before subsampling.
    """

    anti_aliased: bool

    def setup(self) -> None:
        """Makes the layers."""
        self.first, self.second = (nn.Conv(16, (3, 3), padding="CIRCULAR") for _ in range(2))
        self.head = nn.Dense(CLASSES)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `[N, H, W, 3]` to logits `[N, CLASSES]`."""
        return self.head(self.features(images).mean((1, 2)))

    def features(self, images: jax.Array) -> jax.Array:
        """Images `[N, H, W, 3]` to the last feature map `[N, H / 2, W / 2, 16]`."""
        x = nn.gelu(self.first(images))
        x = blur(x, 5, strides=2) if self.anti_aliased else x[:, ::2, ::2]
        return nn.gelu(self.second(x))


def batches(images: np.ndarray, labels: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The batches for the evaluator. Mask 0 would mark an image that only pads a batch."""
    parts = [slice(i, i + BATCH) for i in range(0, len(images), BATCH)]
    return [{"image": images[p], "label": labels[p], "mask": np.ones(len(labels[p]))} for p in parts]


def main() -> None:
    """Measures both networks on random images. Their own predictions are the labels."""
    images = np.asarray(jax.random.normal(jax.random.key(1), (IMAGES, SIDE, SIDE, 3)))
    for anti_aliased in (False, True):
        module = Network(anti_aliased)
        variables = module.init(jax.random.key(0), images[:1])
        predict = jax.jit(lambda x, module=module, variables=variables: module.apply(variables, x))
        labels = np.asarray(predict(jnp.asarray(images))).argmax(-1)
        wanted = [
            integer_shifts(SIDE, shifts=8, max_shift=8, seed=0),
            adversarial_integer(SIDE, radius=2),
            adversarial_fraction(4),
            adversarial_continuous(1.0),
        ]
        report = shift_report(predict, batches(images, labels), wanted, images=IMAGES)
        print(f"\n{module}\n{format_table(report)}")

        features = jax.jit(
            lambda x, module=module, variables=variables: module.apply(variables, x, method="features")
        )
        error = Measurement("features", Grid(np.array([[1, 1]])), reductions=(Change("feature_error"),))
        found = evaluate(features, batches(images, labels), [error], compare=CompareFeatures(SIDE))
        print(
            f"feature maps after undoing a shift by (1, 1), mean error: {found['features']['feature_error']}"
        )


if __name__ == "__main__":
    main()
