"""Checks that the README's first command reached the results that the README states."""

import json
import statistics
import sys
from pathlib import Path

LEAST_ACCURACY = 0.97
MOST_WAITING = 0.05  # largest median share of the time in which training waits for data
LARGEST_CHANGE = 1e-4  # largest relative change of the logits: float32 rounding causes about 1e-6


def faults(results: dict, metrics: list[dict]) -> list[str]:
    """Lists the results and training metrics that are too bad."""
    found = []
    waiting = statistics.median(line["data_wait"] for line in metrics if "data_wait" in line)
    if waiting > MOST_WAITING:
        found.append(f"training waited for data {waiting:.1%} of its time, more than {MOST_WAITING:.0%}")
    if results["accuracy"] < LEAST_ACCURACY:
        found.append(f"accuracy {results['accuracy']:.4f} is below {LEAST_ACCURACY}")
    for kind in ("integer", "fractional"):
        row = results[kind]
        if row["consistency"] != 1.0:
            found.append(f"{kind} consistency is {row['consistency']:.5f}, not 1")
        if row["logit_change"]["max"] > LARGEST_CHANGE:
            found.append(f"logits change by {row['logit_change']['max']:.1e} under {kind} shifts")
    return found


if __name__ == "__main__":
    newest = max(Path("runs").glob("*/results.json"), key=lambda path: path.stat().st_mtime)
    lines = newest.with_name("metrics.jsonl").read_text().splitlines()
    problems = faults(json.loads(newest.read_text()), [json.loads(line) for line in lines])
    print(f"{newest}: {'; '.join(problems) or 'the results agree with the README'}")
    sys.exit(bool(problems))
