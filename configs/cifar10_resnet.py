"""ResNet-18 for CIFAR-10 with four samplers: plain, blur, aps or lps, by the recipe of APS.

python train.py --config=configs/cifar10_resnet.py --config.data.path=/data/cifar10
python train.py --config=configs/cifar10_resnet.py:plain --config.data.path=/data/cifar10

All four are circular and train alike (truly_shift_invariant_cnns: SGD, 250 epochs); blur and aps filter
with 3 taps. The learned sampler's temperature falls as in the one full recipe of LPS (which chooses its best
networks on test images; here none does). --config.eval.during=integer logs the consistency while training
(APS: --validate_consistency).
"""

from ml_collections import ConfigDict

from configs.imagenet_blur import sgd_recipe

NETWORKS = {
    "plain": ("resnet18_cifar_circular", {}),
    "blur": ("resnet18_cifar_circular_blur", {"filter_size": 3}),
    "aps": ("resnet18_cifar_aps", {"filter_size": 3}),
    "lps": ("resnet18_cifar_lps", {}),
}


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


def get_config(sampling: str = "aps") -> ConfigDict:
    """The configuration of one of `NETWORKS`."""
    if sampling not in NETWORKS:
        raise ValueError(f"expected one of {', '.join(NETWORKS)}, got {sampling!r}")
    name, options = NETWORKS[sampling]
    config = recipe(name, learned=sampling == "lps")
    config.model.options.update(options)
    return config
