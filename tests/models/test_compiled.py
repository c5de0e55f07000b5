"""Compiled networks: arithmetic, and communication if the batch is sharded."""

import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from aliasfree_jax.models import create_model
from configs.cifar10_xcit import FINER_STEM

pytestmark = pytest.mark.slow


COLLECTIVES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter", "all-reduce")


@pytest.mark.parametrize(
    ("name", "options", "largest"),
    [
        ("convnext_afc_tiny", {}, 7.6e9),
        ("convnext_afg_tiny", {}, 7.4e9),
        ("xcit_afg_nano_12_p16", {}, 1.08e9),  # plain: 0.62
        ("xcit_afg_nano_12_p16", {"patch_stem": "sampled", "stem_first_activation": None}, 0.97e9),
        (
            "xcit_afg_nano_12_p16",
            {"patch_stem": "activated", "stem_activation": "bandlimited_gate", "stem_last_activation": None},
            1.4e9,
        ),
        ("xcit_afg_nano_12_p16", FINER_STEM, 2.6e9),
    ],
)
def test_arithmetic_of_the_alias_free_networks(name, options, largest):
    network = create_model(name, **options)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(images.shape)))
    compiled = jax.jit(network.apply).lower(variables, images).compile()
    # The original ConvNeXt needs 17.7 GMAC and 41 FFT filters, the plain one 4.46. The gate needs 7.18 and
    # the polynomial 7.36 (counted without LLVM's optimisation).
    assert compiled.cost_analysis()["flops"] / 2 <= largest
    # Only the last network has a grid of more than 256 samples (`ops.choices`).
    assert ("fft" in compiled.as_text()) == (options == FINER_STEM)


def products(jaxpr) -> Iterator[tuple[str, str]]:
    """Yields name and precision of every matrix product and convolution of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.primitive.name, str(equation.params["precision"]).upper()
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize(
    "family", ["convnext", "convnext_circular", "convnext_aps", "convnext_afc", "convnext_afg"]
)
def test_the_precision_reaches_every_product(family):
    """Results on CPUs would not show it: there, every float32 product is exact."""

    def precisions(**options: str) -> list[str]:
        network = create_model(f"{family}_micro", **options)
        images = jnp.zeros((1, 32, 32, 3))
        variables = jax.eval_shape(lambda: network.init(jax.random.key(0), images))
        program = jax.make_jaxpr(jax.grad(lambda v: network.apply(v, images).sum()))(variables)
        return [precision for _, precision in products(program.jaxpr)]

    exact, fast, own = precisions(precision="highest"), precisions(precision="high"), precisions()
    assert len(exact) == len(fast) > 30  # forward and backward, 4 blocks and both samplings
    assert all("HIGHEST" in precision for precision in exact)
    assert not any("HIGHEST" in precision for precision in fast)
    # Defaults: highest in alias-free networks, JAX's default in others, and always highest in ideal filters.
    assert own == (exact if family in ("convnext_afc", "convnext_afg") else ["NONE"] * len(exact))
    filters = precisions(sampler={"name": "ideal", "any_size": True}, precision=None)
    assert any("HIGHEST" in precision for precision in filters) and "NONE" in filters


@pytest.fixture(scope="module")
def mesh():
    if jax.device_count() < 4:
        pytest.skip("needs four devices; tests/conftest.py sets up four virtual ones")
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])


def collectives(text: str) -> set[str]:
    return {name for name in COLLECTIVES if re.search(rf"\b{name}(-start)?\(", text)}


@pytest.mark.parametrize("name", ["convnext_afg_micro", "convnext_aps_micro"])
def test_a_sharded_batch_stays_local_but_for_the_gradients(name, mesh, draw, randomised):
    network = create_model(name, depths=(1, 1), widths=(4, 8), num_classes=5)
    variables, images, labels = randomised(network, 8, 32, 32, 3), draw(8, 32, 32, 3), jnp.arange(8) % 5
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

    def loss(variables, images, labels):
        logits = network.apply(variables, images)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -jnp.mean(picked), logits

    step = jax.value_and_grad(loss, has_aux=True)
    sharded = jax.jit(
        step,
        in_shardings=(whole, split, split),
        out_shardings=((whole, split), whole),
    )
    compiled = sharded.lower(variables, images, labels).compile()
    text = compiled.as_text()
    assert collectives(text) == {"all-reduce"}
    assert "fft" not in text
    on_mesh = jax.device_put((variables, images, labels), (whole, split, split))
    (value, logits), gradient = compiled(*on_mesh)
    (expected, expected_logits), expected_gradient = jax.jit(step)(variables, images, labels)
    # float32 rounding of sums in a different order; gradients relative to their largest entry.
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        assert float(jnp.abs(theirs).max()) > 1e-7  # every parameter has a gradient
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(jnp.abs(theirs).max()) + 1e-6)


def test_communication_would_be_seen(mesh):
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    images = jax.ShapeDtypeStruct((8, 16, 16, 4), jnp.float32, sharding=split)
    gathered = jax.jit(lambda x: 2 * x, out_shardings=whole).lower(images).compile()
    assert collectives(gathered.as_text()) == {"all-gather"}
    local = jax.jit(lambda x: 2 * x, out_shardings=split).lower(images).compile()
    assert collectives(local.as_text()) == set()
