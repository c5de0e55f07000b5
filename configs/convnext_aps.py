"""ConvNeXt-Tiny with adaptive polyphase sampling (Chaman and Dokmanic 2021) on ImageNet-1k.

python train.py --config=configs/convnext_aps.py --config.data.path=/data/imagenet

Training is that of `configs/convnext_afc.py`, which says what of the paper's is missing.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config() -> ConfigDict:
    """The configuration."""
    return recipe("convnext_aps_tiny")
