"""ConvNeXt-Tiny with circular padding on ImageNet-1k, the aliasing baseline of arXiv 2303.08085.

python train.py --config=configs/convnext_circular.py --config.data.path=/data/imagenet

Training is that of `configs/convnext_afc.py`, which says what of the paper's is missing.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config() -> ConfigDict:
    """The configuration."""
    return recipe("convnext_circular_tiny")
