"""Every legal field of a training configuration, with its default; and the check of a whole one.

A file in `configs/` calls `base_config()`, overrides fields and returns the result. The dictionary
is locked, so a misspelt field is an error where it is written. Durations carry their unit in the
name. `validate` reports all faults of a configuration at once, before any device is touched.
"""

from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.ranges import range_faults

SOURCES = ("digits", "folder", "records", "tfds", "arrays")
# Options of the network for each `train.precision`; what they cost in exactness: docs/benchmarks.md.
PRECISIONS: dict[str, dict[str, str]] = {
    "default": {},  # the network's own: exact where its promise rests on it, else JAX's
    "float32": {"precision": "highest"},
    # Float32 maps; products of 10 mantissa bits on NVIDIA GPUs, of three bfloat16 passes on TPUs.
    "tf32": {"precision": "high"},
    "bfloat16": {"dtype": "bfloat16", "precision": "default"},
}
CROPS = ("none", "padded", "random", "random_resized")
IMAGE_BACKENDS = ("pillow", "fast")
INTERPOLATIONS = ("bicubic", "bilinear")
EVAL_VIEWS = ("auto", "crop", "warp")
SHIFTS_DURING = ("integer", "fractional", "zero_filled")  # random shifts that need no larger images
RAW = "raw_"  # before the names of results of weights that are not averaged


def _data() -> ConfigDict:
    """Images: where they are, and how they become inputs."""
    data = ConfigDict()
    data.source = "digits"  # digits | folder | records | tfds | arrays (from Python only)
    data.path = ""  # folder: directory, .tar* or .zip; records: directory; tfds: the data_dir
    data.name = ""  # tfds: the data set, e.g. "imagenet2012"
    data.train_split = "train"
    data.eval_split = "val"
    data.image_size = 32  # side of the square images, pixels; see zero_pad
    data.zero_pad = 0  # pixels of zeros around them, normalised: the network's input is that much larger
    data.mean = (0.485, 0.456, 0.406)  # per channel, of images in [0, 1]
    data.std = (0.229, 0.224, 0.225)
    data.crop = "none"  # none | padded (zero-pad, then random crop) | random | random_resized
    data.crop_padding = 4  # pixels, for crop = padded
    data.crop_scale = (0.08, 1.0)  # share of the image's area, for crop = random_resized
    data.flip = False  # horizontal flip with probability 1/2
    data.rand_augment = ""  # in timm's notation, e.g. "rand-m9-mstd0.5-inc1"; "" = off
    data.color_jitter = 0.0  # brightness, contrast, saturation by 1 +- so much; without rand_augment
    data.erase_probability = 0.0  # of random erasing
    data.circular_shift = 0  # training images are rolled by up to so many pixels each way
    data.eval_view = "auto"  # crop (the centre) | warp (all, squeezed) | auto: warp from 384 pixels on
    # Centre crop = this share of the resized shorter side. Images of just image_size are taken as they are.
    data.eval_crop_ratio = 0.875
    data.interpolation = "bicubic"  # of every resizing, antialiased as by Pillow: bicubic | bilinear
    data.exif = False  # turn images upright by their EXIF orientation; the original programs ignore it
    data.image_backend = "pillow"  # of training images: pillow | fast (pip install 'aliasfree_jax[fast]')
    data.corrupt = "raise"  # unreadable training image: raise | skip (skipped ones are counted)
    data.workers = 0  # processes that decode and augment; 0 = threads of this process
    data.train_limit = 0  # use only this many training examples (evenly spread); 0 = all
    data.eval_limit = 0
    data.validation = 0.0  # share of each class's training images that evaluations while training look at
    return data


def _train() -> ConfigDict:
    """One update, and how many."""
    train = ConfigDict()
    train.batch_size = 64  # examples a parameter update, over all devices and processes
    train.accumulation_steps = 1  # micro-batches a parameter update
    train.total_epochs = 10.0
    train.label_smoothing = 0.0
    train.mixing = ConfigDict()  # of images and labels on the device
    train.mixing.mixup = 0.0  # its Beta distribution's alpha; 0 = off
    train.mixing.cutmix = 0.0  # the same
    train.mixing.probability = 1.0
    train.mixing.switch = 0.5  # share of CutMix where both are on
    train.mixing.group = 32  # consecutive images that are mixed among themselves, with one draw
    train.ema_decay = 0.0  # decay of the averaged parameters that are evaluated; 0 = off
    train.precision = "default"  # the network's own; or of all layers: float32 | tf32 | bfloat16
    train.remat = "auto"  # computed again in the gradient: auto | none | mlp | block
    train.devices = 0  # that a batch is divided over; 0 = all
    train.parameter_shards = 1  # devices that share one copy of parameters and optimizer state
    train.blend = ConfigDict()  # from the layers of another ConvNeXt to the model's own, linearly
    train.blend.epochs = 0.0  # until the network is the model's own; 0 = off
    train.blend.start = "convnext"  # family of the initial weights (init_from): convnext | convnext_circular
    train.temperature = ConfigDict()  # of learned polyphase samplers, over epochs; starts at 1
    train.temperature.schedule = "constant"  # constant | decay | linear
    train.temperature.every_epochs = 10.0  # decay: multiply by `factor` so often, down to `least`
    train.temperature.factor = 0.85
    train.temperature.least = 0.5
    train.temperature.at_epochs = ()  # linear: from 1 through `targets`, reached `at_epochs`
    train.temperature.targets = ()
    return train


