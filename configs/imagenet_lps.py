"""Learnable polyphase sampling on ImageNet-1k (Rojas-Gomez et al. 2022, arXiv 2210.08001).

python train.py --config=configs/imagenet_lps.py:resnet18 --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_lps.py:resnet50,lpf3,zero --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_lps.py:ResNet101_LPS_DDAC3_zero_randomresized ...

The words after the colon have any order (`GRAMMAR`), or they are the name of an original checkpoint:
- the network;
- the filter before the sampler: a blur (`lpf3`), or a learned filter with 8 groups (`ddac3`);
- the sampler: `lps`, or `aps` if the norm chooses the component;
- the padding;
- the crop of training images, by default `randomresized` with `zero`, otherwise `basic`;
- the logits network, which scores the components;
- the temperature: one of the original's files tau_imagenet_*.cfg.

During training the samplers mix all components. As the temperature falls, the noise decreases and the weights
concentrate on one component. Evaluation selects one component. The original does not state the batch size,
the learning rate, the number of epochs, and the file of temperatures of its checkpoints. SGD for 90 epochs is
our interpretation.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.conversion.learnable_polyphase_sampling import LOGITS, translate
from aliasfree_jax.errors import ConfigError
from configs import SIZES, choices
from configs.imagenet_blur import original, sgd_recipe

LINEAR = {  # epochs, and the temperatures at these epochs
    "multistep": ((62.0, 82.0, 90.0), (0.5, 0.05, 0.01)),
    "multistep02": ((65.0, 85.0, 90.0), (0.75, 0.1, 0.05)),
    "multistep03": ((62.0, 90.0), (0.5, 0.25)),
}
DECAY = {  # epochs between steps, factor, smallest temperature
    "stepdecay_limit": (10.0, 0.825, 0.025),
    "stepdecay_limit_1e": (1.0, 0.97, 0.1),
}
GROUPS = 8
FILTERS = {f"lpf{size}": ("LowPassFilter", size, ()) for size in SIZES} | {
    f"ddac{size}": ("DDAC", size, (GROUPS,)) for size in (3, 5, 7)
}
WORDS: dict[str, dict[str, Any]] = {
    "network": {f"resnet{depth}": f"ResNet{depth}Custom" for depth in (18, 50, 101)},
    "sampler": {"lps": "LPS", "aps": "max_2_norm"},
    "filter": FILTERS,
    "padding": {"circular": "circular", "zero": "zeros"},
    "augmentation": {"basic": ("none", 0), "shifts": ("none", 32), "randomresized": ("random_resized", 0)},
    "logits network": {name: name for name in LOGITS},
    "temperature": {name: name for name in (*LINEAR, *DECAY)},
}
GRAMMAR = "at most one word of each kind, separated by commas, such as resnet50,lpf3,zero:\n" + "\n".join(
    f"  {slot}: {', '.join(words)}" for slot, words in WORDS.items()
)


def network_options(chosen: dict[str, Any]) -> dict[str, Any]:
    """The original's options for these words. Filters, pools and logits networks have the same padding."""
    padding = chosen.get("padding", "circular")
    options = {
        "pool": chosen.get("sampler", "LPS"),
        "padding_mode": padding,
        "logits_pad": padding,
        "logits": chosen.get("logits network", "LPSLogitLayers"),
        "swap_conv_pool": False,
    }
    if "filter" in chosen:
        kind, size, groups = chosen["filter"]
        options["antialias"] = [kind, size, padding, *groups]
    return options


def get_config(words: str = "resnet18") -> ConfigDict:
    """Returns the configuration for words of `GRAMMAR`."""
    chosen = choices(words, WORDS, GRAMMAR)
    network = chosen.get("network", "ResNet18Custom")
    options = {**network_options(chosen), "maxpool_zpad": chosen.get("padding") == "zeros"}
    config = original(sgd_recipe(network), *translate(network, options))
    usual = WORDS["augmentation"]["randomresized" if chosen.get("padding") == "zeros" else "basic"]
    config.data.crop, config.data.circular_shift = chosen.get("augmentation", usual)
    if chosen.get("sampler") == "max_2_norm":
        if {"logits network", "temperature"} & set(chosen):
            raise ConfigError(f"a logits network and a temperature need lps, not aps. Expected {GRAMMAR}")
        return config
    schedule, temperature = config.train.temperature, chosen.get("temperature", "multistep")
    if temperature in LINEAR:
        schedule.schedule = "linear"
        schedule.at_epochs, schedule.targets = LINEAR[temperature]
    else:
        schedule.schedule = "decay"
        schedule.every_epochs, schedule.factor, schedule.least = DECAY[temperature]
    return config
