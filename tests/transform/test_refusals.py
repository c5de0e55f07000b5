"""Operations without a shift-invariant form raise an error with operation, line, reason and remedy."""

import linecache
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from aliasfree_jax.ops import depthwise_conv
from aliasfree_jax.transform import TransformError, shift_invariant

NUMBERS = ("NHWC", "HWIO", "NHWC")
KERNEL = np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype("float32")
TAPS = np.ones((3, 3, 12), "float32")
IMAGES = jax.ShapeDtypeStruct((2, 12, 12, 4), "float32")


def conv(x, kernel=KERNEL, stride=1, padding="SAME"):
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NUMBERS)  # its line


def tokens(x):
    return x.reshape(x.shape[0], -1, 4)


def cut_part(x):
    return conv(x[:, 2:-2, 2:-2])


def other_phases(x):
    return lax.cond(KERNEL.sum() + x.sum() > 0, lambda x: conv(x, stride=2), lambda x: x[:, ::2, ::2], x)


def pairs(x):
    """The difference of two images of one batch, each sampled at its own phase."""
    first, second = jnp.split(conv(conv(x, stride=2)), 2)
    return jnp.abs(first - second)  # the difference


def fewer_images(x):
    return conv(conv(x, stride=2))[:1] + conv(conv(x[:1], stride=2))


def sampled_in_turns(x):
    maps = lax.map(lambda kernel: conv(conv(x, kernel, 2)), jnp.stack([KERNEL] * 3))
    return conv(maps.mean(0))  # their mean


def sampled_and_added(x):
    def body(total, kernel):
        return total + conv(conv(x, kernel, 2)), None

    return lax.scan(body, jnp.zeros((2, 6, 6, 4)), jnp.stack([KERNEL] * 3))[0]  # the loop


def added_in_a_loop(x):
    images = conv(conv(x, stride=2))
    return lax.scan(lambda total, image: (total + image, None), jnp.zeros((6, 6, 4)), images)[0]  # of images


