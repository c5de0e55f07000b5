"""Every field of a training configuration, with its default and what it may be; the check of a whole one.

A file in `configs/` calls `base_config()`, overrides fields and returns the result. The dictionary
is locked, so a misspelt field is an error where it is written. Durations carry their unit in the
name. `validate` reports all faults of a configuration at once, before any device is touched.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError, unknown
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
    fault,
)

# What a network gives for an image: one class, a class for each pixel, or another image.
TASKS = ("classification", "segmentation", "regression")
SOURCES = ("digits", "digit_scenes", "folder", "voc", "cityscapes", "records", "tfds", "arrays")
# Options of the network for each `train.precision`; what they cost in exactness: docs/benchmarks.md.
PRECISIONS: dict[str, dict[str, str]] = {
    "default": {},  # the network's own: exact where its promise rests on it, else JAX's
    "float32": {"precision": "highest"},
    # Float32 maps; products of 10 mantissa bits on NVIDIA GPUs, of three bfloat16 passes on TPUs.
    "tf32": {"precision": "high"},
    "bfloat16": {"dtype": "bfloat16", "precision": "default"},
}
CROPS = ("none", "padded", "random", "random_resized", "random_scaled")
IMAGE_BACKENDS = ("pillow", "fast")
INTERPOLATIONS = ("bicubic", "bilinear")
EVAL_VIEWS = ("auto", "crop", "warp")
SHIFTS_DURING = ("integer", "fractional", "zero_filled")  # random shifts that need no larger images
REMATS = ("auto", "none", "mlp", "block")
OPTIMIZERS = ("adamw", "sgd", "lamb")
LEARNING_RATES = ("cosine", "step", "poly")
# Of pixels, those of segmentation leave ignored ones out, but for the mean over all of them (LPS's default).
LOSSES = {
    "classification": ("cross_entropy",),
    "segmentation": ("cross_entropy", "cross_entropy_of_all"),
    "regression": ("l1", "l2"),
}
# What an evaluation while training finds, and what it finds of each kind of shift in eval.during.
RESULTS = {
    "classification": (("accuracy",), "{}_consistency"),
    "segmentation": (("mean_iou", "pixel_accuracy"), "{}_consistency"),
    "regression": (("psnr", "ssim", "nmse"), "{}_equivariance_db"),
}
SMALLER_IS_BETTER = ("nmse", "equivariance_db")  # such results choose no best network
TEMPERATURES = ("constant", "decay", "linear")
RAW = "raw_"  # before the names of results of weights that are not averaged

# Every field: its default, and what it may be.
FIELDS: dict[str, tuple[Any, Legal]] = {
    "seed": (0, Range(0, 2**32 - 1, whole=True)),  # as numpy takes it
    # train.py: three updates of a few images with all components, to see that it runs
    "dry_run": (False, None),
    "task": ("classification", TASKS),  # segmentation: a class a pixel; regression: image to image
    "init_from": (
        "",
        None,
    ),  # run, directory, file, hf://owner/name, as `load_pretrained`; "" = scratch
    "model.name": ("convnext_afc_micro", None),  # see list_models(); or my_file.py:make_network
    # keyword arguments of create_model, or of that function; number of classes: from data
    "model.options": ({}, None),
    "model.shift_invariant": ({}, None),  # those of aliasfree_jax.shift_invariant; {} = as written
    # Images: where they are, and how they become inputs
    "data.source": ("digits", SOURCES),  # arrays: from Python only
    "data.path": ("", None),  # folder: directory, .tar* or .zip; records: directory; tfds: the data_dir
    "data.name": ("", None),  # tfds: the data set, e.g. "imagenet2012"
    "data.train_split": ("train", None),
    "data.eval_split": ("val", None),
    "data.image_size": (32, POSITIVE_COUNT),  # side of the square images, pixels; see zero_pad
    # pixels of zeros around them, normalised: the network's input is that much larger
    "data.zero_pad": (0, COUNT),
    "data.mean": ((0.485, 0.456, 0.406), Several(NUMBER, fewest=1)),  # per channel, of images in [0, 1]
    "data.std": ((0.229, 0.224, 0.225), Several(POSITIVE, fewest=1)),
    "data.crop": ("none", CROPS),  # padded: zero-pad, then random crop
    "data.crop_padding": (4, COUNT),  # pixels, for crop = padded
    # share of the image's area, for crop = random_resized
    "data.crop_scale": ((0.08, 1.0), Several(PART, fewest=2, longest=2, ascending=True)),
    "data.flip": (False, None),  # horizontal flip with probability 1/2
    "data.rand_augment": ("", None),  # in timm's notation, e.g. "rand-m9-mstd0.5-inc1"; "" = off
    # brightness, contrast, saturation by 1 +- so much; without rand_augment
    "data.color_jitter": (0.0, NOT_NEGATIVE),
    "data.erase_probability": (0.0, SHARE),  # of random erasing
    # factor of the image's sides before the crop, for crop = random_scaled
    "data.scale_range": ((0.5, 2.0), Several(POSITIVE, fewest=2, longest=2, ascending=True)),
    # task = regression: what is done to the image that the network gets; its target is the image as it was
    "data.noise": (0.0, NOT_NEGATIVE),  # standard deviation of normal noise, of images in [0, 1]
    "data.reduction": (1, POSITIVE_COUNT),  # factor by which it is sampled, ideally, and enlarged again
    "data.circular_shift": (0, COUNT),  # training images are rolled by up to so many pixels each way
    "data.eval_view": ("auto", EVAL_VIEWS),  # the centre; or all, squeezed; auto: warp from 384 pixels on
    # Centre crop = this share of the resized shorter side. Images of just image_size are taken as they are.
    "data.eval_crop_ratio": (0.875, PART),
    "data.interpolation": ("bicubic", INTERPOLATIONS),  # of every resizing, antialiased as by Pillow
    # turn images upright by their EXIF orientation; the original programs ignore it
    "data.exif": (False, None),
    # of training images; fast: pip install 'aliasfree_jax[fast]'
    "data.image_backend": ("pillow", IMAGE_BACKENDS),
    "data.corrupt": ("raise", ("raise", "skip")),  # unreadable training images; skipped ones are counted
    "data.workers": (0, COUNT),  # processes that decode and augment; 0 = threads of this process
    "data.train_limit": (0, COUNT),  # use only this many training examples (evenly spread); 0 = all
    "data.eval_limit": (0, COUNT),
    # share of each class's training images that evaluations while training look at: it is held out
    "data.validation": (0.0, Range(0, 1, below=True)),
    # One update, and how many
    "train.batch_size": (64, POSITIVE_COUNT),  # examples a parameter update, over all devices and processes
    "train.accumulation_steps": (1, POSITIVE_COUNT),  # micro-batches a parameter update
    "train.total_epochs": (10.0, POSITIVE),
    "train.loss": ("cross_entropy", tuple(sorted({name for of in LOSSES.values() for name in of}))),
    "train.label_smoothing": (0.0, DECAY),
    # ... mixing of images and labels on the device
    "train.mixing.mixup": (0.0, NOT_NEGATIVE),  # its Beta distribution's alpha; 0 = off
    "train.mixing.cutmix": (0.0, NOT_NEGATIVE),  # the same
    "train.mixing.probability": (1.0, SHARE),
    "train.mixing.switch": (0.5, SHARE),  # share of CutMix where both are on
    # consecutive images that are mixed among themselves, with one draw
    "train.mixing.group": (32, POSITIVE_COUNT),
    "train.ema_decay": (0.0, DECAY),  # decay of the averaged parameters that are evaluated; 0 = off
    "train.precision": ("default", tuple(PRECISIONS)),  # of all layers; default: the network's own
    "train.remat": ("auto", REMATS),  # computed again in the gradient
    "train.devices": (0, COUNT),  # that a batch is divided over; 0 = all
    # devices that share one copy of parameters and optimizer state
    "train.parameter_shards": (1, POSITIVE_COUNT),
    # ... temperature of learned polyphase samplers, over epochs; it starts at 1
    "train.temperature.schedule": ("constant", TEMPERATURES),
    # decay: multiply by `factor` so often, down to `least`
    "train.temperature.every_epochs": (10.0, POSITIVE),
    "train.temperature.factor": (0.85, PART),  # temperatures start at 1, and fall
    "train.temperature.least": (0.5, PART),
    # linear: from 1 through `targets`, reached `at_epochs`
    "train.temperature.at_epochs": ((), Several(NOT_NEGATIVE, ascending=True)),
    "train.temperature.targets": ((), Several(PART)),
    # From gradients to updates
    "optimizer.name": ("adamw", OPTIMIZERS),
    "optimizer.learning_rate": (4e-3, POSITIVE),  # peak
    "optimizer.schedule": ("cosine", LEARNING_RATES),  # step: constant, times step_factor at step_epochs
    "optimizer.step_epochs": ((30.0, 60.0), Several(NOT_NEGATIVE, ascending=True)),
    "optimizer.step_factor": (0.1, POSITIVE),
    "optimizer.poly_power": (0.9, POSITIVE),  # poly: the rate falls as (share of steps left)^power
    "optimizer.momentum": (0.9, DECAY),  # sgd
    "optimizer.nesterov": (False, None),  # sgd
    "optimizer.min_learning_rate": (1e-6, NOT_NEGATIVE),
    "optimizer.warmup_epochs": (0.0, NOT_NEGATIVE),
    "optimizer.weight_decay": (0.05, NOT_NEGATIVE),  # adamw: decoupled, of kernels; sgd: of all parameters
    "optimizer.b1": (0.9, DECAY),
    "optimizer.b2": (0.999, DECAY),
    "optimizer.eps": (1e-8, POSITIVE),
    "optimizer.clip_norm": (0.0, NOT_NEGATIVE),  # of the global gradient; 0 = off
    "optimizer.layer_decay": (1.0, PART),  # of the learning rate from depth to depth (ConvNeXts); 1 = off
    "optimizer.backbone_factor": (1.0, PART),  # of the learning rate of the backbone (DeepLab)
    "eval.batch_size": (100, POSITIVE_COUNT),
    "eval.every_epochs": (1.0, NOT_NEGATIVE),
    "eval.during": ((), None),  # consistency while training, under integer, fractional, zero_filled shifts
    "eval.shifts": (8, POSITIVE_COUNT),  # random shifts an image in the consistency metrics
    "eval.max_shift": (32, POSITIVE_COUNT),  # pixels, integer part of those shifts; at most the image's side
    # pixels around the input that windows may reach (eval.py --crop_shifts)
    "eval.crop_margin": (16, POSITIVE_COUNT),
    # pixels each way of --adversarial=integer, half, continuous
    "eval.worst_case_radius": (16, POSITIVE_COUNT),
    # --adversarial=fraction: multiples of 1/2 ... 1/so much of a pixel
    "eval.finest_fraction": (4, Range(2, whole=True)),
    "eval.pictured_image": (0, COUNT),  # eval.py --pictures: place in the data set of the image that slides
    "eval.pictured_layer": ("", None),  # path of the layer whose map is shown; "" = last one of 8 x 8 or more
    # ... --spatial_attack: each way
    "eval.attack.rotation": (30.0, NOT_NEGATIVE),  # degrees; presets afc_*_grid: the original's constraint
    "eval.attack.translation": (30 / 280, SHARE),  # share of the side, as the original has it for 30 degrees
    "eval.attack.enlargement": (1.0, Range(1)),  # factor; 1 = none
    "checkpoint.every_epochs": (1.0, NOT_NEGATIVE),
    "checkpoint.keep": (2, POSITIVE_COUNT),
    "checkpoint.best": ("accuracy", None),  # of `result_names`: the best is kept in <run>/best; "" = none
    "log.every_steps": (50, POSITIVE_COUNT),
    "log.tensorboard": (False, None),  # event files in <run>/tensorboard (pip install tensorboardX)
    "log.wandb": ("", None),  # Weights & Biases: the project (pip install wandb); "" = off
    "log.profile_steps": ((), Several(POSITIVE_COUNT)),  # (first, last) steps of a profile in <run>/profile
}

# Sections without defaults: what may stand in them; None: whatever the network's constructor takes.
OPEN: dict[str, tuple[str, ...] | None] = {
    "model.options": None,
    "model.shift_invariant": ("sampler", "padding", "activations"),
}


def base_config() -> ConfigDict:
    """A locked configuration in which every field has its default."""
    config = ConfigDict(nested({field: default for field, (default, _) in FIELDS.items()}))
    config.lock()
    for section in OPEN:
        config[section].unlock()
    return config


def result_names(config: ConfigDict) -> list[str]:
    """What an evaluation while training finds: of the averaged weights if there are any, and of the raw."""
    metrics, of_shifts = RESULTS[config.task]
    names = [*metrics, *(of_shifts.format(kind) for kind in config.eval.during)]
    return names + [f"{RAW}{name}" for name in names if config.train.ema_decay > 0]


def fields(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values in nested dictionaries by their field, such as "data.path"."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= fields(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `fields`."""
    tree: dict[str, Any] = {}
    for field, value in values.items():
        *sections, name = field.split(".")
        functools.reduce(lambda section, key: section.setdefault(key, {}), sections, tree)[name] = value
    return tree


