import functools
import importlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from aliasfree_jax import create_model, list_models
from aliasfree_jax.checkpoint import abstract_variables
from aliasfree_jax.config import FIELDS, base_config
from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers.batching import Remat
from aliasfree_jax.ops.activation import GELU_QUADRATIC
from aliasfree_jax.training.optimizer import OPTIMIZERS
from aliasfree_jax.training.schedules import LEARNING_RATES, TEMPERATURES, make_plan
from aliasfree_jax.training.setup import check_network, make_card, model_options
from aliasfree_jax.validation import validate

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
IMAGENET = ["convnext_afc", "convnext_afg", "convnext_aps", "convnext_circular", "convnext_plain"]
CIFAR10 = ["cifar10_afc", "cifar10_afg", "cifar10_aps", "cifar10_circular", "cifar10_plain"]
MORE = ["imagenet_xcit", "cifar10_xcit", "cifar10_resnet_afg"]
SGD = ["imagenet_blur", "imagenet_aps", "imagenet_lps", "cifar10_resnet"]
DENSE = {"segment_digits": "segmentation", "unet_denoise": "regression", "deeplab_voc": "segmentation"}


def load(name, *argument):
    return importlib.import_module(f"configs.{name}").get_config(*argument)


def test_every_config_is_known_to_these_tests():
    assert sorted(["quickstart", *IMAGENET, *CIFAR10, *MORE, *SGD, *DENSE]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_config_is_valid_and_says_how_to_run_it(name):
    config = load(name)
    validate(config)
    assert config.model.name in list_models()
    command = "python train.py" if name == "quickstart" else f"python train.py --config=configs/{name}.py"
    assert command in (importlib.import_module(f"configs.{name}").__doc__ or "")


@pytest.mark.parametrize(
    "name", ["quickstart", *CIFAR10, "convnext_afc", *MORE, *SGD]
)  # the other large networks have the same recipe
def test_network_takes_the_images(name):
    config = load(name)
    module = create_model(config.model.name, **model_options(config, num_classes=10))
    shapes = abstract_variables(module, config.data.image_size, len(config.data.mean))
    assert shapes["params"]["head"]["kernel"].shape[-1] == 10


@pytest.mark.parametrize("name", DENSE)
def test_recipes_of_dense_prediction(name):
    """Every word after the colon: its network fits the images, and only the network differs."""
    words = getattr(importlib.import_module(f"configs.{name}"), "WORDS", None)
    names = list(words["variant"]) if words else ["resnet18_lps", "resnet50", "resnet18_afc"]
    recipes = [load(name, word) for word in names]
    for config, word in zip(recipes, names, strict=True):
        assert config.task == DENSE[name] and word in config.model.name
        validate(config)
        check_network(config)
        config.model.name, config.model.options, config.train.temperature = "", {}, {}
        assert config.to_dict() == recipes[0].to_dict()
    with pytest.raises(ConfigError, match="unknown"):
        check_network(load(name, "resnet18_lsp"))


@pytest.mark.parametrize("names", [IMAGENET, CIFAR10])
def test_the_networks_of_a_comparison_differ_in_nothing_else(names):
    configs = [load(name) for name in names]
    assert len({config.model.name for config in configs}) == 5
    for config in configs:
        config.model.name = ""
    assert all(config.to_dict() == configs[0].to_dict() for config in configs)


@pytest.mark.parametrize("name", NAMES)
def test_images_are_resized_as_by_the_original(name):
    """BlurPool, APS and LPS resize photographs bilinearly. Small images are not resized."""
    data = load(name).data
    assert data.interpolation == (
        "bilinear" if name in ("imagenet_blur", "imagenet_aps", "imagenet_lps", "deeplab_voc") else "bicubic"
    )
    assert not data.exif
    if data.image_size == 32:
        assert data.eval_crop_ratio == 1


def test_the_alias_free_resnet_has_the_recipe_of_the_convnexts_with_sgd_and_reflected_crops():
    resnet, convnext = load("cifar10_resnet_afg"), load("cifar10_afg")
    assert resnet.data.crop == "reflected"
    changed = {name: value for name, value in resnet.optimizer.items() if convnext.optimizer[name] != value}
    assert changed == {"name": "sgd", "nesterov": True, "learning_rate": 0.2, "weight_decay": 5e-4}
    resnet.model, resnet.data.crop = convnext.model, convnext.data.crop
    resnet.optimizer = convnext.optimizer
    assert resnet.to_dict() == convnext.to_dict()


def test_fine_tuning_starts_with_the_quadratic_nearest_to_gelu():
    config, scratch = load("convnext_afc", "from_plain"), load("convnext_afc")
    validate(config)
    assert config.train.total_epochs < scratch.train.total_epochs
    assert config.optimizer.learning_rate < scratch.optimizer.learning_rate
    with pytest.raises(ConfigError, match="unknown word 'from_plane'.*Did you mean 'from_plain'"):
        load("convnext_afc", "from_plane")
    module = create_model(config.model.name, **model_options(config, num_classes=10))
    for factory in (module.activation, module.stem_activation):
        activation = factory()
        scaled = [activation.out_scale * c * activation.in_scale**k for k, c in enumerate(activation.initial)]
        assert scaled == pytest.approx(GELU_QUADRATIC)


@pytest.mark.parametrize(
    ("field", "table"),
    [
        ("optimizer.name", OPTIMIZERS),
        ("optimizer.schedule", LEARNING_RATES),
        ("train.temperature.schedule", TEMPERATURES),
        ("train.remat", get_args(Remat)),
    ],
)
def test_every_legal_word_is_one_of_its_table(field, table):
    """Other fields have no table: their users read the tuple of the configuration."""
    assert set(FIELDS[field][1]) == set(table)


def test_imagenet_recipe_has_the_papers_lengths():
    plan = make_plan(load("convnext_afc"), 1_281_167)
    assert (plan.steps_per_epoch, plan.warmup, plan.total) == (312, 6240, 93_600)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.zero_pad", -1, "data.zero_pad must not be negative, got -1"),
        ("data.zero_pad", True, "data.zero_pad must be a whole number, got True"),
        ("data.eval_view", "crops", "unknown data.eval_view 'crops'.*Did you mean 'crop'"),
        ("data.image_backend", "PIL", "unknown data.image_backend 'PIL'"),
        ("data.circular_shift", 17, r"circular_shift must be 0 \(no shifts\) to 16 pixels"),
        ("data.circular_shift", True, "circular_shift must be a whole number, got True"),
        ("data.erase_probability", 1.5, r"data.erase_probability must lie in \[0, 1\], got 1.5"),
        ("data.color_jitter", -0.1, "data.color_jitter must not be negative"),
        ("data.color_jitter", 0.4, "data.rand_augment and data.color_jitter cannot be combined"),
        ("train.mixing.cutmix", -1.0, "train.mixing.cutmix must not be negative"),
        ("train.mixing.switch", 2.0, "train.mixing.switch must lie in"),
        ("train.mixing.group", 7, "train.mixing.group = 7 images .* divide the 16 images of a micro-batch"),
    ],
)
def test_faults_of_the_augmentation_are_named(field, value, message):
    config = base_config()
    config.data.rand_augment = "rand-m9-inc1"
    config.train.update({"batch_size": 32, "accumulation_steps": 2})
    config.train.mixing.update({"mixup": 0.8, "group": 8})
    validate(config)
    *sections, name = field.split(".")
    setattr(functools.reduce(getattr, sections, config), name, value)
    with pytest.raises(ConfigError, match=message):
        validate(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.validation", 1.0, r"data.validation must lie in \[0, 1\), got 1.0"),
        ("data.validation", -0.1, r"data.validation must lie in \[0, 1\), got -0.1"),
        ("data.validation", float("nan"), "data.validation must be .*, got nan"),
        ("eval.during", ("crop",), "unknown eval.during 'crop'.* Known: fractional, integer, zero_filled"),
        ("eval.during", ("integer",) * 2, "eval.during names a kind of shifts twice: integer, integer"),
        ("checkpoint.best", "acuracy", "unknown checkpoint.best 'acuracy'. .*Known: accuracy, integer_"),
        ("checkpoint.best", "fractional_consistency", "Consistencies exist for the shifts in eval"),
        ("checkpoint.best", "raw_accuracy", "raw_ ones if train.ema_decay > 0"),
    ],
)
def test_faults_of_the_evaluation_while_training_are_named(field, value, message):
    config = base_config()
    config.eval.during = ("integer",)
    for best in ("", "accuracy", "integer_consistency"):
        config.checkpoint.best = best
        validate(config)
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_raw_results_are_there_beside_averages():
    config = base_config()
    config.train.ema_decay, config.eval.during = 0.9, ("fractional",)
    for config.checkpoint.best in ("accuracy", "raw_accuracy", "raw_fractional_consistency"):
        validate(config)


