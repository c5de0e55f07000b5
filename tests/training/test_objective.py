"""Training objectives: images, pixels of which some are ignored, and output images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from aliasfree_jax.config import LOSSES, base_config, result_names
from aliasfree_jax.data.sources import IGNORED
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.training.mesh import make_mesh, put_batch
from aliasfree_jax.training.objective import make_objective
from aliasfree_jax.training.optimizer import make_optimizer
from aliasfree_jax.training.schedules import poly_decay
from aliasfree_jax.training.state import StateBuilder
from aliasfree_jax.training.step import make_train_step
from aliasfree_jax.validation import validate

CLASSES, SIDE = 4, 6


def segmented(batch=8):
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (batch, SIDE, SIDE)).astype(np.int32)
    label[:, 0] = IGNORED
    label[0] = IGNORED  # an image without counted pixels
    return rng.standard_normal((batch, SIDE, SIDE, CLASSES)).astype(np.float32), label


def mean(term, outputs, label):
    return float(jnp.sum(term.sums(outputs, label)) / jnp.sum(term.counts(label)))


def expected_entropies(outputs, label):
    counted = label != IGNORED
    log_probs = np.asarray(jax.nn.log_softmax(outputs.astype(np.float64)))[counted]
    return -np.take_along_axis(log_probs, label[counted][:, None], 1)[:, 0], counted


def test_ignored_pixels_count_in_neither_loss_nor_accuracy():
    outputs, label = segmented()
    objective = make_objective("segmentation")
    entropies, counted = expected_entropies(outputs, label)
    # A sum of about 200 float32 numbers.
    assert mean(objective["loss"], outputs, label) == pytest.approx(entropies.mean(), rel=1e-5)
    right = outputs.argmax(-1)[counted] == label[counted]
    assert mean(objective["accuracy"], outputs, label) == pytest.approx(right.mean(), rel=1e-6)
    changed = np.where(counted[..., None], outputs, 100 * outputs[::-1])
    assert mean(objective["loss"], changed, label) == mean(objective["loss"], outputs, label)


def test_the_mean_over_all_pixels_has_ignored_ones_as_zeros():
    outputs, label = segmented()
    found = mean(make_objective("segmentation", "cross_entropy_of_all")["loss"], outputs, label)
    assert found == pytest.approx(expected_entropies(outputs, label)[0].sum() / label.size, rel=1e-5)


@pytest.mark.parametrize(("loss", "distance"), [("l1", np.abs), ("l2", np.square)])
def test_losses_of_regression(loss, distance):
    outputs, _ = segmented()
    target = outputs[::-1] + 1
    found = mean(make_objective("regression", loss)["loss"], outputs, target)
    assert found == pytest.approx(distance(outputs - target).mean(), rel=1e-5)


class Pixelwise(nn.Module):
    """A linear layer of each pixel."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(CLASSES)(images)


def updated(batch, devices, accumulation):
    mesh = make_mesh(devices)
    optimizer = optax.sgd(0.1)
    states = StateBuilder(Pixelwise(), optimizer, (SIDE, SIDE, CLASSES), mesh, False, 0)
    step = make_train_step(
        Pixelwise(),
        optimizer,
        lambda _: jnp.float32(0.1),
        mesh,
        objective=make_objective("segmentation"),
        accumulation_steps=accumulation,
    )
    return step(states.build(None), put_batch(batch, mesh))


@pytest.mark.parametrize(("devices", "accumulation"), [(1, 4), (4, 1), (4, 2)])
def test_an_update_averages_over_the_pixels_of_the_whole_batch(devices, accumulation):
    """Not over images or parts of the batch: images differ in their number of counted pixels."""
    images, label = segmented()
    mask = np.ones(8, np.float32)
    mask[-1] = 0
    batch = {"image": images, "label": label, "mask": mask}
    state, metrics = updated(batch, devices, accumulation)
    alone, expected = updated(batch, 1, 1)
    # Sums in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), state.params, alone.params
    )
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_poly_schedule_is_that_of_deeplab():
    rate = poly_decay(0.5, 1e-2, power=0.9, warmup_steps=0, total_steps=100)
    steps = np.arange(0, 110)
    expected = np.maximum(0.5 * np.clip(1 - steps / 100, 0, None) ** 0.9, 1e-2)
    np.testing.assert_allclose([rate(step) for step in steps], expected, rtol=1e-5)
    warm = poly_decay(0.5, 0.0, power=0.9, warmup_steps=10, total_steps=100)
    assert float(warm(0)) == 0 and float(warm(9)) == pytest.approx(0.5)
    assert float(warm(10)) == pytest.approx(0.5 * 0.9**0.9)


def test_the_backbone_learns_more_slowly():
    config = base_config()
    config.optimizer.name, config.optimizer.weight_decay, config.optimizer.backbone_factor = "sgd", 0.0, 0.1
    optimizer = make_optimizer(config.optimizer, lambda _: 1.0)
    params = {"backbone": {"conv": jnp.ones(3)}, "head": {"conv": jnp.ones(3)}}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["backbone"]["conv"], 0.1 * updates["head"]["conv"], rtol=1e-6)
    with pytest.raises(ConfigError, match=r"backbone_factor is only for networks with a backbone"):
        head = {"head": params["head"]}
        optimizer.update(head, optimizer.init(head), head)


@pytest.mark.parametrize("task", LOSSES)
def test_losses_and_results_fit_the_task(task):
    config = base_config()
    config.task, config.train.loss = task, LOSSES[task][-1]
    config.checkpoint.best = result_names(config)[0]
    validate(config)
    config.train.loss = "l1" if task != "regression" else "cross_entropy"
    with pytest.raises(ConfigError, match=rf"train.loss of task = '{task}'"):
        validate(config)


def test_what_no_dense_task_takes():
    config = base_config()
    config.task, config.checkpoint.best = "segmentation", "mean_iou"
    config.train.mixing.mixup = 0.8
    with pytest.raises(ConfigError, match="are for task = 'classification', not for 'segmentation'"):
        validate(config)
    config.train.mixing.mixup, config.data.noise = 0.0, 0.1
    with pytest.raises(ConfigError, match="noise and data.reduction are for task = 'regression'"):
        validate(config)


def test_images_have_no_labels_to_smooth():
    config = base_config()
    config.task, config.train.loss, config.checkpoint.best = "regression", "l2", "psnr"
    validate(config)
    config.train.label_smoothing = 0.1
    with pytest.raises(ConfigError, match="label_smoothing is for classes, not for task = 'regression'"):
        validate(config)


def test_errors_choose_no_best_network():
    config = base_config()
    config.task, config.train.loss, config.checkpoint.best = "regression", "l2", "nmse"
    with pytest.raises(ConfigError, match=r"checkpoint.best 'nmse'"):
        validate(config)
