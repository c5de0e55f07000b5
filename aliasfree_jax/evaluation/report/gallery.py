"""The pictures of a page: titles, captions, and the functions that draw them."""

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
    """One picture of the page.

    Attributes:
      file: End of the file's name.
      title: Heading of the picture.
      caption: Explanation below the picture.
      make: Draws the picture; returns the content of its file.
      of_maps: The picture is for networks whose outputs are maps.
    """

    file: str
    title: str
    caption: str
    make: Callable[[Sequence[Evaluated]], bytes]
    of_maps: bool = False


PICTURES = (
    Picture(
        "worst_case.png",
        "Worst case by radius",
        "Share of images that are classified correctly without a shift and under every circular shift by "
        "whole pixels, up to the given number of pixels in each direction.",
        lambda networks: png(radius_figure(networks)),
    ),
    Picture(
        "accuracy_map.png",
        "Accuracy over the plane of shifts",
        "Share of images that are classified correctly, for each circular shift by whole pixels. The centre "
        "is no shift.",
        lambda networks: png(map_figure(networks, "accuracy")),
    ),
    Picture(
        "consistency_map.png",
        "Consistency over the plane of shifts",
        "Share of images that keep the class of the unshifted image, for each circular shift by whole "
        "pixels. The centre is no shift.",
        lambda networks: png(map_figure(networks, "consistency")),
    ),
    Picture(
        "slide.gif",
        "One image slides",
        "Probability of the image's true class. The image is shifted circularly, with ideal interpolation "
        "between whole pixels.",
        lambda networks: gif(frames(networks)),
    ),
    Picture(
        "features.png",
        "Feature maps",
        "Feature map of one layer for the same image, the map for the shifted image, moved back, and their "
        "difference. The channel with the largest difference is shown. The error is relative to the layer's "
        "largest value.",
        lambda networks: png(feature_figure(networks)),
    ),
    Picture(
        "predictions.png",
        "Predictions and a shift",
        "One image, its target, and the network's output; the output for the shifted image, moved back; and "
        "the difference of both outputs.",
        lambda networks: png(prediction_figure(networks)),
        of_maps=True,
    ),
    Picture(
        "slide.gif",
        "One image slides",
        "The image is shifted circularly, with ideal interpolation between whole pixels. The network's "
        "output is shown beside it. The numbers compare this output with the shifted output of the unshifted "
        "image.",
        lambda networks: gif(map_frames(networks)),
        of_maps=True,
    ),
)


def pictures_of(networks: Sequence[Evaluated]) -> list[Picture]:
    """The pictures for the task of the first network."""
    of_maps = task_of(networks[0].results) in ("segmentation", "regression")
    return [picture for picture in PICTURES if picture.of_maps == of_maps]


def draw_pictures(networks: Sequence[Evaluated]) -> dict[str, bytes | DataError]:
    """Draws all pictures.

    Args:
      networks: The evaluated networks.

    Returns:
      By file name: the content of the file, or the error if the results lack the picture's data.

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