# Refused functions: primitive, part of the reason, part of the remedy, and text on the reported line.
REFUSED = {
    "flattened before a linear layer": (
        lambda x: conv(x).reshape(2, -1) @ jnp.ones((576, 3)),  # here
        ("reshape", "flattens rows or columns", "mean over rows and columns", "# here"),
    ),
    "flattened in part": (
        lambda x: jnp.tanh(x).reshape(2, 12, 48),  # here
        ("reshape", "flattens rows or columns", "mean over rows and columns", "# here"),
    ),
    "weights of positions": (
        lambda x: jnp.einsum("ntc,ts->nsc", tokens(x), jnp.ones((144, 5))),  # here
        ("dot_general", "different weight for each position", "mean over rows and columns", "# here"),
    ),
    "resized by matrices": (
        lambda x: jax.image.resize(x, (2, 20, 20, 4), "bilinear"),  # here
        ("resize", "a resize by matrices", "IdealUpsample", "# here"),
    ),
    "a window that leaves out the border": (
        lambda x: conv(x, padding="VALID"),
        ("conv_general_dilated", "10 x 10 positions, which has 12 x 12", "Pad the windows", "# its line"),
    ),
    "attention between positions": (
        lambda x: jnp.einsum("ntc,nsc->nts", tokens(x), tokens(x)),  # here
        ("dot_general", "attention between positions", "cross-covariance", "# here"),
    ),
    "rows times columns": (
        lambda x: jnp.einsum("nhwc,nwkd->nhkcd", x, x),  # here
        ("dot_general", "every position to every other", "cross-covariance", "# here"),
    ),
    "gathered rows": (
        lambda x: x[:, jnp.array([0, 2, 5])],  # here
        ("gather", "gathers single rows or columns", "slice", "# here"),
    ),
    "one pixel": (
        lambda x: x[:, 3, 3],  # here
        ("squeeze", "1 x 1 positions of a map that has 12 x 12", "mean over all positions", "# here"),
    ),
    "a part at fixed indices": (
        lambda x: lax.dynamic_slice(x, (0, 1, 1, 0), (2, 5, 5, 4)),  # here
        ("dynamic_slice", "selects a part of the rows or columns", "whole map", "# here"),
    ),
    "the mean of rows alone": (
        lambda x: x.mean(1),  # here
        ("reduce_sum", "reduces rows or columns alone", "axis=(1, 2)", "# here"),
    ),
    "the maximum of columns alone": (
        lambda x: x.max(2),  # here
        ("reduce_max", "reduces rows or columns alone", "axis=(1, 2)", "# here"),
    ),
    "a part of the map": (
        cut_part,
        ("conv_general_dilated", "8 x 8 positions", "cut nothing off", "# its line"),
    ),
    "the mean of a part": (
        lambda x: x[:, 2:-2, 2:-2].mean((1, 2)),  # here
        ("reduce_sum", "8 x 8 positions of a map that has 12 x 12", "cut nothing off", "# here"),
    ),
    "an upsampled part": (
        lambda x: lax.conv_transpose(x[:, 2:-2], KERNEL, (2, 2), "SAME"),  # here
        ("conv_general_dilated", "it uses 8 x 12 positions", "Use the whole map", "# here"),
    ),
    "the position of a maximum": (
        lambda x: jnp.argmax(tokens(x), 1),  # here
        ("argmax", "returns a position", "outside", "# here"),
    ),
    "sorted rows": (
        lambda x: jnp.sort(x, 1),  # here
        ("sort", "runs along rows or columns", "along channels", "# here"),
    ),
    "sums from the border on": (
        lambda x: jnp.cumsum(x, 2),  # here
        ("cumsum", "runs along rows or columns", "along channels", "# here"),
    ),
    "a map as a kernel": (
        lambda x: conv(x, x[0, :3, :3, :, None]),
        ("conv_general_dilated", "convolves with a map", "kernel", "# its line"),
    ),
    "a branch on a pixel": (
        lambda x: lax.cond(x[0, 0, 0, 0] > 0, jnp.sin, jnp.cos, x),  # here
        ("squeeze", "1 x 1 positions", "mean over all positions", "# here"),
    ),
    "branches sampled at phases of their own": (
        other_phases,
        ("cond", "different grids", "of all branches alike", "lax.cond"),
    ),
    "a mirrored map": (
        lambda x: x + x[:, ::-1],  # here
        ("add", "reversed rows or columns", "only as padding", "# here"),
    ),
    "rows beside columns": (
        lambda x: x + x.swapaxes(1, 2),  # here
        ("add", "sampled at different positions", "Sample both", "# here"),
    ),
    "maps of different strides": (
        lambda x: conv(x, stride=2)[:, :3, :3] + conv(conv(x, stride=2), stride=2),  # here
        ("add", "positions", "", "# here"),
    ),
    "a loop over rows": (
        lambda x: lax.map(jnp.sin, x.swapaxes(0, 1)),  # here
        ("scan", "loops over rows or columns", "images or channels", "# here"),
    ),
    "frequencies": (
        lambda x: jnp.fft.fft2(x, axes=(1, 2)).real,  # here
        ("fft", "no rule for this operation", "replace it", "# here"),
    ),
    "windows over tokens": (
        lambda x: lax.conv_general_dilated(  # here
            tokens(x), KERNEL[0], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        ),
        ("conv_general_dilated", "rows or columns are merged", "as separate axes", "# here"),
    ),
    "a class token": (
        lambda x: jnp.concatenate([jnp.zeros((2, 1, 4)), tokens(x)], 1),  # here
        ("concatenate", "merged", "as separate axes", "# here"),
    ),
    "one pixel beside its channels": (
        lambda x: x[:, 3:4, 3:4].reshape(2, 4),  # here
        ("reshape", "flattens rows or columns", "mean over rows and columns", "# here"),
    ),
    "one pixel repeated": (
        lambda x: jnp.repeat(x[:, 3:4, 3:4], 2, 1),  # here
        ("reshape", "it uses", "mean over all positions", "# here"),
    ),
    "two maps one below the other": (
        lambda x: jnp.concatenate([x, jnp.sin(x)], 1),  # here
        ("concatenate", "joins different maps", "along channels", "# here"),
    ),
    "two images of one batch": (pairs, ("sub", "different positions", "Sample both", "# the difference")),
    "fewer images": (
        fewer_images,
        ("conv_general_dilated", "another number of images", "once for each set of images", "# its line"),
    ),
    "frames moved in time": (
        lambda x: jnp.roll(conv(conv(x, stride=2)), 1, 0),  # here
        ("roll_static", "sampled at different positions", "Sample both", "# here"),
    ),
    "the deviation between images": (
        lambda x: conv(conv(x, stride=2)).std(0),  # here
        ("std", "mixes images", "before the first sampling", "# here"),
    ),
    "images as channels": (
        lambda x: jnp.einsum("nhwc,nm->mhwc", conv(conv(x, stride=2)), jnp.ones((2, 2))),  # here
        ("dot_general", "mixes images", "before the first sampling", "# here"),
    ),
    "sums over images": (
        lambda x: jnp.cumsum(conv(conv(x, stride=2)), 0),  # here
        ("cumsum", "mixes images", "before the first sampling", "# here"),
    ),
    "a kernel for each image": (
        lambda x: jax.vmap(lambda image, kernel: conv(image[None], kernel)[0])(x, jnp.stack([KERNEL] * 2)),
        ("conv_general_dilated", "a kernel for each image", "jax.lax.map", "# its line"),
    ),
    "maps sampled in a loop": (
        sampled_in_turns,
        ("reduce_sum", "mixes images", "before the first sampling", "# their mean"),
    ),
    "a sum of images in a loop": (
        added_in_a_loop,
        ("scan", "mixes images", "before the first sampling", "# of images"),
    ),
    "all pairs of images": (
        lambda x: (lambda y: jnp.abs(y[:, None] - y[None]))(conv(conv(x, stride=2))),  # here
        ("sub", "mixes images", "each image with itself", "# here"),
    ),
    "similarities of images": (
        lambda x: (lambda y: jnp.einsum("nhwc,mhwc->nm", y, y))(conv(conv(x, stride=2))),  # here
        ("dot_general", "mixes images", "before the first sampling", "# here"),
    ),
    "a part upsampled": (
        lambda x: lax.conv_transpose(conv(conv(x, stride=2))[1:], KERNEL, (2, 2), "SAME"),  # here
        ("conv_general_dilated", "upsamples a part of the images", "after the upsampling", "# here"),
    ),
    "a sum of maps sampled in a loop": (
        sampled_and_added,
        ("scan", "samples a map in each iteration", "Sample outside of the loop", "# the loop"),
    ),
    "depthwise over columns and channels": (
        lambda x: depthwise_conv(x.transpose(0, 3, 1, 2), TAPS, "ZERO", method="shifted"),  # here
        ("depthwise_conv", "is not a convolution over rows and columns", "Convolve over both", "# here"),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_kept_is_refused(what):
    f, (operation, reason, remedy, line) = REFUSED[what]
    jax.eval_shape(f, IMAGES)  # it is a program
    with pytest.raises(TransformError) as error:
        jax.eval_shape(shift_invariant(f), IMAGES)
    found = error.value
    assert found.operation.split(" ")[0] == operation
    assert reason in found.reason
    assert remedy in found.remedy
    file, number = re.fullmatch(r"(.*):(\d+)", found.where).groups()
    assert file == __file__
    assert line in linecache.getline(file, int(number))
    assert str(found).startswith(f"{found.where}: {found.operation}")
    assert str(found).endswith(f": {found.reason}. {found.remedy}")


@pytest.mark.parametrize(
    ("f", "operation", "reason"),
    [
        (lambda x: conv(x).max((1, 2)), "reduce_max", "compares or multiplies positions"),
        (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 12, 12, 1), (1,) * 4, "VALID"),
         "reduce_window_max", "is a pool of single positions"),
        (lambda x: jax.nn.softmax(conv(x), (1, 2)), "softmax", "compares or multiplies positions"),
        (lambda x: jnp.einsum("nhwc,nhwd->nhwd", x, conv(x)), "dot_general", "write it with"),
    ],
)  # fmt: skip
def test_what_is_exact_for_whole_pixels_only_is_refused_with_polynomials(f, operation, reason):
    jax.eval_shape(shift_invariant(f), IMAGES)
    with pytest.raises(TransformError, match=f"{operation}.*{reason}.*which no quadratic can replace"):
        jax.eval_shape(shift_invariant(f, sampler="ideal", activations="polynomial"), IMAGES)


