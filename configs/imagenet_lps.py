"""Learnable polyphase sampling on ImageNet-1k (Rojas-Gomez et al. 2022, arXiv 2210.08001).

python train.py --config=configs/imagenet_lps.py:resnet18 --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_lps.py:resnet50,lpf3,zero --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_lps.py:ResNet101_LPS_DDAC3_zero_randomresized ...

Behind the colon are words in any order (`GRAMMAR`), or the name of a checkpoint of the original's: the
network; what filters before the choice, a blur (`lpf3`) or learned (`ddac3`, in 8 groups); `aps` where
the norm chooses; the padding; how training images are cut (with `zero` `randomresized` if left out, else
`basic`); the network that scores the components; and the temperature, one of the original's files
tau_imagenet_*.cfg.

In training the samplers mix all components, with less noise and harder weights as the temperature falls;
evaluation picks one component. The original states neither batch, rate nor epochs, nor which file its
checkpoints used: SGD for 90 epochs is our reading.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.conversion.learnable_polyphase_sampling import LOGITS, translate
from aliasfree_jax.errors import ConfigError
from configs import SIZES, choices
from configs.imagenet_blur import original, sgd_recipe

LINEAR = {  # epochs, and the temperatures reached there
    "multistep": ((62.0, 82.0, 90.0), (0.5, 0.05, 0.01)),
    "multistep02": ((65.0, 85.0, 90.0), (0.75, 0.1, 0.05)),
    "multistep03": ((62.0, 90.0), (0.5, 0.25)),
}
DECAY = {  # epochs between steps, factor, least temperature
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
GRAMMAR = "one word at most of each, between commas, such as resnet50,lpf3,zero:\n" + "\n".join(
    f"  {slot}: {', '.join(words)}" for slot, words in WORDS.items()
)


def network_options(chosen: dict[str, Any]) -> dict[str, Any]:
    """The original's options for these choices; zero padding is that of filters, pools and logits too."""
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
    """The configuration for words of `GRAMMAR`."""
    chosen = choices(words, WORDS, GRAMMAR)
    network = chosen.get("network", "ResNet18Custom")
    options = {**network_options(chosen), "maxpool_zpad": chosen.get("padding") == "zeros"}
    config = original(sgd_recipe(network), *translate(network, options))
    usual = WORDS["augmentation"]["randomresized" if chosen.get("padding") == "zeros" else "basic"]
    config.data.crop, config.data.circular_shift = chosen.get("augmentation", usual)
    if chosen.get("sampler") == "max_2_norm":
        if {"logits network", "temperature"} & set(chosen):
            raise ConfigError(
                f"a logits network and a temperature are of lps, not of aps. Expected {GRAMMAR}"
            )
        return config
    schedule, temperature = config.train.temperature, chosen.get("temperature", "multistep")
    if temperature in LINEAR:
        schedule.schedule = "linear"
        schedule.at_epochs, schedule.targets = LINEAR[temperature]
    else:
        schedule.schedule = "decay"
        schedule.every_epochs, schedule.factor, schedule.least = DECAY[temperature]
    return config
