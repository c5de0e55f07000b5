"""The audit of layers: what it finds in known networks, and that the guide's snippets run.

Exact layers in float64 are held to 1e-12, thousands of roundings of 2e-16; what breaks is above 1e-3.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import AliasFreeError, ConfigError, ShapeError
from aliasfree_jax.evaluation.audit import audit
from aliasfree_jax.evaluation.audit.alignment import (
    displacements,
    equivariance_error,
    moved_along,
    tolerance,
)
from aliasfree_jax.evaluation.audit.judging import ROWS
from aliasfree_jax.layers import (
    ActivatedStem,
    AdaptivePolyphase,
    BlurPool,
    IdealDownsample,
    LowpassPolynomial,
    MaxBlurPool,
    PolyphaseUpsample,
    Subsample,
)
from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.choices import CHOICES
from aliasfree_jax.ops.resample import ideal_lowpass, remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "changing_your_network.md"


class Net(nn.Module):
    strides: int = 2
    padding: str = "CIRCULAR"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv1")(x))
        x = nn.Conv(4, (3, 3), strides=self.strides, padding=self.padding, name="conv2")(x)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


def variables_of(module, x):
    """Random ones; from NumPy, for `init` compiles every operation by itself."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    numbers = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(numbers.standard_normal(leaf.shape), leaf.dtype), shapes)


def report(module, draw, shift):
    """The audit under one shift, and its layers by name."""
    x = draw(2, 8, 8, 3)
    (found,) = audit(module, variables_of(module, x), x, [shift])
    return found, {layer.path: layer for layer in found.layers}


def broken(found):
    return [layer.path for layer in found.layers if layer.state == "breaks"]


def test_the_stride_is_found(draw):
    found, layers = report(Net(), draw, (1, 1))
    assert broken(found) == [found.first_break] == ["conv2"]
    assert layers["conv1"].after < 1e-12 < 1e-2 < layers["conv2"].after
    assert layers["conv2"].before < 1e-12 and layers["conv2"].shape == (2, 4, 4, 4)
    assert layers["head"].before > 1e-3 and layers["head"].state == "follows"  # not the head's doing
    assert list(layers) == ["conv1", "conv2", "head", ""]  # the order in which they end
    assert found.finding.startswith("conv2 (Conv, stride 2) is the first to break under a shift by (1, 1)")
    assert found.finding.endswith('row "strided convolution".')


def test_padding_is_found(draw):
    found, _ = report(Net(strides=1, padding="SAME"), draw, (1, 1))
    assert broken(found) == ["conv2"] and 'row "zero padding"' in found.finding


def test_shifts_by_the_stride_break_nothing(draw):
    found, layers = report(Net(), draw, (2, 4))
    assert not broken(found) and found.first_break is None
    assert found.finding == "No layer breaks under a shift by (2, 4)."
    assert max(layer.after for layer in layers.values()) < 1e-12


def test_both_precisions_stand_side_by_side(draw):
    _, layers = report(Net(), draw, (2, 4))
    head = layers["head"]
    assert head.dtype == "float32"
    assert head.after < 1e-12 < 1e-9 < head.deployed < 1e-5  # rounding of sums in float32
    _, layers = report(Net(), draw, (1, 1))
    assert layers["conv2"].deployed == pytest.approx(layers["conv2"].after, rel=1e-3)  # aliasing is in both


class Half(nn.Module):
    """Layers told to compute in bfloat16, by a field or by a cast in the code."""

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
    assert Half().apply(variables_of(Half(), x), x).dtype == jnp.bfloat16  # by itself


class Float32(nn.Module):
    cast: str

    @nn.compact
    def __call__(self, x):
        x = Cast(self.cast, name="cast")(nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv")(x))
        return nn.Conv(4, (3, 3), padding="SAME", name="last")(x)


class Cast(nn.Module):
    to: str

    def __call__(self, x):
        return x.astype(self.to)


def test_a_cast_in_the_code_is_told(draw):
    found, layers = report(Float32("float32"), draw, (0.5, 0.5))
    assert layers["cast"].state == "exact" and layers["cast"].after > 1e-9  # float32's rounding is no break
    assert broken(found) == ["last"]  # float32 still tells aliasing
    assert found.notes == (
        "cast computes in float32 whatever it is given: errors below 1e-04 behind it may be rounding.",
    )
    found, layers = report(Float32("bfloat16"), draw, (0.5, 0.5))
    assert layers["cast"].state == layers["last"].state == "not compared" and not broken(found)
    assert found.finding.startswith("No layer that could be compared breaks")
    assert "all errors behind it may be rounding" in found.notes[0]


class Pointwise(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (1, 1), name="conv")(x))
        return nn.Dense(3, name="head")(nn.Conv(4, (1, 1), name="next")(x).mean((1, 2)))


