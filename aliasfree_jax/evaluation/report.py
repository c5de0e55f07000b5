"""The shift report of a network: a JSON-able dictionary, and the same as a table for a terminal.

Used by train.py after training and by eval.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

import jax
from flax import linen as nn
from tqdm import tqdm

from aliasfree_jax.evaluation.consistency import Batch, evaluate
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh, replicate
from aliasfree_jax.training.step import make_predict

Results = dict[str, Any]


def predictor(module: nn.Module, variables: Mapping[str, Any]) -> Callable[[Any], jax.Array]:
    """The compiled function images [B, H, W, C] -> logits [B, K] of a network, on all devices.

    Each computes its part of images that are divided over them, and the whole of others.
    """
    mesh = make_mesh()
    predict, weights = make_predict(module, mesh), replicate(variables, mesh)
    return lambda images: predict(weights, images)


def shift_report(
    module: nn.Module,
    variables: Mapping[str, Any],
    batches: Callable[[], Iterable[Batch]] | Iterable[Batch],
    *,
    integer: bool,
    fractional: bool,
    shifts: int,
    max_shift: int,
    seed: int,
    progress: bool = True,
    batch_count: int | None = None,
) -> Results:
    """Measures accuracy and shift consistency of a network, see `consistency.evaluate`.

    Args:
      module: takes `module.apply(variables, images, train=False)`.
      variables: parameters and statistics.
      batches: the batches, or a function that starts them; read once. With several processes, each
        gives its share of every batch, and all get the same results.
      integer: measure whole-pixel shifts.
      fractional: measure fractional shifts.
      shifts: draws an image and kind.
      max_shift: pixels; reduced to the image's side less one, where each kind of the result says so.
      seed: of the draws.
      progress: show a progress bar on stderr.
      batch_count: for the progress bar, where `batches` has no length.

    Returns:
      The results of `evaluate` and {"settings": {"shifts", "max_shift" as asked for, "seed"}}.
    """
    started = batches() if callable(batches) else batches
    if batch_count is None and isinstance(started, Sized):
        batch_count = len(started)
    hidden = not (progress and is_first())
    bar = tqdm(started, total=batch_count, desc="evaluating", unit=" batches", disable=hidden)
    results = evaluate(
        predictor(module, variables),
        evaluated_batches(bar, make_mesh()),
        integer=integer,
        fractional=fractional,
        shifts=shifts,
        max_shift=max_shift,
        seed=seed,
    )
    return results | {"settings": {"shifts": shifts, "max_shift": max_shift, "seed": seed}}


COLUMNS = ("circular shifts", "pairs", "consistency", "accuracy", "worst case")
GRID_NAMES = {"1/2": "halves of a pixel", "1/3": "thirds", "1/4": "quarters", "real": "real numbers"}
CHANGES = ("mean dp", "max dp", "mean dz", "max dz")
NOTE = (
    "consistency: share of (image, shift) pairs whose class is that of the unshifted image.\n"
    "accuracy: of the shifted images. worst case: right unshifted and under all shifts of the row.\n"
    "dp: change of the predicted class's probability. dz: max |z(shifted) - z| / max |z| of the logits z."
)


def _percent(share: float) -> str:
    """Two decimals; 100.00% only where there is no exception at all."""
    return f"{share if share == 1 else min(share, 0.9999):.2%}"


def _row(name: str, result: Mapping[str, Any]) -> list[str]:
    worst = result.get("worst_case_accuracy")
    changes = [
        result[kind][which] for kind in ("probability_change", "logit_change") for which in ("mean", "max")
    ]
    return [
        name,
        f"{result['pairs']}",
        _percent(result["consistency"]),
        _percent(result["accuracy"]),
        "" if worst is None else _percent(worst),
        *(f"{change:.1e}" for change in changes),
    ]


def _align(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])] + [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def format_table(results: Mapping[str, Any]) -> str:
    """The results of `shift_report` as plain text with aligned columns, without a final newline."""
    text = [f"{results['images']} images, accuracy {_percent(results['accuracy'])}"]
    rows = []
    for kind in ("integer", "fractional"):
        if kind in results:
            rows.append(_row(kind, results[kind]))
            rows += [
                _row(f"  {GRID_NAMES[grid]}", part) for grid, part in results[kind].get("grids", {}).items()
            ]
    if not rows:
        return text[0]
    settings = results["settings"]
    asked = settings["max_shift"]
    used = min(results[kind]["max_shift"] for kind in ("integer", "fractional") if kind in results)
    reduced = "" if used == asked else f" (not {asked}: the shorter side is {used + 1} pixels)"
    text.append(
        f"{settings['shifts']} random shifts an image, each axis up to {used} whole pixels{reduced}, "
        f"seed {settings['seed']}"
    )
    return "\n".join([*text, "", _align([[*COLUMNS, *CHANGES], *rows]), "", NOTE])
