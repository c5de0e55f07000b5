"""Errors for images in another layout."""

import jax
import numpy as np
import pytest

from aliasfree_jax import create_model
from aliasfree_jax.errors import ShapeError


@pytest.mark.parametrize(
    "name",
    ["convnext_afc_micro", "resnet20_cifar_aps", "basic", "vgg11", "alexnet", "densenet121", "mobilenet_v2"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_images_are_refused_with_both_layouts(name, channels):
    images = jax.ShapeDtypeStruct((2, channels, 32, 48), np.float32)
    module = create_model(name, num_classes=2)
    with pytest.raises(ShapeError) as error:
        jax.eval_shape(module.init, jax.random.key(0), images)
    assert f"got [2, {channels}, 32, 48], which looks like PyTorch's [N, C, H, W]" in str(error.value)
    assert f"Pass [2, 32, 48, {channels}]: images.transpose(0, 2, 3, 1)" in str(error.value)


def test_small_images_are_no_channels():
    """The shape [2, 3, 3, 4] can be a valid batch of images [N, H, W, C]."""
    module = create_model("basic", num_classes=2, widths=(4,))
    jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 3, 3, 4), np.float32))
