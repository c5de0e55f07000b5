"""Stored results: one JSON file per run, experiments/results/<protocol>/<run>.json.

A result is valid if its settings equal those of the run. Otherwise it is stale. The code may have changed
since: results name their commit. To repeat a run, delete its file. Interrupted trainings are resumed only
with unchanged code.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aliasfree_jax
from aliasfree_jax.errors import DataError
from aliasfree_jax.files import write_json
from aliasfree_jax.stored_config import defaults, differences
from experiments.matrix import Run
from experiments.protocols import Protocol, configuration

ROOT = Path(__file__).parent.parent
PACKAGE = Path(aliasfree_jax.__file__).parent
DIGITS = 6  # significant digits of numbers in files

TRAINED_BY = ("ops", "layers", "models", "data", "training")  # the packages that decide a training

Stored = dict[str, Any]


def training_code() -> str:
    """A hash of the source code that decides a training."""
    files = [path for part in TRAINED_BY for path in sorted((PACKAGE / part).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def settings(protocol: Protocol, run: Run) -> dict[str, Any]:
    """All settings that decide the results: configuration and measurements, without the path of the data."""
    config = configuration(protocol, run).to_dict()
    found = {"config": config, "measuring": asdict(protocol.measuring)}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def rounded(value: Any) -> Any:
    """Rounds numbers to `DIGITS` digits. Only exact 1 becomes 1, so that 100 % means no exception."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return value if short == 1 else short


def write_missing(path: Path, perform: Callable[[], Mapping[str, Any]]) -> None:
    """Writes the result of `perform`, rounded, to a JSON file, unless the file exists."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, rounded(dict(perform())), indent=1)
        print(f"wrote {path}", flush=True)


@dataclass(frozen=True)
class Store:
    """The files of a protocol's results and trainings.

    Attributes:
      protocol: The protocol.
      results: Directory of the results of all protocols.
      trainings: Directory of the trainings of all protocols, which are kept to be resumed.
      code: Hash of the code. See `training_code`.
    """

    protocol: Protocol
    results: Path = ROOT / "experiments" / "results"
    trainings: Path = ROOT / "runs" / "experiments"
    code: str = field(default_factory=training_code)

    def path(self, run: Run) -> Path:
        """The file of a run's results."""
        return self.results / self.protocol.name / f"{run.name}.json"

    def workdir(self, run: Run) -> Path:
        """The directory of a run's training. It depends on the configuration and the code."""
        text = self.code + json.dumps(settings(self.protocol, run)["config"], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.trainings / self.protocol.name / run.name / digest

    def read(self, run: Run) -> Stored | None:
        """The stored result of a run, whatever its settings. None if there is none.

        Raises:
          DataError: The file is unreadable, or belongs to another run or protocol.
        """
        path = self.path(run)
        if not path.exists():
            return None
        try:
            stored: Stored = json.loads(path.read_text())
            found = stored["protocol"], stored["run"]
            if not {"config", "measuring"} <= stored["settings"].keys():
                raise KeyError("settings")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} has no results of a run ({error!r}). Delete it.") from error
        if found != (self.protocol.name, run.name):
            raise DataError(
                f"{path} has the results of {'/'.join(found)}. Do not rename or move result files."
            )
        return stored

    def why_stale(self, run: Run, stored: Stored) -> list[str]:
        """The settings that differ between stored results and the run. Empty if the results are valid.

        For example "config.train.batch_size: 50, not 64". A configuration field that is missing on one side
        has its default there, so results stay valid when fields are added or removed.
        """
        of_result = {**stored["settings"], "config": {**stored["settings"]["config"]}}
        # The path of the data is not a setting.
        of_result["config"]["data"] = {**of_result["config"].get("data", {}), "path": ""}
        found = differences(of_result, settings(self.protocol, run), {"config": defaults()})
        return [f"{name}: {one}, not {other}" for name, (one, other) in found.items()]

    def done(self, run: Run) -> Stored | None:
        """The valid results of a run. None if there are none."""
        stored = self.read(run)
        return None if stored is None or self.why_stale(run, stored) else stored

    def write(self, run: Run, stored: Stored) -> Path:
        """Writes the results of a run atomically. Numbers are rounded, except in the settings."""
        path = self.path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**rounded(stored), "settings": stored["settings"]}, indent=1)
        return path
