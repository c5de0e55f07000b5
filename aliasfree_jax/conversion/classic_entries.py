"""State-dict tables of AlexNet, VGG, DenseNet and MobileNet-v2, plain and with BlurPool.

Both code bases number the modules of a sequence; a sampler (`Style.sampled`) takes a number of its own.
"""

from collections.abc import Iterator

from aliasfree_jax.conversion.entries import (
    CONV,
    DENSE,
    DEPTHWISE,
    Entry,
    batch_norm,
    flattened_map,
    linear,
)
from aliasfree_jax.conversion.resnet_entries import Style
from aliasfree_jax.models.alexnet_vgg import VGG, AlexNet
from aliasfree_jax.models.densenet import DenseNet
from aliasfree_jax.models.mobilenet import STAGES, MobileNetV2


def alexnet(network: AlexNet, style: Style) -> Iterator[Entry]:
    """AlexNet: convolution, ReLU, (sampler), (max pool, (sampler)), ..."""
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
    for key, name in ((1, "hidden1"), (4, "hidden2"), (6, "head")):
        layout = flattened_map(6) if name == "hidden1" else DENSE
        yield from linear(f"classifier.{key}", f"classifier/{name}", layout)


def vgg(network: VGG, style: Style) -> Iterator[Entry]:
    """VGG: (convolution, (norm), ReLU) several times, max pool, (sampler), ..."""
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
    for key, name in ((0, "hidden1"), (3, "hidden2"), (6, "head")):
        layout = flattened_map(7) if name == "hidden1" else DENSE
        yield from linear(f"classifier.{key}", f"classifier/{name}", layout)


def densenet(network: DenseNet, style: Style) -> Iterator[Entry]:
    """DenseNet: every module has a name of its own."""
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
    """MobileNet-v2: the modules of a block are a sequence, in which a sampler shifts those behind it."""
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
