"""Small gated alias-free ConvNeXt on CIFAR-10: products of maps instead of polynomials (docs/design.md).

python train.py --config=configs/cifar10_afg.py --config.data.path=/data/cifar10

The training equals that of `configs/cifar10_afc.py`, so that the five networks can be compared.
"""

from ml_collections import ConfigDict

from configs.cifar10_afc import recipe


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return recipe("convnext_afg_cifar")
