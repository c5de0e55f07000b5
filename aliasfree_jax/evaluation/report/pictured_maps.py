"""Data of the pictures of networks whose outputs are maps: measured, and stored as PNG files in eval.json.

Classes have the colours of Pascal VOC's masks. The normalisation of images is undone.
"""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from aliasfree_jax.data.augment import denormalize
from aliasfree_jax.evaluation.comparison import Comparison
from aliasfree_jax.evaluation.equivariance import decibels
from aliasfree_jax.evaluation.evaluator import Results
from aliasfree_jax.evaluation.measurements import slide
from aliasfree_jax.evaluation.shifting import Circular
from aliasfree_jax.evaluation.tasks import comparison
from aliasfree_jax.evaluation.trial import Predict
from aliasfree_jax.training.mesh import make_mesh, replicate

SHIFT = (1, 1)  # shift in pixels of the image whose prediction is moved back
STEPS = 2  # frames of the animation per pixel
NO_CHANGE, LARGEST_CHANGE = 128, 127  # grey value of no difference, and largest deviation from it


def voc_palette() -> np.ndarray:
    """Colours of Pascal VOC's classes, uint8 `[256, 3]`: the bits of the class number set the channels."""
    numbers, colours = np.arange(256), np.zeros((256, 3), int)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> (3 * place + channel) & 1) << (7 - place)
    return colours.astype(np.uint8)


def encoded(pixels: np.ndarray) -> str:
    """Encodes a picture as PNG in base64.

    Args:
      pixels: uint8 `[H, W]` or `[H, W, C]`. The first three channels are used, or the first if C < 3.
    """
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def decoded(text: str) -> np.ndarray:
    """Decodes a picture of `encoded`: uint8 `[H, W, 3]`."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


class _Shown(NamedTuple):
    """Converts outputs and labels to pictures."""

    config: ConfigDict

    def output(self, output: np.ndarray) -> np.ndarray:
        """Picture of an output map `[H, W, K]`."""
        of_classes = self.config.task == "segmentation"
        return self.label(output.argmax(-1) if of_classes else output)

    def label(self, label: np.ndarray) -> np.ndarray:
        """Picture of classes `[H, W]` or of an image `[H, W, C]`."""
        if label.ndim == 2:
            return voc_palette()[label % 256]
        return denormalize(label, self.config.data.mean, self.config.data.std)

    def difference(self, still: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, float]:
        """Grey picture of the differences of two outputs, and the largest difference (1 for classes)."""
        if self.config.task == "segmentation":
            changes = (still.argmax(-1) != back.argmax(-1)).astype(np.float32)
        else:
            changes = ((back - still) * np.asarray(self.config.data.std, np.float32)).mean(-1)
        largest = float(np.abs(changes).max())
        grey = NO_CHANGE + LARGEST_CHANGE * changes / (largest or 1.0)
        return np.rint(grey).astype(np.uint8), largest


def _moved(maps: np.ndarray, shift: Sequence[float], whole: bool) -> np.ndarray:
    """Shifts one map `[H, W, C]` circularly."""
    where = np.asarray([shift], np.int32 if whole else np.float32)
    return np.asarray(Circular().along(jnp.asarray(maps)[None], jnp.asarray(where))[0])[0]


def map_results(predict: Predict, image: np.ndarray, label: np.ndarray, config: ConfigDict) -> Results:
    """Outputs for an image, for the shifted image (moved back), and while the image slides.

    Args:
      predict: Function from images to maps.
      image: Normalised image `[H, W, C]`.
      label: Classes `[H, W]`, or normalised target `[H, W, K]`.
      config: Configuration; its task, normalisation and `eval.worst_case_radius` are used.

    Returns:
      A dictionary with the pictures as PNG.
    """
    shown, compare, mesh = _Shown(config), comparison(config), make_mesh(config.train.devices)

    def output(image: np.ndarray) -> np.ndarray:  # runs in all processes, because they share the network
        return np.asarray(predict(replicate(image[None], mesh)))[0]

    still = output(image)
    back = _moved(output(_moved(image, SHIFT, True)), [-s for s in SHIFT], True)
    grey, largest = shown.difference(still, back)
    sliding = slide(config.eval.worst_case_radius, STEPS)
    places = sliding.shifts.draw(np.zeros(1, int))  # type: ignore[union-attr]
    outputs = [output(_moved(image, place[0], False)) for place in places]
    return {
        "target": encoded(shown.label(label)),
        "shift": list(SHIFT),
        "still": encoded(shown.output(still)),
        "back": encoded(shown.output(back)),
        "difference": encoded(grey),
        "largest_difference": largest,
        sliding.name: {
            "about": sliding.about,
            "shifts": places[:, 0].tolist(),
            "predictions": [encoded(shown.output(found)) for found in outputs],
            "changes": _changes(compare, still, outputs, label, places, config.task),
        },
    }


def _changes(
    compare: Comparison,
    still: np.ndarray,
    outputs: Sequence[np.ndarray],
    label: np.ndarray,
    places: np.ndarray,
    task: str,
) -> list[float]:
    """For each shift: the share of pixels with another class, or the equivariance error in dB."""
    way, row = Circular(), np.zeros(1, int)
    reference = compare.reference(still[None], label[None], way)
    found = [
        compare(reference, row, output[None], place, way)
        for output, place in zip(outputs, places, strict=True)
    ]
    if task == "segmentation":
        return [1 - float(columns["unchanged"][0]) for columns in found]
    return [float(decibels(columns["error"][0] / columns["energy"][0])) for columns in found]
