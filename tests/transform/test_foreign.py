"""Checks the networks of other libraries before `test_others` uses them: logits differ between images."""

import jax
import jax.numpy as jnp
import pytest
from foreign import FOREIGN, WITHOUT_MAX_POOL, Foreign, foreign


@pytest.mark.slow
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
