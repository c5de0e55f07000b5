"""What is asked of the outputs of a network, by its task."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation.comparison import CompareLogits, Comparison
from aliasfree_jax.evaluation.image_pairs import CompareImages
from aliasfree_jax.evaluation.pixel_classes import CompareClasses


def comparison(config: ConfigDict, class_names: Sequence[str] = ()) -> Comparison:
    """The comparison for `config.task`, for `evaluator.evaluate` and `shift_report`.

    Args:
      config: the whole configuration; images of regression are measured without the normalisation in data.
      class_names: of the pixels' classes, for the results by class; by default their numbers.

    Raises:
      ConfigError: an unknown task.
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
