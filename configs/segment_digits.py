"""A U-Net finds the handwritten digits in scenes: the class of every pixel. No download, no GPU.

python train.py --config=configs/segment_digits.py
python train.py --config=configs/segment_digits.py:lps

Behind the colon stands the variant: afc (alias-free) if left out, else circular, blur, aps or lps. All train
alike; the alias-free one has instance norms, the others batch norms. The scenes are made on the fly: some of
scikit-learn's digits at real-valued places on textured ground. Trains for minutes on two CPU cores and ends
with mean IoU and consistency under shifts.
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
    """The configuration of a variant."""
    config = base_config()
    config.task = "segmentation"
    variant = choices(words, WORDS, GRAMMAR)["variant"]
    config.model.name = f"unet_micro_{variant}"
    if variant == "afc":  # learns classes faster than by the statistics of all channels together
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
    config.checkpoint.best = ""  # all scenes are trained on; the last network is reported
    config.log.every_steps = 20
    return config
