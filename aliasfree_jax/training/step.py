"""The compiled training step and the compiled prediction: the same code for one or many devices.

Both are `jax.jit` over a mesh. The batch is divided; everything else is replicated or sharded. Sums over the
batch are sums over all devices. So batch statistics, loss and gradients are those of the whole batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.training.mesh import BATCH_AXES, replicated, split, state_shardings
from aliasfree_jax.training.mixing import Mixing, mix
from aliasfree_jax.training.objective import CLASSIFICATION, Objective
from aliasfree_jax.training.schedules import Schedule
from aliasfree_jax.training.state import TrainState

STREAMS = ("drop_path", "dropout", "gumbel")
Batch = dict[str, jax.Array]  # image [B, H, W, C], label [B, ...], mask [B]
Metrics = dict[str, jax.Array]  # scalars
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Predict = Callable[..., jax.Array]  # variables, images [B, H, W, C] -> logits [B, K], or maps [B, H, W, K]
Gradients = tuple[PyTree, tuple[dict[str, PyTree], Metrics]]  # and updated collections, summed metrics


def _kept(new: PyTree, old: PyTree) -> PyTree:
    """`new` with the dtypes of `old`. Under x64 a batch has wider statistics than the stored ones."""
    return jax.tree.map(lambda n, o: n if n.dtype == o.dtype else n.astype(o.dtype), new, old)


def random_streams(key: jax.Array) -> dict[str, jax.Array]:
    """The keys of the random streams `STREAMS`, which the layers use in training."""
    return {name: jax.random.fold_in(key, number) if number else key for number, name in enumerate(STREAMS)}


def _make_gradients(
    module: nn.Module, objective: Objective, mixing: Mixing | None
) -> Callable[..., Gradients]:
    """The gradients of the loss of one micro-batch, divided by `counts` of the whole batch."""

    def loss_of(
        params: PyTree,
        collections: dict[str, PyTree],
        batch: Batch,
        key: jax.Array,
        counts: Metrics,
        now: dict[str, Any],
    ) -> tuple[jax.Array, tuple[dict[str, PyTree], Metrics]]:
        images, labels = batch["image"], batch["label"]
        if mixing is not None:
            images, partners, share = mix(images, labels, jax.random.fold_in(key, 3), mixing)
        outputs, updated = module.apply(
            {"params": params, **collections},
            images,
            train=True,
            **now,
            rngs=random_streams(key),
            mutable=list(collections),
        )
        sums = {name: term.sums(outputs, labels) for name, term in objective.items()}
        if mixing is not None:
            mixed = {name: term.sums(outputs, partners) for name, term in objective.items()}
            sums["loss"] = share * sums["loss"] + (1 - share) * mixed["loss"]
            sums["accuracy"] = jnp.where(share >= 0.5, sums["accuracy"], mixed["accuracy"])
        metrics = {name: jnp.sum(of_each * batch["mask"]) / counts[name] for name, of_each in sums.items()}
        return metrics["loss"], (_kept(updated, collections), metrics)

    return jax.grad(loss_of, has_aux=True)


def _micro_batches(batch: Batch, steps: int, mesh: Mesh) -> Batch:
    """`[B, ...]` -> `[steps, B / steps, ...]`; every device keeps its examples."""
    sharding = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))

    def cut(array: jax.Array) -> jax.Array:
        rows = array.reshape(array.shape[0] // steps, steps, *array.shape[1:])
        return jax.lax.with_sharding_constraint(jnp.swapaxes(rows, 0, 1), sharding)

    return jax.tree.map(cut, batch)


def _accumulated(
    gradients: Callable[..., Gradients],
    objective: Objective,
    state: TrainState,
    batch: Batch,
    now: dict[str, Any],
    steps: int,
    mesh: Mesh,
) -> Gradients:
    """The result of `gradients` for the whole batch, computed in `steps` micro-batches."""
    key = jax.random.fold_in(state.key, state.step)
    counts = {
        name: jnp.maximum(jnp.sum(term.counts(batch["label"]) * batch["mask"]), 1.0)
        for name, term in objective.items()
    }
    if steps == 1:
        return gradients(state.params, state.collections, batch, key, counts, now)

    def add(total: Gradients, part: tuple[jax.Array, Batch]) -> tuple[Gradients, None]:
        grads, (collections, metrics) = total
        index, micro = part
        new_grads, (collections, new_metrics) = gradients(
            state.params, collections, micro, jax.random.fold_in(key, index), counts, now
        )
        grads, metrics = jax.tree.map(jnp.add, (grads, metrics), (new_grads, new_metrics))
        return (grads, (collections, metrics)), None

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    start = zeros, (state.collections, {name: jnp.zeros(()) for name in objective})
    total, _ = jax.lax.scan(add, start, (jnp.arange(steps), _micro_batches(batch, steps, mesh)))
    return total


def make_train_step(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    mesh: Mesh,
    *,
    scheduled: Mapping[str, Schedule] = MappingProxyType({}),
    objective: Objective = CLASSIFICATION,
    mixing: Mixing | None = None,
    accumulation_steps: int = 1,
    ema_decay: float = 0.0,
) -> TrainStep:
    """A compiled function (state, batch) -> (state, metrics) that updates the parameters once.

    The metrics describe the batch before the update: those of the objective, learning_rate, and grad_norm
    (before clipping). The input state is donated: its arrays must not be used again.

    Args:
      module: network with `apply(variables, images, train=True)`.
      optimizer: the optimizer that made the state.
      schedule: the optimizer's schedule, used here only for the metrics.
      mesh: devices. The batch size must be a multiple of their number times `accumulation_steps`.
      scheduled: arguments of the network that change with the step: the temperature of learned samplers.
      objective: the quantities to average over a batch; "loss" is minimised.
      mixing: mixup and CutMix. The loss of a mixed image is the mean of the losses for both labels, weighted
        by their shares. Its accuracy refers to the label with the larger share.
      accumulation_steps: number of micro-batches whose gradients are summed before the update. Batch
        statistics are those of the micro-batches.
      ema_decay: d in the averages e = d e + (1 - d) m of all variables m, if the state keeps averages.
    """
    gradients = _make_gradients(module, objective, mixing)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        now = {name: each(state.step) for name, each in scheduled.items()}
        grads, (collections, metrics) = _accumulated(
            gradients, objective, state, batch, now, accumulation_steps, mesh
        )
        grads = jax.lax.with_sharding_constraint(grads, state_shardings(grads, mesh))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            live = {"params": params, **collections}
            ema = _kept(jax.tree.map(lambda e, m: ema_decay * e + (1 - ema_decay) * m, ema, live), ema)
        metrics |= {"learning_rate": schedule(state.step), "grad_norm": optax.tree.norm(grads)}
        new = dataclasses.replace(
            state, step=state.step + 1, params=params, collections=collections, opt_state=opt_state, ema=ema
        )
        new = jax.lax.with_sharding_constraint(new, state_shardings(new, mesh))
        return new, jax.lax.with_sharding_constraint(metrics, replicated(mesh))

    return jax.jit(step, in_shardings=(None, split(mesh)), donate_argnums=0)


def make_predict(module: nn.Module, mesh: Mesh) -> Predict:
    """A compiled function (variables, images) -> outputs of the network in evaluation mode.

    The variables must be on the devices of the mesh; the images may be there or on the host. Every device,
    and so every process, receives the outputs of all images.
    """

    def predict(variables: PyTree, images: jax.Array) -> Any:
        return module.apply(variables, images, train=False)

    return jax.jit(predict, out_shardings=replicated(mesh))
