"""Tests of the audit with known networks.

Exact layers in float64 must have errors below 1e-12: thousands of roundings of 2e-16. Layers that break
equivariance have errors above 1e-3.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import AliasFreeError, ConfigError, ShapeError
from aliasfree_jax.evaluation.audit import audit
from aliasfree_jax.evaluation.audit.auditing import SHIFTS
from aliasfree_jax.layers import (
    ActivatedStem,
    AdaptivePolyphase,
    BlurPool,
    IdealDownsample,
    IdealUpsample,
    LowpassPolynomial,
    MaxBlurPool,
    PolyphaseUpsample,
    Subsample,
)
from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.choices import CHOICES
from aliasfree_jax.ops.resample import ideal_lowpass


class Net(nn.Module):
    strides: int = 2
    padding: str = "CIRCULAR"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv1")(x))
        x = nn.Conv(4, (3, 3), strides=self.strides, padding=self.padding, name="conv2")(x)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


CONV = "conv_general_dilated"


def variables_of(module, x):
    """Random variables from NumPy, because `init` compiles every operation separately."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    numbers = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(numbers.standard_normal(leaf.shape), leaf.dtype), shapes)


def audited(module, variables, images, shifts=SHIFTS, **kwargs):
    return audit(module.apply, variables, images, argnums=1, shifts=shifts, **kwargs)


def report(module, draw, shift):
    """The audit under one shift, and its layers by name."""
    x = draw(2, 8, 8, 3)
    (found,) = audited(module, variables_of(module, x), x, [shift])
    return found, {layer.path: layer for layer in found.layers}


def broken(found):
    return [layer.path for layer in found.layers if layer.state == "breaks"]


def test_the_stride_is_found(draw):
    found, layers = report(Net(), draw, (1, 1))
    assert broken(found) == [found.first_break] == ["conv2"] and found.network == "Net"
    assert layers["conv1"].after < 1e-12 < 1e-2 < layers["conv2"].after
    assert layers["conv2"].before < 1e-12 and layers["conv2"].shape == (2, 4, 4, 4)
    assert layers["head"].before > 1e-3 and layers["head"].state == "follows"  # the head is not the cause
    names = [("conv1", CONV), ("", "relu"), ("conv2", CONV), ("", "relu"), ("head", "dot_general")]
    assert [(layer.path, layer.operation) for layer in found.layers] == names  # the order of execution
    assert found.finding.startswith(f"conv2 ({CONV}) at ")
    assert "is the first to break under a shift by (1, 1): its input is equivariant" in found.finding
    assert "Reason: a strided convolution by 2 keeps frequencies that alias. Sample by" in found.finding


def test_padding_is_found(draw):
    found, _ = report(Net(strides=1, padding="SAME"), draw, (1, 1))
    assert broken(found) == ["conv2"] and "Reason: pads by constants" in found.finding


def test_shifts_by_the_stride_break_nothing(draw):
    found, layers = report(Net(), draw, (2, 4))
    assert not broken(found) and found.first_break is None
    assert found.finding == "Nothing breaks under a shift by (2, 4)."
    assert max(layer.after for layer in layers.values()) < 1e-12


def test_both_precisions_stand_side_by_side(draw):
    _, layers = report(Net(), draw, (2, 4))
    head = layers["head"]
    assert head.dtype == "float32"
    assert head.after < 1e-12 < 1e-9 < head.deployed < 1e-5  # rounding of sums in float32
    _, layers = report(Net(), draw, (1, 1))
    assert layers["conv2"].deployed == pytest.approx(layers["conv2"].after, rel=1e-3)  # aliasing is in both


class Half(nn.Module):
    """Layers that compute in bfloat16, set by a field or by a cast in the code."""

    cast: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv", dtype=jnp.bfloat16)(x)
        x = x.astype(jnp.bfloat16) if self.cast else x
        return nn.Conv(4, (1, 1), name="last", dtype=None if self.cast else jnp.bfloat16)(x)


def test_layers_of_a_narrow_type_are_judged_in_float64(draw):
    found, layers = report(Half(), draw, (0.5, 0.5))
    assert layers["last"].dtype == "bfloat16" and not broken(found) and not found.notes
    assert layers["last"].after < 1e-12 < 1e-4 < layers["last"].deployed < 0.05  # epsilon is 8e-3
    x = draw(2, 8, 8, 3)
    assert Half().apply(variables_of(Half(), x), x).dtype == jnp.bfloat16  # without the audit


