"""Gates as layers: in an MLP in both orders, in the stem, and in any network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import up_gate_down_ref

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.activation import Gelu, UpPolynomial
from aliasfree_jax.layers.gates import BandlimitedGate, Gate, LowpassGate, UpGate, UpSelfGate
from aliasfree_jax.layers.mlp import Mlp, hidden_width, mlp_costs
from aliasfree_jax.layers.sampling import IdealDownsample, Subsample
from aliasfree_jax.layers.stems import ActivatedStem
from aliasfree_jax.ops.activation import gate, polynomial_grid, up_gate_down
from aliasfree_jax.ops.resample import ideal_downsample, ideal_lowpass, ideal_resample, remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift

UP = functools.partial(UpGate, in_scale=0.7, out_scale=1.3, train_scale=True)
EXACT = 1e-12  # float64 rounding of a few products with sums of up to 50 terms


def random_variables(layer, x: jax.Array, draw) -> dict:
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: draw(*leaf.shape, seed=leaf.size), shapes)


@pytest.mark.parametrize("module", [Gate, UpGate, LowpassGate, BandlimitedGate])
@pytest.mark.parametrize("trained", [False, True])
def test_modules_compute_the_pure_function(module, trained, draw, x64):
    x, by = draw(2, 8, 7, 3), draw(2, 8, 7, 3, seed=1)
    layer = module(in_scale=0.7, out_scale=1.3, train_scale=trained)
    variables = layer.init(jax.random.key(0), jnp.concatenate([x, by], -1))
    assert set(variables.get("params", {})) == ({"in_scale", "out_scale"} if trained else set())
    expected = {
        Gate: lambda: gate(x, by, 0.7, 1.3),
        UpGate: lambda: up_gate_down(x, by, 0.7, 1.3),
        LowpassGate: lambda: gate(x, ideal_lowpass(by, 0.75), 0.7, 1.3),
        BandlimitedGate: lambda: gate(ideal_lowpass(x, 0.75), ideal_lowpass(by, 0.75), 0.7, 1.3),
    }[module]()
    actual = layer.apply(variables, jnp.concatenate([x, by], -1))
    np.testing.assert_allclose(
        actual, expected, atol=1e-7
    )  # learned scales are float32, which rounds 0.7 and 1.3


@pytest.mark.parametrize("module", [Gate, UpGate, LowpassGate, BandlimitedGate])
def test_an_odd_number_of_channels_is_named(module, draw):
    with pytest.raises(ShapeError, match="two halves of the channels and needs an even number, got 5"):
        module().apply({}, draw(1, 6, 6, 5))


@pytest.mark.parametrize(("channels", "hidden"), [(96, 256), (768, 2048), (128, 344), (32, 88), (3, 8)])
def test_a_gated_mlp_has_the_weights_of_the_usual_one(channels, hidden, draw):
    assert hidden_width(channels, UpGate) == hidden
    assert hidden_width(channels, Gelu, 2.0) == 2 * channels
    assert hidden_width(channels, Gelu) == hidden_width(channels, UpPolynomial) == 4 * channels
    # Rounding to a multiple of 8 changes 8/3 C channels by at most 4.
    assert abs(3 * channels * hidden - 8 * channels**2) <= 3 * 4 * channels


def test_the_gated_mlp_by_its_formula(draw, x64):
    x = draw(2, 6, 7, 3)
    layer = Mlp(8, UP)
    params = random_variables(layer, x, draw)["params"]
    assert params["expand"]["kernel"].shape == (3, 16) and params["project"]["kernel"].shape == (8, 3)
    first, by = jnp.split(x @ params["expand"]["kernel"] + params["expand"]["bias"], 2, -1)
    product = up_gate_down_ref(first, by, params["activation"]["in_scale"], params["activation"]["out_scale"])
    expected = product @ params["project"]["kernel"] + params["project"]["bias"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=EXACT, atol=1e-11)


@pytest.mark.parametrize("size", [(8, 7), (5, 6)], ids="{0[0]}x{0[1]}".format)
def test_fine_coarse_and_auto_are_one_function(size, draw, x64):
    x = draw(2, *size, 3)
    variables = random_variables(Mlp(8, UP), x, draw)

    def run(order: str):
        return jax.jit(jax.value_and_grad(lambda v: jnp.sum(Mlp(8, UP, order).apply(v, x) ** 2)))(variables)

    expected = run("coarse")
    for order in ("fine", "auto"):
        # A relative tolerance, because gradients of squares of products reach 1e5.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-8), run(order), expected
        )


@pytest.mark.parametrize(("side", "channels"), [(56, 96), (28, 192), (14, 384), (7, 768)])
def test_the_gate_costs_what_the_polynomial_costs(side, channels):
    """On the same grid. Its own grid has no room for the Nyquist frequency, and is smaller for even sides."""
    shape, grid = (side, side), polynomial_grid((side, side), 2)
    quadratic = mlp_costs(shape, grid, channels, 4 * channels)
    hidden = hidden_width(channels, UpGate)
    assert mlp_costs(shape, grid, channels, hidden, gated=True) == quadratic
    on_own = mlp_costs(shape, UpGate().grid(shape), channels, hidden, gated=True)
    for order, cost in on_own.items():
        assert cost < quadratic[order] if side % 2 == 0 else cost == quadratic[order]


def test_a_batch_in_pieces_changes_nothing(draw, x64, monkeypatch):
    x = draw(4, 6, 6, 3)
    variables = random_variables(Mlp(8, UP), x, draw)
    monkeypatch.setattr("aliasfree_jax.layers.mlp.images_at_once", lambda batch, size: batch)
    whole = Mlp(8, UP).apply(variables, x)
    monkeypatch.setattr("aliasfree_jax.layers.mlp.images_at_once", lambda batch, size: 1)
    np.testing.assert_allclose(Mlp(8, UP).apply(variables, x), whole, rtol=EXACT, atol=EXACT)


def test_the_self_gate_starts_as_the_identity_and_commutes_with_every_shift(draw, x64):
    odd = ideal_resample(draw(1, 7, 7, 4), (8, 8))  # no Nyquist frequency
    layer = UpSelfGate()
    variables = layer.init(jax.random.key(0), odd)
    np.testing.assert_allclose(layer.apply(variables, odd), odd, atol=EXACT)
    variables = random_variables(layer, odd, draw)
    act = jax.jit(functools.partial(layer.apply, variables))
    weights = variables["params"]["linear"]
    by = odd @ weights["kernel"] + weights["bias"]
    np.testing.assert_allclose(act(odd), up_gate_down_ref(odd, by), atol=EXACT)
    for shift in [(1.0, 0.0), (0.5, 0.5), (0.123, 7.77)]:
        moved = fractional_shift(odd, shift)
        np.testing.assert_allclose(act(moved), fractional_shift(act(odd), shift), atol=1e-11)


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("side", [24, 32, 40])
def test_gates_are_exact_before_sampling_up_to_their_largest_cutoff(stride, side, draw, x64):
    """A product on a grid of three times the size has no aliases. The sampler removes those of the gates."""
    x = remove_nyquist(draw(1, side, side, 8))
    for module, cutoff in ((LowpassGate, 1 - 1 / stride), (BandlimitedGate, 1 - 1 / (2 * stride))):

        def sampled(x: jax.Array, cutoff: float, grid: int, module=module) -> jax.Array:
            fine = module(cutoff=cutoff * side / grid).apply({}, ideal_resample(x, (grid, grid)))
            return ideal_downsample(fine, stride * grid // side)

        np.testing.assert_allclose(sampled(x, cutoff, side), sampled(x, cutoff, 3 * side), atol=EXACT)
        wide = min(1.0, cutoff + 8 / side)
        assert np.abs(sampled(x, wide, side) - sampled(x, wide, 3 * side)).max() > 1e-3


def stem(sampler=IdealDownsample, residual: bool = False, cutoff: float = 0.75) -> ActivatedStem:
    activation = functools.partial(LowpassGate, in_scale=0.7, out_scale=1.3, cutoff=cutoff)
    return ActivatedStem(5, 4, 4, sampler, activation, "CIRCULAR", residual, jax.nn.initializers.normal(0.5))


@pytest.mark.parametrize("residual", [False, True])
def test_the_gated_stem_multiplies_two_convolutions(residual, draw, x64):
    images = draw(2, 16, 24, 3)
    layer = stem(residual=residual)
    variables = random_variables(layer, images, draw)
    params = variables["params"]

    def conv(name: str) -> jax.Array:
        # The window of an even kernel reaches one pixel further down and to the right.
        circle = jnp.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)), mode="wrap")
        y = jax.lax.conv_general_dilated(
            circle, params[name]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + params[name]["bias"]

    activated = gate(conv("conv"), ideal_lowpass(conv("gate_conv"), 0.75), 0.7, 1.3)
    if residual:
        activated = conv("conv") + params["gain"] * activated
    expected = ideal_downsample(activated, 4)
    np.testing.assert_allclose(layer.apply(variables, images), expected, rtol=EXACT, atol=1e-11)
    # Another sampler uses the general method: the same maps, sampled differently.
    plain = stem(Subsample, residual).apply(variables, images)
    np.testing.assert_allclose(plain, activated[:, ::4, ::4], rtol=EXACT, atol=1e-11)


def test_the_gated_stem_commutes_with_every_shift_and_needs_its_cutoff(draw, x64):
    images = draw(1, 16, 24, 3)
    variables = random_variables(stem(), images, draw)

    def error(layer: ActivatedStem, shift: tuple[float, float]) -> float:
        moved = layer.apply(variables, fractional_shift(images, shift))
        still = fractional_shift(layer.apply(variables, images), (shift[0] / 4, shift[1] / 4))
        return float(jnp.abs(moved - still).max() / jnp.abs(still).max())

    for shift in [(1.0, 0.0), (0.5, 0.5), (0.123, 7.77)]:
        assert error(stem(), shift) < EXACT
    assert error(stem(cutoff=1.0), (0.5, 0.5)) > 1e-3
