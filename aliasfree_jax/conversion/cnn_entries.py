"""State-dict tables of ResNets, AlexNet, VGG, DenseNet and MobileNet-v2.

Each function walks through a network and yields its tensors. `Style` holds the names that a code base uses.
Except in ResNets, keys number the modules of a sequence. A sampler in the sequence (`Style.sampled`) counts
as a module.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import flax.linen as nn

from aliasfree_jax.conversion.entries import (
    CONV,
    DENSE,
    DEPTHWISE,
    Entry,
    Pool,
    batch_norm,
    flattened_map,
    linear,
    no_entries,
)
from aliasfree_jax.models.alexnet_vgg import VGG, AlexNet
from aliasfree_jax.models.densenet import DenseNet
from aliasfree_jax.models.mobilenet import STAGES, MobileNetV2
from aliasfree_jax.models.residual import EXPANSION
from aliasfree_jax.models.resnet import ResNet


@dataclasses.dataclass(frozen=True)
class ResNetNames:
    """Key patterns of a ResNet's modules.

    Attributes:
      stem_conv: The stem's convolution.
      stem_norm: The stem's norm.
      deep_conv: Layer `n` of a stem that is a sequence of convolutions, norms and activations.
      block: A block. `s` counts stages from 0, `stage` from 1.
      conv: A convolution within a block. `n` counts from 0, `number` from 1.
      norm: A norm within a block, counted like `conv`.
      shortcut: Convolution and norm of the projection, at places `n` of a sequence. A sampler may be the
        first module of that sequence. None for shortcuts without weights.
      head: The last linear layer.
    """

    stem_conv: str = "conv1"
    stem_norm: str = "bn1"
    deep_conv: str = "conv1.{n}"
    block: str = "layer{stage}.{block}"
    conv: str = "conv{number}"
    norm: str = "bn{number}"
    shortcut: tuple[str, str] | None = ("downsample.{n}", "downsample.{n}")
    head: str = "fc"


@dataclasses.dataclass(frozen=True)
class Style:
    """How a code base names the tensors of its networks.

    Attributes:
      prefix: Start of all keys.
      names: Keys of a ResNet's modules.
      wrapped: Whether 3 x 3 and 7 x 7 convolutions are the second module of a sequence, after a padding.
      sampled: Whether samplers are modules of the sequences around them.
      pool: Entries of the samplers.
      shortcut_pool: Entries of the shortcuts' samplers. None: as `pool`.
      pool_name: Key of the sampler. "" if it is in one sequence with the convolution.
      first_pool: Entries of the sampler after the stem's convolution. None if there is none.
      stem_pool: Key of the sampler after the stem's max pool. "" if there is none.
    """

    prefix: str = ""
    names: ResNetNames = ResNetNames()
    wrapped: bool = False
    sampled: bool = True
    pool: Pool = no_entries
    shortcut_pool: Pool | None = None
    pool_name: str = ""
    first_pool: Pool | None = None
    stem_pool: str = ""


def resnet(network: ResNet, style: Style) -> Iterator[Entry]:
    """Yields all tensors of a ResNet under the names of a code base."""
    prefix, names = style.prefix, style.names
    yield from _resnet_stem(network, style)
    channels = network.stem_width or network.widths[0]
    for stage, (depth, width) in enumerate(zip(network.depths, network.widths, strict=True)):
        for block in range(depth):
            key = prefix + names.block.format(s=stage, stage=stage + 1, block=block)
            path, strided = f"stage{stage}_block{block}", stage > 0 and block == 0
            yield from _resnet_block(network, style, key, path, channels, width, strided)
            channels = EXPANSION[network.block] * width
    if network.num_classes > 0:
        yield from linear(prefix + names.head, "head")


def _resnet_stem(network: ResNet, style: Style) -> Iterator[Entry]:
    prefix, names = style.prefix, style.names
    wrapped = ".1" if style.wrapped else ""
    hidden = len(getattr(network.stem_layer(parent=None), "hidden_widths", ()))
    for number in range(hidden):
        conv, norm = (prefix + names.deep_conv.format(n=3 * number + module) for module in (0, 1))
        yield Entry(f"{conv}.weight", f"params/stem/conv{number + 1}/kernel", CONV)
        yield from batch_norm(norm, f"stem/norm{number + 1}")
    conv = prefix + (names.deep_conv.format(n=3 * hidden) if hidden else names.stem_conv)
    yield Entry(f"{conv}{wrapped}.weight", "params/stem/conv/kernel", CONV)
    yield from batch_norm(prefix + names.stem_norm, "stem/norm")
    channels = network.stem_width or network.widths[0]
    if style.first_pool:
        yield from style.first_pool(f"{prefix}maxpool.0", "stem/first_sampler", channels)
    if style.stem_pool:
        yield from style.pool(f"{prefix}{style.stem_pool}", "stem/pool/sampler", channels)


def _resnet_block(
    network: ResNet, style: Style, key: str, path: str, channels: int, width: int, strided: bool
) -> Iterator[Entry]:
    sizes, names = (3, 3) if network.block == "basic" else (1, 3, 1), style.names
    inner = width if network.block == "basic" else width * network.group_width // 64 * network.groups
    samples = strided and style.sampled
    for number, size in enumerate(sizes, 1):
        numbers = {"n": number - 1, "number": number}
        conv, norm = f"{key}.{names.conv.format(**numbers)}", f"{key}.{names.norm.format(**numbers)}"
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
        yield from batch_norm(norm, f"{path}/norm{number}")
    if names.shortcut and (strided or channels != EXPANSION[network.block] * width):
        conv, norm = (f"{key}.{name.format(n=place + samples)}" for place, name in enumerate(names.shortcut))
        if samples:
            shortcut_pool = style.shortcut_pool or style.pool
            sampler = f"{key}.{names.shortcut[0].format(n=0)}"
            yield from shortcut_pool(sampler, f"{path}/shortcut_sampler", channels)
        yield Entry(f"{conv}.weight", f"params/{path}/shortcut_conv/kernel", CONV)
        yield from batch_norm(norm, f"{path}/shortcut_norm")


def alexnet(network: AlexNet, style: Style) -> Iterator[Entry]:
    """Yields the tensors of AlexNet: convolution, ReLU, (sampler), (max pool, (sampler)), ..."""
    index = 0
    for number, width in enumerate((64, 192, 384, 256, 256), 1):
        yield from linear(f"features.{index}", f"conv{number}", CONV)
        index += 2 if number > 1 or network.activate_first else 1
        if number == 1 and style.sampled and not network.strided:
            yield from style.pool(f"features.{index - network.sample_first}", "sampler", width)
            index += 1
        if number in (1, 2, 5):
            index += 1
            if style.sampled:
                yield from style.pool(f"features.{index}", "", width)
                index += 1
    yield from _classifier(6, (1, 4, 6))


def _classifier(side: int, numbers: tuple[int, int, int]) -> Iterator[Entry]:
    """Three linear layers with these numbers. The first one reads a flattened map of `side` x `side`."""
    layouts = (flattened_map(side), DENSE, DENSE)
    for number, name, layout in zip(numbers, ("hidden1", "hidden2", "head"), layouts, strict=True):
        yield from linear(f"classifier.{number}", f"classifier/{name}", layout)


def vgg(network: VGG, style: Style) -> Iterator[Entry]:
    """Yields the tensors of VGG with the head of torchvision."""
    yield from vgg_features(network, style)
    yield from _classifier(7, (0, 3, 6))


def vgg_features(network: VGG, style: Style) -> Iterator[Entry]:
    """Yields the tensors before VGG's head: convolutions with (norm) and ReLU, max pool, (sampler), ..."""
    index = 0
    for stage, (depth, width) in enumerate(zip(network.depths, network.widths, strict=True)):
        for layer in range(depth):
            yield from linear(f"features.{index}", f"stage{stage}_conv{layer}", CONV)
            if network.norm is not None:
                yield from batch_norm(f"features.{index + 1}", f"stage{stage}_norm{layer}")
            index += 2 if network.norm is None else 3
        index += 1
        if style.sampled:
            yield from style.pool(f"features.{index}", "", width)
            index += 1


