"""A trained ConvNeXt-Tiny fine-tuned into the alias-free one on ImageNet-1k, its layers blended over ten epochs.

python train.py --config=configs/convnext_afc_from_plain.py --config.init_from=convnext_tiny.pth \
  --config.data.path=/data/imagenet

The run starts as the network of the weights: a file of ConvNeXt or alias_free_convnets, or a run of
configs/convnext_plain.py; with --config.train.blend.start=convnext_circular, of configs/convnext_circular.py.
It ends as `convnext_afc_tiny`. The recipe is ours: that of ConvNeXt's fine-tuning (augmentation of the
training, low rate), as long as the blend needs; never run on ImageNet.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config() -> ConfigDict:
    """The configuration."""
    config = recipe("convnext_afc_tiny")
    config.train.blend.epochs = 10.0
    config.train.total_epochs = 30.0
    config.train.batch_size = 1024
    config.train.accumulation_steps = 4
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_epochs = 0.0
    return config
