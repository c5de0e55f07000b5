"""Networks whose last stages dilate their kernels instead of sampling, and their outputs for decoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers import PolyphaseUpsample
from aliasfree_jax.layers.sampling import phase_in_turn
from aliasfree_jax.models import create_model

NARROW = {"num_classes": 0, "global_pool": "", "widths": (4, 4, 8, 8), "depths": (1, 1, 1, 2)}
# float64 rounding in up to 12 layers, relative to the largest value.
EXACT = 1e-12


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [
        ("resnet18", 8),
        ("resnet50_circular", 16),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("resnet18_circular", 16), ("resnet50", 8))
        ),
    ],
)
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
    """The expected dilations follow torchvision's rule.

    They are those of its resnet50 with replace_stride_with_dilation=[False, True, True].
    """
    network = create_model("resnet50", output_stride=8, depths=(1, 1, 2, 2), num_classes=0, global_pool="")
    program = str(jax.make_jaxpr(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    # conv2 of the first block of a stage keeps the dilation of the previous stage.
    assert [program.count(f"rhs_dilation=({d}, {d})") for d in (2, 4)] == [2, 1]


def test_another_output_stride_is_refused():
    with pytest.raises(ConfigError, match="output_stride must be one of the strides .* 4, 8, 16, 32, got 12"):
        create_model("resnet18", output_stride=12)


@pytest.mark.parametrize(("sampler", "ends"), [("polyphase", (2, 3, 4, 5)), ("ideal", None)])
def test_stages_have_the_phases_on_the_way_to_them(sampler, ends, draw, randomised, x64):
    network = create_model("resnet18_aps", sampler=sampler, **NARROW)
    variables, images = randomised(network, 2, 32, 32, 3), draw(2, 32, 32, 3)
    both = jnp.concatenate([images, jnp.roll(images, (3, -6), (1, 2))])
    _, stages = jax.jit(lambda v, x: network.apply(v, x, method="with_stages"))(variables, both)
    assert [stage.stride for stage in stages] == list(network.stage_strides)
    if ends is None:
        assert all(stage.phase is None for stage in stages)
        return
    assert tuple(len(stage.phase) for stage in stages) == ends
    for stage in stages:
        assert (stage.phase[0] == stages[0].phase[0]).all()
        # Each stage's map, written back to its phase, moves with the image.
        ours, moved = jnp.split(PolyphaseUpsample(stage.stride).apply({}, stage.map, stage.phase), 2)
        expected = jnp.roll(ours, (3, -6), (1, 2))
        np.testing.assert_allclose(moved, expected, atol=EXACT * abs(expected).max())


def test_a_step_without_a_choice_stands_at_phase_0():
    phase = (jnp.array([3, 1]),)
    assert phase_in_turn(2, (4, None), (2, None)) is None
    joined = phase_in_turn(2, (4, None), (1, ()), (2, phase))
    np.testing.assert_array_equal(joined, [[0, 0], [0, 0], [3, 1]])
