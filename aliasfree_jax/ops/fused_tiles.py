"""How one program of the fused activation cuts its maps, and what it takes on the chip: pure arithmetic."""

import dataclasses

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.ops import spectrum

# One program's maps: two or more programs share a multiprocessor at the first size, the second fills one.
GOOD_BYTES, MOST_BYTES = 16 * 2**10, 32 * 2**10
# What neighbouring threads read at once; shorter rows of channels waste part of every memory transaction.
VECTOR_BYTES = 16
# Triton's smallest product, and the rows in a strip.
SMALLEST = 16


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How one program cuts its maps: sizes in samples, padded as Triton wants them."""

    height: int
    width: int
    channels: int
    strips: int
    columns: int
    tiles: int

    @property
    def flat(self) -> int:
        """Samples in a row of all channels."""
        return self.width * self.channels

    @property
    def lanes(self) -> int:
        """Samples of all channels in one column of a strip."""
        return SMALLEST * self.channels


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def plan_tiles(
    shape: tuple[int, int], channels: int, degree: int, itemsize: int, per_program: int | None = None
) -> Tiles:
    """How a program cuts maps of `shape`, `channels` and bytes a sample for a polynomial of `degree`.

    Raises:
      ConfigError: the maps do not fit on the chip, or `per_program` is no power of two.
    """
    height, width = (max(SMALLEST, _power_of_two(side)) for side in shape)
    room = MOST_BYTES // (height * width * itemsize)
    if room < 1:
        raise ConfigError(
            f"maps of {shape[0]} x {shape[1]} ({height} x {width} padded) are too large for a fused kernel: "
            f"at most {MOST_BYTES // itemsize} samples of {itemsize} bytes; use method='matmul'."
        )
    if per_program is None:
        good = GOOD_BYTES // (height * width * itemsize)
        per_program = min(16, room, max(good, VECTOR_BYTES // itemsize), _power_of_two(channels))
    elif not 0 < per_program <= room or per_program & (per_program - 1):
        raise ConfigError(
            f"channels_per_program must be a power of two up to {room} for maps of "
            f"{shape[0]} x {shape[1]}, got {per_program}."
        )
    rows, columns = (-(-spectrum.exact_grid(side, degree) // SMALLEST) for side in shape)
    # Two at once halve the barriers, where that adds no padding and the registers suffice.
    double = columns % 2 == 0 and per_program <= 4
    return Tiles(height, width, per_program, rows, SMALLEST * (1 + double), columns // (1 + double))


def on_chip_bytes(tiles: Tiles, itemsize: int, maps: int) -> tuple[int, int]:
    """Upper bounds of the shared memory and the accumulators (registers) of one program, in bytes.

    `maps` is 1 for the activation and 2 for its gradient, here of a quadratic. Triton keeps the operands of
    products in shared memory: the maps, the strips half way up, what comes back of a tile, and the
    matrices' parts; TF32x3 takes twice as much of it. What Triton 3.6 and 3.9 say is up to 40% less.
    """
    coarse, half, fine = (
        size * tiles.channels
        for size in (tiles.height * tiles.width, SMALLEST * tiles.width, SMALLEST * tiles.columns)
    )
    matrices = 2 * SMALLEST * tiles.height + 2 * tiles.columns * tiles.width
    shared = maps * (coarse + half) + fine + matrices
    tiles_at_once = 1 if maps == 1 else 2 + 3  # fine values; in the gradient their cotangents and three sums
    return shared * itemsize, 4 * (coarse + half + tiles_at_once * fine)
