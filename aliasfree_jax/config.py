"""Defines the fields of training configurations, with defaults and legal values.

A file in `configs/` calls `base_config()`, overrides fields and returns the result. The dictionary
is locked: a misspelt field raises an error at the line that sets it. The names of durations end with
their unit. `validation.validate` reports all faults of a configuration at once, before any device is used.
"""

import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.legal_values import (
    COUNT,
    DECAY,
    NOT_NEGATIVE,
    NUMBER,
    PART,
    POSITIVE,
    POSITIVE_COUNT,
    SHARE,
    Legal,
    Range,
    Several,
)

# A network's output for an image: one class, one class per pixel, or another image.
TASKS = ("classification", "segmentation", "regression")
SOURCES = ("digits", "digit_scenes", "folder", "voc", "cityscapes", "records", "tfds", "arrays")
# Options of the network for each `train.precision`. docs/benchmarks.md lists their errors.
PRECISIONS: dict[str, dict[str, str]] = {
    "default": {},  # the network decides: exact where shift invariance depends on it, else JAX's default
    "float32": {"precision": "highest"},
    # Feature maps are float32. Products have 10 mantissa bits on NVIDIA GPUs, and take three bfloat16
    # passes on TPUs.
    "tf32": {"precision": "high"},
    "bfloat16": {"dtype": "bfloat16", "precision": "default"},
}
CROPS = ("none", "padded", "reflected", "random", "random_resized", "random_scaled")
IMAGE_BACKENDS = ("pillow", "fast")
INTERPOLATIONS = ("bicubic", "bilinear")
EVAL_VIEWS = ("auto", "crop", "warp")
SHIFTS_DURING = ("integer", "fractional", "zero_filled")  # random shifts that need no larger images
REMATS = ("auto", "none", "mlp", "block")
OPTIMIZERS = ("adamw", "sgd", "lamb")
LEARNING_RATES = ("cosine", "step", "poly")
# The mean loss of segmentation leaves out ignored pixels. Exception: cross_entropy_of_all counts them as
# zeros, which is the default of LPS.
LOSSES = {
    "classification": ("cross_entropy",),
    "segmentation": ("cross_entropy", "cross_entropy_of_all"),
    "regression": ("l1", "l2"),
}
# Results of an evaluation during training, and the result for each kind of shift in eval.during.
RESULTS = {
    "classification": (("accuracy",), "{}_consistency"),
    "segmentation": (("mean_iou", "pixel_accuracy"), "{}_consistency"),
    "regression": (("psnr", "ssim", "nmse"), "{}_equivariance_db"),
}
SMALLER_IS_BETTER = ("nmse", "equivariance_db")  # these results cannot choose the best network
TEMPERATURES = ("constant", "decay", "linear")
RAW = "raw_"  # prefix of the names of results of the raw weights, which are not averaged

