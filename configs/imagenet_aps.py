"""ResNet-18 with adaptive polyphase sampling on ImageNet-1k (Chaman and Dokmanic 2021, arXiv 2011.14214).

python train.py --config=configs/imagenet_aps.py --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_aps.py --config.data.circular_shift=32 ...

The original's recipe takes the central crop of every image, never a random one, so its accuracies lie
below those of other recipes. Its circular_data_aug is `data.circular_shift=32`: there one shift for the
whole batch, here one for each image.
"""

from ml_collections import ConfigDict

from configs.imagenet_blur import sgd_recipe


def get_config() -> ConfigDict:
    """The configuration."""
    config = sgd_recipe("resnet18_aps")
    config.data.crop = "none"
    return config
