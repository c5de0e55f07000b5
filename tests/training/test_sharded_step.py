"""The real alias-free training step on 1 and on 4 (virtual) devices: same losses, no gathers, no FFT."""

import re

import jax
import numpy as np
import optax
import pytest

from aliasfree_jax import create_model
from aliasfree_jax.training.mesh import make_mesh, put_batch
from aliasfree_jax.training.state import create_state
from aliasfree_jax.training.step import make_train_step

SIDE, BATCH, STEPS = 32, 16, 5
COLLECTIVES = re.compile(r"\b(all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce)\b")
FFT = re.compile(r"\bfft\b")


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        image = rng.standard_normal((BATCH, SIDE, SIDE, 3)).astype(np.float32)
        label = rng.integers(0, 10, BATCH).astype(np.int32)
        yield {"image": image, "label": label, "mask": np.ones(BATCH, np.float32)}


def build(devices: int, **options):
    mesh = make_mesh(devices)
    module = create_model("convnext_afc_micro", num_classes=10, depths=(1, 1), widths=(8, 16), **options)
    optimizer = optax.adamw(1e-3)
    state = create_state(module, optimizer, (SIDE, SIDE, 3), mesh, seed=0, average=True)
    step = make_train_step(module, optimizer, lambda _: 1e-3, mesh, ema_decay=0.9, accumulation_steps=2)
    return mesh, state, step


@pytest.fixture(scope="module")
def losses():
    curves = {}
    for devices in (1, 4):
        mesh, state, step = build(devices)
        curves[devices] = []
        for batch in batches():
            state, metrics = step(state, put_batch(batch, mesh))
            curves[devices].append(float(metrics["loss"]))
    return curves


def test_devices_do_not_change_the_loss_curve(losses):
    # The order of summation differs between 1 and 4 devices: float32 rounding, grown over 5 updates.
    np.testing.assert_allclose(losses[4], losses[1], rtol=1e-5)
    assert len(set(losses[1])) == STEPS


def test_compiled_step_only_reduces():
    mesh, state, step = build(4)
    text = step.lower(state, put_batch(next(batches()), mesh)).compile().as_text()
    assert set(COLLECTIVES.findall(text)) == {"all-reduce"}
    assert not FFT.search(text)


def test_the_check_sees_communication_and_fft():
    """Negative control: what mixes the examples of a divided batch is found, and so is an FFT."""
    mesh = make_mesh(4)
    images = put_batch(next(batches()), mesh)["image"]
    mixed = jax.jit(lambda x: jax.numpy.fft.rfft2(x, axes=(1, 2)).real[::-1])
    text = mixed.lower(images).compile().as_text()
    assert COLLECTIVES.search(text) and FFT.search(text)


def test_bfloat16_computes_in_half_precision_and_keeps_float32_parameters(losses):
    mesh, state, step = build(1, dtype="bfloat16")
    text = step.lower(state, put_batch(next(batches()), mesh)).as_text()
    assert "bf16" in text
    for batch, exact in zip(batches(), losses[1], strict=True):
        state, metrics = step(state, put_batch(batch, mesh))
        # bfloat16 has 8 bits: each product is off by up to 0.4 %, and the updates drift apart.
        np.testing.assert_allclose(float(metrics["loss"]), exact, rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
