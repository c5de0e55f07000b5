"""Alias-free ConvNeXt-Tiny on ImageNet-1k (Michaeli, Michaeli and Soudry 2023, arXiv 2303.08085).

python train.py --config=configs/convnext_afc.py --config.data.path=/data/imagenet

The path contains train/<class>/*.JPEG and val/<class>/*.JPEG. An update uses 4096 images: 16 micro-batches of
256, divided over all GPUs. With less memory, increase train.accumulation_steps. As in the original, MixUp
and CutMix use groups of 32 images.

python train.py --config=configs/convnext_afc.py:from_plain --config.init_from=convnext_tiny.pth \
  --config.data.path=/data/imagenet

fine-tunes a plain or circular ConvNeXt-Tiny: a file of ConvNeXt or alias_free_convnets, or a run. This recipe
is from this package and was never run on ImageNet. It has a tenth of the epochs, and ConvNeXt's learning rate
for fine-tuning, adapted to larger batches.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.config import base_config
from aliasfree_jax.ops.activation import GELU_QUADRATIC
from configs import choices

SCALE = 7.0  # from the paper: a larger scale makes the polynomial change faster in training


def recipe(model: str) -> ConfigDict:
    """The paper's training on ImageNet, equal for its four networks and the gated network."""
    config = base_config()
    config.model.name = model
    config.model.options.drop_path_rate = 0.1

    config.data.source = "folder"
    config.data.image_size = 224
    config.data.crop = "random_resized"
    config.data.flip = True
    config.data.rand_augment = "rand-m9-mstd0.5-inc1"
    config.data.erase_probability = 0.25

    config.train.mixing.mixup = 0.8
    config.train.mixing.cutmix = 1.0
    config.train.batch_size = 4096
    config.train.accumulation_steps = 16
    config.train.total_epochs = 300.0
    config.train.label_smoothing = 0.1
    config.train.ema_decay = 0.9999

    config.optimizer.learning_rate = 4e-3
    config.optimizer.min_learning_rate = 1e-6
    config.optimizer.warmup_epochs = 20.0
    config.optimizer.weight_decay = 0.05

    # As in the original, the best network is chosen on the split of the reported results. The original does
    # so once for the averages and once for the raw weights (checkpoint.best = "raw_accuracy").
    # data.validation = 0.02 would hold out 25,000 training images for this choice.
    config.data.validation = 0.0
    config.checkpoint.best = "accuracy"

    config.eval.batch_size = 256
    config.log.every_steps = 10
    return config


def gelu_like(name: str) -> dict[str, Any]:
    """Options of a polynomial activation with the paper's scales that starts as the best quadratic for GELU.

    The paper's networks, trained from scratch, start with 7 times this quadratic of 7 times the input.
    """
    initial = [c / SCALE ** (power + 1) for power, c in enumerate(GELU_QUADRATIC)]
    return {"name": name, "in_scale": SCALE, "out_scale": SCALE, "train_scale": True, "initial": initial}


def get_config(start: str = "") -> ConfigDict:
    """Returns the configuration for training from scratch, or for fine-tuning (`from_plain`)."""
    config = recipe("convnext_afc_tiny")
    if start and choices(start, {"start": {"from_plain": True}}, "from_plain, or no colon."):
        config.model.options.activation = gelu_like("up_polynomial")
        config.model.options.stem_activation = gelu_like("lowpass_polynomial")
        config.train.total_epochs = 30.0
        config.train.batch_size, config.train.accumulation_steps = 1024, 4
        config.optimizer.learning_rate = 4e-4
        config.optimizer.warmup_epochs = 0.0
    return config