def densenet(network: DenseNet, style: Style) -> Iterator[Entry]:
    """Yields the tensors of DenseNet. Every module has its own name."""
    yield Entry("features.conv0.weight", "params/stem_conv/kernel", CONV)
    yield from batch_norm("features.norm0", "stem_norm")
    channels = network.width
    if style.sampled:
        if not network.strided:
            yield from style.pool("features.ds0", "", channels)
        yield from style.pool("features.pool0", "", channels)
    for stage, depth in enumerate(network.depths):
        if stage > 0:
            key, path = f"features.transition{stage}", f"transition{stage}"
            yield from batch_norm(f"{key}.norm", f"{path}_norm")
            yield Entry(f"{key}.conv.weight", f"params/{path}_conv/kernel", CONV)
            channels //= 2
            if style.sampled:
                yield from style.pool(f"{key}.pool", "", channels)
        for layer in range(depth):
            key = f"features.denseblock{stage + 1}.denselayer{layer + 1}"
            for number in (1, 2):
                path = f"stage{stage}_layer{layer}"
                yield from batch_norm(f"{key}.norm{number}", f"{path}_norm{number}")
                yield Entry(f"{key}.conv{number}.weight", f"params/{path}_conv{number}/kernel", CONV)
            channels += network.growth
    yield from batch_norm("features.norm5", "norm")
    yield from linear("classifier", "head")


def mobilenet(network: MobileNetV2, style: Style) -> Iterator[Entry]:
    """Yields the tensors of MobileNet-v2. A sampler in a block raises the numbers of the modules after it."""
    yield from _convolved("features.0", "stem")
    index, channels = 1, int(32 * network.width_mult)
    for stage, (expansion, width, depth, stride) in enumerate(STAGES):
        for block in range(depth):
            key, path = f"features.{index}.conv", f"stage{stage}_block{block}"
            position = 0
            if expansion != 1:
                yield from _convolved(f"{key}.0", f"{path}/expand", "")
                position = 1
            yield Entry(f"{key}.{position}.0.weight", f"params/{path}/depthwise/kernel", DEPTHWISE)
            yield from batch_norm(f"{key}.{position}.1", f"{path}/depthwise_norm")
            position += 1
            if style.sampled and stride > 1 and block == 0:
                yield from style.pool(f"{key}.{position}", "", channels * expansion)
                position += 1
            yield Entry(f"{key}.{position}.weight", f"params/{path}/project/kernel", CONV)
            yield from batch_norm(f"{key}.{position + 1}", f"{path}/project_norm")
            channels = int(width * network.width_mult)
            index += 1
    yield from _convolved(f"features.{index}", "last")
    yield from linear("classifier.0" if style.sampled else "classifier.1", "head")


def _convolved(key: str, path: str, suffix: str = "_conv") -> Iterator[Entry]:
    yield Entry(f"{key}.0.weight", f"params/{path}{suffix}/kernel", CONV)
    yield from batch_norm(f"{key}.1", f"{path}_norm")


_WALKS = {ResNet: resnet, AlexNet: alexnet, VGG: vgg, DenseNet: densenet, MobileNetV2: mobilenet}


def network_entries(network: nn.Module, style: Style) -> Iterator[Entry]:
    """Yields all tensors of a network under the names of `style`."""
    walk: Any = _WALKS[type(network)]
    return walk(network, style)
