"""XCiTs on ImageNet-1k, by default the exact gated one; the recipe of the Alias-Free ViT (arXiv 2510.22673).

python train.py --config=configs/imagenet_xcit.py --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_xcit.py:xcit_aft_nano_12_p16 --config.data.path=/data/imagenet

The word after the colon names the network. The learning rate changes in every update; in the original it
changes in every epoch. An update uses 512 images, as there for alias-free networks; the learning rate is 5e-4
for every 512 images.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config(model: str = "xcit_afg_nano_12_p16") -> ConfigDict:
    """Returns the configuration for a network."""
    config = recipe(model)
    config.model.options.drop_path_rate = 0.0 if "nano" in model else 0.05

    config.data.eval_crop_ratio = 1.0
    config.data.repeats = 3

    config.train.batch_size = 512
    config.train.accumulation_steps = 4
    config.train.total_epochs = 400.0
    config.train.ema_decay = 0.0

    config.optimizer.learning_rate = 5e-4
    config.optimizer.min_learning_rate = 1e-5
    config.optimizer.warmup_epochs = 5.0
    return config
