"""Sharded parameters: the placement of arrays, and that steps, checkpoints and predictions do not change."""

from contextlib import closing

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from aliasfree_jax.checkpoint import ModelCard, RunCheckpoints
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh, put_batch, replicate, sharding_of
from aliasfree_jax.training.state import StateBuilder
from aliasfree_jax.training.step import make_predict, make_train_step

WIDTH = 512  # the head has 512 x 8 elements, just enough to be sharded


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 64, 128), (None, None, None, "shard")),
        ((7, 7, 1, 96), (None, None, None, "shard")),
        ((1024, 6), ("shard",)),
        ((4096,), ("shard",)),
        ((4092,), ()),  # small
        ((4097, 3, 3), ()),  # nothing is a multiple of 4
        ((), ()),
    ],
)
def test_the_longest_divisible_axis_is_sharded(shape, spec):
    assert sharding_of(shape, make_mesh(4, 4)).spec == PartitionSpec(*spec)
    assert sharding_of(shape, make_mesh(4)).spec == PartitionSpec()


def test_the_mesh_is_devices_by_shards():
    assert dict(make_mesh(4, 2).shape) == {"data": 2, "shard": 2}
    with pytest.raises(ConfigError, match=r"parameter_shards = 3 must be at least 1 and divide the 4 device"):
        make_mesh(4, 3)
    with pytest.raises(ConfigError, match=r"parameter_shards = 0 must be at least 1"):
        make_mesh(4, 0)


def build(tiny, shards):
    mesh, module, optimizer = (
        make_mesh(4, shards),
        tiny.Net(width=WIDTH, num_classes=8),
        optax.sgd(1e-2, momentum=0.9),
    )
    shape = (tiny.size, tiny.size, 1)
    state = StateBuilder(module, optimizer, shape, mesh, average=True).build()
    step = make_train_step(module, optimizer, lambda _: 1e-2, mesh, ema_decay=0.9, accumulation_steps=2)
    return mesh, module, optimizer, shape, state, step


def test_sharded_training_is_the_same(tiny, tmp_path):
    seen = {}
    for shards in (1, 2, 4):
        mesh, module, optimizer, shape, state, step = build(tiny, shards)
        losses = []
        for number in range(4):
            state, metrics = step(state, put_batch(tiny.make_batch(number, 16, 8), mesh))
            losses.append(float(metrics["loss"]))
        kernel = state.params["head"]["kernel"]
        # Each device has only its part of parameters, averages and the optimizer's moments.
        moments = jax.tree.leaves(state.opt_state, is_leaf=lambda leaf: hasattr(leaf, "shape"))
        for array in (kernel, state.ema["params"]["head"]["kernel"], *moments):
            if array.shape == (WIDTH, 8):
                assert array.addressable_shards[0].data.shape == (WIDTH // shards, 8)
        logits = make_predict(module, mesh)(state.evaluated(), tiny.make_batch(9, 8)["image"])
        seen[shards] = losses, np.asarray(logits)

        card = ModelCard("tiny", {}, ("a",), 8, 1, (0.5,), (0.5,), 0.875, 4, "test")
        with closing(RunCheckpoints(tmp_path / str(shards), 1)) as checkpoints:
            checkpoints.save(card, state.evaluated(), state.rest())
    for shards in (2, 4):  # float32 sums in another order; the difference grows over four updates
        np.testing.assert_allclose(seen[shards][0], seen[1][0], rtol=1e-5)
        np.testing.assert_allclose(seen[shards][1], seen[1][1], atol=1e-5)

    # Two shards read exactly what four shards wrote.
    mesh, module, optimizer, shape, *_ = build(tiny, 2)
    abstract = StateBuilder(module, optimizer, shape, mesh, average=True).abstract()
    with closing(RunCheckpoints(tmp_path / "4", 1)) as checkpoints:
        _, evaluated, rest = checkpoints.restore(card, abstract.evaluated(), abstract.rest())
    restored = abstract.replaced(evaluated, rest)
    assert restored.params["head"]["kernel"].addressable_shards[0].data.shape == (WIDTH // 2, 8)
    np.testing.assert_array_equal(restored.params["head"]["kernel"], state.params["head"]["kernel"])


def test_evaluation_batches_are_filled_up_and_weights_copied(tiny):
    mesh = make_mesh()
    (batch,) = evaluated_batches([tiny.make_batch(0, 6)], mesh)
    assert batch["image"].shape[0] == 8 and batch["mask"].tolist() == [1] * 6 + [0] * 2
    assert {shard.data.shape[0] for shard in batch["image"].addressable_shards} == {2}
    copied = replicate({"kernel": np.ones((8, 8), np.float32)}, mesh)["kernel"]
    assert copied.sharding.is_fully_replicated and len(copied.sharding.device_set) == 4
