"""Trains a network of this package with Flax NNX on scikit-learn's digits: half a minute on two CPU cores.

python examples/nnx_training.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from aliasfree_jax import create_model
from aliasfree_jax.data.digits import read_digits

STEPS, BATCH = 150, 64
linen = create_model("resnet20_cifar_lps", num_classes=10, depths=(1, 1), widths=(16, 32))


@nnx.jit  # one compiled program starts faster than many operations
def initialised() -> nnx.Module:
    """The network as an NNX module, with its variables."""
    rngs = nnx.Rngs(params=0, gumbel=1)  # learned sampling draws from "gumbel" in training
    return nnx.bridge.ToNNX(linen, rngs=rngs).lazy_init(jnp.zeros((1, 8, 8, 1)))


@nnx.jit
def train_step(model: nnx.Module, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    """Updates the parameters and the batch statistics. Returns the loss."""

    def loss(model: nnx.Module) -> jax.Array:
        logits = model(x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def linen_variables(model: nnx.Module) -> dict[str, dict]:
    """The variables with the structure of `linen.init`."""
    return {
        "params": nnx.to_pure_dict(nnx.state(model, nnx.Param)),
        "batch_stats": nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)),
    }


def data(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 8, 8, 1] and labels [N]."""
    images, labels = read_digits(split)
    return images[..., None], labels


def main() -> None:
    """Trains, then measures the accuracy and the effect of a shift."""
    model = initialised()
    schedule = optax.cosine_decay_schedule(1e-2, STEPS)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)
    images, labels = data("train")
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        batch = random.choice(len(images), BATCH, replace=False)
        loss = train_step(model, optimizer, images[batch], labels[batch])

    images, labels = data("val")
    variables, apply = linen_variables(model), jax.jit(linen.apply)
    predicted = apply(variables, images).argmax(-1)
    moved = apply(variables, jnp.roll(images, (3, 5), (1, 2))).argmax(-1)
    accuracy, kept = (predicted == labels).mean(), (predicted == moved).mean()
    print(f"training loss {loss:.3f}, accuracy {accuracy:.1%}, same class after a shift {kept:.1%}")
    assert accuracy > 0.9  # 10 % without training
    assert kept == 1


if __name__ == "__main__":
    main()
