import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from aliasfree_jax.checkpoint import named_leaves
from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.models import create_model
from aliasfree_jax.training.mesh import make_mesh, put_batch
from aliasfree_jax.training.mixing import Mixing, mix
from aliasfree_jax.training.objective import cross_entropy, make_objective
from aliasfree_jax.training.state import StateBuilder
from aliasfree_jax.training.step import make_predict, make_train_step

RATE, BATCH = 0.05, 16


@pytest.fixture(scope="module")
def run(tiny):
    """Trains a tiny network by gradient descent. Returns the last state and all metrics."""

    @functools.cache  # several tests use the same run
    def train(
        devices=1, steps=3, ema_decay=0.0, accumulation_steps=1, make_batch=None, mixing=None, **options
    ):
        module, optimizer, mesh = tiny.Net(**options), optax.sgd(RATE), make_mesh(devices)
        state = StateBuilder(
            module, optimizer, (tiny.size, tiny.size, 1), mesh, average=ema_decay > 0
        ).build()
        step = make_train_step(
            module,
            optimizer,
            lambda _: jnp.float32(RATE),
            mesh,
            objective=make_objective("classification", smoothing=0.1),
            mixing=mixing,
            accumulation_steps=accumulation_steps,
            ema_decay=ema_decay,
        )
        history = []
        for i in range(steps):
            batch = make_batch() if make_batch else tiny.make_batch(i, BATCH)
            state, metrics = step(state, put_batch(batch, mesh))
            history.append({name: float(value) for name, value in metrics.items()})
        return state, history

    return train


def assert_same(a, b, atol):
    for (name, x), y in zip(named_leaves(a).items(), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=atol, err_msg=name)


