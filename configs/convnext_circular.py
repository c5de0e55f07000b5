"""ConvNeXt-Tiny with circular padding on ImageNet-1k: the baseline of arXiv 2303.08085, which aliases.

python train.py --config=configs/convnext_circular.py --config.data.path=/data/imagenet

The training equals that of `configs/convnext_afc.py`.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return recipe("convnext_circular_tiny")
