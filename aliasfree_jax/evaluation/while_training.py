"""What is measured again and again while a network trains: accuracy, and consistency where asked for."""

from collections.abc import Callable, Iterable

from ml_collections import ConfigDict

from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.evaluation.evaluator import Batch, evaluate
from aliasfree_jax.evaluation.selection import random_shifts
from aliasfree_jax.evaluation.trial import Predict


def evaluation_while_training(config: ConfigDict) -> Callable[[Predict, Iterable[Batch]], dict[str, float]]:
    """The function (predict, batches) -> results that `training.loop.run` takes as `evaluate`.

    The results are flat: "images", "accuracy", and "<kind>_consistency" for each kind in `eval.during`, with
    `eval.shifts` random shifts an image, the same ones every time.

    Raises:
      ConfigError: the configuration's own fault.
    """
    kinds = tuple(config.eval.during)
    side = Preprocessing.from_config(config.data).input_size
    measurements = [random_shifts(kind, config, side) for kind in kinds]

    def results(predict: Predict, batches: Iterable[Batch]) -> dict[str, float]:
        found = evaluate(predict, batches, measurements)
        flat = {f"{kind}_consistency": found[kind]["consistency"] for kind in kinds}
        return {"images": found["images"], "accuracy": found["accuracy"]} | flat

    return results
