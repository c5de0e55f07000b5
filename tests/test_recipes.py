"""Tests of the originals' recipes: words, networks and hyperparameters."""

import importlib

import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.models import create_model
from aliasfree_jax.training.setup import check_network, model_options
from aliasfree_jax.validation import validate


def load(name, *argument):
    return importlib.import_module(f"configs.{name}").get_config(*argument)


def every_name():
    """(file, words): all architectures of the two files that have them, and each word of the others."""
    for name in ("imagenet_blur", "imagenet_aps"):
        yield from ((name, words) for words in importlib.import_module(f"configs.{name}").ARCHITECTURES)
    for name, suffix in (("imagenet_lps", ""), ("cifar10_resnet", ",lpf"), ("cifar10_resnet", ",aps")):
        for slot, words in importlib.import_module(f"configs.{name}").WORDS.items():
            if slot not in ("sampler", "logits network") or not suffix:
                conflict = slot == "sampler" and "aps" in words
                yield from ((name, f"{word}{suffix}") for word in words if not (conflict and word == "aps"))
    yield from (("cifar10_resnet", f"resnet18,lps,{word}") for word in ("3", "ComponentPerceptron", "zeros"))
    yield from (("cifar10_resnet", network) for network in ("resnet18", "resnet20", "resnet50", "resnet56"))
    yield from (("imagenet_lps", words) for words in ("aps", "resnet50,aps,lpf3,zero", "resnet101,ddac3"))


def test_every_recipe_name_is_valid_and_builds_its_network():
    names = list(every_name())
    assert len(names) > 23 * 8 + 8 * 7 + 40
    for name, words in names:
        config = load(name, words)
        validate(config)
        create_model(config.model.name, **model_options(config, num_classes=10))


APS = importlib.import_module("configs.imagenet_aps")
LOGITS = list(importlib.import_module("configs.imagenet_lps").WORDS["logits network"])
LARGE = ("resnet50,lpf", "resnet56")
# Deeper networks have more of the same blocks. Tests of conversion count their parameters.
DEEPER = ("101", "152", "161", "169", "201")
TAKEN = [  # tests/test_originals.py has the networks of imagenet_blur
    *(("imagenet_aps", f"{network}4") for network in APS.IMAGENET),
    *(("imagenet_lps", f"resnet18,{logits}") for logits in LOGITS),
    *(("imagenet_lps", words) for words in ("resnet50,lpf3,zero", "resnet18,ddac3")),
    *(("cifar10_resnet", f"resnet{depth},aps,5") for depth in (18, 20, 34, 50, 56)),
    *(("cifar10_resnet", words) for words in ("resnet20,zeros", "resnet20,lpf,3,zeros", "resnet18,lps,3")),
]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * any(word in case[1] for word in LARGE))
        for case in TAKEN
        if not any(word in case[1] for word in DEEPER)
    ],
)
# As in the original, exact samplers have zero padding here. The package warns about it.
@pytest.mark.filterwarnings("ignore:.*_lps with these options is not invariant:UserWarning")
def test_the_named_networks_take_their_images(name, words):
    check_network(load(name, words))


def hyper_parameters(config):
    optimizer, train, data = config.optimizer, config.train, config.data
    schedule = optimizer.step_epochs if optimizer.schedule == "step" else optimizer.schedule
    rate = round(optimizer.learning_rate, 6), schedule, optimizer.weight_decay
    return *rate, train.total_epochs, train.batch_size, data.crop, data.circular_shift


