"""Gated alias-free ConvNeXt-Tiny on ImageNet-1k: products of maps instead of polynomials (docs/design.md).

python train.py --config=configs/convnext_afg.py --config.data.path=/data/imagenet

The training equals that of `configs/convnext_afc.py`. This network has not been trained on ImageNet yet.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return recipe("convnext_afg_tiny")
