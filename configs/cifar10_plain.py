"""Small ConvNeXt with zero padding on CIFAR-10.

python train.py --config=configs/cifar10_plain.py --config.data.path=/data/cifar10

The training equals that of `configs/cifar10_afc.py`, so that the five networks can be compared.
"""

from ml_collections import ConfigDict

from configs.cifar10_afc import recipe


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return recipe("convnext_cifar")