def test_a_nonlinearity_breaks_fractions_of_a_pixel_only(draw):
    assert not broken(report(Pointwise(), draw, (1, 3))[0])
    found, layers = report(Pointwise(), draw, (0.5, 0.5))
    assert broken(found) == [""]  # ReLU is called outside any layer but the network itself
    assert "look at what it calls after conv and before next" in found.finding
    assert found.finding.endswith('row "ReLU, GELU".')
    assert layers["next"].note == "broken before it, in the network itself"


class Polyphase(nn.Module):
    """Sampled by a grid that is chosen for each image; with an ideal filter exact for fractions too."""

    inner: type = Subsample

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR", name="conv")(x)
        x = AdaptivePolyphase(4, inner=self.inner, name="sampler")(x)
        return nn.Conv(3, (3, 3), padding="CIRCULAR", name="last")(x)


def test_a_chosen_grid_is_allowed_for_whole_pixels(draw):
    for shift in ((1, 1), (-5, 7)):
        found, layers = report(Polyphase(), draw, shift)
        assert not broken(found) and layers["last"].after < 1e-12
        assert layers["sampler"].aligned and layers["last"].aligned and not layers["conv"].aligned
    found, layers = report(Polyphase(), draw, (0.5, 0.5))
    assert broken(found) == ["sampler"] and layers["sampler"].after > 1e-2
    assert 'row "a sampler that aliases"' in found.finding


def test_a_chosen_grid_is_allowed_for_fractions_where_nothing_aliases(draw):
    found, layers = report(Polyphase(IdealDownsample), draw, (1.5, 0.7))
    assert not broken(found) and layers["last"].after < 1e-12


@pytest.mark.parametrize("sampler", ["polyphase", "blur"])
def test_samplers_that_a_network_asks_for_their_phase_are_looked_at(sampler, draw):
    """A ResNet calls `with_phase`, so that the shortcut is sampled where the branch is."""
    sizes = {"depths": (1, 1), "widths": (4, 4), "norm": "channel"}
    module = create_model("resnet20_cifar_circular", sampler=sampler, num_classes=3, **sizes)
    found, layers = report(module, draw, (1, 1))
    samplers = ["stage1_block0/sampler", "stage1_block0/shortcut_sampler"]
    assert [path for path in layers if path.endswith("sampler")] == samplers
    for path in samplers:
        assert layers[path].shape == (2, 4, 4, 4) and layers[path].before < 1e-12
    if sampler == "polyphase":
        assert not broken(found) and all(layers[path].aligned for path in samplers)
    else:
        assert broken(found) == samplers and found.finding.endswith('row "a sampler that aliases".')


class Lowpassed(nn.Module):
    """The activation aliases into frequencies that the sampler removes, or that nothing does."""

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
    """A layer whose own code restores what a layer inside it breaks."""

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
    assert layers["checker"].after == pytest.approx(2.0)  # its sign changes
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
    assert broken(found) == [""] and found.finding.endswith('row "flattening".')
    assert layers["tokens"].state == layers["rows"].state == "not compared"
    assert layers["tokens"].note == "3 dimensions, not [N, h, w, C] or [N, C]"
    assert layers["rows"].note == "256 rows for 4 images"


class Zeros(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), strides=2, name="conv")(x)
        return nn.Dense(3, kernel_init=nn.initializers.zeros, name="head")(x.mean((1, 2)))


def test_zeros_hide_nothing_that_can_be_seen(draw):
    x = draw(2, 8, 8, 3)
    (found,) = audit(Zeros(), Zeros().init(jax.random.key(0), x), x, [(1, 1)])
    layers = {layer.path: layer for layer in found.layers}
    assert layers["head"].note == "only zeros" and broken(found) == ["conv"]
    assert any("head" in note and "only zeros come out" in note for note in found.notes)


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
    if lift is scanned:  # every turn is a call of its own: the second one's input is broken already
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


