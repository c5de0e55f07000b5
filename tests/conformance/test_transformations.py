"""Every layer and network under the transformations of JAX."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from table import BATCH, CASES, LAYERS, Case, close, images, over, sample


def like(tree, seed: int = 2):
    """Returns normal random numbers with the shapes of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), tree)


def dot(a, b) -> float:
    """Returns the inner product of two trees, summed in float64."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(np.vdot(np.asarray(x, np.float64), np.asarray(y, np.float64))) for x, y in pairs)


def function(case: Case):
    """Returns the module as a function of its parameters and input, and a point to evaluate it at."""
    module, variables, x, _ = sample(case)
    rest = {name: values for name, values in variables.items() if name != "params"}
    at = (variables.get("params", {}), x[:2])
    return lambda params, x: module.apply({"params": params, **rest}, x), at


@over(LAYERS)  # networks would take seconds each and show nothing new
def test_compiled_or_not(case):
    module, variables, x, y = sample(case)
    close(module.apply(variables, x), y)


@over(CASES)
def test_shapes_without_computing(case):
    module, variables, x, y = sample(case)
    shape = jax.eval_shape(module.apply, variables, x)
    assert shape.shape == y.shape == (BATCH, *case.gives)
    assert shape.dtype == y.dtype == jnp.float32
    assert np.isfinite(y).all()


@over(CASES)
def test_gradients_backward_and_forward_are_those_of_one_matrix(case):
    f, at = function(case)
    tangent = like(at)

    @jax.jit
    def both(at, tangent, weights):
        _, pushed = jax.jvp(f, at, tangent)
        _, back = jax.vjp(f, *at)
        return pushed, back(weights)

    weights = like(jax.eval_shape(f, *at), seed=3)
    pushed, pulled = both(at, tangent, weights)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((pushed, pulled)))
    # <w, J t> and <J' w, t> are equal up to float32 rounding of their terms.
    size = np.sqrt(dot(pushed, pushed) * dot(weights, weights))
    assert abs(dot(weights, pushed) - dot(pulled, tangent)) <= 1e-4 * max(size, 1.0)


@over(CASES)
def test_hessian_vector_products(case):
    f, at = function(case)

    @jax.jit
    def product(at, tangent):
        return jax.jvp(jax.grad(lambda at: jnp.sum(jnp.sin(f(*at)))), (at,), (tangent,))[1]

    u, v = like(at), like(at, seed=3)
    hu, hv = product(at, u), product(at, v)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((hu, hv)))
    size = max(1.0, np.sqrt(dot(hu, hu) * dot(v, v)), np.sqrt(dot(hv, hv) * dot(u, u)))
    assert abs(dot(hu, v) - dot(u, hv)) <= 1e-4 * size  # symmetric


DIFFER_IN_TRAINING = {"AdaptiveBlurPool", "BatchNorm", "DropPath", "LearnedPolyphase"}
TRAINED = [case for case in CASES if case.network or case.name in DIFFER_IN_TRAINING]


@over(TRAINED)
def test_gradients_in_training(case):
    module, variables, x, y = sample(case)
    rngs = {name: jax.random.key(0) for name in ("gumbel", "drop_path", "dropout")}

    def loss(params, x):
        at = {**variables, "params": params}
        y, state = module.apply(at, x, train=True, rngs=rngs, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), (y, state)

    slopes, (result, state) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
        variables.get("params", {}), x
    )
    assert result.shape == y.shape
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((slopes, result, state)))
    assert jax.tree.structure(state.get("batch_stats")) == jax.tree.structure(variables.get("batch_stats"))


@over(CASES)
def test_vmap(case):
    module, variables, x, y = sample(case)
    mapped = jax.jit(jax.vmap(module.apply, in_axes=(None, 0)))(variables, x.reshape(2, 2, *x.shape[1:]))
    close(mapped.reshape(y.shape), y)


@over(CASES)
def test_remat(case):
    module, variables, x, y = sample(case)
    names = {field.name for field in dataclasses.fields(module) if field.init} - {"parent", "name"}
    fields = {name: getattr(module, name) for name in names}
    again = nn.remat(type(module))(**fields)

    def value(variables, x):
        y = again.apply(variables, x)
        return jnp.sum(jnp.sin(y)), y

    (_, result), slope = jax.jit(jax.value_and_grad(value, argnums=1, has_aux=True))(variables, x)
    close(result, y)
    assert np.isfinite(slope).all()


@over(CASES)
def test_empty_batch(case):
    module, variables, _, y = sample(case)

    def total(variables, x):
        y = module.apply(variables, x)
        return jnp.sum(y), y

    (_, result), slopes = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True, allow_int=True))(
        variables, images(case, batch=0)
    )
    assert result.shape == (0, *case.gives) and result.dtype == y.dtype
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slopes))  # all zero, no NaN


def check_export(case: Case):
    module, variables, x, y = sample(case)
    shape = (*jax.export.symbolic_shape("b"), *case.given)
    exported = jax.export.export(jax.jit(module.apply))(variables, jax.ShapeDtypeStruct(shape, x.dtype))
    for size in (1, BATCH):
        close(exported.call(variables, x[:size]), y[:size])


@over(CASES)
def test_export_with_a_symbolic_batch(case):
    check_export(case)


# Layers and networks that process a large batch in pieces.
IN_PIECES = [
    case
    for case in CASES
    if case.name in ("Mlp", "ActivatedStem", "convnext_aps_micro", "convnext_afc_micro")
]


@over(IN_PIECES)
def test_any_batch_where_it_is_taken_in_pieces(case, cut):
    module, variables, x, y = sample(case)
    cut()
    check_export(case)
    close(jax.jit(module.apply)(variables, x), y)
    assert jax.eval_shape(module.apply, variables, x[:0]).shape == (0, *case.gives)


@over(CASES)
def test_one_device_and_four(case):
    module, variables, x, y = sample(case)
    mesh = Mesh(np.array(jax.devices()), "data")
    divided = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    result = jax.jit(module.apply)(variables, divided)
    assert len(result.sharding.device_set) == 4
    assert result.addressable_shards[0].data.shape[0] == 1  # the batch stays sharded
    close(result, y)