class Float32(nn.Module):
    cast: str
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):
        x = Cast(self.cast, name="cast")(nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv")(x))
        return nn.Conv(4, (3, 3), padding=self.padding, name="last")(x)


class Cast(nn.Module):
    to: str

    def __call__(self, x):
        return x.astype(self.to)


@pytest.mark.parametrize("narrow", ["float32", "bfloat16"])
def test_casts_in_the_code_are_left_out_in_float64(narrow, draw):
    found, layers = report(Float32(narrow), draw, (0.5, 0.5))
    assert broken(found) == ["last"] and layers["conv"].after < 1e-12 and not found.notes
    found, layers = report(Float32(narrow, padding="CIRCULAR"), draw, (0.5, 0.5))
    assert not broken(found) and layers["last"].after < 1e-12
    assert (
        layers["last"].deployed > {"float32": 1e-9, "bfloat16": 1e-4}[narrow]
    )  # casts are kept in the usual precision


class Filtered(nn.Module):
    """A filter that is a constant of the program, rounded to bfloat16."""

    @nn.compact
    def __call__(self, x):
        x = ideal_lowpass(nn.Conv(4, (1, 1), name="conv")(x).astype("bfloat16"), 0.5)
        return nn.Conv(4, (3, 3), padding="SAME", name="last")(x)


def test_rounded_constants_allow_no_answer_and_are_told(draw):
    found, layers = report(Filtered(), draw, (1, 1))
    assert layers["conv"].state == "exact" and layers["last"].state == "not compared" and not broken(found)
    assert layers["last"].note == "rounding of a narrow type"
    assert found.finding.startswith("Nothing that could be compared breaks")
    assert "constants of a narrower type than float64: all errors after it may be rounding" in found.notes[0]


class Pointwise(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (1, 1), name="conv")(x))
        return nn.Dense(3, name="head")(nn.Conv(4, (1, 1), name="next")(x).mean((1, 2)))


def test_a_nonlinearity_breaks_fractions_of_a_pixel_only(draw):
    assert not broken(report(Pointwise(), draw, (1, 3))[0])
    found, layers = report(Pointwise(), draw, (0.5, 0.5))
    assert broken(found) == [""] and found.first_break.startswith(
        "relu ("
    )  # the network has no path, so its line is named
    assert "Reason: a non-linearity of unbounded band. Use layers.UpPolynomial" in found.finding
    assert layers["next"].note == "broken earlier, in relu"


class Polyphase(nn.Module):
    """Sampling with a grid chosen for each image. With an ideal filter it is exact for fractions too."""

    inner: type = Subsample

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv")(x)
        x = AdaptivePolyphase(4, inner=self.inner, name="sampler")(x)
        return nn.Conv(3, (3, 3), padding="CIRCULAR", name="last")(x)


def test_a_chosen_grid_is_allowed_for_whole_pixels(draw):
    """Except for results: a map that is the output must move exactly as far as the image."""
    for shift in ((1, 1), (-5, 7)):
        found, layers = report(Polyphase(), draw, shift)
        assert broken(found) == [found.first_break] == ["output"] and layers["last"].after < 1e-12
        assert "moves in steps of 4 x 4 pixels" in found.finding and layers["output"].after > 1e-2
        assert layers["sampler"].aligned and layers["last"].aligned and not layers["conv"].aligned
    found, layers = report(Polyphase(), draw, (0.5, 0.5))
    assert broken(found) == ["sampler"] and layers["sampler"].after > 1e-2
    assert "Reason: polyphase sampling follows shifts by whole positions only" in found.finding


def test_a_chosen_grid_is_allowed_for_fractions_where_nothing_aliases(draw):
    found, layers = report(Polyphase(IdealDownsample), draw, (1.5, 0.7))
    assert not broken(found) and layers["last"].after < 1e-12


