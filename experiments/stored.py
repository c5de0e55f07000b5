"""Results as files: one JSON a run, experiments/results/<protocol>/<run>.json.

A result belongs to a run as long as it was made with the run's settings; otherwise it is stale. The code may
have changed since: results say of which commit they are, and one whose file is deleted is made again.
Trainings go on only with the code that they began with.
"""

import hashlib
import json
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
DIGITS = 6  # of numbers in files

TRAINED_BY = ("ops", "layers", "models", "data", "training")  # parts of the package

Stored = dict[str, Any]


def training_code() -> str:
    """A fingerprint of the source that decides a training."""
    files = [path for part in TRAINED_BY for path in sorted((PACKAGE / part).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def settings(protocol: Protocol, run: Run) -> dict[str, Any]:
    """All that decides the results, as JSON has it: configuration and measurements; not where the data is."""
    config = configuration(protocol, run).to_dict()
    found = {"config": config, "measuring": asdict(protocol.measuring)}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def rounded(value: Any) -> Any:
    """JSON with numbers of `DIGITS` digits; only what was 1 becomes 1, so that 100 % is without exception."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return value if short == 1 else short


@dataclass(frozen=True)
class Store:
    """Where a protocol's results and trainings are.

    Attributes:
      results: directory of the results of all protocols.
      trainings: likewise of trainings, which are kept to go on with them.
      code: see `training_code`.
    """

    protocol: Protocol
    results: Path = ROOT / "experiments" / "results"
    trainings: Path = ROOT / "runs" / "experiments"
    code: str = field(default_factory=training_code)

    def path(self, run: Run) -> Path:
        """The file of a run's results."""
        return self.results / self.protocol.name / f"{run.name}.json"

    def workdir(self, run: Run) -> Path:
        """The directory of a run's training, another one for another configuration or other code."""
        text = self.code + json.dumps(settings(self.protocol, run)["config"], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.trainings / self.protocol.name / run.name / digest

    def read(self, run: Run) -> Stored | None:
        """What is stored for a run, of whatever settings; None if nothing.

        Raises:
          DataError: an unreadable file, or one of another run or protocol.
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
            raise DataError(f"{path} has no results of a run ({error!r}): delete it.") from error
        if found != (self.protocol.name, run.name):
            raise DataError(f"{path} has the results of {'/'.join(found)}: it must not be renamed or moved.")
        return stored

    def why_stale(self, run: Run, stored: Stored) -> list[str]:
        """The settings in which stored results are not those of the run; none if they are.

        For example "config.train.batch_size: 50, not 64". A field of the configuration that one side lacks
        has its default: results stay valid when fields are added or removed.
        """
        of_result = {**stored["settings"], "config": {**stored["settings"]["config"]}}
        # Where the data was is no setting.
        of_result["config"]["data"] = {**of_result["config"].get("data", {}), "path": ""}
        found = differences(of_result, settings(self.protocol, run), {"config": defaults()})
        return [f"{name}: {one}, not {other}" for name, (one, other) in found.items()]

    def done(self, run: Run) -> Stored | None:
        """The results of a run, None if there are none or stale ones."""
        stored = self.read(run)
        return None if stored is None or self.why_stale(run, stored) else stored

    def write(self, run: Run, stored: Stored) -> Path:
        """Writes the results of a run, numbers shortened but for the settings; at any moment a whole file."""
        path = self.path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**rounded(stored), "settings": stored["settings"]}, indent=1)
        return path
