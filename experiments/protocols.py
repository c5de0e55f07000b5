"""The protocols: how runs are trained and measured. Results of different protocols are never mixed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from configs import cifar10_afc, cifar10_resnet
from experiments.matrix import AUGMENTATIONS, GATES, RESNETS, XCIT, Row, Run, accurate_rows, rows, runs


@dataclass(frozen=True)
class Measuring:
    """How a trained network is measured.

    Attributes:
      worst_images: Number of test images, evenly spread, for which worst cases are searched.
      points: Initial points of the search over real-valued shifts.
      starts: Number of the worst points from which gradient ascent starts.
      steps: Steps of gradient ascent.
      draws: Random shifts per test image and kind of shift.
      largest_crop: Largest shift per axis, in pixels, of shifts with zeros at the border.
      mapped_images: Number of images whose last feature map is compared.
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
    """How all networks are trained and measured.

    Attributes:
      name: Name of its directories of results and runs.
      about: Description for its page.
      seeds: Seeds of every row.
      sizes: For each family: the size in the names of its networks, and options of all its networks.
      measuring: How trained networks are measured.
      shorten: Changes the family's recipe.
      rows: Rows of its table.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    sizes: Mapping[str, tuple[str, Mapping[str, Any]]]
    measuring: Measuring
    shorten: Callable[[ConfigDict], None]
    rows: Sequence[Row] = tuple(rows())

    def runs(self) -> list[Run]:
        """All runs, in the order of training."""
        return list(runs(self.rows, self.seeds))


def _leave(config: ConfigDict) -> None:
    """Keeps the recipe."""


_IMAGES, _TEST_IMAGES, _EPOCHS, _BATCH = 5000, 1000, 8, 50  # protocol `reduced`
_LONGER_EPOCHS = 10  # protocol `longer`, on all images
_TIMES = _LONGER_EPOCHS * 50_000 / (_EPOCHS * _IMAGES)
_ACCURATE_EPOCHS = 10  # protocol `accurate`, on all images


def _reduce(config: ConfigDict) -> None:
    """Few images and few epochs."""
    _shorten(config, _EPOCHS)
    config.data.train_limit, config.data.eval_limit = _IMAGES, _TEST_IMAGES
    config.eval.every_epochs = 0.0


def _reduce_epochs(config: ConfigDict) -> None:
    """All images and few epochs, with an evaluation after each epoch."""
    _shorten(config, _LONGER_EPOCHS)
    config.eval.every_epochs = 1.0


def _shorten(config: ConfigDict, epochs: int) -> None:
    """Few epochs, small batches and a short warm-up. No averaged weights, which need longer training."""
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


def _one_cycle(config: ConfigDict) -> None:
    """All images and few epochs in batches of 128: a warm-up of one epoch, then a cosine."""
    _shorten(config, _ACCURATE_EPOCHS)
    config.train.batch_size = 128
    config.optimizer.warmup_epochs = 1.0
    config.eval.every_epochs = 0.0  # the test images are used once, after the training
    config.checkpoint.every_epochs = 1.0
    config.data.flip = True
    if config.optimizer.name == "sgd":
        config.optimizer.learning_rate = 0.2
        config.optimizer.nesterov = True


FULL = Protocol(
    name="full",
    about="The recipes for CIFAR-10 (ResNets: configs/cifar10_resnet.py, ConvNeXts: "
    "configs/cifar10_afc.py) without changes, with full networks and all images. It needs an accelerator.",
    seeds=(0, 1, 2),
    sizes={
        "ResNet-18": ("resnet18_cifar", {}),
        "ResNet-20": ("resnet20_cifar", {}),
        "ConvNeXt": ("cifar", {}),
        XCIT: ("cifar", {}),
        GATES: ("cifar", {}),
    },
    measuring=Measuring(worst_images=1000, points=64, starts=4, steps=20),
    shorten=_leave,
)
REDUCED = Protocol(
    name="reduced",
    about="Designed for two CPU cores: it takes three and a half hours. "
    f"It has {_IMAGES:,} training images, {_EPOCHS} epochs, batches of {_BATCH} and {_TEST_IMAGES:,} test "
    "images. ResNets are trained by SGD with a cosine schedule, ConvNeXts and XCiTs by AdamW. There are no "
    "averaged weights and no dropped paths. The networks are much smaller than their names suggest. Each "
    "stage of ResNet-18 has one block instead of two and an eighth of the channels (8 to 64). Each stage of "
    "ResNet-20 has one block instead of three and half the channels (8 to 32). The ConvNeXts are "
    "`convnext_*_micro`: two stages of two blocks, 32 and 64 channels, and a stem of stride 4. The XCiTs are "
    "`xcit_*_micro`: four blocks of 64 channels, two class blocks, and a stem of stride 4. Such a short "
    "training on few images favours shift-invariant networks. The tables show the effect of shifts on "
    "trained networks. Do not use them to rank accuracy.",
    seeds=(0, 1),
    sizes={
        "ResNet-18": ("resnet18_cifar", {"depths": (1, 1, 1, 1), "widths": (8, 16, 32, 64)}),
        "ResNet-20": ("resnet20_cifar", {"depths": (1, 1, 1), "widths": (8, 16, 32)}),
        "ConvNeXt": ("micro", {}),
        XCIT: ("micro", {}),
        GATES: ("micro", {}),
    },
    measuring=Measuring(worst_images=100, points=32, starts=2, steps=10),
    shorten=_reduce,
)
LONGER = Protocol(
    name="longer",
    about="The ConvNeXts and XCiTs of the reduced protocol, trained longer. Networks and recipe are the "
    f"same, but there are all 50,000 training images, {_LONGER_EPOCHS} epochs ({_TIMES:g} times the updates) "
    "and 10,000 test images. Only the circular ConvNeXt is also trained on shifted images. Designed for two "
    "CPU cores: it takes four hours.",
    seeds=(0,),
    sizes={family: REDUCED.sizes[family] for family in ("ConvNeXt", XCIT)},
    measuring=REDUCED.measuring,
    shorten=_reduce_epochs,
    rows=tuple(
        row
        for row in rows()
        if row.family in ("ConvNeXt", XCIT) and (row.augmentation == "none" or not row.variant.promise)
    ),
)
ACCURATE = Protocol(
    name="accurate",
    about="Networks with the depths and widths of their names, trained on all 50,000 images with random "
    f"crops and flips, for {_ACCURATE_EPOCHS} epochs: one cycle with a warm-up of one epoch and a cosine, in "
    "batches of 128. ResNets are trained by SGD with Nesterov momentum, ConvNeXts by AdamW. There are no "
    "averaged weights and no dropped paths. The test images are used once, after the training. Designed for "
    "two CPU cores: a row takes one and a half to three and a half hours of one core.",
    seeds=(0,),
    sizes={"ResNet-20": FULL.sizes["ResNet-20"], "ConvNeXt": FULL.sizes["ConvNeXt"]},
    measuring=Measuring(worst_images=200, points=32, starts=2, steps=10),
    shorten=_one_cycle,
    rows=tuple(accurate_rows()),
)
PROTOCOLS = {protocol.name: protocol for protocol in (REDUCED, LONGER, ACCURATE, FULL)}


def configuration(protocol: Protocol, run: Run, data: str = "") -> ConfigDict:
    """The configuration of a run. `data` is a folder, tar or zip with train/ and val/ or test/."""
    variant, (size, options) = run.row.variant, protocol.sizes[run.row.family]
    model = variant.model.format(size)
    if run.row.family in RESNETS:
        config = cifar10_resnet.recipe(model, learned=model.endswith("_lps"))
    else:
        config = cifar10_afc.recipe(model)
    config.model.options.update({**options, **variant.options})
    config.seed, config.data.path = run.seed, data
    config.data.crop = "none"  # the padded crops in the ConvNeXts' recipe are shifts, too
    config.data.update(AUGMENTATIONS[run.row.augmentation])
    config.checkpoint.best = ""  # the last network is measured, so no validation images are needed
    config.data.validation = 0.0
    config.train.precision = "float32"  # equal for all networks
    protocol.shorten(config)
    return config
