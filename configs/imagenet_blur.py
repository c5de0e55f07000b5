"""Networks with BlurPool on ImageNet-1k (Zhang 2019, arXiv 1904.11486), with the original's recipe.

python train.py --config=configs/imagenet_blur.py --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_blur.py:vgg16_bn_lpf3 --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_blur.py:resnet50_lpf4,finetune --config.init_from=resnet50.pth ...

The word after the colon is an architecture of the original's main.py: the name of a network and `_lpf` with
the size of its filters, 1 to 7. Without `_lpf` it is torchvision's network, the baseline. `,finetune` trains
weights of the baseline (torchvision's file, or a run's directory) for 60 epochs, with a tenth of its learning
rate.

For VGG the original adds the gradients of two batches of 128 images without dividing by two. This package
uses their mean, with twice the learning rate and half the weight decay, which gives the same updates.
MobileNet's cosine schedule falls once per epoch in the original, and with every step here.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.config import base_config
from aliasfree_jax.conversion.antialiased_cnns import MODELS, translate, translate_torchvision
from aliasfree_jax.errors import ConfigError
from configs import SIZES, Words, choices

ARCHITECTURES = {name: (name, 0) for name in MODELS} | {
    f"{name}_lpf{size}": (name, size) for name in MODELS for size in SIZES
}
GRAMMAR = (
    "NETWORK_lpf1 to NETWORK_lpf7, or NETWORK (torchvision's), such as resnet50_lpf4; ',finetune' starts "
    f"from weights. Networks: {', '.join(MODELS)}."
)
# Peak learning rates of the original's README; all others have 0.1. All VGGs have the rates of 16 layers.
LEARNING_RATES = {"alexnet": 0.01, "vgg11": 0.01, "vgg13": 0.01, "vgg16": 0.01, "vgg19": 0.01} | {
    f"vgg{depth}_bn": 0.05 for depth in (11, 13, 16, 19)
}


def sgd_recipe(model: str) -> ConfigDict:
    """SGD with a tenth of the learning rate every 30 epochs, random crops, flips, bilinear resizing."""
    config = base_config()
    config.model.name = model

    config.data.source = "folder"
    config.data.image_size = 224
    config.data.crop = "random_resized"
    config.data.interpolation = "bilinear"
    config.data.flip = True

    config.train.batch_size = 256
    config.train.total_epochs = 90.0

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    config.optimizer.step_epochs = (30.0, 60.0)
    config.optimizer.weight_decay = 1e-4

    # As in the originals, the best network is chosen on the split of the reported results.
    # data.validation = 0.02 would hold out 25,000 training images for this choice.
    config.data.validation = 0.0
    config.checkpoint.best = "accuracy"

    config.eval.batch_size = 256
    return config


def original(config: ConfigDict, model: str, options: dict[str, Any]) -> ConfigDict:
    """Sets the network in `config` as returned by `translate`. The data set the number of classes."""
    config.model.name = model
    config.model.options.update({name: value for name, value in options.items() if name != "num_classes"})
    return config


def get_config(architecture: str = "resnet50_lpf4") -> ConfigDict:
    """Returns the configuration for an architecture of `GRAMMAR`."""
    words: dict[str, Words] = {"architecture": ARCHITECTURES, "start": {"finetune": True}}
    chosen = choices(architecture, words, GRAMMAR)
    if "architecture" not in chosen:
        raise ConfigError(f"no architecture after the colon. Expected {GRAMMAR}")
    network, size = chosen["architecture"]
    if "start" in chosen and not size:
        raise ConfigError(
            f"finetune needs an anti-aliased network, such as {network}_lpf4,finetune; got {network}."
        )
    translated = translate(network, {"filter_size": size}) if size else translate_torchvision(network, {})
    config = original(sgd_recipe(network), *translated)
    config.optimizer.learning_rate = LEARNING_RATES.get(network, 0.1)
    if network.startswith("vgg"):
        config.train.accumulation_steps = 2
        config.optimizer.learning_rate *= 2
        config.optimizer.weight_decay /= 2
    if network == "mobilenet_v2":
        config.optimizer.learning_rate = 0.05
        config.optimizer.schedule = "cosine"
        config.optimizer.min_learning_rate = 0.0
        config.optimizer.weight_decay = 4e-5
        config.train.total_epochs = 150.0
    if "start" in chosen:
        config.optimizer.learning_rate *= 0.1
        config.train.total_epochs = 60.0
    return config
