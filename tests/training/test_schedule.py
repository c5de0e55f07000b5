import jax.numpy as jnp
import pytest

from aliasfree_jax.training.schedule import warmup_cosine

SPE = 312  # ImageNet in batches of 4096


@pytest.fixture
def imagenet():
    return warmup_cosine(4e-3, 1e-6, warmup_steps=20 * SPE, total_steps=300 * SPE)


# Values of the original's float64 table; 2e-7 is two float32 roundings.
@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (1, 6.411284e-7), (6239, 4e-3), (6240, 4e-3), (49920, 2.0005e-3), (93599, 1.0000013e-6)],
)
def test_original_values(imagenet, step, expected):
    assert float(imagenet(jnp.int32(step))) == pytest.approx(expected, rel=2e-7)


def test_stays_at_the_end(imagenet):
    assert float(imagenet(200_000)) == pytest.approx(1e-6, rel=1e-6)


def test_no_warmup_starts_at_the_peak():
    rate = warmup_cosine(0.1, 0.0, warmup_steps=0, total_steps=10)
    assert float(rate(0)) == pytest.approx(0.1)
    assert float(rate(5)) == pytest.approx(0.05)


def test_warmup_of_one_step_is_zero_like_linspace():
    rate = warmup_cosine(0.1, 0.0, warmup_steps=1, total_steps=3)
    assert float(rate(0)) == 0.0
    assert float(rate(1)) == pytest.approx(0.1)
