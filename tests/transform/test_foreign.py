"""The networks of others are worth a test: their answers differ, and a shift of the image changes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import FOREIGN, WITHOUT_MAX_POOL, Foreign, foreign


@pytest.mark.parametrize("name", FOREIGN)
def test_a_shift_changes_the_answers(name):
    """What the transformed networks must not do, these do: by a tenth and more, when this was written."""
    network = foreign(name)
    assert foreign(name) is network and network.images.shape[0] == 2
    shifted = jnp.roll(network.images, (1, 3), network.spatial_axes)
    here, there = (np.asarray(jax.jit(network.f)(network.variables, x)) for x in (network.images, shifted))
    assert np.linalg.norm(there - here) > 0.05 * np.linalg.norm(here)


@pytest.mark.parametrize("name", FOREIGN)
def test_which_have_a_maximum_pool(name):
    network = foreign(name)
    program = str(jax.make_jaxpr(network.f)(network.variables, network.images))
    assert ("reduce_window" in program) == (name not in WITHOUT_MAX_POOL)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda _, x: jnp.full((2, 10), jnp.nan), "not finite"),
        (lambda _, x: 1 + 1e-3 * x[:, 0, 0], "differ by 0."),
    ],
)
def test_networks_that_would_show_nothing_are_refused(f, message, monkeypatch):
    images = jnp.asarray([0.0, 1.0])[:, None, None, None] * jnp.ones((2, 8, 8, 3))
    monkeypatch.setitem(FOREIGN, "idle", lambda name: Foreign(name, f, {}, images))
    with pytest.raises(AssertionError, match=message):
        foreign("idle")