@pytest.mark.parametrize("sampler", ["polyphase", "blur"])
def test_samplers_that_a_network_asks_for_their_phase_are_looked_at(sampler, draw):
    """A ResNet calls `with_phase`, so that the shortcut uses the same grid as the branch."""
    sizes = {"depths": (1, 1), "widths": (4, 4), "norm": "channel"}
    module = create_model("resnet20_cifar_circular", sampler=sampler, num_classes=3, **sizes)
    found, layers = report(module, draw, (1, 1))
    samplers = ["stage1_block0/sampler", "stage1_block0/shortcut/shortcut_sampler"]
    assert [path for path in layers if path.endswith("sampler")] == samplers
    for path in samplers:
        first = next(layer for layer in found.layers if layer.path == path)
        assert layers[path].shape == (2, 4, 4, 4) and first.before < 1e-12
    if sampler == "polyphase":
        assert not broken(found) and all(layers[path].aligned for path in samplers)
    else:
        assert broken(found) == samplers and "a blur before sampling by 2 keeps" in found.finding


class Lowpassed(nn.Module):
    """The activation aliases to frequencies that the sampler removes, if there is one."""

    sampled: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv")(x)
        x = LowpassPolynomial(cutoff=0.5, name="act")(x)
        x = IdealDownsample(2, name="sampler")(x) if self.sampled else x
        return nn.Conv(3, (3, 3), padding="SAME", name="last")(x)


def test_what_the_next_layer_mends_is_no_break(draw):
    found, layers = report(Lowpassed(True), draw, (0.5, 0.5))
    assert layers["act"].state == "mended" and layers["act"].after > 1e-3 and layers["sampler"].after < 1e-12
    assert broken(found) == ["last"]
    assert broken(report(Lowpassed(False), draw, (0.5, 0.5))[0]) == ["act"]


class Around(nn.Module):
    """A layer that corrects the error of a layer inside it."""

    @nn.compact
    def __call__(self, x):
        return (
            ideal_lowpass(nn.Conv(1, (1, 1), name="inside")(x) * 0 + x, 1.0) - Checker(name="checker")(x) * 0
        )


class Checker(nn.Module):
    def __call__(self, x):
        return x * (-1) ** jnp.arange(x.shape[1])[:, None, None]


def test_what_the_layer_around_mends_is_no_break(draw):
    found, layers = report(Around(), draw, (1, 1))
    assert layers["checker"].after == pytest.approx(2.0)  # the sign of its output changes
    assert layers["checker"].state == "mended" and not broken(found)


class Branches(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv")(x))
        y = nn.Conv(4, (3, 3), strides=2, padding="CIRCULAR", name="down")(y)
        return y + nn.Conv(4, (1, 1), strides=2, name="shortcut")(x)


def test_every_branch_is_judged_by_its_own_input(draw):
    assert broken(report(Branches(), draw, (1, 0))[0]) == ["down", "shortcut"]


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x):
        tokens = nn.LayerNorm(name="tokens")(x.reshape(len(x), -1, 3))
        nn.Dense(2, name="rows")(tokens.reshape(-1, 3))
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


def test_flattening_is_found_and_what_is_no_map_is_told(draw):
    found, layers = report(Flat(), draw, (1, 1))
    assert broken(found) == [""] and found.first_break.startswith("reshape (")
    assert "Reason: flattens rows or columns together with other axes" in found.finding
    assert layers["tokens"].state == layers["rows"].state == "exact"  # arrays of positions are maps
    assert layers["head"].state == "follows"


class Zeros(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), strides=2, name="conv")(x)
        return nn.Dense(3, kernel_init=nn.initializers.zeros, name="head")(x.mean((1, 2)))


def test_zeros_hide_nothing_that_can_be_seen(draw):
    x = draw(2, 8, 8, 3)
    (found,) = audited(Zeros(), Zeros().init(jax.random.key(0), x), x, [(1, 1)])
    layers = {layer.path: layer for layer in found.layers}
    assert layers["head"].note == "only zeros" and broken(found) == ["conv"]
    assert any("head" in note and "all outputs are zero" in note for note in found.notes)


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        x = nn.Conv(3, (3, 3), padding="CIRCULAR", name="same")(x)
        return nn.Conv(3, (3, 3), padding="SAME", name="padded")(x), None


class Transformed(nn.Module):
    lift: Callable

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (1, 1), name="before")(x)
        return self.lift(Body)(name="body")(x, None)[0]


def scanned(module):
    return nn.scan(module, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)


