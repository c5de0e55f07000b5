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

STEPS = 150
linen = create_model("resnet20_cifar_lps", num_classes=10, depths=(1, 1), widths=(16, 32))


@nnx.jit  # one compiled program starts faster than many operations
def initialised():
    rngs = nnx.Rngs(params=0, gumbel=1)  # in training, learned sampling draws from "gumbel"
    return nnx.bridge.ToNNX(linen, rngs=rngs).lazy_init(jnp.zeros((1, 8, 8, 1)))


model = initialised()
optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(1e-2, STEPS)), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, images, labels):
    def loss(model):
        logits = model(images, train=True, mutable=["batch_stats"])  # updates the batch statistics
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def data(split):
    images, labels = read_digits(split)
    return images[..., None], labels  # [N, 8, 8, 1], [N]


images, labels = data("train")
choice = np.random.default_rng(0)
for _ in range(STEPS):
    batch = choice.choice(len(images), 64, replace=False)
    value = train_step(model, optimizer, images[batch], labels[batch])

variables = {  # for linen.apply, checkpoints and everything else in this package
    "params": nnx.to_pure_dict(nnx.state(model, nnx.Param)),
    "batch_stats": nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)),
}
images, labels = data("val")
apply = jax.jit(linen.apply)
predicted = apply(variables, images).argmax(-1)
moved = apply(variables, jnp.roll(images, (3, 5), (1, 2))).argmax(-1)
accuracy, consistency = (predicted == labels).mean(), (predicted == moved).mean()
print(f"training loss {value:.3f}, accuracy {accuracy:.1%}, same class after a shift {consistency:.1%}")
assert accuracy > 0.8 and consistency == 1
