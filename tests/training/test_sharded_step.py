"""The real alias-free training step on 1 and on 4 (virtual) devices: same losses, no gathers, no FFT."""

import re

import jax
import numpy as np
import optax
import pytest

from aliasfree_jax import create_model
from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.training.mesh import make_mesh, put_batch
from aliasfree_jax.training.mixing import Mixing
from aliasfree_jax.training.state import StateBuilder
from aliasfree_jax.training.step import make_train_step

pytestmark = pytest.mark.slow

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
    """Mesh, state and compiled step of a small alias-free network with mixing and two micro-batches."""
    mesh = make_mesh(devices)
    sizes = {"depths": (1, 1), "widths": (4, 8), "num_classes": 10}
    module = create_model("convnext_afc_micro", **sizes, **options)
    optimizer = optax.adamw(1e-3)
    state = StateBuilder(module, optimizer, (SIDE, SIDE, 3), mesh, average=True).build()
    parts = {"mixing": Mixing(0.8, 1.0, group=2), "ema_decay": 0.9, "accumulation_steps": 2}
    step = make_train_step(module, optimizer, lambda _: 1e-3, mesh, **parts)
    lowered = step.lower(state, put_batch(next(batches()), mesh))
    return mesh, state, lowered.compile()


def train(mesh, state, step):
    """The losses of all steps, and the final parameters."""
    losses = []
    for batch in batches():
        state, metrics = step(state, put_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    return losses, state.params


@pytest.fixture(scope="module")
def built():
    return {devices: build(devices) for devices in (1, 4)}


@pytest.fixture(scope="module")
def losses(built):
    return {devices: train(*parts)[0] for devices, parts in built.items()}


def test_devices_do_not_change_the_loss_curve(losses):
    # The order of summation differs between 1 and 4 devices: float32 rounding, which grows over the updates.
    np.testing.assert_allclose(losses[4], losses[1], rtol=1e-5)
    assert len(set(losses[1])) == STEPS


def test_compiled_step_only_reduces(built):
    text = built[4][2].as_text()
    assert set(COLLECTIVES.findall(text)) == {"all-reduce"}
    assert not FFT.search(text)


def test_bfloat16_computes_in_half_precision_and_keeps_float32_parameters(losses):
    mesh, state, step = build(1, **PRECISIONS["bfloat16"])
    assert "bf16" in step.as_text()
    rough, params = train(mesh, state, step)
    # bfloat16 has 8 bits: each product has an error of up to 0.4 %, and the updates drift apart.
    np.testing.assert_allclose(rough, losses[1], rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


def test_the_check_sees_communication_and_fft():
    """Negative control: operations that mix the examples of a divided batch are found, and FFTs too."""
    mesh = make_mesh(4)
    images = put_batch(next(batches()), mesh)["image"]
    mixed = jax.jit(lambda x: jax.numpy.fft.rfft2(x, axes=(1, 2)).real[::-1])
    text = mixed.lower(images).compile().as_text()
    assert COLLECTIVES.search(text) and FFT.search(text)
