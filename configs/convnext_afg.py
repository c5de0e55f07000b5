"""Gated alias-free ConvNeXt-Tiny on ImageNet-1k: products of maps instead of polynomials (docs/design.md).

python train.py --config=configs/convnext_afg.py --config.data.path=/data/imagenet

Training is that of `configs/convnext_afc.py`. Nobody has trained this network on ImageNet yet.
"""

from ml_collections import ConfigDict

from configs.convnext_afc import recipe


def get_config() -> ConfigDict:
    """The configuration."""
    return recipe("convnext_afg_tiny")