def _below(section: str) -> list[str]:
    """The fields of a section, such as "data."."""
    return [field for field in FIELDS if field.startswith(section)]


def field_fault(name: str) -> str | None:
    """What is wrong with the name of a field or section, such as "data.pth"; None if nothing is."""
    if name in FIELDS or _below(f"{name}."):
        return None
    for section, legal in OPEN.items():
        if name.startswith(f"{section}."):
            if legal is None or name.removeprefix(f"{section}.").partition(".")[0] in legal:
                return None
            return unknown("field", name, [f"{section}.{key}" for key in legal])
    above = name.split(".")[:-1]
    while above and not _below(".".join(above) + "."):
        above.pop()
    section = "".join(f"{key}." for key in above)
    known = {section + field.removeprefix(section).partition(".")[0] for field in _below(section)}
    return unknown("field", name, known)


def _shift_faults(config: ConfigDict) -> Iterator[str]:
    during = config.eval.during
    for kind in during:
        if kind not in SHIFTS_DURING:
            several = " Several are written \"('integer', 'fractional')\"."
            yield unknown("eval.during", kind, SHIFTS_DURING) + several
    if len(set(during)) < len(during):
        yield f"eval.during names a kind of shifts twice: {', '.join(during)}."


def _cross_faults(config: ConfigDict) -> Iterator[str]:
    """What fields demand of each other, where each by itself is in its range."""
    data, train, mixing = config.data, config.train, config.train.mixing
    if data.circular_shift > data.image_size // 2:
        yield (
            f"data.circular_shift is the largest shift in pixels, 0 (none) to {data.image_size // 2} "
            f"(half the image), got {data.circular_shift}."
        )
    if data.rand_augment and data.color_jitter:
        yield "data.rand_augment replaces data.color_jitter: set one of them only."
    if config.task != "classification" and (data.rand_augment or max(mixing.mixup, mixing.cutmix) > 0):
        yield (
            f"data.rand_augment and train.mixing are for task = 'classification', not for {config.task!r}: "
            "set data.rand_augment = '' and train.mixing.mixup = train.mixing.cutmix = 0."
        )
    if config.task == "regression" and train.label_smoothing:
        yield "train.label_smoothing is for classes, not for task = 'regression': set it to 0."
    if config.task != "regression" and (data.noise or data.reduction > 1):
        yield f"data.noise and data.reduction are for task = 'regression', not for {config.task!r}."
    if len(data.mean) != len(data.std):
        yield f"data.mean has {len(data.mean)} channels, data.std {len(data.std)}."
    micro, left = divmod(train.batch_size, train.accumulation_steps)
    if left:
        yield (
            f"train.batch_size = {train.batch_size} is not a multiple of "
            f"train.accumulation_steps = {train.accumulation_steps}."
        )
    if max(mixing.mixup, mixing.cutmix) > 0 and (mixing.group < 2 or micro % mixing.group):
        yield (
            f"train.mixing.group = {mixing.group} images are mixed among themselves: it must be at least 2 "
            f"and divide the {micro} images of a micro-batch (train.batch_size / train.accumulation_steps)."
        )
    if (warmup := config.optimizer.warmup_epochs) > train.total_epochs:
        yield f"optimizer.warmup_epochs = {warmup} exceeds train.total_epochs = {train.total_epochs}."
    epochs, targets = tuple(train.temperature.at_epochs), tuple(train.temperature.targets)
    if len(epochs) != len(targets):
        yield f"train.temperature needs as many targets as at_epochs, got {epochs} and {targets}."
    if train.loss not in LOSSES[config.task]:
        yield f"train.loss of task = {config.task!r}: " + unknown("loss", train.loss, LOSSES[config.task])
    names = [name for name in result_names(config) if not name.endswith(SMALLER_IS_BETTER)]
    if config.checkpoint.best not in ("", *names):
        yield (
            unknown("checkpoint.best", config.checkpoint.best, names)
            + " Consistencies are there for the shifts in eval.during, raw_ ones if train.ema_decay > 0."
        )
    profiled = tuple(config.log.profile_steps)
    if profiled and not (len(profiled) == 2 and 1 < profiled[0] <= profiled[1]):
        yield (
            "log.profile_steps must be (first, last) steps, from 2 on, since the first one compiles; got "
            f"{profiled}."
        )


def validate(config: ConfigDict) -> None:
    """Raises one `ConfigError` that lists every fault of `config`.

    What fields demand of each other is looked at when each number is in its range.
    """
    values = fields(config.to_dict())
    faults = [text for text in map(field_fault, values) if text]
    if not faults:
        found = [(legal, fault(field, values.get(field), legal)) for field, (_, legal) in FIELDS.items()]
        faults = [*(text for _, text in found if text), *_shift_faults(config)]
        if not any(text for legal, text in found if not isinstance(legal, tuple)):
            faults += _cross_faults(config)
    if faults:
        raise ConfigError("invalid configuration:\n  - " + "\n  - ".join(faults))