def test_images_in_another_order_are_other_images():
    images = jax.ShapeDtypeStruct((4, 12, 12, 4), "float32")

    def exchanged(x):
        return x.reshape(2, 2, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)

    def f(x):
        y = conv(conv(x, stride=2))
        return y - exchanged(y)

    with pytest.raises(TransformError, match="sub: mixes images"):
        jax.eval_shape(shift_invariant(f), images)
    again = lambda x: (lambda y: y - exchanged(exchanged(y)))(conv(conv(x, stride=2)))  # noqa: E731
    assert jax.eval_shape(shift_invariant(again), images).shape == (4, 6, 6, 4)


def test_images_are_mixed_before_they_are_sampled_or_after_a_mean():
    def f(x):
        x = conv(x - x.mean(0) + jnp.flip(x, 0), stride=2)
        y = conv(x)[1:].mean((1, 2))
        return y - y.std(0)

    assert jax.eval_shape(shift_invariant(f), IMAGES).shape == (1, 4)


def test_tokens_are_not_joined_as_the_program_has_it():
    class_token = REFUSED["a class token"][0]
    with pytest.raises(TransformError, match="rows or columns are merged"):
        jax.eval_shape(shift_invariant(class_token, padding=None), IMAGES)


def test_maps_that_the_stride_does_not_divide_warn():
    images = jax.ShapeDtypeStruct((2, 10, 10, 4), "float32")
    with pytest.warns(UserWarning, match="a map of 5 x 5 is sampled by 2, which does not divide it"):
        jax.eval_shape(shift_invariant(lambda x: conv(conv(conv(x, stride=2), stride=2))), images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.eval_shape(shift_invariant(lambda x: conv(conv(conv(x, stride=2), stride=2))), IMAGES)


def test_refused_within_calls_and_loops():
    """The error names the line of the operation, not that of the loop."""

    def body(x, _):
        return jax.checkpoint(lambda x: jnp.sort(x, 1))(x), None  # here

    with pytest.raises(TransformError) as error:
        jax.eval_shape(shift_invariant(lambda x: lax.scan(body, x, None, 2)[0]), IMAGES)
    assert error.value.operation.split(" ")[0] == "sort"
    assert "# here" in linecache.getline(__file__, int(error.value.where.rsplit(":", 1)[1]))
