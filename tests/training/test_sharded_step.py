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


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        image = rng.standard_normal((BATCH, SIDE, SIDE, 3)).astype(np.float32)
        label = rng.integers(0, 10, BATCH).astype(np.int32)
        yield {"image": image, "label": label, "mask": np.ones(BATCH, np.float32)}


def build(devices: int):
    mesh = make_mesh(devices)
    module = create_model("convnext_afc_micro", num_classes=10, depths=(1, 1), widths=(8, 16))
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
    collectives = set(
        re.findall(r"\b(all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce)\b", text)
    )
    assert collectives == {"all-reduce"}
    assert not re.search(r"\bfft\b", text)


def test_the_check_sees_a_gather():
    """Negative control: an FFT over a divided batch does gather, and the pattern finds it."""
    mesh = make_mesh(4)
    images = put_batch(next(batches()), mesh)["image"]
    text = jax.jit(lambda x: jax.numpy.fft.rfft2(x, axes=(1, 2)).real).lower(images).compile().as_text()
    assert re.search(r"\ball-gather\b", text) and re.search(r"\bfft\b", text)