def test_layers_that_cannot_be_looked_at_are_named(draw):
    found, layers = report(OneByOne(), draw, (1, 1))
    assert list(layers) == broken(found) == [""]
    assert found.notes[0].startswith("3 layers run inside a transformation (vmap")
    assert "body, body/padded, body/same." in found.notes[0]


@pytest.mark.parametrize(
    ("activation", "mends"), [(LowpassPolynomial, True), (Relu, False)], ids=["quadratic", "relu"]
)
def test_a_stem_that_runs_in_pieces_and_again_is_looked_at(activation, mends, draw, monkeypatch):
    monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=1))
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # several devices take no pieces
    normal = nn.initializers.normal(1.0)
    stem = ActivatedStem(4, 3, 2, IdealDownsample, activation, residual=True, kernel_init=normal)
    found, layers = report(stem, draw, (0.5, 0.5))
    assert not found.notes and layers["conv"].state == "exact"
    assert not any(layer.note for layer in found.layers)  # whole batches: the moved half is there too
    # The quadratic is mended by the sampler that it is fused with; a rectifier breaks.
    assert broken(found) == ([] if mends else ["activation"]) and "sampler" in layers


class Train(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return nn.BatchNorm(use_running_average=not train)(x)


def test_arguments_reach_the_network(draw):
    x = draw(2, 8, 8, 3)
    variables = Train().init(jax.random.key(0), x)
    (found,) = audit(Train(), variables, x, [(1, 1)], arguments={"train": False}, network="mine")
    assert found.network == "mine" and not broken(found)


@pytest.mark.slow
@pytest.mark.usefixtures("unoptimised")
@pytest.mark.parametrize(
    ("name", "shift", "side"),
    [
        ("convnext_aps_micro", (3, 1), 32),
        ("convnext_afc_micro", (0.5, 0.3), 32),
        ("resnet18_afc", (0.5, 0.3), 32),
        ("resnet20_cifar_lps", (1, 2), 16),
    ],
)
def test_exact_networks_have_no_such_layer(name, shift, side, draw):
    module = create_model(name, num_classes=3, depths=(1, 1), widths=(4, 8))
    x = draw(2, side, side, 3)
    variables = jax.jit(module.init)(jax.random.key(1), x)
    (found,) = audit(module, variables, x, [shift])
    layers = {layer.path: layer for layer in found.layers}
    assert not broken(found) and layers[""].after < 1e-12 and "head" in layers


@pytest.mark.parametrize("sides", [(8, 8), (7, 10)])
def test_maps_move_along_as_fractional_shift_moves_them(sides, draw, x64):
    maps, by = draw(3, *sides, 2), np.array([[1, 0], [0.3, -2.5], [11.25, 0.5]])
    ours = moved_along(np.fft.fft2(np.asarray(maps), axes=(1, 2)), by)
    np.testing.assert_allclose(ours, fractional_shift(maps, by), atol=1e-13)  # rounding of sums of 10


def test_where_a_map_may_have_moved():
    assert displacements(1, 8, 8) == pytest.approx([1])  # no grid to choose
    assert sorted(displacements(1, 4, 8)) == pytest.approx([0, 0.5, 1])
    assert displacements(0.5, 16, 8) == pytest.approx([1])
    assert displacements(3, 5, 9) == pytest.approx([5 / 3, 1, 2])


def test_a_map_that_is_too_far_away_is_not_taken_for_aligned(draw, x64):
    still = np.asarray(remove_nyquist(draw(1, 8, 8, 2)))
    spectrum = np.fft.fft2(still, axes=(1, 2))
    for pixels, fits in ((0.5, True), (1.5, True), (2.5, True), (3.5, False), (2, False)):  # of the image
        moved = moved_along(spectrum, np.array([[pixels / 2, 0]]))
        error, aligned = equivariance_error(still, moved, (1.5, 0), (1, 16, 16, 3), 1e-9)
        assert (error < 1e-12) == fits and (not fits or aligned == (pixels != 1.5))


def test_numbers_that_are_not_finite_are_no_agreement():
    still = np.ones((1, 4, 4, 1))
    for bad in (np.nan, np.inf):
        assert equivariance_error(still, still * bad, (1, 0), (1, 4, 4, 1), 1e-9) == (np.inf, False)
        assert equivariance_error(still * bad, still * bad, (1, 0), (1, 4, 4, 1), 1e-9) == (np.inf, False)


def test_the_tolerance_lies_between_rounding_and_aliasing():
    assert 200 * 1e4 * np.finfo(np.float64).eps < tolerance("float64") < 1e-6 * 1e-2
    assert tolerance("float32") == pytest.approx(1.2e-4, rel=0.01)


def test_what_cannot_be_looked_at_is_refused(draw):
    with pytest.raises(ShapeError, match="expected floating-point images"):
        audit(Net(), {}, jnp.zeros((4, 4, 3)))
    images = jnp.zeros((1, 4, 4, 3))

    class Nothing(nn.Module):
        def __call__(self, x):
            return jnp.zeros(3)

    class Fickle(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="wide" if x.dtype == jnp.float64 else "narrow")(x)

    with pytest.raises(ShapeError, match="no layer of the network has an output"):
        audit(Nothing(), {}, images)
    parameters = {name: {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)} for name in ("wide", "narrow")}
    with pytest.raises(AliasFreeError, match="Fickle calls other layers in float64"):
        audit(Fickle(), {"params": parameters}, images)
    for shifts in ((1, 1), [(1, 2, 3)], [(float("nan"), 0)]):
        with pytest.raises(ConfigError, match="shifts are pairs"):
            audit(Net(), {}, images, shifts)
    with pytest.raises(ConfigError, match=r"a shift by \(4, 0\) moves images of \(4, 4\) round"):
        audit(Net(), {}, images, [(4, 0)])


