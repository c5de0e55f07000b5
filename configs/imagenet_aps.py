"""Adaptive polyphase sampling on ImageNet-1k (Chaman and Dokmanic 2021, arXiv 2011.14214), and BlurPool.

python train.py --config=configs/imagenet_aps.py:resnet18_aps3 --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_aps.py:resnet18_lpf3,shifts --config.data.path=/data/imagenet

The word after the colon is an architecture of the original's main.py, with circular padding: `resnet18_aps`,
or the name of a ResNet with `_lpf`. The size of the filters follows, 1 to 7 (`resnet18_lpf1`: the baseline).
`,pool_only` is the original's flag. `,shifts` is its circular_data_aug: data.circular_shift=32. The original
uses one shift per batch, this package one shift per image. The original's criterion is
--config.model.options.sampler.criterion=l1.

The original's recipe always uses the central crop of an image, never a random crop. Its accuracies are
therefore lower than those of other recipes.
"""

from ml_collections import ConfigDict

from aliasfree_jax.conversion.truly_shift_invariant_cnns import IMAGENET, translate
from aliasfree_jax.errors import ConfigError
from configs import SIZES, Words, choices
from configs.imagenet_blur import original, sgd_recipe

ARCHITECTURES = {f"{name}{size}": (name, size) for name in IMAGENET for size in SIZES}
GRAMMAR = (
    f"NETWORK and 1 to 7, such as resnet18_aps3; optionally with ',pool_only' and ',shifts'. Networks: "
    f"{', '.join(IMAGENET)}."
)


def get_config(architecture: str = "resnet18_aps1") -> ConfigDict:
    """Returns the configuration for an architecture of `GRAMMAR`."""
    words: dict[str, Words] = {
        "architecture": ARCHITECTURES,
        "stem": {"pool_only": True},
        "augmentation": {"shifts": 32},
    }
    chosen = choices(architecture, words, GRAMMAR)
    if "architecture" not in chosen:
        raise ConfigError(f"no architecture after the colon. Expected {GRAMMAR}")
    name, size = chosen["architecture"]
    options = {"filter_size": size, "pool_only": chosen.get("stem", False)}
    config = original(sgd_recipe(name), *translate(name, options))
    config.data.crop = "none"
    config.data.circular_shift = chosen.get("augmentation", 0)
    return config