# Every field: its default and its legal values. The comment above each field explains it.
FIELDS: dict[str, tuple[Any, Legal]] = {
    # Seed of all random numbers. The range is numpy's.
    "seed": (0, Range(0, 2**32 - 1, whole=True)),
    # True: train.py makes only three updates, with few images and all components, to test that it runs.
    "dry_run": (False, None),
    # classification: one class per image; segmentation: one class per pixel; regression: image to image.
    "task": ("classification", TASKS),
    # Initial weights: a run, directory, file or hf://owner/name (see `load_pretrained`); "": random.
    "init_from": ("", None),
    # Name of a network (see `list_models`), or a function: my_file.py:make_network.
    "model.name": ("convnext_afc_micro", None),
    # Keyword arguments of `create_model`, or of that function. The data set the number of classes.
    "model.options": ({}, None),
    # Keyword arguments of `aliasfree_jax.shift_invariant`; {}: the network is not transformed.
    "model.shift_invariant": ({}, None),
    # -- Data: where the images are, and how they become inputs --
    # Kind of data set. "arrays" can be used only from Python.
    "data.source": ("digits", SOURCES),
    # folder: a directory, .tar* or .zip file; records: a directory; tfds: the data_dir.
    "data.path": ("", None),
    # tfds: name of the data set, e.g. "imagenet2012".
    "data.name": ("", None),
    # Name of the split that is used for training.
    "data.train_split": ("train", None),
    # Name of the split that is used for evaluation.
    "data.eval_split": ("val", None),
    # Height and width of the square images in pixels, without the border of `zero_pad`.
    "data.image_size": (32, POSITIVE_COUNT),
    # Width in pixels of a border of zeros, added after normalisation. It makes the network's input larger.
    "data.zero_pad": (0, COUNT),
    # Mean per channel of images in [0, 1], subtracted by the normalisation.
    "data.mean": ((0.485, 0.456, 0.406), Several(NUMBER, fewest=1)),
    # Standard deviation per channel of images in [0, 1]: the normalisation divides by it.
    "data.std": ((0.229, 0.224, 0.225), Several(POSITIVE, fewest=1)),
    # Crop of training images. padded: pad with zeros, then crop at a random place. reflected: pad with the
    # image's reflection instead.
    "data.crop": ("none", CROPS),
    # Width of the padding in pixels, for crop = padded or reflected.
    "data.crop_padding": (4, COUNT),
    # Smallest and largest share of the image's area, for crop = random_resized.
    "data.crop_scale": ((0.08, 1.0), Several(PART, fewest=2, longest=2, ascending=True)),
    # Flip training images horizontally with probability 1/2.
    "data.flip": (False, None),
    # RandAugment in timm's notation, e.g. "rand-m9-mstd0.5-inc1"; "": off.
    "data.rand_augment": ("", None),
    # Brightness, contrast and saturation change by factors in 1 +- this value. Not with rand_augment.
    "data.color_jitter": (0.0, NOT_NEGATIVE),
    # Probability of random erasing.
    "data.erase_probability": (0.0, SHARE),
    # Smallest and largest factor by which both sides are scaled before the crop, for crop = random_scaled.
    "data.scale_range": ((0.5, 2.0), Several(POSITIVE, fewest=2, longest=2, ascending=True)),
    # For task = regression: standard deviation of the normal noise that is added to input images in [0, 1].
    "data.noise": (0.0, NOT_NEGATIVE),
    # For task = regression: the input is downsampled by this factor with an ideal filter, then upsampled to
    # its old size; 1: off. The target stays unchanged.
    "data.reduction": (1, POSITIVE_COUNT),
    # Training images are shifted circularly by up to this many pixels along each axis.
    "data.circular_shift": (0, COUNT),
    # crop: centre crop; warp: the whole image, resized to a square; auto: warp from 384 pixels on.
    "data.eval_view": ("auto", EVAL_VIEWS),
    # Side of the centre crop divided by the shorter side of the resized image. Images that have exactly
    # `image_size` are neither resized nor cropped.
    "data.eval_crop_ratio": (0.875, PART),
    # Interpolation of every resizing. It is antialiased as in Pillow.
    "data.interpolation": ("bicubic", INTERPOLATIONS),
    # Rotate images upright by their EXIF orientation. The original programs ignore it.
    "data.exif": (False, None),
    # Decoder of training images. fast: needs pip install 'aliasfree_jax[fast]'.
    "data.image_backend": ("pillow", IMAGE_BACKENDS),
    # Reaction to unreadable training images. skip: skip and count them.
    "data.corrupt": ("raise", ("raise", "skip")),
    # Number of processes that decode and augment images; 0: threads of the main process do.
    "data.workers": (0, COUNT),
    # Uses of an image in an epoch, each with new random augmentation. An epoch keeps its length: it has
    # 1 / repeats of the images (repeated augmentation).
    "data.repeats": (1, POSITIVE_COUNT),
    # Use only this many training examples, spread evenly over the split; 0: all.
    "data.train_limit": (0, COUNT),
    # The same limit for evaluation examples.
    "data.eval_limit": (0, COUNT),
    # Share of each class's training images that is held out. Evaluations during training use these images.
    "data.validation": (0.0, Range(0, 1, below=True)),
    # -- Training --
    # Examples per parameter update, over all devices and processes.
    "train.batch_size": (64, POSITIVE_COUNT),
    # Micro-batches per parameter update.
    "train.accumulation_steps": (1, POSITIVE_COUNT),
    # Length of the training.
    "train.total_epochs": (10.0, POSITIVE),
    # Loss function: one of `LOSSES` for the task.
    "train.loss": ("cross_entropy", tuple(sorted({name for of in LOSSES.values() for name in of}))),
    # Share of the label that is spread over all classes.
    "train.label_smoothing": (0.0, DECAY),
    # MixUp: parameter alpha of its Beta distribution; 0: off.
    "train.mixing.mixup": (0.0, NOT_NEGATIVE),
    # CutMix: parameter alpha of its Beta distribution; 0: off.
    "train.mixing.cutmix": (0.0, NOT_NEGATIVE),
    # Probability that a group of images is mixed.
    "train.mixing.probability": (1.0, SHARE),
    # Probability of CutMix if MixUp and CutMix are both on.
    "train.mixing.switch": (0.5, SHARE),
    # Number of consecutive images that are mixed with each other. They share one random draw.
    "train.mixing.group": (32, POSITIVE_COUNT),
    # Decay of the averaged parameters (EMA). If it is not 0, evaluations use the averages.
    "train.ema_decay": (0.0, DECAY),
    # Precision of all layers, one of `PRECISIONS`. default: the network's precision.
    "train.precision": ("default", tuple(PRECISIONS)),
    # Layers whose output is computed again for the gradient, which saves memory.
    "train.remat": ("auto", REMATS),
    # Number of devices that share each batch; 0: all.
    "train.devices": (0, COUNT),
    # Number of devices that share one copy of the parameters and the optimizer state.
    "train.parameter_shards": (1, POSITIVE_COUNT),
    # Temperature of learned polyphase samplers as a function of the epoch. It starts at 1. decay:
    # multiplied by `factor` every `every_epochs`, down to `least`; linear: see `at_epochs`.
    "train.temperature.schedule": ("constant", TEMPERATURES),
    # Interval between two multiplications, for schedule = decay.
    "train.temperature.every_epochs": (10.0, POSITIVE),
    # Factor of each multiplication, for schedule = decay.
    "train.temperature.factor": (0.85, PART),
    # Smallest temperature, for schedule = decay.
    "train.temperature.least": (0.5, PART),
    # Epochs at which the temperature reaches each of `targets`; linear in between, for schedule = linear.
    "train.temperature.at_epochs": ((), Several(NOT_NEGATIVE, ascending=True)),
    # Temperatures at the epochs in `at_epochs`.
    "train.temperature.targets": ((), Several(PART)),
    # -- Optimizer: from gradients to updates --
    # Name of the optimizer.
    "optimizer.name": ("adamw", OPTIMIZERS),
    # Largest learning rate, reached at the end of the warm-up.
    "optimizer.learning_rate": (4e-3, POSITIVE),
    # step: constant, multiplied by `step_factor` at each of `step_epochs`.
    "optimizer.schedule": ("cosine", LEARNING_RATES),
    # Epochs at which the rate changes, for schedule = step.
    "optimizer.step_epochs": ((30.0, 60.0), Several(NOT_NEGATIVE, ascending=True)),
    # Factor of each change, for schedule = step.
    "optimizer.step_factor": (0.1, POSITIVE),
    # Exponent, for schedule = poly: the rate is proportional to (share of steps left)^power.
    "optimizer.poly_power": (0.9, POSITIVE),
    # Momentum, for sgd.
    "optimizer.momentum": (0.9, DECAY),
    # Nesterov momentum, for sgd.
    "optimizer.nesterov": (False, None),
    # Smallest learning rate of the schedule.
    "optimizer.min_learning_rate": (1e-6, NOT_NEGATIVE),
    # Epochs in which the learning rate grows to its largest value.
    "optimizer.warmup_epochs": (0.0, NOT_NEGATIVE),
    # adamw and lamb: decoupled, for kernels and activation coefficients; sgd: for all parameters except
    # those that score polyphase components.
    "optimizer.weight_decay": (0.05, NOT_NEGATIVE),
    # Decay of the first moment, for adamw and lamb.
    "optimizer.b1": (0.9, DECAY),
    # Decay of the second moment, for adamw and lamb.
    "optimizer.b2": (0.999, DECAY),
    # Constant added to the denominator, for adamw and lamb.
    "optimizer.eps": (1e-8, POSITIVE),
    # Largest norm of the global gradient; 0: no clipping.
    "optimizer.clip_norm": (0.0, NOT_NEGATIVE),
    # Factor of the learning rate per depth, counted from the head, for ConvNeXts; 1: off.
    "optimizer.layer_decay": (1.0, PART),
    # Factor of the backbone's learning rate, for DeepLab.
    "optimizer.backbone_factor": (1.0, PART),
    # -- Evaluation, during training and by eval.py --
    # Images per batch.
    "eval.batch_size": (100, POSITIVE_COUNT),
    # Interval between evaluations during training.
    "eval.every_epochs": (1.0, NOT_NEGATIVE),
    # Random shifts under which evaluations during training measure consistency: some of `SHIFTS_DURING`.
    "eval.during": ((), None),
    # Random shifts per image in the consistency metrics.
    "eval.shifts": (8, POSITIVE_COUNT),
    # Largest whole-pixel part of those shifts, in pixels. It is limited to the image's side minus 1.
    "eval.max_shift": (32, POSITIVE_COUNT),
    # Pixels around the input that windows may reach, for eval.py --crop_shifts and --bilinear_shifts. Also
    # the largest shift of --zero_filled_shifts.
    "eval.crop_margin": (16, POSITIVE_COUNT),
    # Largest shift in pixels along each axis, for eval.py --adversarial=integer, half or continuous.
    "eval.worst_case_radius": (16, POSITIVE_COUNT),
    # --adversarial=fraction tries multiples of 1/2, 1/3, ... 1/finest_fraction of a pixel.
    "eval.finest_fraction": (4, Range(2, whole=True)),
    # Index of the image that eval.py --pictures shifts.
    "eval.pictured_image": (0, COUNT),
    # Path of the layer whose feature map is shown; "": the last one with a map of at least 8 x 8.
    "eval.pictured_layer": ("", None),
    # eval.py --spatial_attack: largest rotation in degrees. In the presets afc_*_grid: the original's
    # constraint.
    "eval.attack.rotation": (30.0, NOT_NEGATIVE),
    # eval.py --spatial_attack: largest translation as a share of the image's side. The default is the
    # original's value for 30 degrees.
    "eval.attack.translation": (30 / 280, SHARE),
    # eval.py --spatial_attack: largest factor of enlargement; 1: no scaling.
    "eval.attack.enlargement": (1.0, Range(1)),
    # -- Checkpoints and logs --
    # Interval between checkpoints.
    "checkpoint.every_epochs": (1.0, NOT_NEGATIVE),
    # Number of checkpoints that are kept.
    "checkpoint.keep": (2, POSITIVE_COUNT),
    # The result (see `result_names`) by which the best network is chosen for <run>/best; "": none is.
    "checkpoint.best": ("accuracy", None),
    # Interval between log entries.
    "log.every_steps": (50, POSITIVE_COUNT),
    # Write event files to <run>/tensorboard. Needs pip install tensorboardX.
    "log.tensorboard": (False, None),
    # Project of Weights & Biases; "": off. Needs pip install wandb.
    "log.wandb": ("", None),
    # First and last step of a profile, written to <run>/profile; (): none.
    "log.profile_steps": ((), Several(POSITIVE_COUNT)),
}

# Sections without defaults: their legal keys; None: every argument of the network's constructor.
OPEN: dict[str, tuple[str, ...] | None] = {
    "model.options": None,
    "model.shift_invariant": ("sampler", "padding", "activations"),
}


def base_config() -> ConfigDict:
    """Returns a locked configuration with the default of every field."""
    config = ConfigDict(nested({field: default for field, (default, _) in FIELDS.items()}))
    config.lock()
    for section in OPEN:
        config[section].unlock()
    return config


def result_names(config: ConfigDict) -> list[str]:
    """Names of the results of an evaluation during training.

    If weights are averaged, these are the results of the averages, then those of the raw weights.
    """
    metrics, of_shifts = RESULTS[config.task]
    names = [*metrics, *(of_shifts.format(kind) for kind in config.eval.during)]
    return names + [f"{RAW}{name}" for name in names if config.train.ema_decay > 0]


def fields(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries: returns the values by field, such as "data.path"."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= fields(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `fields`: returns nested dictionaries."""
    tree: dict[str, Any] = {}
    for field, value in values.items():
        *sections, name = field.split(".")
        functools.reduce(lambda section, key: section.setdefault(key, {}), sections, tree)[name] = value
    return tree
