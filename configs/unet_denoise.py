"""U-Net that removes noise from images of CIFAR-10 or of any folder.

python train.py --config=configs/unet_denoise.py --config.data.path=/data/cifar10
python train.py --config=configs/unet_denoise.py:aps --config.data.path=/data/photographs

The word after the colon is the variant: afc (alias-free, the default), circular, blur, instance, aps or lps.
All variants have the same training. The network's input is the image with normal noise, its target is the
image without noise. For photographs, set a size: --config.data.image_size=128.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.config import base_config
from configs import choices

WORDS: dict[str, dict[str, Any]] = {
    "variant": {name: name for name in ("afc", "aps", "blur", "circular", "instance", "lps")}
}
GRAMMAR = f"one of {', '.join(WORDS['variant'])}"


def get_config(words: str = "afc") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = base_config()
    config.task = "regression"
    config.model.name = f"unet_micro_{choices(words, WORDS, GRAMMAR)['variant']}"

    config.data.source = "folder"
    config.data.image_size = 32
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    config.data.flip = True
    config.data.crop = "random"
    config.data.eval_crop_ratio = 1.0
    config.data.noise = 0.1
    config.data.validation = 0.05

    config.train.loss = "l2"
    config.train.batch_size = 32
    config.train.total_epochs = 5.0

    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_epochs = 0.25

    config.eval.batch_size = 100
    config.eval.shifts = 4
    config.checkpoint.best = "psnr"
    config.log.every_steps = 50
    return config
