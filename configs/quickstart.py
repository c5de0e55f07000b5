"""Alias-free ConvNeXt on the handwritten digits of scikit-learn: no download, no GPU.

python train.py

Training takes minutes on two CPU cores. At the end it prints accuracy and consistency under shifts.
"""

from ml_collections import ConfigDict

from aliasfree_jax.config import base_config


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = base_config()
    config.model.name = "convnext_afc_micro"

    config.data.source = "digits"
    config.data.image_size = 32
    config.data.mean = (0.3,)
    config.data.std = (0.35,)
    config.data.eval_crop_ratio = 1.0

    config.train.batch_size = 64
    config.train.total_epochs = 10.0

    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_epochs = 1.0

    config.eval.every_epochs = 2.0
    config.checkpoint.every_epochs = 5.0
    config.checkpoint.best = ""  # no images are held out to choose a network, so the last one is reported
    config.log.every_steps = 20
    return config
