"""Reads images with classes, masks or target images from several sources, and makes batches of arrays."""

from aliasfree_jax.data.arrays import ArraySource
from aliasfree_jax.data.digits import DigitsSource
from aliasfree_jax.data.folder import FolderSource
from aliasfree_jax.data.opening import open_source
from aliasfree_jax.data.pipeline import Batch, BatchStream, ProcessPart, eval_batches, train_batches
from aliasfree_jax.data.scenes import DigitScenesSource
from aliasfree_jax.data.sources import Example, Source, hold_out, limit
from aliasfree_jax.data.tfds import TfdsSource

__all__ = [
    "ArraySource",
    "Batch",
    "BatchStream",
    "DigitScenesSource",
    "DigitsSource",
    "Example",
    "FolderSource",
    "ProcessPart",
    "Source",
    "TfdsSource",
    "eval_batches",
    "hold_out",
    "limit",
    "open_source",
    "train_batches",
]