def _optimizer() -> ConfigDict:
    """From gradients to updates."""
    optimizer = ConfigDict()
    optimizer.name = "adamw"  # adamw | sgd | lamb
    optimizer.learning_rate = 4e-3  # peak
    optimizer.schedule = "cosine"  # cosine | step (constant, times step_factor at step_epochs)
    optimizer.step_epochs = (30.0, 60.0)
    optimizer.step_factor = 0.1
    optimizer.momentum = 0.9  # sgd
    optimizer.nesterov = False  # sgd
    optimizer.min_learning_rate = 1e-6
    optimizer.warmup_epochs = 0.0
    optimizer.weight_decay = 0.05  # adamw: decoupled, of kernels; sgd: of all parameters
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.eps = 1e-8
    optimizer.clip_norm = 0.0  # of the global gradient; 0 = off
    optimizer.layer_decay = 1.0  # of the learning rate from depth to depth (ConvNeXts); 1 = off
    return optimizer


def base_config() -> ConfigDict:
    """A locked configuration in which every field has its default."""
    config = ConfigDict()
    config.seed = 0
    config.dry_run = False  # train.py: three updates of a few images with all components, to see that it runs
    config.init_from = ""  # run, converted weights or original file (.pth, .safetensors); "" = scratch

    config.model = ConfigDict()
    config.model.name = "convnext_afc_micro"  # see aliasfree_jax.list_models()
    config.model.options = ConfigDict()  # keyword arguments of create_model; number of classes: from data
    config.model.options.unlock()

    config.data = _data()
    config.train = _train()
    config.optimizer = _optimizer()

    config.eval = ConfigDict()
    config.eval.batch_size = 100
    config.eval.every_epochs = 1.0
    config.eval.during = ()  # consistency while training, under integer, fractional, zero_filled shifts
    config.eval.shifts = 8  # random shifts an image in the consistency metrics
    config.eval.max_shift = 32  # pixels, integer part of those shifts; at most the image's side
    config.eval.crop_margin = 16  # pixels around the input that windows may reach (eval.py --crop_shifts)
    config.eval.worst_case_radius = 16  # pixels each way of --adversarial=integer, half, continuous
    config.eval.finest_fraction = 4  # --adversarial=fraction: multiples of 1/2 ... 1/so much of a pixel
    config.eval.pictured_image = 0  # eval.py --pictures: place in the data set of the image that slides
    config.eval.pictured_layer = ""  # path of the layer whose map is shown; "" = last one of 8 x 8 or more
    config.eval.attack = ConfigDict()  # --spatial_attack: each way
    config.eval.attack.rotation = 30.0  # degrees; presets afc_*_grid: the original's constraint
    config.eval.attack.translation = 30 / 280  # share of the side, as the original has it for 30 degrees
    config.eval.attack.enlargement = 1.0  # factor; 1 = none

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1.0
    config.checkpoint.keep = 2
    config.checkpoint.best = "accuracy"  # of `result_names`: the best is kept in <run>/best; "" = none

    config.log = ConfigDict()
    config.log.every_steps = 50
    config.log.tensorboard = False  # event files in <run>/tensorboard (pip install tensorboardX)
    config.log.wandb = ""  # Weights & Biases: the project (pip install wandb); "" = off
    config.log.profile_steps = ()  # (first, last) steps of a profile in <run>/profile
    config.lock()
    config.model.options.unlock()
    return config


def result_names(config: ConfigDict) -> list[str]:
    """What an evaluation while training finds: of the averaged weights if there are any, and of the raw."""
    names = ["accuracy", *(f"{kind}_consistency" for kind in config.eval.during)]
    return names + [f"{RAW}{name}" for name in names if config.train.ema_decay > 0]


