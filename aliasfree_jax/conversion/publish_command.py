"""Writes a trained network, its description and its measured results into a directory for a model hub.

python eval.py --workdir=runs/mine --integer_shifts --fractional_shifts
python -m aliasfree_jax publish runs/mine published/mine --license=apache-2.0
hf upload OWNER/NAME published/mine

RUN is a run (its newest checkpoint is published), its best network, a step or a converted directory. The
results must belong to exactly these weights: those of eval.py, or else those of training.
`aliasfree_jax.load_pretrained` reads the directory, locally or from the hub, with the same bits.
"""

from absl import flags

from aliasfree_jax.conversion.publishing import publish
from aliasfree_jax.errors import ConfigError


def define(values: flags.FlagValues) -> None:
    """Defines the command's flag."""
    flags.DEFINE_string(
        "license",
        "",
        "license on the hub's page, by the hub's name, e.g. apache-2.0 (default: none)",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    if len(arguments) != 2:
        raise ConfigError(f"expected two arguments, RUN and the new DIRECTORY, got {arguments}.")
    run, directory = arguments
    written = publish(run, directory, values.license)
    print(f"published      {', '.join(sorted(path.name for path in written.iterdir()))} in {written}")
    print(
        "before upload  read README.md: it shows the measurement, the origin of the weights and the machine"
    )
    print(f"upload         hf upload OWNER/NAME {written}")
