"""Networks of other libraries are invariant after transformation, and not before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import ACTIVATIONS, FOREIGN, WITHOUT_MAX_POOL, foreign

from aliasfree_jax import Oversample, shift_invariant
from aliasfree_jax.ops import fractional_shift, remove_nyquist

# float32 rounding (6e-8) after about fifty layers.
EXACT = 1e-5
WHOLE = ((1, 3), (-2, 7), (5, 0))  # equally many as FRACTIONS, so that batches have one size
FRACTIONS = ((1.0, 3.0), (0.5, 0.5), (1 / 3, 7.137))


def changes(network, f, shifts):
    """The change of both images' logits under each shift, relative to the norm of the logits."""
    channels_last = network.spatial_axes == (1, 2)
    images = network.images if channels_last else network.images.transpose(0, 2, 3, 1)
    images = remove_nyquist(images)  # fractional shifts do not keep that frequency
    moved = [fractional_shift(images, jnp.tile(jnp.asarray(shift, jnp.float32), (2, 1))) for shift in shifts]
    if all(float(s).is_integer() for shift in shifts for s in shift):
        moved = [jnp.roll(images, tuple(map(int, shift)), (1, 2)) for shift in shifts]
    batch = jnp.concatenate([images, *moved])
    logits = np.asarray(
        jax.jit(f)(network.variables, batch if channels_last else batch.transpose(0, 3, 1, 2))
    ).reshape(len(shifts) + 1, 2, -1)
    assert np.isfinite(logits).all()
    size = np.linalg.norm(logits[0])
    apart = np.linalg.norm(logits[0, 0] - logits[0, 1]) / size
    assert apart > 0.01, "the logits of two images are the same"
    return np.array([np.linalg.norm(other - logits[0]) / size for other in logits[1:]])


@functools.cache
def as_they_are(name, shifts):
    network = foreign(name)
    return changes(network, network.f, shifts)


@pytest.mark.parametrize("name", FOREIGN)
def test_whole_pixels(name):
    network = foreign(name)
    f = shift_invariant(network.f, argnums=1, spatial_axes=network.spatial_axes)
    assert changes(network, f, WHOLE).max() < EXACT
    assert as_they_are(name, WHOLE).max() > 0.01


@pytest.mark.parametrize("name", WITHOUT_MAX_POOL)
def test_all_shifts(name):
    network = foreign(name)
    f = shift_invariant(network.f, sampler="ideal", activations="polynomial", argnums=1)
    assert changes(network, f, FRACTIONS).max() < EXACT
    assert as_they_are(name, FRACTIONS).max() > 0.01


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_finer_the_grid_the_smaller_the_change(name):
    network = foreign(f"haiku_{name}")
    half = {
        k: changes(
            network,
            shift_invariant(network.f, sampler="ideal", activations=Oversample(k), argnums=1),
            ((0.5, 0.5),),
        ).item()
        for k in (1, 2, 4)
    }
    assert half[2] < half[1] / 3
    assert half[4] < half[2]
