"""Which pictures a page has: their titles, what they show, and what makes them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.report.columns import task_of
from aliasfree_jax.evaluation.report.map_pictures import map_frames, prediction_figure
from aliasfree_jax.evaluation.report.pictured import Evaluated
from aliasfree_jax.evaluation.report.pictures import (
    feature_figure,
    frames,
    gif,
    map_figure,
    png,
    radius_figure,
)


class Picture(NamedTuple):
    """One picture of the page: the end of its file's name, and what makes it."""

    file: str
    title: str
    caption: str
    make: Callable[[Sequence[Evaluated]], bytes]
    of_maps: bool = False  # of networks that give a map for an image


PICTURES = (
    Picture(
        "worst_case.png",
        "Worst case by radius",
        "The share of images that are right unshifted and under every circular shift by whole pixels of up "
        "to so many pixels each way.",
        lambda networks: png(radius_figure(networks)),
    ),
    Picture(
        "accuracy_map.png",
        "Accuracy over the plane of shifts",
        "The share of images that are classified rightly under each circular shift by whole pixels; the "
        "middle is no shift.",
        lambda networks: png(map_figure(networks, "accuracy")),
    ),
    Picture(
        "consistency_map.png",
        "Consistency over the plane of shifts",
        "The share of images that keep the class of the unshifted image under each circular shift by whole "
        "pixels; the middle is no shift.",
        lambda networks: png(map_figure(networks, "consistency")),
    ),
    Picture(
        "slide.gif",
        "One image slides",
        "The probability that the network gives to the image's true class. The image moves round the circle, "
        "by ideal interpolation between whole pixels.",
        lambda networks: gif(frames(networks)),
    ),
    Picture(
        "features.png",
        "Feature maps",
        "One layer's map of the same image; of the shifted image, moved back; and the difference. Of all "
        "channels, the one that differs most; the error is relative to the layer's largest value.",
        lambda networks: png(feature_figure(networks)),
    ),
    Picture(
        "predictions.png",
        "Predictions and a shift",
        "One image, what is wanted of it, and what the network gives; what it gives for the shifted image, "
        "moved back; and the difference of the two.",
        lambda networks: png(prediction_figure(networks)),
        of_maps=True,
    ),
    Picture(
        "slide.gif",
        "One image slides",
        "The image moves round the circle, by ideal interpolation between whole pixels; beside it what the "
        "network gives for it. The numbers compare that with the moved output of the image at rest.",
        lambda networks: gif(map_frames(networks)),
        of_maps=True,
    ),
)


def pictures_of(networks: Sequence[Evaluated]) -> list[Picture]:
    """Those of the first network's task."""
    of_maps = task_of(networks[0].results) in ("segmentation", "regression")
    return [picture for picture in PICTURES if picture.of_maps == of_maps]


def draw_pictures(networks: Sequence[Evaluated]) -> dict[str, bytes | DataError]:
    """Every picture as a file's content, by its name; or what the results lack for it.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    drawn: dict[str, bytes | DataError] = {}
    for picture in pictures_of(networks):
        try:
            drawn[picture.file] = picture.make(networks)
        except DataError as error:
            drawn[picture.file] = error
    return drawn