def test_one_and_four_devices_agree(run, tiny):
    one, few = run(devices=1, drop_path_rate=0.3), run(devices=4, drop_path_rate=0.3)
    # Only the order of float32 sums over 16 examples differs; batch statistics are global.
    for a, b in zip(one[1], few[1], strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert_same(one[0].evaluated(), few[0].evaluated(), atol=1e-5)


@pytest.mark.parametrize("devices", [1, 4])
def test_accumulation_equals_the_large_batch(run, devices):
    whole = run(batch_norm=False)
    parts = run(batch_norm=False, devices=devices, accumulation_steps=4)
    for a, b in zip(whole[1], parts[1], strict=True):
        assert a == pytest.approx(b, abs=1e-5)  # order of float32 sums
    assert_same(whole[0].params, parts[0].params, atol=1e-6)


def test_accumulation_updates_batch_statistics_once_a_micro_batch(run, tiny):
    before, _ = run(steps=0)
    after, _ = run(steps=1, accumulation_steps=4)
    conv = before.params["conv"]
    images = tiny.make_batch(0, BATCH)["image"]
    micro = [images[first::4] for first in range(4)]
    maps = [nn.Conv(4, (3, 3), padding="CIRCULAR").apply({"params": conv}, each) for each in micro]
    mean, var = np.zeros(4), np.ones(4)
    for each in maps:
        mean = 0.9 * mean + 0.1 * np.asarray(each).mean((0, 1, 2))
        var = 0.9 * var + 0.1 * np.asarray(each).var((0, 1, 2))
    found = after.collections["batch_stats"]["norm"]
    # Float32 sums of 256 numbers of size 1.
    np.testing.assert_allclose(found["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(found["var"], var, rtol=1e-5)


@pytest.mark.parametrize("devices", [1, 4])
def test_mixing_that_never_happens_changes_nothing(run, devices):
    never = Mixing(0.8, 1.0, probability=0.0, group=4)
    for a, b in zip(run()[1], run(mixing=never, devices=devices)[1], strict=True):
        assert a == pytest.approx(b, abs=1e-5)  # order of float32 sums


def test_loss_and_accuracy_of_mixed_images(run, tiny):
    how = Mixing(0.8, 1.0, group=4)
    before, _ = run(steps=0, batch_norm=False)
    _, (metrics,) = run(steps=1, mixing=how, batch_norm=False)
    batch = {name: jnp.asarray(value) for name, value in tiny.make_batch(0, BATCH).items()}
    key = jax.random.fold_in(jax.random.fold_in(before.key, 0), 3)
    images, partners, share = jax.jit(mix, static_argnums=3)(batch["image"], batch["label"], key, how)
    logits = tiny.Net(batch_norm=False).apply({"params": before.params}, images, train=False)
    targets = share[:, None] * jax.nn.one_hot(batch["label"], logits.shape[-1])
    targets += (1 - share)[:, None] * jax.nn.one_hot(partners, logits.shape[-1])
    smooth = 0.9 * targets + 0.1 / logits.shape[-1]
    expected = -(smooth * jax.nn.log_softmax(logits)).sum(-1).mean()
    assert metrics["loss"] == pytest.approx(float(expected), abs=1e-5)
    hits = (logits.argmax(-1) == targets.argmax(-1)).mean()
    assert metrics["accuracy"] == pytest.approx(float(hits))


def test_masked_examples_do_not_count(run, tiny):
    full = tiny.make_batch(0, 16)
    half = {name: np.array(value) for name, value in full.items()}
    half["mask"][::2] = 0
    half["image"][::2] = 1e3
    kept = {name: value[1::2] for name, value in full.items()}
    masked, alone = (
        run(steps=1, batch_norm=False, make_batch=lambda b=b: b)[1][0]["loss"] for b in (half, kept)
    )
    assert masked == pytest.approx(alone, rel=1e-5)  # float32 sums
    # The mean is that of 8 examples, whatever the size of the batch.
    state, _ = run(steps=0, batch_norm=False)
    logits = tiny.Net(batch_norm=False).apply(state.evaluated(), kept["image"], train=False)
    assert masked == pytest.approx(float(cross_entropy(logits, kept["label"], 0.1).mean()), rel=1e-5)


def test_averages_follow_parameters_and_statistics(run, tiny):
    first, _ = run(steps=1, ema_decay=0.75)
    start, _ = run(steps=0, ema_decay=0.75)
    live = {"params": first.params, **first.collections}
    expected = jax.tree.map(lambda e, m: 0.75 * e + 0.25 * m, start.ema, live)
    assert "batch_stats" in first.evaluated()
    assert_same(first.evaluated(), expected, atol=1e-6)  # one float32 rounding


def test_metrics_are_those_of_the_batch(run, tiny):
    _, (metrics,) = run(steps=1, batch_norm=False)
    state, _ = run(steps=0, batch_norm=False)
    batch = tiny.make_batch(0, 16)
    logits = tiny.Net(batch_norm=False).apply(state.evaluated(), batch["image"], train=False)
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], 3), 0.1)
    assert metrics["loss"] == pytest.approx(
        float(optax.softmax_cross_entropy(logits, targets).mean()), rel=1e-5
    )
    assert metrics["accuracy"] == pytest.approx(float((logits.argmax(-1) == batch["label"]).mean()))
    assert metrics["learning_rate"] == pytest.approx(RATE)
    assert metrics["grad_norm"] > 0