STEPS = (30, 60)
CROP = ("random_resized", 0)


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        # antialiased-cnns. For VGG, the sum of two gradients is twice their mean.
        ("imagenet_blur", "resnet50_lpf4", (0.1, STEPS, 1e-4, 90, 256, *CROP)),
        ("imagenet_blur", "resnet50", (0.1, STEPS, 1e-4, 90, 256, *CROP)),
        ("imagenet_blur", "densenet121_lpf2", (0.1, STEPS, 1e-4, 90, 256, *CROP)),
        ("imagenet_blur", "alexnet_lpf4", (0.01, STEPS, 1e-4, 90, 256, *CROP)),
        ("imagenet_blur", "vgg16_lpf4", (0.02, STEPS, 5e-5, 90, 256, *CROP)),
        ("imagenet_blur", "vgg16_bn_lpf4", (0.1, STEPS, 5e-5, 90, 256, *CROP)),
        ("imagenet_blur", "mobilenet_v2_lpf4", (0.05, "cosine", 4e-5, 150, 256, *CROP)),
        ("imagenet_blur", "resnet50_lpf4,finetune", (0.01, STEPS, 1e-4, 60, 256, *CROP)),
        # truly_shift_invariant_cnns, sections A5 and A6.
        ("imagenet_aps", "resnet18_aps1", (0.1, STEPS, 1e-4, 90, 256, "none", 0)),
        ("imagenet_aps", "resnet101_lpf7,shifts", (0.1, STEPS, 1e-4, 90, 256, "none", 32)),
        ("cifar10_resnet", "resnet20,aps,5", (0.1, (100, 200), 5e-4, 250, 256, "none", 0)),
        ("cifar10_resnet", "resnet18_aps,shifts", (0.1, (100, 200), 5e-4, 250, 256, "none", 3)),
        ("cifar10_resnet", "resnet18,zeros,shifts", (0.1, (100, 200), 5e-4, 250, 256, "padded", 0)),
        # learnable_polyphase_sampling, sections B7 and B8.
        ("imagenet_lps", "resnet18", (0.1, STEPS, 1e-4, 90, 256, "none", 0)),
        ("imagenet_lps", "resnet18,lpf2,shifts", (0.1, STEPS, 1e-4, 90, 256, "none", 32)),
        ("imagenet_lps", "ResNet50_LPS_LPF3_zero_randomresized", (0.1, STEPS, 1e-4, 90, 256, *CROP)),
        ("imagenet_lps", "resnet101,ddac3,zero", (0.1, STEPS, 1e-4, 90, 256, *CROP)),
        ("cifar10_resnet", "resnet18,lps", (0.1, (100, 200), 5e-4, 250, 256, "none", 0)),
    ],
)
def test_recipes_have_the_originals_hyper_parameters(name, words, expected):
    config = load(name, words)
    assert hyper_parameters(config) == expected
    assert (config.optimizer.name, config.optimizer.momentum, config.optimizer.nesterov) == (
        "sgd",
        0.9,
        False,
    )
    assert config.data.flip and config.data.image_size == (32 if name == "cifar10_resnet" else 224)


def built(name, words):
    config = load(name, words)
    return create_model(config.model.name, **model_options(config, num_classes=10))


def sampler_of(network):
    """The sampler of a network, built so that its parts can be compared."""
    return network.sampler(parent=None)


@pytest.mark.parametrize(
    ("name", "words", "kind", "size", "filter_padding", "padding"),
    [
        ("imagenet_blur", "resnet50_lpf5", "BlurPool", 5, "REFLECT", "ZERO"),
        ("imagenet_blur", "resnet50", "Subsample", None, None, "ZERO"),
        ("imagenet_aps", "resnet18_aps3", "AdaptivePolyphase", 3, "CIRCULAR", "CIRCULAR"),
        ("imagenet_aps", "resnext50_32x4d_lpf2", "BlurPool", 2, "CIRCULAR", "CIRCULAR"),
        ("imagenet_lps", "resnet50,lpf3,zero", "LearnedPolyphase", 3, "ZERO", "ZERO"),
        ("imagenet_lps", "resnet101,ddac3", "LearnedPolyphase", 3, "CIRCULAR", "CIRCULAR"),
        ("imagenet_lps", "resnet18,aps,lpf2", "AdaptivePolyphase", 2, "CIRCULAR", "CIRCULAR"),
        ("cifar10_resnet", "resnet20,aps,5", "AdaptivePolyphase", 5, "CIRCULAR", "CIRCULAR"),
        ("cifar10_resnet", "resnet18_lpf,3,zeros", "BlurPool", 3, "REFLECT", "ZERO"),
        ("cifar10_resnet", "resnet56", "Subsample", None, None, "CIRCULAR"),
    ],
)
def test_the_named_networks_are_the_originals(name, words, kind, size, filter_padding, padding):
    network = built(name, words)
    sampler = sampler_of(network)
    filters = sampler if not hasattr(sampler, "inner") else sampler.inner(parent=None)
    assert type(sampler).__name__ == kind
    assert getattr(filters, "kernel_size", None) == size
    assert getattr(filters, "padding", None) == filter_padding
    assert network.padding == padding


