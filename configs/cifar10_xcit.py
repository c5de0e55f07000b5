"""Small XCiTs on CIFAR-10, by default the exact gated one.

python train.py --config=configs/cifar10_xcit.py --config.data.path=/data/cifar10
python train.py --config=configs/cifar10_xcit.py:xcit_circular_cifar --config.data.path=/data/cifar10

The word after the colon names the network. The training equals that of `configs/cifar10_afc.py`.
"""

from ml_collections import ConfigDict

from configs.cifar10_afc import recipe


def get_config(model: str = "xcit_afg_cifar") -> ConfigDict:
    """Returns the configuration for a network."""
    return recipe(model)
