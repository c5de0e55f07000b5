"""Norms: values by definition, accurate statistics, and equivariance."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers.normalization import (
    BatchNorm,
    BoundedBatchNorm,
    ChannelNorm,
    GroupNorm,
    InstanceNorm,
    SpatialNorm,
)
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.resample import ideal_resample
from aliasfree_jax.ops.shift import fractional_shift

NORMS = {
    "channel": ChannelNorm,
    "spatial": SpatialNorm,
    "batch": BatchNorm,
    "bounded_batch": BoundedBatchNorm,
    "instance": InstanceNorm,
    "group": lambda **kwargs: GroupNorm(2, **kwargs),
}


def definition(name: str, x: np.ndarray) -> np.ndarray:
    """The norm without scale and bias, in numpy."""
    x = np.asarray(x, np.float64)
    centre = {"channel": -1, "spatial": -1, "batch": (0, 1, 2), "instance": (1, 2)}
    spread = {**centre, "spatial": (1, 2, 3)}
    centred = x - x.mean(centre[name], keepdims=True)
    epsilon = 1e-6 if name in ("channel", "spatial") else 1e-5
    return centred / np.sqrt((centred**2).mean(spread[name], keepdims=True) + epsilon)


def grouped(x: np.ndarray, groups: int) -> np.ndarray:
    n, h, w, c = x.shape
    parts = np.asarray(x, np.float64).reshape(n, h, w, groups, c // groups)
    centred = parts - parts.mean((1, 2, 4), keepdims=True)
    return (centred / np.sqrt((centred**2).mean((1, 2, 4), keepdims=True) + 1e-5)).reshape(x.shape)


def run(name: str, x: jax.Array, **kwargs) -> tuple[jax.Array, dict]:
    layer = NORMS[name](**kwargs)
    variables = layer.init(jax.random.key(0), x, train=True)
    return layer.apply(variables, x, train=True, mutable=["batch_stats"])


def bounded(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).mean((1, 2, 3), keepdims=True) + 1e-5)


def expected(name: str, x: jax.Array) -> np.ndarray:
    if name == "bounded_batch":
        return definition("batch", bounded(x))
    return grouped(x, 2) if name == "group" else definition(name, x)


@pytest.mark.parametrize("name", NORMS)
def test_norms_by_definition(name, draw, x64):
    x = 3 * draw(3, 5, 4, 6) + draw(6, seed=1)
    np.testing.assert_allclose(run(name, x)[0], expected(name, x), atol=1e-12)  # float64 sums of 360 terms


@pytest.mark.parametrize("name", NORMS)
def test_large_means_cost_no_more_than_their_own_rounding(name, draw):
    # float32 samples are 1000 + 6e-5 k. A variance computed as E[x^2] - E[x]^2 would have no correct digit.
    x = (1000 + draw(3, 8, 8, 6)).astype(jnp.float32)
    np.testing.assert_allclose(run(name, x)[0], expected(name, x), atol=1e-3)


@pytest.mark.parametrize("name", NORMS)
def test_bfloat16_maps_have_float32_statistics(name, draw):
    x = (100 + 10 * draw(2, 16, 16, 6)).astype(jnp.bfloat16)
    y = run(name, x, dtype=jnp.bfloat16)[0]
    assert y.dtype == jnp.bfloat16
    # Only the result is rounded to 8 bits; values reach 4.
    np.testing.assert_allclose(y.astype(jnp.float32), expected(name, x.astype(jnp.float32)), atol=0.03)


@pytest.mark.parametrize("name", ["channel", "spatial", "batch", "bounded_batch", "group"])
def test_scale_and_bias_of_each_channel(name, draw, x64):
    x, layer = draw(2, 4, 4, 6), NORMS[name]()
    variables = layer.init(jax.random.key(0), x, train=True)
    scale, bias = draw(6, seed=1), draw(6, seed=2)

    def fill(path, leaf):
        assert leaf.shape == (6,)
        return {"scale": scale, "bias": bias}.get(path[-1].key, leaf)

    variables = jax.tree_util.tree_map_with_path(fill, variables)
    y = layer.apply(variables, x, train=True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(y, expected(name, x) * scale + bias, atol=1e-12)


def test_instance_norm_has_no_parameters(draw):
    assert InstanceNorm().init(jax.random.key(0), draw(1, 4, 4, 2)) == {}


def test_running_statistics_move_by_a_tenth(draw, x64):
    x, layer = 2 * draw(4, 5, 5, 3) + 1, BatchNorm()
    variables = layer.init(jax.random.key(0), x, train=True)
    updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]["norm"]
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(updated["mean"], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(updated["var"], 0.9 + 0.1 * variance, rtol=1e-6)
    y = layer.apply(
        {**variables, "batch_stats": {"norm": updated}}, x
    )  # evaluation uses the running statistics
    centred = (x - updated["mean"]) / jnp.sqrt(updated["var"] + 1e-5)
    np.testing.assert_allclose(y, centred, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NORMS)
def test_which_norms_commute_with_shifts(name, draw, x64):
    x = ideal_resample(ideal_resample(draw(2, 8, 8, 6), (7, 7)), (8, 8))  # no Nyquist frequency
    for shift, exact in [((1.0, 3.0), True), ((0.5, -1 / 3), name != "channel")]:
        moved = run(name, fractional_shift(x, shift))[0]
        error = float(jnp.abs(moved - fractional_shift(run(name, x)[0], shift)).max())
        # float64 rounding of statistics over 64 to 768 values.
        assert error < 1e-12 if exact else error > 1e-2


def test_groups_must_divide_the_channels(draw):
    with pytest.raises(ShapeError, match="num_groups = 4 cannot divide 6 channels"):
        GroupNorm(4).init(jax.random.key(0), draw(1, 4, 4, 6))


def test_a_bounded_batch_norm_bounds_every_image(draw, x64):
    x, loud = draw(2, 5, 4, 6), jnp.array([1.0, 1e30])[:, None, None, None]
    for layer, bounds in ((BoundedBatchNorm(), True), (BatchNorm(), False)):
        variables = layer.init(jax.random.key(0), x)
        largest = float(jnp.abs(layer.apply(variables, x * loud)).max())
        # No sample is larger than the root of the number of samples of its image, if it has mean square 1.
        assert (largest <= (5 * 4 * 6) ** 0.5) == bounds


def test_groups_of_a_batch_norm_are_batches_of_their_own(draw, x64):
    x = draw(12, 5, 4, 3)
    whole, grouped = BatchNorm(), BatchNorm(group=4)
    variables = grouped.init(jax.random.key(0), x, train=True)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, whole.init(jax.random.key(0), x))
    y, updated = grouped.apply(variables, x, train=True, mutable=["batch_stats"])
    parts = [
        whole.apply(variables, x[i : i + 4], train=True, mutable=["batch_stats"]) for i in range(0, 12, 4)
    ]
    # float64 rounding of sums in a different order.
    np.testing.assert_allclose(y, np.concatenate([part for part, _ in parts]), rtol=1e-12, atol=1e-12)
    mean_of = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *[stats for _, stats in parts])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), updated, mean_of)
    assert not np.allclose(y, whole.apply(variables, x, train=True, mutable=["batch_stats"])[0])
    # Evaluation uses the same running statistics.
    np.testing.assert_array_equal(
        grouped.apply(variables, x, train=False), whole.apply(variables, x, train=False)
    )


def test_a_group_must_divide_the_batch(draw):
    x = draw(6, 2, 2, 3)
    with pytest.raises(ShapeError, match="group = 4 cannot divide 6 images"):
        BatchNorm(group=4).init(jax.random.key(0), x, train=True)


def test_the_norm_of_each_device_needs_no_other_device(draw):
    """If a group is the images of one device, the forward pass needs no communication for its output."""
    x = jax.device_put(draw(8, 4, 4, 3), NamedSharding(jax.make_mesh((4,), ("data",)), PartitionSpec("data")))

    def collectives(norm):
        variables = norm.init(jax.random.key(0), x, train=False)
        apply = jax.jit(lambda v, x: norm.apply(v, x, train=True, mutable=["batch_stats"])[0])
        return apply.lower(variables, x).compile().as_text().count("all-reduce(")

    assert collectives(BatchNorm(group=2)) == 0 < collectives(BatchNorm())


BY_NAME = ["channel", "spatial", "batch", "bounded_batch", "instance"]
BY_NAME += [{"name": "group", "num_groups": 2}, {"name": "batch", "group": 2}]


@pytest.mark.parametrize("norm", BY_NAME, ids=str)
def test_every_norm_starts_a_residual_block_at_zero_or_says_that_it_cannot(norm, draw):
    options = {"norm": norm, "depths": (1,), "widths": (4,), "num_classes": 3, "zero_init_residual": True}
    for block in ("basic", "bottleneck"):
        if norm == "instance":
            with pytest.raises(ConfigError, match="zero_init_residual starts the scale of a norm at 0, but"):
                create_model("resnet20_cifar", block=block, **options)
            continue
        module, images = create_model("resnet20_cifar", block=block, **options), draw(2, 8, 8, 3)
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
        train = functools.partial(module.apply, train=True, mutable=["batch_stats"])
        jax.eval_shape(train, variables, images)
    create_model("resnet20_cifar", **options | {"zero_init_residual": False})


def test_the_scale_starts_where_it_is_told_to(draw):
    x = draw(2, 4, 4, 4)
    for layer in (ChannelNorm, SpatialNorm, BatchNorm, BoundedBatchNorm, functools.partial(GroupNorm, 2)):
        norm = layer(scale_init=nn.initializers.zeros)
        np.testing.assert_array_equal(norm.init_with_output(jax.random.key(0), x)[0], 0 * x)
