"""Stored results: their paths, and the results that belong to given weights."""

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

# In a run: the results of train.py. In its directory `best`: those of the evaluation that chose the network.
OF_TRAINING = "results.json"


def results_path(reference: str | Path) -> Path:
    """Default output file of eval.py. For downloaded weights it is in the working directory."""
    if elsewhere(reference):
        return Path(re.sub(r"[^\w.-]+", "-", str(reference).removeprefix(HUB)) + ".eval.json")
    checkpoint = Path(reference)
    if run := run_directory(checkpoint):
        return run / "eval.json"
    # The names of directories are kept whole, e.g. v1.0 and v1.1.
    name = checkpoint.stem if checkpoint.is_file() else checkpoint.name
    return checkpoint.with_name(f"{name}.eval.json")


def stored_results(checkpoint: Path, card: ModelCard, variables: PyTree) -> Results:
    """Finds the stored results of given weights: those of eval.py, else those of training.

    Args:
      checkpoint: Absolute path from which `load_model` read the card and the variables.
      card: The network's card.
      variables: The weights.

    Returns:
      The results.

    Raises:
      DataError: There are no results. The message contains the command that measures them.
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
        faults.append(f"{path} belongs to other weights: {fault}.")
    found = _that_chose(checkpoint, run, card) if choice else {}
    if found:
        return found
    raise DataError(
        " ".join([f"there are no stored results for the weights in {checkpoint}.", *faults])
        + f" Measure them first: {_command(checkpoint, run)}"
    )


def _command(checkpoint: Path, run: Path | None) -> str:
    what = f"--workdir={run}" if run == checkpoint else f"--checkpoint={checkpoint}"
    line = shlex.join(["python", "eval.py", what, "--integer_shifts", "--fractional_shifts"])
    return line if run else f"{line} --config=configs/....py"


def _of_others(results: Mapping[str, Any], card: ModelCard, variables: PyTree) -> str:
    """Explains why results belong to other weights; "" if they belong to these.

    Files written by training or by earlier versions have no "weights". For them only the card is compared.
    """
    try:
        other = ModelCard.from_json(results["card"])
    except (CheckpointError, KeyError, TypeError):
        return "its card is missing or unreadable"
    if other.step != card.step:
        return f"its step is {other.step}, but these weights are from step {card.step}"
    ours, theirs = card.to_json(), other.to_json()
    if differing := [field for field in ours if ours[field] != theirs[field]]:
        return f"the cards differ in {', '.join(differing)}"
    if results.get("weights") not in (None, weights_sha256(variables)):
        return "the cards are equal, but the values differ"
    return ""


def _that_chose(best: Path, run: Path | None, card: ModelCard) -> Results:
    """Results of the evaluation that chose a run's best network, in the format of eval.py.

    {} if the user's own evaluation function chose it, and the usual results are missing.
    """
    kept = json.loads((best / OF_TRAINING).read_bytes())
    prefix = RAW if kept["chosen_by"].startswith(RAW) else ""  # the stored variables belong to this result
    metrics, of_shifts = RESULTS[card.task]
    if not {"images", *(f"{prefix}{metric}" for metric in metrics)} <= set(kept):
        return {}
    results: Results = {"images": kept["images"]} | {name: kept[f"{prefix}{name}"] for name in metrics}
    results |= {"chosen_as": how_chosen(best), "images_of": kept["chosen_on"]}
    shifts: int | None = None  # unknown if the network was moved out of its run
    if run and (run / CONFIG).exists():
        config = read_config(run / CONFIG)
        results |= {"data": config.data.to_dict(), "seed": config.seed}
        shifts = config.eval.shifts
    for kind in SHIFTS_DURING:
        if (name := prefix + of_shifts.format(kind)) in kept:
            pairs = "" if shifts is None else kept["images"] * shifts
            results[kind] = {"pairs": pairs, of_shifts.removeprefix("{}_"): kept[name]}
    return results
