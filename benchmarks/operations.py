"""Compares methods of single operations, forward and with gradient, in one process.

The shapes are those of ConvNeXt-T at 224 pixels. `quick` uses smaller ones. Values are medians in
milliseconds, with one column per method.
"""

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.layers import (
    ActivatedStem,
    Factory,
    IdealDownsample,
    LowpassPolynomial,
    Mlp,
    UpGate,
    UpPolynomial,
)
from aliasfree_jax.layers.activation import Gelu
from aliasfree_jax.layers.batching import Remat
from aliasfree_jax.layers.mlp import hidden_width
from aliasfree_jax.ops import depthwise, resample
from aliasfree_jax.ops.activation import polynomial, up_gate_down, up_polynomial_down
from aliasfree_jax.ops.choices import CHOICES, choices
from benchmarks.timing import in_turn, lowered

Row = dict[str, Any]
Numerics = Mapping[str, Any]  # a value of `config.PRECISIONS`
STAGES = ((56, 96), (28, 192), (14, 384), (7, 768))
QUICK_STAGES = ((14, 24),)
POLYNOMIAL = Factory(UpPolynomial, in_scale=7.0, out_scale=7.0, train_scale=True)
GATE = Factory(UpGate, in_scale=7.0, out_scale=7.0, train_scale=True)


def normal(*shape: int) -> jax.Array:
    """Random maps of this shape."""
    return jax.random.normal(jax.random.key(sum(shape)), shape)


@contextlib.contextmanager
def chosen(**fields: Any) -> Iterator[None]:
    """Replaces entries in the table of automatic choices."""
    with mock.patch.dict(CHOICES, {jax.default_backend(): dataclasses.replace(choices(), **fields)}):
        yield


def table(
    methods: Mapping[str, Callable[..., Any]], arguments: tuple[Any, ...], repetitions: int, **facts: Any
) -> list[Row]:
    """One row for the forward pass and one for the gradient, which includes the forward pass."""
    rows = []
    for gradient in (False, True):
        programs = [lowered(f, *arguments, gradient=gradient) for f in methods.values()]
        with ThreadPoolExecutor() as pool:  # on an accelerator, compiling takes most of the time
            done = pool.map(lambda program: program.compile(), programs)
        calls = {name: functools.partial(f, *arguments) for name, f in zip(methods, done, strict=True)}
        times = in_turn(calls, repetitions)
        rows.append({**facts, "pass": "gradient" if gradient else "forward", **times})
    return rows


