"""U-Net that segments scenes of handwritten digits: one class per pixel. No download, no GPU.

python train.py --config=configs/segment_digits.py
python train.py --config=configs/segment_digits.py:lps

The word after the colon is the variant: afc (alias-free, the default), circular, blur, aps or lps. All
variants have the same training. The alias-free network has instance norms, the others have batch norms. The
scenes are generated during training: some of scikit-learn's digits at real-valued positions on a textured
background.
Training takes minutes on two CPU cores. At the end it prints mean IoU and consistency under shifts.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.config import base_config
from configs import choices

WORDS: dict[str, dict[str, Any]] = {
    "variant": {name: name for name in ("afc", "aps", "blur", "circular", "lps")}
}
GRAMMAR = f"one of {', '.join(WORDS['variant'])}"


def get_config(words: str = "afc") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = base_config()
    config.task = "segmentation"
    variant = choices(words, WORDS, GRAMMAR)["variant"]
    config.model.name = f"unet_micro_{variant}"
    if variant == "afc":  # learns faster than with a norm over all channels together
        config.model.options.norm = "instance"

    config.data.source = "digit_scenes"
    config.data.image_size = 40
    config.data.mean = (0.32,)
    config.data.std = (0.19,)
    config.data.eval_crop_ratio = 1.0

    config.train.batch_size = 16
    config.train.total_epochs = 5.0

    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_epochs = 0.25

    config.eval.batch_size = 32
    config.eval.every_epochs = 1.0
    config.eval.shifts = 4
    config.checkpoint.every_epochs = 1.0
    config.checkpoint.best = ""  # no scenes are held out to choose a network, so the last one is reported
    config.log.every_steps = 20
    return config
