"""Prepared TensorFlow Datasets, read without TensorFlow.

Only data sets stored as array_record have random access. TensorFlow is needed once, to prepare
most of them, but never to read them.
"""

import re
from types import ModuleType
from typing import Any

from aliasfree_jax.data.sources import Example, split_of
from aliasfree_jax.errors import DataError, needed


class TfdsSource:
    """One split of a data set with the features `image` and `label`, as encoded image files.

    Args:
      name: of the data set, e.g. "imagenet2012", "cifar10", "name/config:version".
      split: e.g. "train", or with TFDS syntax "train[:50%]". "val" is read from `validation` or
        `test` where the data set has no `val`.
      data_dir: where it was prepared; "" is TFDS's default, ~/tensorflow_datasets.

    Raises:
      DataError: the data set is not prepared, not as array_record, has no such split, or other features.
      MissingPackageError: tensorflow_datasets is missing.
    """

    def __init__(self, name: str, split: str, data_dir: str = ""):
        tfds = needed("tensorflow_datasets", "data.source = 'tfds'")  # slow to import
        builder = _open_builder(tfds, name, data_dir)
        base = re.split(r"\W", split)[0] or split  # TFDS checks what follows the name
        self.split = split_of(base, builder.info.splits, name) + split[len(base) :]
        features = builder.info.features
        if "image" not in features or "label" not in features:
            raise DataError(f"{name} has the features {', '.join(features)}; expected image and label.")
        self.class_names = tuple(features["label"].names)
        try:
            self._records = builder.as_data_source(self.split, decoders={"image": tfds.decode.SkipDecoding()})
        except (ValueError, NotImplementedError) as error:
            stored = getattr(builder.info.file_format, "value", builder.info.file_format)
            if stored != "array_record":
                raise DataError(
                    f"{name} is prepared at {builder.data_dir} as {stored}, which has no random access. "
                    f"Prepare it as array_record, in another data_dir: {_command(name, 'OTHER_DIR')}"
                ) from error
            raise DataError(f"{name} has no split {self.split!r}: {error}") from error
        if not len(self._records):
            raise DataError(f"split {self.split!r} of {name} is empty.")
        self._name = f"{name}/{self.split}"

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`."""
        record = self._records[index]
        own_name = record.get("file_name") or record.get("id") or b""
        name = f"{self._name}[{index}] {own_name.decode()}".rstrip()
        return Example(record["image"], int(record["label"]), name)


def _command(name: str, data_dir: str) -> str:
    where = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}{where}, '
        "file_format='array_record').download_and_prepare()\" "
        "(this step needs pip install tensorflow; reading does not)."
    )


def _open_builder(tfds: ModuleType, name: str, data_dir: str) -> Any:
    """The read side of a prepared data set."""
    try:
        builder = tfds.builder(name, **({"data_dir": data_dir} if data_dir else {}))
    except (tfds.core.DatasetNotFoundError, ImportError) as error:
        reason = str(error).splitlines()[0]
        where = data_dir or "TFDS's default data_dir"
        raise DataError(
            f"no data set {name!r} in {where}, and TFDS cannot make one ({reason}): check data.name and "
            f"data.path. To prepare a data set: {_command(name, data_dir)}"
        ) from error
    if not builder.info.splits:
        raise DataError(
            f"{name} is not prepared: looked in {builder.data_dir}. Run {_command(name, data_dir)}"
        )
    return builder
