"""ResNets for CIFAR-10 with four samplers, with the recipe of APS (Chaman and Dokmanic, arXiv 2011.14214).

python train.py --config=configs/cifar10_resnet.py --config.data.path=/data/cifar10
python train.py --config=configs/cifar10_resnet.py:resnet20,aps,5 --config.data.path=/data/cifar10
python train.py --config=configs/cifar10_resnet.py:resnet18_lpf,3,zeros --config.data.path=/data/cifar10

The words after the colon have any order (`GRAMMAR`):
- the network;
- its sampler: `lpf` (BlurPool), `aps` or `lps`; without a sampler, convolutions are strided;
- taps of the filter, 1 (no filter) to 7;
- the padding of convolutions, default `circular`;
- `shifts`, the original's data_augmentation_flag: training images are shifted by up to 3 pixels. The shifts
  are circular, or with `zeros` crops of the padded image.
All networks have the same training: SGD, 250 epochs. --config.eval.during=integer logs the consistency during
training (APS: --validate_consistency).

lps is from another code base, learnable_polyphase_sampling, which chooses its best networks on test images.
No configuration here does so. Its temperature falls as in that code base's only complete recipe:
`resnet18,lps,ComponentPerceptron,zeros` with --config.data.circular_shift=3.
"""

from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.conversion import learnable_polyphase_sampling, truly_shift_invariant_cnns
from aliasfree_jax.errors import ConfigError
from configs import SIZES, choices
from configs.imagenet_blur import original, sgd_recipe
from configs.imagenet_lps import network_options

WORDS: dict[str, dict[str, Any]] = {
    "network": {f"resnet{depth}": f"resnet{depth}" for depth in (18, 20, 34, 50, 56)},
    "sampler": {name: name for name in ("lpf", "aps", "lps")},
    "filter size": {str(size): size for size in SIZES},
    "padding": {"circular": "circular", "zeros": "zeros"},
    "augmentation": {"shifts": 3},
    "logits network": {name: name for name in learnable_polyphase_sampling.LOGITS},
}
GRAMMAR = (
    "at most one word of each kind, separated by commas, such as resnet20,aps,5:\n"
    + "\n".join(f"  {slot}: {', '.join(words)}" for slot, words in WORDS.items())
    + "\n  (without a sampler convolutions are strided; lps: only resnet18; logits networks: only lps)"
)


def recipe(model: str, *, learned: bool) -> ConfigDict:
    """Training on CIFAR-10, equal for all networks. With `learned` samplers the temperature falls."""
    config = sgd_recipe(model)

    config.data.image_size = 32
    config.data.interpolation = "bicubic"  # has no effect: nothing is resized
    config.data.mean = (0.49141738, 0.48219556, 0.44662726)
    config.data.std = (0.24703224, 0.24348514, 0.26158786)
    config.data.crop = "none"
    config.data.eval_crop_ratio = 1.0
    # As in APS, 45,000 images train the network and 5,000 choose the best one. Here these have equal numbers
    # of each class.
    config.data.validation = 0.1

    config.train.total_epochs = 250.0
    config.optimizer.step_epochs = (100.0, 200.0)
    config.optimizer.weight_decay = 5e-4

    config.train.temperature.schedule = "decay" if learned else "constant"
    config.checkpoint.best = "accuracy"
    config.eval.batch_size = 500
    config.eval.every_epochs = 5.0
    config.checkpoint.every_epochs = 5.0
    return config


def _network(chosen: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options for `create_model`."""
    network, sampler = chosen.get("network", "resnet18"), chosen.get("sampler")
    size, padding = chosen.get("filter size"), chosen.get("padding", "circular")
    if sampler == "lps":
        if network != "resnet18":
            raise ConfigError(
                f"lps for CIFAR-10 exists only for resnet18, not for {network}. Expected {GRAMMAR}"
            )
        filtered = {"filter": ("LowPassFilter", size, ())} if size and size > 1 else {}
        options = network_options({**filtered, **chosen, "sampler": "LPS"})
        return learnable_polyphase_sampling.translate(
            "ResNet18Custom", {**options, "inc_conv1_support": False}
        )
    if "logits network" in chosen:
        raise ConfigError(f"a logits network needs the sampler lps. Expected {GRAMMAR}")
    if size and not sampler:
        raise ConfigError(f"a filter size needs a sampler: lpf, aps or lps. Expected {GRAMMAR}")
    name = f"{network}_{sampler}" if sampler else network
    return truly_shift_invariant_cnns.translate_cifar(
        name, {"filter_size": size or 1, "conv_pad_type": padding}
    )


def get_config(words: str = "resnet18,aps,3") -> ConfigDict:
    """Returns the configuration for words of `GRAMMAR`."""
    chosen = choices(words, WORDS, GRAMMAR)
    config = recipe("", learned=chosen.get("sampler") == "lps")
    original(config, *_network(chosen))
    if "augmentation" in chosen and chosen.get("padding") == "zeros":
        config.data.crop, config.data.crop_padding = "padded", chosen["augmentation"]
    elif "augmentation" in chosen:
        config.data.circular_shift = chosen["augmentation"]
    return config
