"""All pictures that a report shows, by the names of their files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.pictures import feature_figure, map_figure, png, radius_figure
from aliasfree_jax.evaluation.sliding import slide_gif
from aliasfree_jax.evaluation.stored import Evaluated


@dataclass(frozen=True)
class Picture:
    """One picture of the page: the end of its file's name, and what makes it."""

    file: str
    title: str
    caption: str
    make: Callable[[Sequence[Evaluated]], bytes]


def _map(column: str, networks: Sequence[Evaluated]) -> bytes:
    return png(map_figure(networks, column))


PICTURES = (
    Picture(
        "worst_case.png",
        "Worst case by radius",
        "The share of images that are right unshifted and under every circular shift by whole pixels of up "
        "to so many pixels each way.",
        lambda networks: png(radius_figure(networks)),
    ),
    *(
        Picture(
            f"{column}_map.png",
            f"{title} over the plane of shifts",
            f"{what} under each circular shift by whole pixels; the middle is no shift.",
            partial(_map, column),
        )
        for column, title, what in (
            ("accuracy", "Accuracy", "The share of images that are classified rightly"),
            ("consistency", "Consistency", "The share of images that keep the class of the unshifted image"),
        )
    ),
    Picture(
        "slide.gif",
        "One image slides",
        "The probability that the network gives to the image's true class. The image moves round the circle, "
        "by ideal interpolation between whole pixels.",
        slide_gif,
    ),
    Picture(
        "features.png",
        "Feature maps",
        "One layer's map of the same image; of the shifted image, moved back; and the difference. Of all "
        "channels, the one that differs most; the error is relative to the layer's largest value.",
        lambda networks: png(feature_figure(networks)),
    ),
)


def draw_pictures(networks: Sequence[Evaluated]) -> dict[str, bytes | DataError]:
    """Every picture as a file's content, by its name; or what the results lack for it.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    drawn: dict[str, bytes | DataError] = {}
    for picture in PICTURES:
        try:
            drawn[picture.file] = picture.make(networks)
        except DataError as error:
            drawn[picture.file] = error
    return drawn
