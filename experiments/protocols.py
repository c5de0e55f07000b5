"""How runs are trained and measured: the protocols, whose results never mix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from configs import cifar10_afc, cifar10_resnet
from experiments.matrix import AUGMENTATIONS, GATES, RESNETS, Row, Run, rows, runs


@dataclass(frozen=True)
class Measuring:
    """What every trained network undergoes.

    Attributes:
      draws: random shifts of every test image, of each kind.
      largest_crop: pixels each way of the shifts that let zeros in.
      worst_images: test images, evenly spread, that worst cases are searched for.
      points, starts, steps: of the search over real-valued shifts.
      mapped_images: images whose last feature map is compared.
    """

    worst_images: int
    points: int
    starts: int
    steps: int
    draws: int = 4
    largest_crop: int = 4
    mapped_images: int = 8


@dataclass(frozen=True)
class Protocol:
    """One way to train and measure all networks.

    Attributes:
      name: of the directories of results and runs.
      about: what it is, for the page.
      sizes: of each family: the size in the names of its networks, and options that all of them get.
      shorten: changes the family's recipe where the protocol does.
      rows: of its table.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    sizes: Mapping[str, tuple[str, Mapping[str, Any]]]
    measuring: Measuring
    shorten: Callable[[ConfigDict], None]
    rows: Sequence[Row] = tuple(rows())

    def runs(self) -> list[Run]:
        """All that it trains, in the order in which it does."""
        return list(runs(self.rows, self.seeds))


def _leave(config: ConfigDict) -> None:
    """The recipe as it is."""


_IMAGES, _TEST_IMAGES, _EPOCHS, _BATCH = 5000, 1000, 8, 50  # of the protocol `reduced`
_LONGER_EPOCHS = 10  # of the protocol `longer`, all images
_TIMES = _LONGER_EPOCHS * 50_000 / (_EPOCHS * _IMAGES)


def _reduce(config: ConfigDict) -> None:
    """Few images, few epochs."""
    _shorten(config, _EPOCHS)
    config.data.train_limit, config.data.eval_limit = _IMAGES, _TEST_IMAGES
    config.eval.every_epochs = 0.0


def _reduce_epochs(config: ConfigDict) -> None:
    """All images, few epochs, each with its accuracy."""
    _shorten(config, _LONGER_EPOCHS)
    config.eval.every_epochs = 1.0


def _shorten(config: ConfigDict, epochs: int) -> None:
    """Few epochs, small batches; short warm-up, no averages, which need longer trainings."""
    config.train.temperature.every_epochs *= epochs / config.train.total_epochs
    config.train.total_epochs, config.train.batch_size = float(epochs), _BATCH
    config.eval.batch_size = 100
    config.checkpoint.every_epochs = 2.0
    if config.optimizer.name == "sgd":
        config.optimizer.schedule = "cosine"
        config.optimizer.learning_rate = 0.05
        config.optimizer.warmup_epochs = 0.5
    else:
        config.optimizer.warmup_epochs = 1.0
        config.train.ema_decay = 0.0
        config.model.options.drop_path_rate = 0.0


FULL = Protocol(
    name="full",
    about="The families' own recipes for CIFAR-10 (ResNets configs/cifar10_resnet.py, ConvNeXts "
    "configs/cifar10_afc.py), whole networks, all images. For an accelerator.",
    seeds=(0, 1, 2),
    sizes={
        "ResNet-18": ("resnet18_cifar", {}),
        "ResNet-20": ("resnet20_cifar", {}),
        "ConvNeXt": ("cifar", {}),
        GATES: ("cifar", {}),
    },
    measuring=Measuring(worst_images=1000, points=64, starts=4, steps=20),
    shorten=_leave,
)
REDUCED = Protocol(
    name="reduced",
    about="Made for two CPU cores: two hours, and twenty minutes more for the gates that were tried. "
    f"{_IMAGES:,} training images, {_EPOCHS} epochs, batches of {_BATCH}, {_TEST_IMAGES:,} test images. "
    "ResNets take SGD and a cosine, ConvNeXts AdamW, no averages or dropped paths. The networks are much "
    "smaller than their names say: of ResNet-18 each stage has one block instead of two, and an eighth of "
    "the channels (8 to 64); of ResNet-20 one block instead of three, and half the channels (8 to 32); the "
    "ConvNeXts are `convnext_*_micro` (two stages of two blocks, 32 and 64 channels, a stem of stride 4). So "
    "short a training on so few images favours networks that no shift changes: it shows what shifts do to "
    "trained networks; the accuracies rank nothing.",
    seeds=(0, 1),
    sizes={
        "ResNet-18": ("resnet18_cifar", {"depths": (1, 1, 1, 1), "widths": (8, 16, 32, 64)}),
        "ResNet-20": ("resnet20_cifar", {"depths": (1, 1, 1), "widths": (8, 16, 32)}),
        "ConvNeXt": ("micro", {}),
        GATES: ("micro", {}),
    },
    measuring=Measuring(worst_images=100, points=32, starts=2, steps=10),
    shorten=_reduce,
)
LONGER = Protocol(
    name="longer",
    about="What a longer training makes of the ConvNeXts of the reduced protocol: the same networks and "
    f"recipe, but all 50,000 training images and {_LONGER_EPOCHS} epochs, {_TIMES:g} times the updates, and "
    "10,000 test images. With shifted images only the circular network is trained again: they change "
    "nothing for the others. Made for two CPU cores and an hour.",
    seeds=(0,),
    sizes={"ConvNeXt": REDUCED.sizes["ConvNeXt"]},
    measuring=REDUCED.measuring,
    shorten=_reduce_epochs,
    rows=tuple(
        row
        for row in rows()
        if row.family == "ConvNeXt" and (row.augmentation == "none" or not row.variant.promise)
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in (REDUCED, LONGER, FULL)}


def configuration(protocol: Protocol, run: Run, data: str = "") -> ConfigDict:
    """How a run is trained on the images at `data`, a folder, tar or zip with train/ and val/ or test/."""
    variant, (size, options) = run.row.variant, protocol.sizes[run.row.family]
    model = variant.model.format(size)
    if run.row.family in RESNETS:
        config = cifar10_resnet.recipe(model, learned=model.endswith("_lps"))
    else:
        config = cifar10_afc.recipe(model)
    config.model.options.update({**options, **variant.options})
    config.seed, config.data.path = run.seed, data
    # The recipe's padded crops of ConvNeXts are shifts too.
    config.data.crop, config.data.circular_shift = "none", AUGMENTATIONS[run.row.augmentation]
    config.checkpoint.best = ""  # the last network is measured: nothing is chosen,
    config.data.validation = 0.0  # so no images are held out for it
    config.train.precision = "float32"  # of all networks alike
    protocol.shorten(config)
    return config
