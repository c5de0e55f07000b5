"""Small alias-free ConvNeXt on CIFAR-10.

python train.py --config=configs/cifar10_afc.py --config.data.path=/data/cifar10

The path contains train/<class>/*.png and val/<class>/*.png. The recipe is from this package, not from a
paper.
"""

from ml_collections import ConfigDict

from aliasfree_jax.config import base_config


def recipe(model: str) -> ConfigDict:
    """Training on CIFAR-10, equal for all five networks."""
    config = base_config()
    config.model.name = model
    config.model.options.drop_path_rate = 0.1

    config.data.source = "folder"
    config.data.image_size = 32
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.data.crop = "padded"
    config.data.flip = True
    config.data.eval_crop_ratio = 1.0
    config.data.validation = 0.1  # 5,000 training images choose the best network; test images never do

    config.train.batch_size = 128
    config.train.total_epochs = 100.0
    config.train.label_smoothing = 0.1
    config.train.ema_decay = 0.999

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.weight_decay = 0.05

    config.checkpoint.best = "accuracy"
    config.eval.batch_size = 500
    config.eval.every_epochs = 5.0
    config.checkpoint.every_epochs = 5.0
    return config


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return recipe("convnext_afc_cifar")