def test_what_chooses_is_the_originals():
    assert sampler_of(built("cifar10_resnet", "resnet18,aps,3")).select_on == "raw"
    assert sampler_of(built("imagenet_aps", "resnet18_aps3")).select_on == "filtered"
    for words, name in (("resnet18", "ConvLogits"), ("resnet18,componentperceptron", "LinearLogits")):
        for file, rest in (("imagenet_lps", ""), ("cifar10_resnet", ",lps")):
            logits = sampler_of(built(file, words + rest)).logits(parent=None)
            assert type(logits).__name__ == name and logits.padding == "CIRCULAR"
    config = load("imagenet_lps", "stepdecay_limit_1e")
    assert config.train.temperature.to_dict() | {"every_epochs": 1.0, "factor": 0.97, "least": 0.1} == (
        config.train.temperature.to_dict()
    )
    assert load("cifar10_resnet", "resnet18,lps").train.temperature.least == 0.5


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("imagenet_blur", "resnet50_lp4", "unknown word 'resnet50_lp4' .*'resnet50_lpf4'.*NETWORK_lpf1"),
        ("imagenet_blur", "resnet50_lpf8", "Did you mean 'resnet50_lpf"),
        ("imagenet_blur", "resnet50,finetune", "resnet50_lpf4,finetune"),
        ("imagenet_blur", "resnet50_lpf4,tune", "unknown word 'tune'.*Did you mean 'finetune'"),
        ("imagenet_blur", "finetune", "no architecture after the colon"),
        ("imagenet_blur", "resnet50_lpf4,resnet18", "'resnet50_lpf4' and 'resnet18' are two architectures"),
        ("imagenet_aps", "resnet50_aps3", "Did you mean .*'resnet50_lpf3'"),
        ("imagenet_aps", "", "unknown word ''.*NETWORK and 1 to 7"),
        ("imagenet_lps", "resnet34", "unknown word 'resnet34'"),
        ("imagenet_lps", "steps", "unknown word 'steps'"),
        ("imagenet_lps", "lpf3,DDAC3", "'lpf3' and 'ddac3' are two filters: choose one"),
        ("imagenet_lps", "aps,SAInner", "need lps, not aps"),
        ("imagenet_lps", "ddac4", "unknown word 'ddac4'.*Did you mean 'ddac"),
        ("cifar10_resnet", "resnet20,asp,5", "unknown word 'asp'.*Did you mean 'aps'"),
        ("cifar10_resnet", "plain", "unknown word 'plain'"),
        ("cifar10_resnet", "resnet20,aps,8", "unknown word '8'"),
        ("cifar10_resnet", "resnet20,lps", "lps for CIFAR-10 exists only for resnet18"),
        ("cifar10_resnet", "resnet20,5", "a filter size needs a sampler"),
        ("cifar10_resnet", "resnet18,aps,SAInner", "a logits network needs the sampler lps"),
    ],
)
def test_a_wrong_name_is_answered_with_the_near_ones_and_the_grammar(name, words, message):
    with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
        load(name, words)
    assert "Expected" in str(caught.value) or "finetune" in words


def test_the_samplers_of_the_cifar_comparison_differ_in_nothing_else():
    configs = [load("cifar10_resnet", words) for words in ("resnet18", "lpf,3", "aps,3", "lps")]
    for config in configs:
        validate(config)
        module = create_model(config.model.name, **model_options(config, num_classes=10))
        assert module.padding == "CIRCULAR"
        config.model.name = config.train.temperature.schedule = ""
        config.model.options = {}
    assert all(config.to_dict() == configs[0].to_dict() for config in configs)


def test_the_recipe_of_the_stored_experiments_is_unchanged():
    recipe = importlib.import_module("configs.cifar10_resnet").recipe
    config = recipe("resnet18_cifar_aps", learned=False)
    assert (config.model.name, config.model.options.to_dict()) == ("resnet18_cifar_aps", {})
    assert hyper_parameters(config) == (0.1, (100, 200), 5e-4, 250, 256, "none", 0)
    assert config.train.temperature.schedule == "constant"
    assert recipe("resnet18_cifar_lps", learned=True).train.temperature.schedule == "decay"
