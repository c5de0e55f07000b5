"""ResNets for CIFAR-10 with four samplers, by the recipe of APS (Chaman and Dokmanic, arXiv 2011.14214).

python train.py --config=configs/cifar10_resnet.py --config.data.path=/data/cifar10
python train.py --config=configs/cifar10_resnet.py:resnet20,aps,5 --config.data.path=/data/cifar10
python train.py --config=configs/cifar10_resnet.py:resnet18_lpf,3,zeros --config.data.path=/data/cifar10

Behind the colon are words in any order (`GRAMMAR`): the network; its sampler, none for strided
convolutions, `lpf` for BlurPool, `aps`, or `lps`; taps of the filter, 1 (none) to 7; the padding of
convolutions, `circular` if left out; `shifts` for the original's data_augmentation_flag, shifts by up to
3 pixels: circular ones, or with `zeros` crops of the padded image. All train alike: SGD, 250 epochs.
--config.eval.during=integer logs the consistency while training (APS: --validate_consistency).

lps is of another code base, learnable_polyphase_sampling, which chooses its best networks on test images;
here none does. Its temperature falls as in the one full recipe there:
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
    "one word at most of each, between commas, such as resnet20,aps,5:\n"
    + "\n".join(f"  {slot}: {', '.join(words)}" for slot, words in WORDS.items())
    + "\n  (without a sampler convolutions are strided; lps: resnet18 only; logits networks: lps only)"
)


def recipe(model: str, *, learned: bool) -> ConfigDict:
    """Training on CIFAR-10, the same for all; of `learned` samplers the temperature falls."""
    config = sgd_recipe(model)

    config.data.image_size = 32
    config.data.interpolation = "bicubic"  # of no effect: nothing is resized
    config.data.mean = (0.49141738, 0.48219556, 0.44662726)
    config.data.std = (0.24703224, 0.24348514, 0.26158786)
    config.data.crop = "none"
    config.data.eval_crop_ratio = 1.0
    # As in APS, 45,000 images are trained on and 5,000 choose the best network; here of every class alike.
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
    """Name and options of `create_model`."""
    network, sampler = chosen.get("network", "resnet18"), chosen.get("sampler")
    size, padding = chosen.get("filter size"), chosen.get("padding", "circular")
    if sampler == "lps":
        if network != "resnet18":
            raise ConfigError(f"lps for CIFAR-10 is of resnet18, not of {network}. Expected {GRAMMAR}")
        filtered = {"filter": ("LowPassFilter", size, ())} if size and size > 1 else {}
        options = network_options({**filtered, **chosen, "sampler": "LPS"})
        return learnable_polyphase_sampling.translate(
            "ResNet18Custom", {**options, "inc_conv1_support": False}
        )
    if "logits network" in chosen:
        raise ConfigError(f"a logits network is of the sampler lps. Expected {GRAMMAR}")
    if size and not sampler:
        raise ConfigError(f"a filter size is of a sampler: lpf, aps or lps. Expected {GRAMMAR}")
    name = f"{network}_{sampler}" if sampler else network
    return truly_shift_invariant_cnns.translate_cifar(
        name, {"filter_size": size or 1, "conv_pad_type": padding}
    )


def get_config(words: str = "resnet18,aps,3") -> ConfigDict:
    """The configuration for words of `GRAMMAR`."""
    chosen = choices(words, WORDS, GRAMMAR)
    config = recipe("", learned=chosen.get("sampler") == "lps")
    original(config, *_network(chosen))
    if "augmentation" in chosen and chosen.get("padding") == "zeros":
        config.data.crop, config.data.crop_padding = "padded", chosen["augmentation"]
    elif "augmentation" in chosen:
        config.data.circular_shift = chosen["augmentation"]
    return config
