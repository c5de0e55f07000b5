"""Lower bounds of the time on an accelerator, from the bytes and multiply-adds of each operation of a block.

A kernel needs at least its operations divided by the peak rate, and its memory traffic divided by the
bandwidth. XLA does not fuse products with each other, so the sum of the bounds is the best time that a
network could reach. It is not a measurement.
"""

import dataclasses
from typing import Any

from aliasfree_jax.ops.activation import polynomial_grid

STAGES = ((56, 96, 3), (28, 192, 3), (14, 384, 9), (7, 768, 3))  # side, channels, blocks of ConvNeXt-T


@dataclasses.dataclass(frozen=True)
class Device:
    """Peak rates of an accelerator.

    Attributes:
      name: Name of the accelerator.
      tflops: Rate of bfloat16 products with float32 sums, in TFLOP/s.
      terabytes_per_s: Memory bandwidth in TB/s.
    """

    name: str
    tflops: float
    terabytes_per_s: float

    def milliseconds(self, macs: float, values: float, bytes_each: int = 2) -> float:
        """The minimum time of a kernel.

        Args:
          macs: Number of multiply-adds.
          values: Number of values read and written.
          bytes_each: Bytes per value.
        """
        return 1e3 * max(2 * macs / (self.tflops * 1e12), values * bytes_each / (self.terabytes_per_s * 1e12))


# Peaks of dense bfloat16 products and of HBM3e, from NVIDIA's data sheet of the H200 SXM.
H200 = Device("H200", 989.0, 4.8)


def _product(device: Device, rows: int, inner: int, columns: int) -> float:
    return device.milliseconds(rows * inner * columns, rows * inner + rows * columns)


def _resampling(device: Device, n: int, m: int, channels: int) -> float:
    """Resampling from n x n to m x m: two products, with the result in memory between them."""
    first = device.milliseconds(channels * m * n * n, channels * (n * n + m * n))
    return first + device.milliseconds(channels * m * m * n, channels * (m * n + m * m))


def block(device: Device, batch: int, side: int, channels: int) -> dict[str, float]:
    """Lower bounds in milliseconds for the parts of a block's forward pass, for a whole batch."""
    n, hidden, (m, _) = side, 4 * channels, polynomial_grid((side, side), 2)
    image = {
        # Reads and writes the map. 49 multiply-adds per value run on the vector units, at 1/8 of the peak.
        "depthwise": device.milliseconds(8 * 49 * batch * channels * n * n, 2 * batch * channels * n * n),
        "norm": device.milliseconds(0, 3 * batch * channels * n * n),
        "MLP, GELU": 2 * _product(device, batch * n * n, channels, hidden),
        "MLP, coarse": 2 * _product(device, batch * n * n, channels, hidden)
        + 2 * _resampling(device, n, m, batch * hidden),
        "MLP, fine": 2 * _product(device, batch * m * m, channels, hidden)
        + 2 * _resampling(device, n, m, batch * channels),
        "MLP, fused": 2 * _product(device, batch * n * n, channels, hidden)
        + device.milliseconds(2 * batch * hidden * (m * n * n + m * m * n), 2 * batch * hidden * n * n),
    }
    return {name: round(value, 3) for name, value in image.items()}


def measure(device: Device = H200, batch: int = 256) -> list[dict[str, Any]]:
    """One row per stage, for all its blocks, and a row with the sums."""
    rows = []
    for side, channels, blocks in STAGES:
        bounds = block(device, batch, side, channels)
        parts = {name: round(blocks * value, 2) for name, value in bounds.items()}
        rows.append({"side": side, "channels": channels, "blocks": blocks, **parts})
    total = {name: round(sum(row[name] for row in rows), 2) for name in parts}
    return [*rows, {"side": "all", "channels": "", "blocks": 18, **total}]
