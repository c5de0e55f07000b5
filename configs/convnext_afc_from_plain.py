"""A trained ConvNeXt-Tiny on ImageNet-1k fine-tuned into the alias-free one, by blending their layers.

python train.py --config=configs/convnext_afc_from_plain.py --config.init_from=convnext_tiny.pth \
  --config.data.path=/data/imagenet

The run starts as the network of the weights (a file of ConvNeXt or alias_free_convnets, or a run of
configs/convnext_plain.py; with --config.train.blend.start=convnext_circular, of configs/convnext_circular.py)
and after `train.blend.epochs` it is `convnext_afc_tiny`. The recipe is ours, never run on ImageNet: the
paper's augmentation, a tenth of its epochs, and ConvNeXt's fine-tuning rate for larger batches.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.ops.activation import GELU_QUADRATIC
from configs.convnext_afc import recipe

SCALE = 7.0  # the paper's: the coefficients move so much the faster


def gelu_like(name: str) -> dict[str, Any]:
    """A polynomial activation with the paper's scales that starts as the quadratic nearest to GELU.

    The paper's networks, trained from scratch, start with 7 times that quadratic of 7 times the input.
    """
    initial = [c / SCALE ** (power + 1) for power, c in enumerate(GELU_QUADRATIC)]
    return {"name": name, "in_scale": SCALE, "out_scale": SCALE, "train_scale": True, "initial": initial}


def blended(config: ConfigDict, epochs: float) -> ConfigDict:
    """`config` of an alias-free ConvNeXt, with a start from plain weights and that long a blend."""
    config.model.options.activation = gelu_like("up_polynomial")
    config.model.options.stem_activation = gelu_like("lowpass_polynomial")
    config.train.blend.epochs = epochs
    return config


def get_config() -> ConfigDict:
    """The configuration."""
    config = blended(recipe("convnext_afc_tiny"), epochs=15.0)
    config.train.total_epochs = 30.0
    config.train.batch_size = 1024
    config.train.accumulation_steps = 4
    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_epochs = 0.0
    return config