@pytest.mark.parametrize("name", [*CIFAR10, "cifar10_resnet"])
def test_recipes_for_cifar10_choose_by_training_images_held_out(name):
    config = load(name)
    assert (config.data.validation, config.checkpoint.best) == (0.1, "accuracy")


def test_the_network_takes_the_padded_image():
    config = base_config()
    config.data.update({"image_size": 32, "zero_pad": 16})
    validate(config)
    assert make_card(config, ["a"], "").image_size == 64
    config.data.update({"image_size": 2, "zero_pad": 0})
    with pytest.raises(ShapeError):
        check_network(config)
    config.data.zero_pad = 15  # 32 pixels are enough
    check_network(config)


def test_the_papers_recipe_augments_as_the_paper_does():
    data, mixing = load("convnext_afc").data, load("convnext_afc").train.mixing
    assert (data.rand_augment, data.erase_probability) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert (mixing.mixup, mixing.cutmix, mixing.probability, mixing.switch) == (0.8, 1, 1, 0.5)
    assert mixing.group == 32
    assert (load("imagenet_xcit").data.repeats, data.repeats) == (3, 1)


def test_configs_load_by_path_from_any_directory(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"--config={ROOT}/configs/convnext_aps.py",
        "--nonsense",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown command line flag 'nonsense'"), done.stderr
