"""The comparison of outputs for each task."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation.comparison import CompareLogits, Comparison
from aliasfree_jax.evaluation.image_pairs import CompareImages
from aliasfree_jax.evaluation.pixel_classes import CompareClasses


def comparison(config: ConfigDict, class_names: Sequence[str] = ()) -> Comparison:
    """Returns the comparison for `config.task`, for `evaluator.evaluate` and `shift_report`.

    Args:
      config: The whole configuration. For regression, its normalisation in data is undone before measuring.
      class_names: Names of the pixels' classes, for results by class; default: their numbers.

    Raises:
      ConfigError: The task is unknown.
    """
    data, names = config.data, tuple(class_names)
    of_task = {
        "classification": CompareLogits,
        "segmentation": lambda: CompareClasses(names),
        "regression": lambda: CompareImages(data.mean, data.std),
    }
    if config.task not in of_task:
        raise ConfigError(unknown("task", config.task, of_task))
    return of_task[config.task]()
