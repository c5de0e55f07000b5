"""Runs a call of a function on images and on shifted images, operation by operation."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.evaluation.alignment import Shift, moved_along, pair
from aliasfree_jax.evaluation.audit.layout import Layouts, known, output, seen
from aliasfree_jax.evaluation.audit.rows import Run
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.transform import checking, program
from aliasfree_jax.transform.lockstep import Both, Lockstep
from aliasfree_jax.transform.reporting import FRACTIONS


class Call:
    """A call of a function, in float64 (`wide`) or in the function's usual precision.

    Attributes:
      wide: Whether it is computed in float64.
      axes: Axes of rows and columns in the images.
      read: The program of the call.
      found: The findings of `check`.
    """

    def __init__(
        self, wide: bool, f: Callable[..., Any], args: Any, kwargs: Any, argnums: Any, axes: tuple[int, int]
    ) -> None:
        self.wide, self.axes = wide, axes
        with self._precision():
            read = None
            if wide:
                wide_args, wide_kwargs = jax.tree.map(_as_float64, (args, kwargs))
                with contextlib.suppress(TypeError):  # the function contains arrays that need its usual type
                    read = program.read(f, wide_args, wide_kwargs, argnums, axes)
            self.read = read or program.read(f, args, kwargs, argnums, axes)
            self.found, self._layouts = checking.Recorder(FRACTIONS), Layouts()
            self._given = checking.walk(
                self.read,
                self.found,
                lambda place, values: self._layouts.update({place.position: list(map(known, values))}),
            )

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return jax.enable_x64(True) if self.wide else contextlib.nullcontext()

    def check(self, shifts: Sequence[Shift]) -> None:
        """Checks images and shifts; for the errors see `audit`."""
        image = next(a for a, is_image in zip(self.read.arrays, self.read.images, strict=True) if is_image)
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise ShapeError(f"expected floating-point images, got {image.dtype}.")
        sides = image.shape[self.axes[0]], image.shape[self.axes[1]]
        for shift in shifts:
            if np.shape(shift) != (2,) or not np.isfinite(shift).all():
                raise ConfigError(
                    f"shifts must be pairs (rows, columns) in pixels, [(1, 1), (0.5, 0.5)], got {shift!r}."
                )
            if not any(s % side for s, side in zip(shift, sides, strict=True)):
                raise ConfigError(
                    f"a circular shift by {pair(shift)} does not change images of {sides}: use another."
                )

    def run(self, shift: Shift) -> Run:
        """Runs the operations on the images and on the shifted images."""
        arguments, image = [], (0, 1, 1, 1)
        run = Run(lambda step: seen(step, self._layouts, shift, image), closely=self.wide)
        with self._precision():
            for array, is_image in zip(self.read.arrays, self.read.images, strict=True):
                both = Both(jnp.asarray(array))
                if is_image:
                    image = (len(array), array.shape[self.axes[0]], array.shape[self.axes[1]], 1)
                    still, moved = _pair(array, self.axes, shift)
                    both = Both(jnp.asarray(still, array.dtype), jnp.asarray(moved, array.dtype))
                arguments.append(both)
            closed = self.read.jaxpr
            results = Lockstep(self.wide, run).run(closed.jaxpr, closed.consts, arguments)
            run.finish({result.step for result in results if result.moved is not None})
            run.output = output(zip(results, self._given, strict=True), shift, image)
        return run


def _as_float64(leaf: Any) -> Any:
    floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(leaf, jnp.float64) if floating else leaf


def _pair(image: Any, axes: tuple[int, int], shift: Shift) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and shifted images in float64; fractional shifts need the Nyquist frequency removed."""
    laid = np.moveaxis(np.asarray(image, np.float64), axes, (-2, -1))
    maps = laid.reshape(-1, *laid.shape[-2:], 1)
    if any(s % 1 for s in shift):
        with jax.enable_x64(True):
            maps = np.asarray(remove_nyquist(jnp.asarray(maps)))
    moved = moved_along(np.fft.fft2(maps, axes=(1, 2)), np.tile(shift, (len(maps), 1)))
    still, away = (np.moveaxis(each.reshape(laid.shape), (-2, -1), axes) for each in (maps, moved))
    return still, away
