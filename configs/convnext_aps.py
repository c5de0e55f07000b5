"""ConvNeXt-Tiny with adaptive polyphase sampling (Chaman and Dokmanic 2021) on ImageNet-1k.

python train.py --config=configs/convnext_aps.py --config.data.path=/data/imagenet

The training equals that of `configs/convnext_afc.py`.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return recipe("convnext_aps_tiny")
