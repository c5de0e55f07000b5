"""Networks of the originals' command lines, and how they compare with those of our lines."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import originals_flags
import pytest

from aliasfree_jax.conversion.code_bases import code_base
from aliasfree_jax.conversion.published import PREFIX, PUBLISHED
from aliasfree_jax.layers import BlurPool, Factory, Subsample
from aliasfree_jax.models import create_model
from aliasfree_jax.training.setup import model_options


def plain(part):
    """A network or part as its class and all its fields; a blur of one tap is a subsampling."""
    if isinstance(part, Factory):
        kind, given = part.module, dict(part.fields)
    elif isinstance(part, nn.Module):
        kind, given = (
            type(part),
            {field.name: getattr(part, field.name) for field in dataclasses.fields(part)},
        )
    elif isinstance(part, type) and issubclass(part, nn.Module):
        kind, given = part, {}
    else:
        return part
    if kind is BlurPool and given.get("kernel_size") == 1:
        kind, given = Subsample, {}
    ignored = ("name", "parent", "num_classes")
    parts = {field.name: default(field) for field in dataclasses.fields(kind)} | given
    return kind, {name: plain(value) for name, value in parts.items() if name not in ignored}


def default(field):
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def equal(have, wanted):
    """Whether a field has a value, up to the rounding of decimals."""
    return (
        tuple(have) == wanted
        if isinstance(have, list)
        else have == wanted or (isinstance(wanted, float) and have == pytest.approx(wanted))
    )


def original(source, model, options):
    """The network that the original makes, here."""
    name, ours = code_base(source).translate(model, options)
    return create_model(name, **ours)


def ours(config):
    return create_model(config.model.name, **model_options(config, 1000))


@functools.cache
def builds(network, size):
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), image)
    return logits.shape == (1, network.num_classes)


def expected_training(row):
    """The original's network, and the fields that its flags ask for."""
    if row["file"].startswith("antialiased"):
        asked = originals_flags.blurpool(row["original"])
        source, options = (
            ("antialiased-cnns", {"filter_size": asked.taps}) if asked.taps else ("torchvision", {})
        )
        wanted = originals_flags.blurpool_fields(asked) | {"workdir": asked.out_dir}
        return original(source, asked.model, options), wanted
    if row["file"].startswith("truly"):
        source, model, options, wanted = originals_flags.aps(row["original"])
        return original(source, model, options), wanted
    model, options, wanted = originals_flags.afc(row["original"])
    return original("alias_free_convnets", model, options), wanted


def network_of(reference):
    """The network that a published name holds."""
    if reference.startswith("hf://timm/"):
        return original("torchvision", reference.removeprefix("hf://timm/").removesuffix(".tv_in1k"), {})
    model, taps = re.fullmatch(rf"{PREFIX}(\w+)_lpf(\d)(?:_finetune)?", reference).groups()
    assert reference.removeprefix(PREFIX) in PUBLISHED
    return original("antialiased-cnns", model, {"filter_size": int(taps)})