def test_the_guide_has_every_row_that_is_named():
    table = GUIDE.read_text()
    assert [row for row in ROWS if not re.search(rf"^\| {re.escape(row)}", table, re.MULTILINE)] == []


@pytest.mark.parametrize("number", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_guides_snippets_run(number, capsys):
    snippets = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(snippets) == 3
    exec(compile(snippets[number], f"{GUIDE.name}, snippet {number + 1}", "exec"), {"__name__": "guide"})
    if number == 0:
        lines = capsys.readouterr().out.splitlines()
        first = [line for line in lines if line.endswith("breaks, the first")]
        assert len(first) == 2 and first[0].startswith("conv2") and first[1].startswith("(Mine)")


def pooled(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def enlarged(x):
    return x.repeat(2, 1).repeat(2, 2)


class Between(nn.Module):
    """A function called between two layers that break nothing."""

    function: Callable

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (1, 1), name="conv")(x)
        return nn.Conv(3, (1, 1), name="last")(self.function(x))


@pytest.mark.parametrize(
    ("function", "shift", "row"),
    [
        (pooled, (1, 1), "max pool of k by s"),
        (enlarged, (0.5, 0.5), "upsampling by s"),
        (nn.gelu, (0.5, 0), "ReLU, GELU"),
        (lambda x: x * jnp.arange(8)[:, None], (1, 1), "zero padding"),
    ],
)
def test_functions_between_layers_are_told_by_what_they_do(function, shift, row, draw):
    found, _ = report(Between(function), draw, shift)
    assert "look at what it calls after conv and before last" in found.finding
    assert found.finding.endswith(f'row "{row}".')


@pytest.mark.parametrize(
    ("layer", "row"),
    [
        (PolyphaseUpsample(2, BlurPool), "upsampling by s"),
        (MaxBlurPool(2, 2), "max pool of k by s"),
        (BlurPool(2), "a sampler that aliases"),
        (AdaptivePolyphase(2), "a sampler that aliases"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_that_change_the_grid_are_told_by_their_kind(layer, row, draw):
    found, _ = report(nn.Sequential([nn.Conv(4, (1, 1)), layer]), draw, (0.5, 0.5))
    assert found.finding.endswith(f'row "{row}".')


class Normal(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(x)


def test_a_norm_over_channels_is_named(draw):
    assert not broken(report(Normal(), draw, (1, 2))[0])
    found, _ = report(Normal(), draw, (0.5, 0.5))
    assert broken(found) == ["norm"] and found.finding.endswith('row "layer norm over channels".')
