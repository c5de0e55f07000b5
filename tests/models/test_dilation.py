"""Networks whose last stages dilate their kernels instead of sampling; what decoders get of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers import PolyphaseUpsample
from aliasfree_jax.models import create_model

NARROW = {"num_classes": 0, "global_pool": "", "widths": (4, 4, 8, 8), "depths": (1, 2, 1, 2)}
# Float64 rounding through up to 12 layers, relative to the largest value.
EXACT = 1e-12


@pytest.mark.parametrize("name", ["resnet18_circular", "resnet18", "resnet50_circular"])
@pytest.mark.parametrize("output_stride", [16, 8])
def test_the_dilated_network_is_the_strided_one_at_more_places(name, output_stride, draw, randomised, x64):
    strided = create_model(name, **NARROW)
    dilated = create_model(name, output_stride=output_stride, **NARROW)
    variables, images = randomised(strided, 1, 64, 64, 3), draw(1, 64, 64, 3)
    assert jax.tree.map(jnp.shape, jax.eval_shape(dilated.init, jax.random.key(0), images)) == jax.tree.map(
        jnp.shape, variables
    )
    coarse, fine = (jax.jit(network.apply)(variables, images) for network in (strided, dilated))
    step = 32 // output_stride
    assert fine.shape[1] == 64 // output_stride and dilated.total_stride == output_stride
    np.testing.assert_allclose(fine[:, ::step, ::step], coarse, atol=EXACT * float(abs(coarse).max()))


def test_dilated_kernels_are_those_of_torchvision():
    """Of its resnet50 with replace_stride_with_dilation=[False, True, True]: read off its source's rule."""
    network = create_model("resnet50", output_stride=8, depths=(1, 1, 2, 2), num_classes=0, global_pool="")
    program = str(jax.make_jaxpr(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    # conv2 of the first block of a stage keeps the dilation before it.
    assert [program.count(f"rhs_dilation=({d}, {d})") for d in (2, 4)] == [2, 1]


def test_another_output_stride_is_refused():
    with pytest.raises(ConfigError, match="output_stride=12: .* have the strides 4, 8, 16, 32; choose one"):
        create_model("resnet18", output_stride=12)


@pytest.mark.parametrize(("sampler", "ends"), [("polyphase", (2, 3, 4, 5)), ("ideal", None)])
def test_stages_have_the_phases_on_the_way_to_them(sampler, ends, draw, randomised, x64):
    network = create_model("resnet18_aps", sampler=sampler, **NARROW)
    variables, images = randomised(network, 2, 64, 64, 3), draw(2, 64, 64, 3)
    _, stages = jax.jit(lambda v, x: network.apply(v, x, method="with_stages"))(variables, images)
    assert [stage.stride for stage in stages] == list(network.stage_strides)
    if ends is None:
        assert all(stage.phase is None for stage in stages)
        return
    assert tuple(len(stage.phase) for stage in stages) == ends
    for stage in stages[1:]:
        assert (stage.phase[0] == stages[0].phase[0]).all()
    # Written back where it came from, each stage's map moves with the image.
    _, moved = network.apply(variables, jnp.roll(images, (3, -6), (1, 2)), method="with_stages")
    for ours, theirs in zip(stages, moved, strict=True):
        up = PolyphaseUpsample(ours.stride)
        expected = jnp.roll(up.apply({}, ours.map, ours.phase), (3, -6), (1, 2))
        np.testing.assert_allclose(
            up.apply({}, theirs.map, theirs.phase), expected, atol=EXACT * abs(expected).max()
        )


def test_a_strided_stem_stands_at_phase_0(draw, randomised):
    network = create_model("resnet18_aps", pool_only=True, **NARROW)
    variables, images = randomised(network, 2, 64, 64, 3), draw(2, 64, 64, 3)
    _, stages = network.apply(variables, images, method="with_stages")
    np.testing.assert_array_equal(stages[0].phase[0], [0, 0])
    assert len(stages[0].phase) == 2
