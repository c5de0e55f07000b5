"""Results on disk: where eval.py and train.py leave them, and which are of some very weights."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aliasfree_jax.checkpoint import ModelCard, PyTree, how_chosen, weights_sha256
from aliasfree_jax.config import RAW, RESULTS, SHIFTS_DURING
from aliasfree_jax.errors import CheckpointError, DataError
from aliasfree_jax.evaluation.evaluator import Results
from aliasfree_jax.evaluation.report.pictured import read_results
from aliasfree_jax.files import HUB, elsewhere
from aliasfree_jax.stored_config import CONFIG, read_config, run_directory

OF_TRAINING = "results.json"  # of train.py in a run; in its `best`, of the evaluation that chose it


def results_path(reference: str | Path) -> Path:
    """Where eval.py writes by default; of weights that are downloaded, into the working directory."""
    if elsewhere(reference):
        return Path(re.sub(r"[^\w.-]+", "-", str(reference).removeprefix(HUB)) + ".eval.json")
    checkpoint = Path(reference)
    if run := run_directory(checkpoint):
        return run / "eval.json"
    name = checkpoint.stem if checkpoint.is_file() else checkpoint.name  # of a directory, all: v1.0, v1.1
    return checkpoint.with_name(f"{name}.eval.json")


def stored_results(checkpoint: Path, card: ModelCard, variables: PyTree) -> Results:
    """The results of these very weights: those of eval.py, else those that training left.

    Args:
      checkpoint: where `load_model` found card and variables; the absolute path.

    Raises:
      DataError: there are none; the message has the command that makes them.
    """
    faults = []
    run, choice = run_directory(checkpoint), how_chosen(checkpoint)
    paths = [results_path(checkpoint)]
    if run and not choice:
        paths.append(run / OF_TRAINING)
    for path in filter(Path.exists, paths):
        try:
            results = read_results(path).results
        except DataError as error:
            faults.append(str(error))
            continue
        if not (fault := _of_others(results, card, variables)):
            return dict(results)
        faults.append(f"{path} is of other weights: {fault}.")
    found = _that_chose(checkpoint, run, card) if choice else {}
    if found:
        return found
    raise DataError(
        " ".join([f"no results are stored of the weights in {checkpoint}.", *faults])
        + f" Measure them first: {_command(checkpoint, run)}"
    )


def _command(checkpoint: Path, run: Path | None) -> str:
    what = f"--workdir={run}" if run == checkpoint else f"--checkpoint={checkpoint}"
    line = shlex.join(["python", "eval.py", what, "--integer_shifts", "--fractional_shifts"])
    return line if run else f"{line} --config=configs/....py"


def _of_others(results: Mapping[str, Any], card: ModelCard, variables: PyTree) -> str:
    """Why results are of other weights than these; "" if they are not.

    Files that training wrote, and those of earlier versions, have no "weights": there the card decides.
    """
    try:
        other = ModelCard.from_json(results["card"])
    except (CheckpointError, KeyError, TypeError):
        return "it has no card that can be read"
    if other.step != card.step:
        return f"of step {other.step}, these are of step {card.step}"
    ours, theirs = card.to_json(), other.to_json()
    if differing := [field for field in ours if ours[field] != theirs[field]]:
        return f"their cards differ in {', '.join(differing)}"
    if results.get("weights") not in (None, weights_sha256(variables)):
        return "the card is the same, but not the values"
    return ""


def _that_chose(best: Path, run: Path | None, card: ModelCard) -> Results:
    """Results of the evaluation by which a network became the best of its run, in the form of eval.py's.

    {} if it was one of the user's own, without what ours find.
    """
    kept = json.loads((best / OF_TRAINING).read_bytes())
    prefix = RAW if kept["chosen_by"].startswith(RAW) else ""  # `variables` are those of this result
    metrics, of_shifts = RESULTS[card.task]
    if not {"images", *(f"{prefix}{metric}" for metric in metrics)} <= set(kept):
        return {}
    results: Results = {"images": kept["images"]} | {name: kept[f"{prefix}{name}"] for name in metrics}
    results |= {"chosen_as": how_chosen(best), "images_of": kept["chosen_on"]}
    shifts: int | None = None  # a network that was moved out of its run no longer knows how many
    if run and (run / CONFIG).exists():
        config = read_config(run / CONFIG)
        results |= {"data": config.data.to_dict(), "seed": config.seed}
        shifts = config.eval.shifts
    for kind in SHIFTS_DURING:
        if (name := prefix + of_shifts.format(kind)) in kept:
            pairs = "" if shifts is None else kept["images"] * shifts
            results[kind] = {"pairs": pairs, of_shifts.removeprefix("{}_"): kept[name]}
    return results
