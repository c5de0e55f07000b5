"""Audits of networks of other libraries: they break where `check` says, and not after transformation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from foreign import foreign

from aliasfree_jax import audit, check, shift_invariant


def audited(network, f):
    axes = {"argnums": 1, "spatial_axes": network.spatial_axes}
    (found,) = audit(f, network.variables, network.images, shifts=[(1, 1)], network=network.name, **axes)
    return found, check(f, network.variables, network.images, **axes)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lax", ""),
        pytest.param("haiku_relu", "conv2_d", marks=pytest.mark.slow),
        pytest.param("nnx_gelu", "", marks=pytest.mark.slow),
        pytest.param("equinox", "Conv", marks=pytest.mark.slow),
    ],
)
def test_the_first_break_is_what_check_finds_first(name, path):
    network = foreign(name)
    found, findings = audited(network, network.f)
    first = next(layer for layer in found.layers if layer.state == "breaks")
    assert (first.path, first.operation, first.where) == (path, findings[0].operation, findings[0].where)
    assert found.first_break == (path or first.name) and findings[0].reason in found.finding
    assert first.after > 1e-3 and found.layers[-1].after > 1e-3  # rounding errors are 1e-16


@pytest.mark.slow
def test_nothing_breaks_once_transformed():
    network = foreign("lax")
    found, findings = audited(network, shift_invariant(network.f, argnums=1))
    assert found.first_break is None and found.layers[-1].after < 1e-12 and not findings


class Named(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(2, (3, 3), strides=2, name="first")(x)).mean((1, 2))


def test_modules_keep_their_names_when_transformed():
    images = jnp.ones((1, 8, 8, 1))
    variables = Named().init(jax.random.key(0), images)
    program = jax.make_jaxpr(shift_invariant(Named().apply, argnums=1))(variables, images)
    (convolution,) = (eqn for eqn in program.jaxpr.eqns if eqn.primitive.name == "conv_general_dilated")
    assert str(convolution.source_info.name_stack) == "Named/first"
