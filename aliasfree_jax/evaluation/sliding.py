"""The probability of the class while the image slides, as an animation (GIF)."""

import io
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from PIL import Image

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.pictures import colour, plain_axes
from aliasfree_jax.evaluation.stored import Evaluated, Slide, slide
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.training.curves import figure_class

FRAME_MS, LAST_FRAME_MS = 80, 2000
SIZE, DPI = (7.6, 3.2), 100  # inches, pixels an inch


def _same_way(networks: Sequence[Evaluated]) -> list[Slide]:
    slides = [slide(network) for network in networks]
    for network, other in zip(networks, slides, strict=True):
        first = slides[0]
        if not (np.array_equal(first.image, other.image) and np.array_equal(first.shifts, other.shifts)):
            raise DataError(
                f"{networks[0].name} and {network.name} saw another image or other shifts: evaluate them "
                "with the same data, eval.pictured_image and eval.worst_case_radius."
            )
    return slides


def moved_images(found: Slide) -> np.ndarray:
    """The image at every place of its way, bytes [K, H, W, 3]; ideal interpolation."""
    image = jnp.asarray(found.image, jnp.float32)[None]
    places = [
        np.asarray(fractional_shift(image, (float(down), float(right)))) for down, right in found.shifts
    ]
    return np.rint(np.clip(np.concatenate(places), 0, 255)).astype(np.uint8)


def frames(networks: Sequence[Evaluated]) -> Iterator[np.ndarray]:
    """The pictures [h, w, 3] of the animation: the image on the left, the curves so far on the right.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: a network's slide was not measured, or is another one than that of the first.
    """
    slides = _same_way(networks)
    figure = figure_class()(figsize=SIZE, dpi=DPI, layout="constrained")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # there, as the Figure is

    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
    way, images = slides[0].shifts[:, 1], moved_images(slides[0])
    shown = left.imshow(images[0], interpolation="nearest")
    left.set(xticks=[], yticks=[])
    curves = [
        right.plot([], [], color=colour(number), linewidth=2, label=network.name, clip_on=False)[0]
        for number, network in enumerate(networks)
    ]
    points = [right.plot([], [], "o", color=colour(n), clip_on=False)[0] for n in range(len(networks))]
    right.set(xlim=(way[0], way[-1]), ylim=(0, 1), xlabel="shift down and right, pixels")
    right.set_title(f"probability of the class {slides[0].label}", fontsize=10)
    plain_axes(right)
    figure.legend(loc="outside lower center", ncols=min(4, len(networks)), frameon=False)
    for step, place in enumerate(way):
        shown.set_data(images[step])
        left.set_title(f"shifted by {place:.2f} pixels", fontsize=10)
        for curve, point, found in zip(curves, points, slides, strict=True):
            curve.set_data(way[: step + 1], found.probability[: step + 1])
            point.set_data([place], [found.probability[step]])
        canvas.draw()
        if step == 0:
            figure.set_layout_engine("none")  # the axes stay where they are
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def slide_gif(networks: Sequence[Evaluated]) -> bytes:
    """The animation as a file; see `frames`."""
    pictures = [Image.fromarray(frame) for frame in frames(networks)]
    # All in the colours of the last: still parts are then the same in every frame, and cost nothing.
    palette = pictures[-1].quantize(256)
    colours = np.asarray(palette.getpalette()).reshape(-1, 3)
    colours[colours.min(axis=1) >= 248] = 255  # Pillow looks up coarsely: white would become one of these
    palette.putpalette(colours.ravel().tolist())
    coloured = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [FRAME_MS] * (len(coloured) - 1) + [LAST_FRAME_MS]
    file = io.BytesIO()
    coloured[0].save(file, "GIF", save_all=True, append_images=coloured[1:], duration=times, loop=0)
    return file.getvalue()
