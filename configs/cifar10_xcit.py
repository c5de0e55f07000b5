"""Small XCiTs on CIFAR-10, by default the exact gated one.

python train.py --config=configs/cifar10_xcit.py --config.data.path=/data/cifar10
python train.py --config=configs/cifar10_xcit.py:xcit_circular_cifar --config.data.path=/data/cifar10

The word after the colon names the network. The training equals that of `configs/cifar10_afc.py`. In the stem
of the exact network, all stages multiply on a finer grid before they sample. This is more accurate than the
usual `xcit_afg_*` and takes more time (docs/experiments.md).
"""

from ml_collections import ConfigDict

from configs.cifar10_afc import recipe

FINER_STEM = {
    "patch_stem": "activated",
    "stem_activation": "up_gate",
    "stem_first_activation": None,
    "stem_last_activation": None,
}


def get_config(model: str = "xcit_afg_cifar") -> ConfigDict:
    """Returns the configuration for a network."""
    config = recipe(model)
    if model.startswith("xcit_afg_"):
        config.model.options.update(FINER_STEM)
    return config