def resampling(quick: bool, repetitions: int) -> list[Row]:
    """Interpolation by 2 of 2^22 values (quick: 2^18), by matrices and by FFT, for several sides."""
    rows, values = [], 2**18 if quick else 2**22
    for side in (64,) if quick else (8, 16, 32, 64, 128, 256, 512, 1024):
        channels = min(256, max(1, values // side**2))
        x = normal(max(1, values // (side**2 * channels)), side, side, channels)
        methods = {
            m: functools.partial(resample.ideal_upsample, factor=2, method=m) for m in ("matmul", "fft")
        }
        rows += table(methods, (x,), repetitions, side=side, shape=list(x.shape))
    return rows


def narrow_resampling(quick: bool, repetitions: int) -> list[Row]:
    """Low-pass filter for few channels: one product of a transposed map, or a repeated matrix."""
    rows, side = [], 64 if quick else 224
    for channels in (3,) if quick else (1, 3, 8, 16, 32, 96):
        methods = {}
        for name, least in (("transposed", float("inf")), ("repeated", 0.0)):

            def lowpass(x: jax.Array, least: float = least) -> jax.Array:
                with chosen(repeat_matrix_from=least):
                    return resample.ideal_lowpass(x, 0.75)

            methods[name] = lowpass
        rows += table(methods, (normal(4, side, side, channels),), repetitions, side=side, channels=channels)
    return rows


def on_double_grid(x: jax.Array, coefficients: jax.Array, precision: Any) -> jax.Array:
    """The activation on a grid of twice the side, as in the original, by matrices."""
    fine = resample.ideal_upsample(x, 2, precision=precision)
    y = polynomial(fine, coefficients)
    return resample.ideal_resample(y, (x.shape[1], x.shape[2]), precision=precision)


def activations(quick: bool, batch: int, repetitions: int, numerics: Numerics) -> list[Row]:
    """up-polynomial-down: 3/2 grid and double grid by matrices, and 3/2 grid by FFT."""
    rows = []
    for side, channels in QUICK_STAGES if quick else STAGES:
        maps = normal(batch, side, side, 4 * channels)
        arguments = maps.astype(numerics.get("dtype", maps.dtype)), normal(4 * channels, 3)
        apply = functools.partial(up_polynomial_down, precision=numerics.get("precision"))
        methods: dict[str, Callable[..., jax.Array]] = {
            "3/2 grid": functools.partial(apply, method="matmul"),
            "2N grid": functools.partial(on_double_grid, precision=numerics.get("precision")),
            "3/2 grid, FFT": functools.partial(apply, method="fft"),
        }
        rows += table(methods, arguments, repetitions, side=side, channels=4 * channels)
    return rows


def gates(quick: bool, batch: int, repetitions: int) -> list[Row]:
    """The polynomial of a block's 4 C hidden channels, and the gate of its 8/3 C pairs of channels."""
    rows = []
    for side, channels in QUICK_STAGES if quick else STAGES:
        pairs = hidden_width(channels, UpGate)
        maps = normal(batch, side, side, 4 * channels), *(normal(batch, side, side, pairs) for _ in range(2))
        row: Row = {"side": side, "channels": 4 * channels, "pairs": pairs}
        small = [z[:, :6, :6, :2] for z in maps[1:]]
        row["gate differs by"] = float(
            jnp.abs(up_gate_down(*small, method="matmul") - up_gate_down(*small, method="fft")).max()
        )

        def polynomial_of(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
            return up_polynomial_down(x, jnp.ones(3), method="matmul")

        def gate_of(x: jax.Array, a: jax.Array, b: jax.Array, method: Any = "matmul") -> jax.Array:
            return up_gate_down(a, b, method=method)

        methods = {"polynomial": polynomial_of, "gate": gate_of}
        rows += table(
            methods | {"gate, FFT": functools.partial(gate_of, method="fft")}, maps, repetitions, **row
        )
    return rows


def _applied(layer: Any, which: str = "", **fields: Any) -> Callable[..., Any]:
    def apply(variables: Any, x: jax.Array) -> Any:
        with chosen(**fields):
            return layer.apply(variables[which] if which else variables, x)

    return apply


def mlps(quick: bool, batch: int, repetitions: int, numerics: Numerics) -> list[Row]:
    """The pointwise part of a block: GELU, polynomial and gate, in both orders, whole and in pieces."""
    rows, pieces = [], 2**14 if quick else 24 * 2**20
    for side, channels in QUICK_STAGES if quick else STAGES:
        x = normal(batch, side, side, channels)
        make = functools.partial(Mlp, 4 * channels, activation=POLYNOMIAL, **numerics)
        gated = functools.partial(Mlp, hidden_width(channels, GATE), activation=GATE, **numerics)
        variables = {
            "polynomial": make().init(jax.random.key(0), x),
            "gate": gated().init(jax.random.key(0), x),
        }
        methods = {"GELU": _applied(make(activation=Gelu), "polynomial")}
        for order in ("fine", "coarse"):
            whole = make(grid=order, remat="none")
            methods[order] = _applied(whole, "polynomial", working_set=None)
            methods[f"{order}, pieces"] = _applied(make(grid=order), "polynomial", working_set=pieces)
            methods[f"gate, {order}"] = _applied(gated(grid=order, remat="none"), "gate", working_set=None)
            methods[f"gate, {order}, pieces"] = _applied(gated(grid=order), "gate", working_set=pieces)
        x = x.astype(numerics.get("dtype", x.dtype))
        rows += table(methods, (variables, x), repetitions, side=side, channels=channels)
    return rows


def depthwise_convolutions(quick: bool, batch: int, repetitions: int, numerics: Numerics) -> list[Row]:
    """Circular 7 x 7 depthwise convolution by each method, and XLA's with the gradient that JAX derives."""
    rows, precision = [], numerics.get("precision")
    apply = functools.partial(depthwise.depthwise_conv, precision=precision)
    reference = functools.partial(depthwise.depthwise_conv_ref, precision=precision)
    for side, channels in QUICK_STAGES if quick else STAGES:
        methods = {
            "shifted sum": functools.partial(apply, method="shifted"),
            "XLA convolution": functools.partial(apply, method="conv"),
            "XLA convolution, derived gradient": reference,
        }
        maps, kernel = normal(batch, side, side, channels), normal(7, 7, channels)
        arguments = tuple(z.astype(numerics.get("dtype", z.dtype)) for z in (maps, kernel))
        rows += table(methods, arguments, repetitions, side=side, channels=channels)
    return rows


def _towards_parameters(apply: Callable[..., Any], images: jax.Array, variables: Any) -> Any:
    """Applies a layer without a gradient for the images, as in training."""
    return apply(variables, images)


def stems(quick: bool, batch: int, repetitions: int) -> list[Row]:
    """The alias-free stem: XLA's convolution or a product over patches, for the whole batch or in pieces."""
    side, width = (32, 16) if quick else (224, 96)
    quadratic = Factory(LowpassPolynomial, in_scale=7.0, out_scale=7.0, train_scale=True)
    init = jax.nn.initializers.normal(0.2)
    x = normal(batch, side, side, 3)

    def stem(remat: Remat) -> ActivatedStem:
        shape = (width, 4, 4, IdealDownsample, quadratic)
        return ActivatedStem(*shape, residual=True, kernel_init=init, remat=remat)

    variables = stem("none").init(jax.random.key(0), x)
    methods = {}
    for name, channels in (("convolution", 0), ("patches", 4)):
        for pieces, layer, size in (("whole", stem("none"), None), ("pieces", stem("auto"), 24 * 2**20)):
            apply = _applied(layer, patches_to=channels, working_set=size)
            methods[f"{name}, {pieces}"] = functools.partial(_towards_parameters, apply, x)
    return table(methods, (variables,), repetitions, side=side, width=width)


def measure(quick: bool, batch: int, repetitions: int, precision: str) -> dict[str, list[Row]]:
    """All tables by name. `precision` applies to activation, MLP and depthwise convolution."""
    numerics = PRECISIONS[precision]
    tables: dict[str, Callable[[], list[Row]]] = {
        "activation": lambda: activations(quick, batch, repetitions, numerics),
        "MLP": lambda: mlps(quick, batch, repetitions, numerics),
        "depthwise": lambda: depthwise_convolutions(quick, batch, repetitions, numerics),
        "gate": lambda: gates(quick, batch, repetitions),
        "stem": lambda: stems(quick, batch, repetitions),
        "resampling": lambda: resampling(quick, repetitions),
        "narrow resampling": lambda: narrow_resampling(quick, repetitions),
    }
    measured = {}
    for name, make in tables.items():
        measured[name] = make()
        print(json.dumps({name: measured[name]}), file=sys.stderr, flush=True)
    return measured
