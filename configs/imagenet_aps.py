"""Adaptive polyphase sampling on ImageNet-1k (Chaman and Dokmanic 2021, arXiv 2011.14214), and BlurPool.

python train.py --config=configs/imagenet_aps.py:resnet18_aps3 --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_aps.py:resnet18_lpf3,shifts --config.data.path=/data/imagenet

Behind the colon is an architecture of the original's main.py, all circular: `resnet18_aps` or a ResNet's
name with `_lpf`, each with the size of its filters, 1 to 7 (`resnet18_lpf1`: the baseline). `,pool_only`
is the original's flag. `,shifts` is its circular_data_aug, data.circular_shift=32: there one shift for
the whole batch, here one for each image. Its criterion is --config.model.options.sampler.criterion=l1.

The original's recipe takes the central crop of every image, never a random one, so its accuracies lie
below those of other recipes.
"""

from ml_collections import ConfigDict

from aliasfree_jax.conversion.truly_shift_invariant_cnns import IMAGENET, translate
from aliasfree_jax.errors import ConfigError
from configs import SIZES, Words, choices
from configs.imagenet_blur import original, sgd_recipe

ARCHITECTURES = {f"{name}{size}": (name, size) for name in IMAGENET for size in SIZES}
GRAMMAR = (
    f"NETWORK and 1 to 7, such as resnet18_aps3; with ',pool_only' and ',shifts' if wanted. Networks: "
    f"{', '.join(IMAGENET)}."
)


def get_config(architecture: str = "resnet18_aps1") -> ConfigDict:
    """The configuration for an architecture of `GRAMMAR`."""
    words: dict[str, Words] = {
        "architecture": ARCHITECTURES,
        "stem": {"pool_only": True},
        "augmentation": {"shifts": 32},
    }
    chosen = choices(architecture, words, GRAMMAR)
    if "architecture" not in chosen:
        raise ConfigError(f"no architecture behind the colon. Expected {GRAMMAR}")
    name, size = chosen["architecture"]
    options = {"filter_size": size, "pool_only": chosen.get("stem", False)}
    config = original(sgd_recipe(name), *translate(name, options))
    config.data.crop = "none"
    config.data.circular_shift = chosen.get("augmentation", 0)
    return config
