"""Gated alias-free ResNet-20 on CIFAR-10: exact for every circular shift (docs/experiments.md).

python train.py --config=configs/cifar10_resnet_afg.py --config.data.path=/data/cifar10

The recipe is that of `configs/cifar10_afc.py` with SGD, as in the accurate protocol of `experiments`. Crops
show the image's reflection outside, as in wide ResNets (Zagoruyko and Komodakis 2016). Black borders would
change the mean square of the image, by which this network's norm divides.
"""

from ml_collections import ConfigDict

from configs.cifar10_afc import recipe


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = recipe("resnet20_cifar_afg")
    config.data.crop = "reflected"
    config.optimizer.name, config.optimizer.nesterov = "sgd", True
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.2, 5e-4
    del config.model.options.drop_path_rate  # ResNets have no stochastic depth
    return config