@pytest.mark.parametrize("lift", [nn.jit, nn.remat, scanned, lambda module: nn.jit(nn.remat(module))])
def test_layers_inside_transformations_are_looked_at(lift, draw):
    found, layers = report(Transformed(lift), draw, (1, 1))
    assert broken(found) == ["body/padded"] and not found.notes
    assert layers["before"].state == "exact"
    if lift is scanned:  # each iteration is a separate call: the second one's input is already broken
        states = [layer.state for layer in found.layers if layer.path == "body/same"]
        assert states == ["exact", "follows"]
    else:
        assert layers["body/same"].state == "exact"


def mapped(module):
    axes = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
    return nn.vmap(module, in_axes=(0, None), out_axes=(0, None), **axes)


class OneByOne(nn.Module):
    @nn.compact
    def __call__(self, x):
        return mapped(Body)(name="body")(x, None)[0]


def test_layers_under_vmap_are_looked_at(draw):
    found, layers = report(OneByOne(), draw, (1, 1))
    assert broken(found) == ["body/padded"] and layers["body/same"].state == "exact"


@pytest.mark.parametrize(
    ("activation", "mends"), [(LowpassPolynomial, True), (Relu, False)], ids=["quadratic", "relu"]
)
def test_a_stem_that_runs_in_pieces_and_again_is_looked_at(activation, mends, draw, monkeypatch):
    monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=1))
    monkeypatch.setattr(
        jax, "device_count", lambda: 1
    )  # with several devices the stem does not run in pieces
    normal = nn.initializers.normal(1.0)
    stem = ActivatedStem(4, 3, 2, IdealDownsample, activation, residual=True, kernel_init=normal)
    found, layers = report(stem, draw, (0.5, 0.5))
    assert not found.notes and layers["conv"].state == "exact"
    assert not any(layer.state == "not compared" for layer in found.layers)
    # The sampler, fused with the quadratic, mends its error. The rectifier's error stays.
    assert broken(found) == ([] if mends else ["activation"]) and "sampler" in layers


