"""Networks with BlurPool on ImageNet-1k (Zhang 2019, arXiv 1904.11486), by the original's recipe.

python train.py --config=configs/imagenet_blur.py --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_blur.py:vgg16 --config.data.path=/data/imagenet
python train.py --config=configs/imagenet_blur.py:resnet50,finetune --config.init_from=resnet50.pth ...

The word behind the colon is any network that has a `_blur` variant; `,finetune` starts from weights of
the plain one (torchvision's file, or a run's directory) with a tenth of its learning rate for 60 epochs.

For VGG the original adds up the gradients of two batches of 128 images without dividing by two. Their
mean, which is what this package takes, moves as far at twice the learning rate and half the weight decay.
MobileNet's cosine falls once an epoch there, with every step here.
"""

from ml_collections import ConfigDict

from aliasfree_jax.config import base_config

# Peak learning rates of the original's README, 0.1 for all others; VGG's are those of 16 layers.
LEARNING_RATES = {"alexnet": 0.01, "vgg11": 0.01, "vgg13": 0.01, "vgg16": 0.01, "vgg19": 0.01} | {
    f"vgg{depth}_bn": 0.05 for depth in (11, 13, 16, 19)
}


def sgd_recipe(model: str) -> ConfigDict:
    """SGD with a tenth of the learning rate every 30 epochs, random crops and flips; resized bilinearly."""
    config = base_config()
    config.model.name = model

    config.data.source = "folder"
    config.data.image_size = 224
    config.data.crop = "random_resized"
    config.data.interpolation = "bilinear"
    config.data.flip = True

    config.train.batch_size = 256
    config.train.total_epochs = 90.0

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    config.optimizer.step_epochs = (30.0, 60.0)
    config.optimizer.weight_decay = 1e-4

    # As in the originals the best network is chosen on the split that it is reported on.
    # data.validation = 0.02 would hold 25,000 training images out for it.
    config.data.validation = 0.0
    config.checkpoint.best = "accuracy"

    config.eval.batch_size = 256
    return config


def get_config(arch: str = "resnet50") -> ConfigDict:
    """The configuration for `arch`, or for `arch,finetune`."""
    arch, _, how = arch.partition(",")
    config = sgd_recipe(f"{arch}_blur")
    config.optimizer.learning_rate = LEARNING_RATES.get(arch, 0.1)
    if arch.startswith("vgg"):
        config.train.accumulation_steps = 2
        config.optimizer.learning_rate *= 2
        config.optimizer.weight_decay /= 2
    if arch == "mobilenet_v2":
        config.optimizer.learning_rate = 0.05
        config.optimizer.schedule = "cosine"
        config.optimizer.min_learning_rate = 0.0
        config.optimizer.weight_decay = 4e-5
        config.train.total_epochs = 150.0
    if how == "finetune":
        config.optimizer.learning_rate *= 0.1
        config.train.total_epochs = 60.0
    elif how:
        raise ValueError(f"expected {arch} or {arch},finetune, got {arch},{how}")
    return config