def _unknown_fields(config: ConfigDict, base: ConfigDict, prefix: str = "") -> list[str]:
    faults = []
    for key in config:
        if key not in base:
            faults.append(unknown("field", f"{prefix}{key}", [f"{prefix}{k}" for k in base]))
        elif isinstance(base[key], ConfigDict) and key != "options":
            faults += _unknown_fields(config[key], base[key], f"{prefix}{key}.")
    return faults


def _choice_faults(config: ConfigDict) -> list[str]:
    choices = {
        "data.source": (config.data.source, SOURCES),
        "data.crop": (config.data.crop, CROPS),
        "data.eval_view": (config.data.eval_view, EVAL_VIEWS),
        "data.image_backend": (config.data.image_backend, IMAGE_BACKENDS),
        "data.interpolation": (config.data.interpolation, INTERPOLATIONS),
        "data.corrupt": (config.data.corrupt, ("raise", "skip")),
        "train.precision": (config.train.precision, tuple(PRECISIONS)),
        "train.temperature.schedule": (config.train.temperature.schedule, ("constant", "decay", "linear")),
        "optimizer.name": (config.optimizer.name, ("adamw", "sgd", "lamb")),
        "optimizer.schedule": (config.optimizer.schedule, ("cosine", "step")),
        "train.remat": (config.train.remat, ("auto", "none", "mlp", "block")),
    }
    faults = [unknown(field, value, legal) for field, (value, legal) in choices.items() if value not in legal]
    during = config.eval.during
    faults += [
        unknown("eval.during", kind, SHIFTS_DURING) + " Several are written \"('integer', 'fractional')\"."
        for kind in during
        if kind not in SHIFTS_DURING
    ]
    if len(set(during)) < len(during):
        faults.append(f"eval.during names a kind of shifts twice: {', '.join(during)}.")
    return faults


def _cross_faults(config: ConfigDict) -> list[str]:
    """What fields demand of each other, where each by itself is in its range."""
    data, train, faults = config.data, config.train, []
    if data.circular_shift > data.image_size // 2:
        faults.append(
            f"data.circular_shift is the largest shift in pixels, 0 (none) to {data.image_size // 2} "
            f"(half the image), got {data.circular_shift}."
        )
    if data.rand_augment and data.color_jitter:
        faults.append("data.rand_augment replaces data.color_jitter: set one of them only.")
    if len(data.mean) != len(data.std):
        faults.append(f"data.mean has {len(data.mean)} channels, data.std {len(data.std)}.")
    micro, left = divmod(train.batch_size, train.accumulation_steps)
    if left:
        faults.append(
            f"train.batch_size = {train.batch_size} is not a multiple of "
            f"train.accumulation_steps = {train.accumulation_steps}."
        )
    mixing = train.mixing
    if max(mixing.mixup, mixing.cutmix) > 0 and (mixing.group < 2 or micro % mixing.group):
        faults.append(
            f"train.mixing.group = {mixing.group} images are mixed among themselves: it must be at least 2 "
            f"and divide the {micro} images of a micro-batch (train.batch_size / train.accumulation_steps)."
        )
    if config.optimizer.warmup_epochs > train.total_epochs:
        faults.append(
            f"optimizer.warmup_epochs = {config.optimizer.warmup_epochs} exceeds "
            f"train.total_epochs = {train.total_epochs}."
        )
    if train.blend.epochs > train.total_epochs:
        faults.append(
            f"train.blend.epochs must lie in [0, train.total_epochs = {train.total_epochs}], got "
            f"{train.blend.epochs}: the run must end with the model's own layers."
        )
    epochs, targets = tuple(train.temperature.at_epochs), tuple(train.temperature.targets)
    if len(epochs) != len(targets):
        faults.append(f"train.temperature needs as many targets as at_epochs, got {epochs} and {targets}.")
    names = result_names(config)
    if config.checkpoint.best not in ("", *names):
        faults.append(
            unknown("checkpoint.best", config.checkpoint.best, names)
            + " Consistencies are there for the shifts in eval.during, raw_ ones if train.ema_decay > 0."
        )
    profiled = tuple(config.log.profile_steps)
    if profiled and not (len(profiled) == 2 and 1 < profiled[0] <= profiled[1]):
        faults.append(
            "log.profile_steps must be (first, last) steps, from 2 on, since the first one compiles; got "
            f"{profiled}."
        )
    return faults


def validate(config: ConfigDict) -> None:
    """Raises one `ConfigError` that lists every fault of `config`.

    What numbers demand of each other is looked at when each of them is in its range (`ranges`).
    """
    faults = _unknown_fields(config, base_config())
    if not faults:
        ranges = range_faults(config)
        faults = _choice_faults(config) + (ranges or _cross_faults(config))
    if faults:
        raise ConfigError("invalid configuration:\n  - " + "\n  - ".join(faults))
