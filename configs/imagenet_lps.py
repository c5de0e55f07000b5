"""ResNet-18 with learnable polyphase sampling on ImageNet-1k (Rojas-Gomez et al. 2022, arXiv 2210.08001).

python train.py --config=configs/imagenet_lps.py --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_lps.py --config.model.options.filter_size=3 ...

In training the samplers mix all components, with less noise and harder weights as the temperature falls
(tau_imagenet_multistep of the original, which does not say which of its files its checkpoints used);
evaluation picks one component.
"""

from ml_collections import ConfigDict

from configs.imagenet_blur import sgd_recipe


def get_config() -> ConfigDict:
    """The configuration."""
    config = sgd_recipe("resnet18_lps")
    config.data.crop = "none"
    config.data.circular_shift = True
    config.train.temperature.schedule = "linear"
    config.train.temperature.at_epochs = (62.0, 82.0, 90.0)
    config.train.temperature.targets = (0.5, 0.05, 0.01)
    return config
