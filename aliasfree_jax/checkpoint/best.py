"""The network of a run that was best in evaluation, in `<run>/best/`, apart from the newest ones."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from aliasfree_jax.checkpoint.card import ModelCard, PyTree
from aliasfree_jax.checkpoint.directory import set_aside
from aliasfree_jax.checkpoint.network import save_model
from aliasfree_jax.errors import CheckpointError
from aliasfree_jax.files import write_json
from aliasfree_jax.processes import barrier, from_first, is_first

RESULTS = "results.json"
CHOSEN_BY, CHOSEN_ON = "chosen_by", "chosen_on"  # in it: the metric, and the images, "validation" or "test"


def _best_value(best: Path, metric: str, images: str) -> float:
    """The value of the network that is kept; minus infinity if none was chosen by this metric and images.

    Raises:
      OSError: it cannot be read now, which says nothing of the network.
    """
    try:
        kept = json.loads((best / RESULTS).read_bytes())
        comparable = (kept[CHOSEN_BY], kept[CHOSEN_ON]) == (metric, images)
        return float(kept[metric]) if comparable else float("-inf")
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return float("-inf")


def how_chosen(checkpoint: Path) -> str:
    """How the network in `<run>/best/` was chosen, in words; "" for any other checkpoint."""
    try:
        kept = json.loads((checkpoint / RESULTS).read_text())
        metric, images = kept[CHOSEN_BY], kept[CHOSEN_ON]
    except (OSError, KeyError, TypeError, ValueError):
        return ""
    warning = ", so results on them are too good" if images == "test" else ""
    return f"the best {metric} of {images} images{warning}"


def _make_way(best: Path, new: Path, old: Path, value: float, metric: str, images: str) -> bool:
    """Whether `value` is better than what is kept; clears what an earlier process left behind, if so."""
    if old.exists() and not best.exists():  # it died between the two renamings of `keep_best`
        old.rename(best)
    if not value > _best_value(best, metric, images):  # nor where it is not a number
        return False
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    return True


def set_best_aside(run: Path) -> list[str]:
    """Renames the best network of an earlier run that left no checkpoint: nothing says what run that was.

    To be called where a run begins; returns what to tell.
    """
    best = run / "best"
    return [f"{best} is of an earlier run; it is now {set_aside(best, 'earlier')}"] if best.exists() else []


def keep_best(
    run: str | Path,
    card: ModelCard,
    variables: PyTree,
    results: Mapping[str, float],
    metric: str,
    images: str,
) -> bool:
    """Writes the network to `<run>/best/` if none there has as large a `metric`; tells whether it did.

    Its `results.json` says by which metric and on what `images`: one chosen otherwise gives way.
    `load_model(run / "best")` reads it. The one before stays until the new one is whole on disk, also if
    the process dies in between. Of several processes the first decides and renames, all write.

    Raises:
      CheckpointError: it cannot be written, or the one before not be read.
    """
    best, new, old = (Path(run).absolute() / name for name in ("best", "best.new", "best.old"))
    try:
        better = is_first() and _make_way(best, new, old, results[metric], metric, images)
        if not from_first(better):
            return False
        save_model(new, card, variables)
        if is_first():
            write_json(new / RESULTS, {**results, CHOSEN_BY: metric, CHOSEN_ON: images}, indent=None)
            if best.exists():
                best.rename(old)
            new.rename(best)
            shutil.rmtree(old, ignore_errors=True)
        barrier("best network kept")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot keep the best network in {best}: {error}") from error
    return True
