"""Reads prepared TensorFlow Datasets without TensorFlow.

Only data sets stored as array_record have random access. Most data sets need TensorFlow once, to be prepared.
Reading them never needs it.
"""

import dataclasses
import re
from types import ModuleType
from typing import Any

from aliasfree_jax.data.masks import decode_mask, mask_of
from aliasfree_jax.data.segmentation_sets import CITYSCAPES_CLASSES, trained_numbers
from aliasfree_jax.data.sources import IGNORED, Example, channel_names, split_of
from aliasfree_jax.errors import DataError, needed

LEFT = "image_left"  # the image feature of Cityscapes
MASKS = ("segmentation_mask", "segmentation_label", "label")


class TfdsSource:
    """One split of a data set of images, as encoded image files.

    The image is the feature `image` (for Cityscapes `image_left`). For classification the label is the
    feature `label`. For segmentation it is a mask: `segmentation_mask`, `segmentation_label`, or a `label`
    that is an image. The classes of a mask come from its LabeledImage feature. Without one, they are numbers
    up to the largest number in the training split, which is then read completely.

    Args:
      name: of the data set, e.g. "imagenet2012", "cifar10", "name/config:version".
      split: e.g. "train", or with TFDS syntax "train[:50%]". "val" is read from `validation` or `test` if the
        data set has no `val`.
      data_dir: directory of the prepared data; "" is TFDS's default, ~/tensorflow_datasets.
      task: "classification"; "segmentation" for masks; "regression" for images that are their own targets.

    Raises:
      DataError: the data set is not prepared, not stored as array_record, or lacks the split or features.
      MissingPackageError: tensorflow_datasets is missing.
    """

    def __init__(self, name: str, split: str, data_dir: str = "", task: str = "classification"):
        tfds = needed("tensorflow_datasets", "data.source = 'tfds'")  # slow to import
        builder = _open_builder(tfds, name, data_dir)
        base = re.split(r"\W", split)[0] or split  # TFDS checks the text after the name
        self.split = split_of(base, builder.info.splits, name) + split[len(base) :]
        features = builder.info.features
        self.task = task
        self._image, self._label = _features(tfds, features, task, name)
        encoded = {self._image, *([self._label] if task == "segmentation" else [])}
        try:
            self._records = builder.as_data_source(
                self.split, decoders=dict.fromkeys(encoded, tfds.decode.SkipDecoding())
            )
        except (ValueError, NotImplementedError) as error:
            stored = getattr(builder.info.file_format, "value", builder.info.file_format)
            if stored != "array_record":
                raise DataError(
                    f"{name} in {builder.data_dir} is stored as {stored}, which has no random access. "
                    f"Prepare it as array_record in another data_dir: {_command(name, 'OTHER_DIR')}"
                ) from error
            raise DataError(f"{name} has no split {self.split!r}: {error}") from error
        if not len(self._records):
            raise DataError(f"split {self.split!r} of {name} is empty.")
        self._name = f"{name}/{self.split}"
        self._numbers = trained_numbers() if task == "segmentation" and self._image == LEFT else None
        self.class_names = self._class_names(features, name, data_dir)

    def _class_names(self, features: Any, name: str, data_dir: str) -> tuple[str, ...]:
        if self.task == "classification":
            return tuple(features["label"].names)
        if self.task == "regression":
            return channel_names(3)  # decoded files have three channels
        if self._numbers is not None:
            return tuple(CITYSCAPES_CLASSES.values())
        if count := getattr(features[self._label], "num_classes", None):
            return tuple(features[self._label].names or map(str, range(count)))
        if not self.split.startswith("train"):
            return TfdsSource(name, "train", data_dir, self.task).class_names
        masks = (decode_mask(record[self._label], self._name) for record in self._records)
        return tuple(map(str, range(1 + max(int(mask[mask != IGNORED].max(initial=0)) for mask in masks))))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`."""
        record = self._records[index]
        own_name = record.get("file_name") or record.get("id") or b""
        name = f"{self._name}[{index}] {own_name.decode()}".rstrip()
        image = record[self._image]
        if self.task == "regression":
            return Example(image, image, name)
        label = record[self._label]
        if self.task == "classification":
            return Example(image, int(label), name)
        example = Example(image, label, name, f"the {self._label} of {name}")
        if self._numbers is None:
            return example
        return dataclasses.replace(example, label=self._numbers[mask_of(example, len(self._numbers))])


def _features(tfds: ModuleType, features: Any, task: str, name: str) -> tuple[str, str]:
    """The names of the image feature and the label feature; "" if the image is its own target."""
    image = LEFT if LEFT in features else "image"
    masks = [mask for mask in MASKS if mask in features and isinstance(features[mask], tfds.features.Image)]
    labels = {
        "classification": ["label"] if "label" in features and "label" not in masks else [],
        "segmentation": masks,
        "regression": [""],
    }[task]
    if image not in features or not labels:
        expected = {"segmentation": f" and a mask ({', '.join(MASKS)})", "regression": ""}
        raise DataError(
            f"{name} has the features {', '.join(features)}; expected image"
            f"{expected.get(task, ' and label')}."
        )
    return image, labels[0]


def _command(name: str, data_dir: str) -> str:
    where = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}{where}, '
        "file_format='array_record').download_and_prepare()\" "
        "(this step needs pip install tensorflow; reading does not)."
    )


def _open_builder(tfds: ModuleType, name: str, data_dir: str) -> Any:
    """Opens a prepared data set for reading."""
    try:
        builder = tfds.builder(name, **({"data_dir": data_dir} if data_dir else {}))
    except (tfds.core.DatasetNotFoundError, ImportError) as error:
        reason = str(error).splitlines()[0]
        where = data_dir or "TFDS's default data_dir"
        raise DataError(
            f"there is no data set {name!r} in {where}, and TFDS cannot make one ({reason}): check data.name "
            f"and data.path. To prepare a data set, run {_command(name, data_dir)}"
        ) from error
    if not builder.info.splits:
        raise DataError(
            f"{name} is not prepared: looked in {builder.data_dir}. Run {_command(name, data_dir)}"
        )
    return builder
