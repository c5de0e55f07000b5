"""ResNet-18 with learnable polyphase sampling on ImageNet-1k (Rojas-Gomez et al. 2022, arXiv 2210.08001).

python train.py --config=configs/imagenet_lps.py --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_lps.py:stepdecay_limit --config.model.options.filter_size=3 ...

In training the samplers mix all components, with less noise and harder weights as the temperature falls;
evaluation picks one component. The word behind the colon is one of the original's files
tau_imagenet_*.cfg; it does not say which of them its checkpoints used.
"""

from ml_collections import ConfigDict

from configs.imagenet_blur import sgd_recipe

LINEAR = {  # epochs, and the temperatures reached there
    "multistep": ((62.0, 82.0, 90.0), (0.5, 0.05, 0.01)),
    "multistep02": ((65.0, 85.0, 90.0), (0.75, 0.1, 0.05)),
    "multistep03": ((62.0, 90.0), (0.5, 0.25)),
}
DECAY = {  # epochs between steps, factor, least temperature
    "stepdecay_limit": (10.0, 0.825, 0.025),
    "stepdecay_limit_1e": (1.0, 0.97, 0.1),
}


def get_config(temperature: str = "multistep") -> ConfigDict:
    """The configuration with one of `LINEAR` and `DECAY`."""
    config = sgd_recipe("resnet18_lps")
    config.data.crop = "none"
    config.data.circular_shift = 32
    schedule = config.train.temperature
    if temperature in LINEAR:
        schedule.schedule = "linear"
        schedule.at_epochs, schedule.targets = LINEAR[temperature]
    elif temperature in DECAY:
        schedule.schedule = "decay"
        schedule.every_epochs, schedule.factor, schedule.least = DECAY[temperature]
    else:
        raise ValueError(f"expected one of {', '.join([*LINEAR, *DECAY])}, got {temperature!r}")
    return config
