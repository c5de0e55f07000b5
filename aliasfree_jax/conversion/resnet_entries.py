"""State-dict tables of ResNets: one walk through the network, in the words of four code bases."""

import dataclasses
from collections.abc import Callable, Iterator

from aliasfree_jax.conversion.entries import CONV, Entry, batch_norm, linear
from aliasfree_jax.models.resnet import EXPANSION, ResNet

Pool = Callable[[str, str, int], Iterator[Entry]]
"""Entries of a sampler, from its key there, its path here and the number of channels."""


def no_entries(key: str, path: str, channels: int) -> Iterator[Entry]:
    """A sampler without tensors."""
    return iter(())


@dataclasses.dataclass(frozen=True)
class Style:
    """How a code base names the tensors of its ResNets.

    Attributes:
      prefix: of all keys.
      wrapped: whether 3 x 3 and 7 x 7 convolutions are the second module of a sequence, after a padding.
      sampled: whether blocks of stride 2 have samplers; without, their convolutions are strided.
      pool, shortcut_pool: entries of the samplers of the main branch and the shortcut.
      pool_name: key of the sampler where it is no part of a sequence with the convolution; "" where it is.
      stem_pools: key, path and entries of the stem's samplers.
    """

    prefix: str = ""
    wrapped: bool = False
    sampled: bool = True
    pool: Pool = no_entries
    shortcut_pool: Pool = no_entries
    pool_name: str = ""
    stem_pools: tuple[tuple[str, str, Pool], ...] = ()


def resnet(network: ResNet, style: Style) -> Iterator[Entry]:
    """All tensors of `network` in the code base's words."""
    prefix = style.prefix
    yield Entry(f"{prefix}conv1{'.1' if style.wrapped else ''}.weight", "params/stem/conv/kernel", CONV)
    yield from batch_norm(f"{prefix}bn1", "stem/norm")
    for key, path, pool in style.stem_pools:
        yield from pool(prefix + key, path, network.widths[0])
    channels = network.widths[0]
    for stage, (depth, width) in enumerate(zip(network.depths, network.widths, strict=True)):
        for block in range(depth):
            key, path = f"{prefix}layer{stage + 1}.{block}", f"stage{stage}_block{block}"
            strided = stage > 0 and block == 0
            yield from _block(network, style, key, path, channels, width, strided)
            channels = EXPANSION[network.block] * width
    yield from linear(f"{prefix}fc", "head")


def _block(
    network: ResNet, style: Style, key: str, path: str, channels: int, width: int, strided: bool
) -> Iterator[Entry]:
    sizes = (3, 3) if network.block == "basic" else (1, 3, 1)
    inner = width if network.block == "basic" else width * network.group_width // 64 * network.groups
    samples = strided and style.sampled
    for number, size in enumerate(sizes, 1):
        conv = f"{key}.conv{number}"
        if samples and number == len(sizes):
            if style.pool_name:
                pool = f"{key}.{style.pool_name}"
            elif network.sampler_position == "before":
                pool, conv = f"{conv}.0", f"{conv}.1"
            else:
                pool, conv = f"{conv}.1", f"{conv}.0"
            yield from style.pool(pool, f"{path}/sampler", inner)
        wrapped = ".1" if style.wrapped and size > 1 else ""
        yield Entry(f"{conv}{wrapped}.weight", f"params/{path}/conv{number}/kernel", CONV)
        yield from batch_norm(f"{key}.bn{number}", f"{path}/norm{number}")
    if strided or channels != EXPANSION[network.block] * width:
        if samples:
            yield from style.shortcut_pool(f"{key}.downsample.0", f"{path}/shortcut_sampler", channels)
        index = 1 if samples else 0
        yield Entry(f"{key}.downsample.{index}.weight", f"params/{path}/shortcut_conv/kernel", CONV)
        yield from batch_norm(f"{key}.downsample.{index + 1}", f"{path}/shortcut_norm")