class Train(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return nn.BatchNorm(use_running_average=not train)(x)


def test_arguments_reach_the_network(draw):
    x = draw(2, 8, 8, 3)
    variables = Train().init(jax.random.key(0), x)
    (found,) = audited(Train(), variables, x, [(1, 1)], train=False, network="mine")
    assert found.network == "mine" and not broken(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shift", "side"),
    [
        ("convnext_afc_micro", (0.5, 0.3), 32),
        ("resnet20_cifar_lps", (1, 2), 16),
    ],
)
def test_exact_networks_have_no_such_layer(name, shift, side, draw):
    module = create_model(name, num_classes=3, depths=(1, 1), widths=(4, 8))
    x = draw(2, side, side, 3)
    variables = jax.jit(module.init)(jax.random.key(1), x)
    (found,) = audited(module, variables, x, [shift], train=False)
    layers = {layer.path: layer for layer in found.layers}
    assert not broken(found) and layers[""].after < 1e-12 and "head" in layers


def test_what_cannot_be_looked_at_is_refused(draw):
    with pytest.raises(ShapeError, match="expected floating-point images, got int32"):
        audit(lambda x: x, jnp.zeros((1, 4, 4, 3), jnp.int32))
    with pytest.raises(ConfigError, match=r"spatial_axes=\(1, 2\) are not two axes of the images"):
        audit(lambda x: x, jnp.zeros((4, 4)))
    images = jnp.zeros((1, 4, 4, 3))
    with pytest.raises(ShapeError, match="no result of nothing depends on the images"):
        audit(lambda x: jnp.zeros(3), images, network="nothing")

    def fickle(x):
        return jnp.tanh(x) if x.dtype == jnp.float64 else x.sum((1, 2)) @ jnp.ones((3, 2))

    with pytest.raises(AliasFreeError, match="fickle performs different operations in float64"):
        audit(fickle, images)
    for shifts in ((1, 1), [(1, 2, 3)], [(float("nan"), 0)]):
        with pytest.raises(ConfigError, match="shifts must be pairs"):
            audit(jnp.tanh, images, shifts=shifts)
    with pytest.raises(ConfigError, match=r"a circular shift by \(4, 0\) does not change images of \(4, 4\)"):
        audit(jnp.tanh, images, shifts=[(4, 0)])


def pooled(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def enlarged(x):
    return x.repeat(2, 1).repeat(2, 2)


class Between(nn.Module):
    """A function that is called between two exact layers."""

    function: Callable

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (1, 1), name="conv")(x)
        return nn.Conv(3, (1, 1), name="last")(self.function(x))


def decoded(down, up):
    def f(x):
        coarse, phase = down.apply({}, x, method="with_phase")
        return up.apply({}, coarse, phase)

    return f


@pytest.mark.parametrize(
    ("f", "exact", "breaks"),
    [
        (decoded(AdaptivePolyphase(2), PolyphaseUpsample(2)), [(1, 1), (-3, 2)], [(0.5, 0.5)]),
        (decoded(IdealDownsample(2), IdealUpsample(2)), SHIFTS, []),
        (decoded(Subsample(2), PolyphaseUpsample(2)), [(2, 4)], SHIFTS),
    ],
)
def test_the_last_row_compares_maps_that_are_moved_back(f, exact, breaks, draw):
    """The error is that between f(shift x) and shift f(x)."""
    x = draw(2, 8, 8, 2)
    for found in audit(f, x, shifts=exact):
        assert found.layers[-1].path == "output" and found.layers[-1].after < 1e-12
        assert found.layers[-1].shape == (2, 8, 8, 2)
    for found in audit(f, x, shifts=breaks):
        assert found.layers[-1].after > 1e-2 and found.first_break is not None


def test_logits_have_no_such_row(draw):
    assert report(Net(), draw, (1, 1))[0].layers[-1].path == "head"


@pytest.mark.parametrize(
    ("function", "shift", "operation", "reason"),
    [
        (pooled, (1, 1), "max_pool", "a strided max pool by 2 keeps frequencies that alias"),
        (enlarged, (0.5, 0.5), "", "upsamples from fixed positions without an ideal filter"),
        (nn.gelu, (0.5, 0), "gelu", "a non-linearity of unbounded band"),
        (lambda x: x * jnp.arange(8)[:, None], (1, 1), "mul", "combines a map with values that differ"),
    ],
)
def test_functions_between_layers_are_told_by_what_they_do(function, shift, operation, reason, draw):
    found, layers = report(Between(function), draw, shift)
    assert broken(found) == [""] and f"Reason: {reason}" in found.finding
    assert found.finding.startswith(operation)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (PolyphaseUpsample(2, BlurPool), "zeros between the samples follow shifts by whole positions only"),
        (MaxBlurPool(2, 2), "selects samples: unbounded band"),
        (BlurPool(2), "a blur before sampling by 2 keeps frequencies that alias"),
        (AdaptivePolyphase(2), "polyphase sampling follows shifts by whole positions only"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_that_change_the_grid_are_told_by_their_kind(layer, reason, draw):
    found, _ = report(nn.Sequential([nn.Conv(4, (1, 1)), layer]), draw, (0.5, 0.5))
    assert f"Reason: {reason}" in found.finding and broken(found) == ["layers_1"]


class Normal(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(x)


def test_a_norm_over_channels_is_named(draw):
    assert not broken(report(Normal(), draw, (1, 2))[0])
    found, _ = report(Normal(), draw, (0.5, 0.5))
    assert broken(found) == ["norm"] and "Reason: divides by a map" in found.finding


def test_functions_that_hold_their_parameters(draw):
    """Arrays inside a function keep their precision: lax needs equal types, and kernels cause no errors."""
    images, kernel = draw(2, 8, 8, 3), draw(3, 3, 3, 4)
    variables = variables_of(Net(), images)
    (found,) = audit(lambda x: Net().apply(variables, x), images, shifts=[(1, 1)])
    assert found.first_break == "conv2" and found.layers[0].after < 1e-12 and not found.notes

    def held(x):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "wrap")
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y[:, ::2, ::2]

    (found,) = audit(held, images, shifts=[(1, 1)])
    assert found.finding.startswith("slice (") and found.layers[0].after < 1e-12 and not found.notes


def test_modules_are_named_with_flax_profile_off(draw):
    with nn.override_named_call(False):
        assert "conv2" in report(Net(), draw, (1, 1))[1]
