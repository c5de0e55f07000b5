"""Operations that keep their names in the program."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.ops import polyphase, resample, shift
from aliasfree_jax.ops.choices import CHOICES
from aliasfree_jax.ops.operation import operation, read, spell


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("select_component", {}),
        ("ideal_resample", {"passed": (3, 4), "zero_offset": (1, 0)}),
        ("x", {"y": (12,)}),
    ],
)
def test_what_is_spelled_is_read(name, numbers):
    assert spell(name, **numbers).isidentifier()
    assert read(spell(name, **numbers)) == (name, numbers)


@pytest.mark.parametrize(
    "name",
    [
        "silu",
        "",
        "aliasfree_jax",
        "aliasfree_jax_x",
        "ours__x__y_1",
        "aliasfree_jax__x__passed",
        "aliasfree_jax__x__1",
    ],
)
def test_names_of_others_are_not_read(name):
    assert read(name) is None


def operations(program) -> list[tuple[str, dict[str, tuple[int, ...]]]]:
    """Returns the operations that `read` finds among the `jit` equations of a jaxpr."""
    found = [read(e.params["name"]) for e in program.eqns if e.primitive.name in ("jit", "pjit")]
    return [each for each in found if each is not None]


HALF = {"passed": (1, 1), "zero_offset": (1, 1)}  # low-pass filter of 8 samples at half the Nyquist frequency
PHASES = jnp.zeros((1,), int)


@pytest.mark.parametrize("transformed", [lambda f: f, jax.vmap, jax.jit, jax.checkpoint])
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (polyphase.polyphase_components, [("polyphase_components", {})]),
        (
            lambda x: polyphase.polyphase_downsample(x)[0],
            [("polyphase_components", {}), ("select_component", {})],
        ),
        (lambda x: polyphase.polyphase_upsample(x, PHASES), [("polyphase_upsample", {})]),
        (functools.partial(resample.ideal_lowpass, cutoff=0.5), [("ideal_resample", HALF)]),
        (functools.partial(resample.ideal_lowpass, cutoff=0.5, method="fft"), [("ideal_resample", HALF)]),
        (resample.ideal_upsample, [("ideal_resample", {"passed": (4, 4), "zero_offset": (1, 1)})]),
        (
            functools.partial(resample.ideal_resample, shape=(5, 6)),
            [("ideal_resample", {"passed": (2, 2), "zero_offset": (1, 1)})],
        ),
        (
            functools.partial(shift.fractional_shift, shift=(0.0, 1.5)),
            [("ideal_resample", {"passed": (4, 4), "zero_offset": (1, 0)})],
        ),
        (
            functools.partial(resample.ideal_strided_taps, strides=(2, 4), taps=(3, 1), any_size=True),
            [("ideal_strided_taps", {"passed": (1, 0), "taps": (3, 1), "strides": (2, 4), "any_size": (1,)})],
        ),
    ],
)
def test_each_operation_stands_in_the_program(function, expected, transformed, draw):
    x = draw(1, 8, 8, 2)
    if transformed is jax.vmap:
        x = x[None]
    program = jax.make_jaxpr(transformed(function))(x).jaxpr
    if transformed in (jax.jit, jax.checkpoint):
        (equation,) = program.eqns
        program = getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])
    assert operations(program) == expected


def test_the_numbers_tell_which_frequencies_pass(draw):
    """In a map of 12 rows, the stated highest frequency passes and the next one does not."""
    filtered = functools.partial(resample.ideal_lowpass, cutoff=0.5)
    ((_, numbers),) = operations(jax.make_jaxpr(filtered)(draw(1, 12, 8, 1)).jaxpr)
    (highest, _) = numbers["passed"]
    for frequency, passes in ((highest, True), (highest + 1, False)):
        wave = jnp.cos(2 * jnp.pi * frequency * jnp.arange(12) / 12)
        x = jnp.broadcast_to(wave[None, :, None, None], (1, 12, 8, 1))
        # float32 rounding at amplitude 1.
        np.testing.assert_allclose(filtered(x), x if passes else jnp.zeros_like(x), atol=1e-6)


def test_the_choices_of_the_backend_are_read_anew(draw, monkeypatch):
    x = draw(1, 8, 8, 64)

    def multiplied_transposed() -> bool:
        return "transpose" in str(jax.make_jaxpr(functools.partial(resample.ideal_resample, shape=(4, 4)))(x))

    before = multiplied_transposed()
    monkeypatch.setitem(
        CHOICES,
        "cpu",
        dataclasses.replace(CHOICES["cpu"], repeat_matrix_from=0.0 if before else float("inf")),
    )
    assert multiplied_transposed() != before


def test_another_matrix_is_not_traced_again(draw, monkeypatch):
    traced = []

    def counted(*arguments, **options):
        traced.append(arguments)
        return apply_matrices(*arguments, **options)

    apply_matrices = resample.apply_matrices
    monkeypatch.setattr(resample, "apply_matrices", counted)
    for offset in (0.25, 0.3, 1.7):
        shift.fractional_shift(draw(1, 8, 8, 2), (0.5, offset))
    assert len(traced) == 1


def test_gradients_and_half_precision_pass_through(draw):
    x = draw(2, 4, 4, 3)
    name = spell("doubled")
    doubled = functools.partial(operation, name, _scaled, factor=2.0)
    np.testing.assert_array_equal(jax.grad(lambda x: doubled(x).sum())(x), jnp.full_like(x, 2.0))
    assert doubled(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def _scaled(x: jax.Array, *, factor: float) -> jax.Array:
    return x * factor
