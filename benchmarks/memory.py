"""Memory of the gradient for each `remat` option, and the time that recomputation costs.

There are two figures. The first is the memory kept between forward and backward pass with an undivided batch.
It is equal on all backends. The second is the temporary memory of the compiled gradient with this backend's
choices.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, get_args

import flax.linen as nn
import jax

from aliasfree_jax import create_model
from aliasfree_jax.layers import DepthwiseConv, Factory, Mlp, SpatialNorm
from aliasfree_jax.layers.batching import Remat
from aliasfree_jax.models.convnext import Block
from benchmarks.operations import POLYNOMIAL, chosen
from benchmarks.timing import compiled, in_turn

Row = dict[str, Any]
FAMILIES = {"plain": "convnext", "alias-free": "convnext_afc", "gated": "convnext_afg"}


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def measure(quick: bool, batch: int, repetitions: int) -> list[Row]:
    """One row per network and `remat` option. `quick`: "auto" only, shallow networks, nothing compiled."""
    images = jax.random.normal(jax.random.key(0), (batch, 224, 224, 3))
    rows: list[Row] = []
    calls: dict[str, Callable[[], Any]] = {}
    for label, family in FAMILIES.items():
        for remat in ("auto",) if quick else get_args(Remat):
            depths = {"depths": (1, 1, 1, 1)} if quick else {}
            network = create_model(f"{family}_tiny", remat=remat, **depths)
            shapes = jax.eval_shape(lambda n=network: n.init(jax.random.key(1), images[:1]))

            def whole(v: Any, n: Any = network) -> jax.Array:
                with chosen(working_set=None, patches_to=0, repeat_matrix_from=float("inf")):
                    return n.apply(v, images)

            kept = jax.eval_shape(lambda v, f=whole: jax.vjp(f, v)[1], shapes)
            row: Row = {"network": label, "remat": remat}
            row["kept_mib_per_image"] = round((_bytes(kept) - _bytes(shapes)) / batch / 2**20, 1)
            rows.append(row)
            if quick:
                continue
            variables = jax.jit(lambda n=network: n.init(jax.random.key(1), images[:1]))()
            call, program = compiled(lambda v, n=network: n.apply(v, images), variables, gradient=True)
            calls[f"{label} {remat}"] = call
            temporary = program.memory_analysis().temp_size_in_bytes
            row["temporary_mib_per_image"] = round(temporary / batch / 2**20, 1)
    times = in_turn(calls, repetitions)
    for row in rows if times else []:
        row["gradient_ms"] = times[f"{row['network']} {row['remat']}"]
    return rows


def scanned(quick: bool, batch: int, repetitions: int) -> list[Row]:
    """Compares the third stage's nine blocks, one by one, with a scan over stacked parameters."""
    depth, side, width = (2, 7, 24) if quick else (9, 14, 384)
    init = nn.initializers.normal(0.02)
    depthwise = Factory(DepthwiseConv, kernel_init=init)
    mlp = Factory(Mlp, hidden=4 * width, activation=POLYNOMIAL, kernel_init=init)
    make = functools.partial(Block, depthwise, SpatialNorm, mlp, 0.0, 0.1)
    x = jax.random.normal(jax.random.key(0), (batch, side, side, width))

    class Unrolled(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for _ in range(depth):
                x = make()(x, False)
            return x

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            loop = nn.scan(
                lambda block, carry, _: (block(carry, False), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=depth,
            )
            return loop(make(), x, None)[0]

    rows = []
    for gradient in (False, True):
        calls: dict[str, Callable[[], Any]] = {}
        row: Row = {"pass": "gradient" if gradient else "forward", "blocks": depth}
        for name, stage in (("one by one", Unrolled()), ("scan", Scanned())):
            variables = stage.init(jax.random.key(1), x)
            start = time.perf_counter()
            calls[name], _ = compiled(stage.apply, variables, x, gradient=gradient)
            row[f"{name}: compile s"] = round(time.perf_counter() - start, 2)
        times = in_turn(calls, repetitions)
        rows.append({**row, **{f"{name}: ms": value for name, value in times.items()}})
    return rows
