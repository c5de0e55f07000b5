"""Modules under Flax and Python: tables, NNX, intermediates, copies, equality and hashes."""

import copy
import inspect
import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs
from table import BATCH, CASES, LAYERS, NETWORKS, NOT_LAYERS, close, images, init_shapes, over, sample

from aliasfree_jax import layers

# The fields that may be passed by position, with their defaults. They are part of the public API.
POSITIONAL = {
    "Subsample": "strides=2",
    "BlurPool": "strides=2 kernel_size=3 padding='CIRCULAR'",
    "IdealDownsample": "strides=2 any_size=False",
    "AdaptiveBlurPool": "strides=2 kernel_size=3 groups=8 padding='CIRCULAR'",
    "AdaptivePolyphase": "strides=2",
    "LearnedPolyphase": "strides=2",
    "MaxBlurPool": "window_shape=2 strides=2 padding='VALID'",
    "PolyphaseUpsample": "strides=2",
    "IdealUpsample": "strides=2",
    "BlurPool1D": "strides=2 kernel_size=3 padding='CIRCULAR'",
    "IdealDownsample1D": "strides=2",
    "IdealUpsample1D": "strides=2",
    "AdaptivePolyphase1D": "strides=2",
    "PolyphaseUpsample1D": "strides=2",
    "Conv": "features kernel_size strides=1 padding='CIRCULAR'",
    "DepthwiseConv": "kernel_size=7 padding='CIRCULAR'",
    "SampledConv": "features kernel_size strides=2",
    "DropPath": "rate",
}


def test_the_table_has_every_exported_layer():
    assert {case.name for case in LAYERS} == {*layers.__all__} - NOT_LAYERS


@pytest.mark.parametrize("name", sorted({case.name for case in LAYERS}))
def test_fields(name):
    parameters = inspect.signature(getattr(layers, name)).parameters
    for field in ("dtype", "param_dtype", "precision"):
        assert parameters[field].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["param_dtype"].default is jnp.float32
    assert parameters["dtype"].default is parameters["precision"].default is None
    positional = [p for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    written = [f"{p.name}={p.default!r}" if p.default is not p.empty else p.name for p in positional]
    expected = POSITIONAL.get(name, "").split()
    assert written[: len(expected)] == expected
    assert issubclass(getattr(layers, name), layers.Layer)


@over(CASES, light=True)
def test_tabulate(case):
    text = case.make().tabulate(jax.random.key(0), images(case, batch=1))
    assert type(case.make()).__name__ in text


@over(CASES)
def test_nnx_bridge(case):
    module, variables, x, y = sample(case)
    bridged = nnx.eval_shape(lambda: nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0)).lazy_init(x))
    attributes = linen_vars_to_nnx_attrs(variables)
    assert {name for name in vars(bridged) if not name.startswith(("to_nnx__", "_pytree__"))} == {*attributes}
    for name, value in attributes.items():
        setattr(bridged, name, nnx.data(value))
    bridged.to_nnx__rngs = None  # evaluation draws no random numbers
    close(jax.jit(lambda x: bridged(x))(x), y)


@over([case for case in LAYERS if case.name in ("BlurPool", "Mlp", "BatchNorm")])
def test_nnx_bridge_initialises(case):
    bridged = nnx.bridge.lazy_init(nnx.bridge.ToNNX(case.make(), rngs=nnx.Rngs(0)), images(case))
    assert bridged(images(case)).shape == (BATCH, *case.gives)


def outputs(module, variables, x):
    """Returns the output shape of every submodule by its path."""

    def captured(variables, x):
        return module.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])[1]

    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(captured, variables, x))
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


@over(CASES, light=True)
def test_captured_intermediates_at_every_batch_size(case, cut):
    module, x = case.make(), images(case)
    variables = init_shapes(module, x)
    whole = outputs(module, variables, x)
    assert "['intermediates']['__call__'][0]" in whole
    for path, shape in whole.items():
        if case.name == "FourierPositions" and "linear" in path:
            continue  # all images have the same positions
        # Polyphase components are scored together: their axis is merged with the batch.
        assert shape[0] in (BATCH, 4 * BATCH), path
    for path, _ in jax.tree_util.tree_leaves_with_path(variables):
        keys = [key.key for key in path[1:-1]]
        # MLPs and stems may evaluate their activation without calling it as a submodule.
        if keys[-1:] != ["activation"]:
            called = "".join(f"['{key}']" for key in ["intermediates", *keys, "__call__"]) + "[0]"
            assert any(path.startswith(called) for path in whole)  # some return a map and a token
    cut()
    assert outputs(module, variables, x) == whole
    assert outputs(module, variables, x[:1]).keys() == whole.keys()


@over(CASES, light=True)
def test_copies_are_equal(case):
    module = case.make()
    for other in (
        pickle.loads(pickle.dumps(module)),
        copy.deepcopy(module),
        copy.copy(module),
        module.clone(),
    ):
        assert other == module and hash(other) == hash(module)


@over(CASES, light=True)
def test_equal_options_make_equal_modules(case):
    first, second, different = case.make(), case.make(), case.make(**case.other)
    assert first == second and hash(first) == hash(second)
    assert repr(first) == repr(second)
    assert first != different


@over(CASES, light=True)
def test_a_static_module_is_traced_once(case):
    x = images(case)
    variables = init_shapes(case.make(), x)
    traced = []

    def apply(module, variables, x):
        traced.append(module)
        return module.apply(variables, x)

    compiled = jax.jit(apply, static_argnums=0)
    for module in (case.make(), case.make(), pickle.loads(pickle.dumps(case.make()))):
        compiled.trace(module, variables, x)
    assert len(traced) == 1


@over(LAYERS)
def test_a_part_of_another_module(case):
    """In a Sequential, Flax names the layer."""
    x = images(case)
    shapes, inner = (
        init_shapes(module, x) for module in (nn.Sequential([case.make(), jnp.tanh]), case.make())
    )
    assert shapes == {kind: {"layers_0": values} for kind, values in inner.items()}


@over(NETWORKS, light=True)
def test_stages_of_a_network(case):
    module, x = case.make(), images(case)
    variables = init_shapes(module, x)
    _, state = jax.eval_shape(lambda v, x: module.apply(v, x, mutable=["intermediates"]), variables, x)
    stages = jax.eval_shape(module.stages, variables, x)
    assert len(stages) >= (1 if case.name.startswith("xcit") else 2)
    for number, stage in enumerate(stages):
        (sown,) = state["intermediates"][f"stage{number}"]
        assert stage.map.shape == sown.shape
        # AlexNet's windows do not cover the border.
        assert len(stage.map) == BATCH and 0 <= x.shape[1] / stage.stride - stage.map.shape[1] <= 1
    assert [stage.stride for stage in stages] == sorted(stage.stride for stage in stages)


@over(NETWORKS, light=True)
def test_pooled_features(case):
    x = images(case)
    whole, headless = case.make(), case.make(num_classes=0)
    variables, fewer = init_shapes(whole, x), init_shapes(headless, x)
    features = jax.eval_shape(headless.apply, fewer, x)
    own = [
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (variables, fewer)
    ]
    (bias, kernel) = [own[0][path].shape for path in sorted(own[0].keys() - own[1].keys())]
    assert (bias, kernel) == ((3,), (features.shape[-1], 3))
    assert len(own[0]) == len(own[1]) + 2
    assert features.dtype == jnp.float32
    # The weights of the whole network also work.
    assert jax.eval_shape(headless.apply, variables, x).shape == features.shape
