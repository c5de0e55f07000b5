"""Networks, assembled from layers with injected parts."""

from aliasfree_jax.models.alexnet_vgg import VGG, AlexNet, BasicClassifier
from aliasfree_jax.models.convnext import ConvNeXt
from aliasfree_jax.models.deeplab import DeepLabV3Plus
from aliasfree_jax.models.densenet import DenseNet
from aliasfree_jax.models.mobilenet import MobileNetV2
from aliasfree_jax.models.network import Network, Stage
from aliasfree_jax.models.parts import register_part
from aliasfree_jax.models.registry import create_model, list_models
from aliasfree_jax.models.resnet import ResNet
from aliasfree_jax.models.unet import UNet
from aliasfree_jax.models.xcit import XCiT

__all__ = [
    "VGG",
    "AlexNet",
    "BasicClassifier",
    "ConvNeXt",
    "DeepLabV3Plus",
    "DenseNet",
    "MobileNetV2",
    "Network",
    "ResNet",
    "Stage",
    "UNet",
    "XCiT",
    "create_model",
    "list_models",
    "register_part",
]