def test_drop_path_draws_anew_at_every_step(run, tiny):
    batch = tiny.make_batch(0, 16)
    module, optimizer, mesh = tiny.Net(drop_path_rate=0.5, batch_norm=False), optax.sgd(0.0), make_mesh(1)
    state = StateBuilder(module, optimizer, (tiny.size, tiny.size, 1), mesh).build()
    step = make_train_step(module, optimizer, lambda _: jnp.float32(0), mesh)
    losses = []
    for _ in range(3):
        state, metrics = step(state, put_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_learned_sampler_gets_its_temperature_and_noise(tiny, accumulation_steps):
    module = create_model("basic", num_classes=3, widths=(4, 4), sampler="learned_polyphase")
    optimizer, mesh = optax.sgd(0.0), make_mesh(1)
    state = StateBuilder(module, optimizer, (tiny.size, tiny.size, 1), mesh).build()
    batch = put_batch(tiny.make_batch(0, 16), mesh)

    def losses(temperature):
        step = make_train_step(
            module,
            optimizer,
            lambda _: jnp.float32(0),
            mesh,
            scheduled={"temperature": temperature} if temperature else {},
            accumulation_steps=accumulation_steps,
        )
        now, found = jax.tree.map(jnp.copy, state), []
        for _ in range(3):
            now, metrics = step(now, batch)
            found.append(float(metrics["loss"]))
        return found

    warm, cold = losses(None), losses(lambda step: jnp.where(step < 2, 1.0, 0.01))  # 1 is the default
    assert len(set(warm)) == 3  # different noise at every step
    assert warm[:2] == cold[:2] and warm[2] != cold[2]


def test_initial_variables_survive_the_donation_of_the_state(run, tiny):
    module, optimizer, mesh = tiny.Net(), optax.sgd(RATE), make_mesh(1)
    variables = module.init(jax.random.key(1), jnp.zeros((1, tiny.size, tiny.size, 1)))
    before = jax.device_get(variables)
    state = StateBuilder(module, optimizer, (tiny.size, tiny.size, 1), mesh, average=True).build(variables)
    step = make_train_step(module, optimizer, lambda _: jnp.float32(RATE), mesh, ema_decay=0.9)
    step(state, put_batch(tiny.make_batch(0, 16), mesh))
    assert_same(variables, before, atol=0)


@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_the_only_collective_is_all_reduce(tiny, accumulation_steps):
    module, optimizer, mesh = tiny.Net(drop_path_rate=0.3), optax.adamw(1e-3), make_mesh(4)
    state = StateBuilder(module, optimizer, (tiny.size, tiny.size, 1), mesh, average=True).build()
    step = make_train_step(
        module,
        optimizer,
        lambda _: jnp.float32(1e-3),
        mesh,
        accumulation_steps=accumulation_steps,
        ema_decay=0.9,
    )
    text = step.lower(state, put_batch(tiny.make_batch(0, 16), mesh)).compile().as_text()
    collectives = re.findall(r"\b(all-[a-z-]+|collective-[a-z-]+|reduce-scatter)\(", text)
    assert {name.removesuffix("-start") for name in collectives} == {"all-reduce"}


def test_predict_on_four_devices(run, tiny):
    module, mesh = tiny.Net(), make_mesh(4)
    images = tiny.make_batch(0, 8)["image"]
    variables = module.init(jax.random.key(1), images)
    logits = make_predict(module, mesh)(variables, images)
    # The same float32 sums, divided differently.
    np.testing.assert_allclose(logits, module.apply(variables, images), atol=1e-6)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("norm", ["batch", {"name": "batch", "group": 2}])
def test_the_state_keeps_its_number_formats(norm, wide):
    """In whatever format images come, and with all that adds to the state: the next step fits the last.

    Under x64, flax starts running statistics in float32 and updates them in float64.
    """
    for precision, steps, group, decay in (("float32", 1, 0, 0.9), ("bfloat16", 2, 4, 0.9)):
        with jax.enable_x64(wide):
            module = create_model(
                "resnet20_cifar", depths=(1,), widths=(4,), norm=norm, **PRECISIONS[precision]
            )
            optimizer, mesh = optax.adamw(RATE), make_mesh(1)
            state = StateBuilder(module, optimizer, (8, 8, 3), mesh, average=decay > 0).abstract()
            step = make_train_step(
                module,
                optimizer,
                lambda _: jnp.float32(RATE),
                mesh,
                mixing=Mixing(mixup=0.8, cutmix=1.0, group=group) if group else None,
                accumulation_steps=steps,
                ema_decay=decay,
            )
            images = {"image": (BATCH, 8, 8, 3), "label": (BATCH,), "mask": (BATCH,)}
            batch = {
                name: jax.ShapeDtypeStruct(shape, "int32" if name == "label" else "float32")
                for name, shape in images.items()
            }
            after, _ = jax.eval_shape(step, state, batch)
            assert jax.tree.map(lambda a: a.dtype, after) == jax.tree.map(lambda a: a.dtype, state)
