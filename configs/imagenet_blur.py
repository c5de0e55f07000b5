"""Networks with BlurPool on ImageNet-1k (Zhang 2019, arXiv 1904.11486), by the original's recipe.

python train.py --config=configs/imagenet_blur.py --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_blur.py:vgg16_bn_lpf3 --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_blur.py:resnet50_lpf4,finetune --config.init_from=resnet50.pth ...

Behind the colon is an architecture of the original's main.py: the name of a network and `_lpf` with the
size of its filters, 1 to 7; without `_lpf`, torchvision's network, the baseline. `,finetune` starts from
weights of that one (torchvision's file, or a run's directory) with a tenth of its learning rate for 60
epochs.

For VGG the original adds up the gradients of two batches of 128 images without dividing by two. Their
mean, which is what this package takes, moves as far at twice the learning rate and half the weight decay.
MobileNet's cosine falls once an epoch there, with every step here.
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
    "NETWORK_lpf1 to NETWORK_lpf7, or NETWORK (torchvision's), such as resnet50_lpf4; with ',finetune' from "
    f"weights. Networks: {', '.join(MODELS)}."
)
# Peak learning rates of the original's README, 0.1 for all others; VGG's are those of 16 layers.
LEARNING_RATES = {"alexnet": 0.01, "vgg11": 0.01, "vgg13": 0.01, "vgg16": 0.01, "vgg19": 0.01} | {
    f"vgg{depth}_bn": 0.05 for depth in (11, 13, 16, 19)
}


def sgd_recipe(model: str) -> ConfigDict:
    """SGD with a tenth of the learning rate every 30 epochs, random crops and flips; resized bilinearly."""
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

    # As in the originals the best network is chosen on the split that it is reported on.
    # data.validation = 0.02 would hold 25,000 training images out for it.
    config.data.validation = 0.0
    config.checkpoint.best = "accuracy"

    config.eval.batch_size = 256
    return config


def original(config: ConfigDict, model: str, options: dict[str, Any]) -> ConfigDict:
    """`config` with the network that a code base's `translate` names; the data tell its classes."""
    config.model.name = model
    config.model.options.update({name: value for name, value in options.items() if name != "num_classes"})
    return config


def get_config(architecture: str = "resnet50_lpf4") -> ConfigDict:
    """The configuration for an architecture of `GRAMMAR`."""
    words: dict[str, Words] = {"architecture": ARCHITECTURES, "start": {"finetune": True}}
    chosen = choices(architecture, words, GRAMMAR)
    if "architecture" not in chosen:
        raise ConfigError(f"no architecture behind the colon. Expected {GRAMMAR}")
    network, size = chosen["architecture"]
    if "start" in chosen and not size:
        raise ConfigError(f"finetune makes an anti-aliased network of {network}: {network}_lpf4,finetune.")
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
