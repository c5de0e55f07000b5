"""Building blocks of the small networks in these tests."""

import jax
from jax import lax

# Tolerance: rounding of sums in another order, for numbers of size 1 to 10.
CLOSE = 1e-5


def conv(x, kernel, stride=1, padding="SAME"):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dimensions)


def head(x):
    return jax.nn.relu(x).mean((1, 2))
