"""Writes a trained network, its description and its measured results into a directory for a model hub.

python eval.py --workdir=runs/mine --integer_shifts --fractional_shifts
python -m aliasfree_jax publish runs/mine published/mine --license=apache-2.0
hf upload OWNER/NAME published/mine

RUN is a run (its newest checkpoint), its best, a step or a converted directory. The results are those that
eval.py, or else training, left of these very weights. `aliasfree_jax.load_pretrained` reads the directory,
here and from the hub, with the same bits.
"""

from absl import flags

from aliasfree_jax.conversion.publishing import publish
from aliasfree_jax.errors import ConfigError


def define(values: flags.FlagValues) -> None:
    """The command's flag."""
    flags.DEFINE_string(
        "license",
        "",
        "for the page, as the hub calls it, e.g. apache-2.0; none if left out",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    if len(arguments) != 2:
        raise ConfigError(f"expected RUN and DIRECTORY, the one to write, got {arguments}.")
    run, directory = arguments
    written = publish(run, directory, values.license)
    print(f"published      {', '.join(sorted(path.name for path in written.iterdir()))} in {written}")
    print(
        "before upload  read README.md: it has the command of the measurement, the origin of the weights and "
        "the machine"
    )
    print(f"upload         hf upload OWNER/NAME {written}")
