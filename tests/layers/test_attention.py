"""Attention over channels and over positions: loops as references, shifts, a class token, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers import CrossCovarianceAttention, PositionNorm
from aliasfree_jax.layers.attention import ClassAttention
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift

# Sums of up to 50 products in float64.
ROUNDING = 1e-12


def random_variables(layer, draw, *inputs):
    shapes = jax.eval_shape(layer.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda leaf: draw(*leaf.shape), shapes)


def linear(params, name: str, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])


def cross_covariance_ref(params, tokens: np.ndarray, heads: int) -> np.ndarray:
    """One image `[T, C]`, head by head."""
    channels = tokens.shape[1]
    size = channels // heads
    q, k, v = (linear(params, "qkv", tokens)[:, i * channels : (i + 1) * channels] for i in range(3))
    columns = []
    for head in range(heads):
        queries, keys, values = (m[:, head * size : (head + 1) * size] for m in (q, k, v))
        queries, keys = (m / np.linalg.norm(m, axis=0) for m in (queries, keys))
        scores = np.exp(np.asarray(params["temperature"])[head] * (queries.T @ keys))
        columns.append(values @ (scores / scores.sum(1, keepdims=True)).T)
    return linear(params, "project", np.concatenate(columns, axis=1))


def class_attention_ref(params, token: np.ndarray, tokens: np.ndarray, heads: int) -> np.ndarray:
    """One image: the new token `[C]` of a token `[C]` and other tokens `[T, C]`."""
    everything = np.concatenate([token[None], tokens])
    q, k, v = (linear(params, name, everything) for name in ("query", "key", "value"))
    size, parts = len(token) // heads, []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = np.exp(k[:, own] @ q[0, own] / np.sqrt(size))
        parts.append((scores / scores.sum()) @ v[:, own])
    return linear(params, "project", np.concatenate(parts))


@pytest.mark.parametrize(("heads", "shape"), [(1, (2, 3, 4, 6)), (2, (1, 5, 5, 6)), (3, (2, 1, 7, 6))])
def test_cross_covariance_attention_is_its_formula(heads, shape, draw, x64):
    layer, x, token = CrossCovarianceAttention(heads), draw(*shape), draw(shape[0], 1, 1, shape[-1])
    variables = random_variables(layer, draw, x)
    y, (y_beside, token_after) = layer.apply(variables, x), layer.apply(variables, x, token)
    for image in range(shape[0]):
        tokens = np.asarray(x[image]).reshape(-1, shape[-1])
        expected = cross_covariance_ref(variables["params"], tokens, heads)
        np.testing.assert_allclose(y[image].reshape(expected.shape), expected, atol=ROUNDING)
        joint = np.concatenate([np.asarray(token[image, 0]), tokens])
        expected = cross_covariance_ref(variables["params"], joint, heads)
        np.testing.assert_allclose(token_after[image, 0, 0], expected[0], atol=ROUNDING)
        np.testing.assert_allclose(y_beside[image].reshape(-1, shape[-1]), expected[1:], atol=ROUNDING)


@pytest.mark.parametrize("heads", [1, 2])
def test_class_attention_is_its_formula(heads, draw, x64):
    layer, x, token = ClassAttention(heads), draw(2, 3, 4, 6), draw(2, 1, 1, 6)
    variables = random_variables(layer, draw, x, token)
    same, after = layer.apply(variables, x, token)
    np.testing.assert_array_equal(same, x)
    for image in range(2):
        tokens = np.asarray(x[image]).reshape(-1, 6)
        expected = class_attention_ref(variables["params"], np.asarray(token[image, 0, 0]), tokens, heads)
        np.testing.assert_allclose(after[image, 0, 0], expected, atol=ROUNDING)


@pytest.mark.parametrize("shift", [(1.0, 3.0), (0.5, 0.5), (1 / 3, 0.137)])
def test_which_attention_commutes_with_which_shift(shift, draw, x64):
    x, token = remove_nyquist(draw(1, 8, 6, 4)), draw(1, 1, 1, 4)
    moved = fractional_shift(x, shift)

    def change(layer, *arguments: bool) -> float:
        variables = random_variables(layer, draw, x, token)
        (still, one), (shifted, other) = (layer.apply(variables, each, token) for each in (x, moved))
        return float(max(jnp.abs(fractional_shift(still, shift) - shifted).max(), jnp.abs(one - other).max()))

    assert change(CrossCovarianceAttention(2)) < ROUNDING
    assert change(PositionNorm()) < ROUNDING
    if all(pixels == round(pixels) for pixels in shift):
        assert change(ClassAttention(2)) < ROUNDING
    else:
        assert change(ClassAttention(2)) > 1e-6  # its softmax over positions has no highest frequency


def test_large_scores_do_not_overflow(draw):
    layer, x, token = ClassAttention(1), 100 * draw(1, 3, 3, 4), 100 * draw(1, 1, 1, 4)
    variables = random_variables(layer, draw, x, token)
    assert np.isfinite(layer.apply(variables, x, token)[1]).all()


def test_gradients_of_a_black_image_are_finite():
    layer, x = CrossCovarianceAttention(2), jnp.zeros((1, 3, 3, 4))
    variables = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda x: layer.apply(variables, x).sum())(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("layer", [CrossCovarianceAttention, ClassAttention])
def test_mistakes_are_named(layer, draw):
    x, token = draw(1, 3, 3, 6), draw(1, 1, 1, 6)
    with pytest.raises(ConfigError, match="num_heads = 4 does not divide 6 channels"):
        layer(4).init(jax.random.key(0), x, token)
    with pytest.raises(ShapeError, match=r"\[N, H, W, C\]"):
        layer(2).init(jax.random.key(0), x[0], token)


def test_the_position_norm_is_its_formula(draw, x64):
    x, token = draw(2, 3, 4, 5), draw(2, 1, 1, 5)
    variables = random_variables(PositionNorm(), draw, x)
    scale, bias = (np.asarray(variables["params"][name]) for name in ("scale", "bias"))
    y, after = PositionNorm().apply(variables, x, token)
    for image in range(2):
        tokens = np.concatenate([np.asarray(token[image, 0]), np.asarray(x[image]).reshape(-1, 5)])
        centred = tokens - tokens.mean(0)
        expected = centred / np.sqrt((centred**2).mean() + 1e-6) * scale + bias
        np.testing.assert_allclose(after[image, 0, 0], expected[0], atol=ROUNDING)
        np.testing.assert_allclose(y[image].reshape(-1, 5), expected[1:], atol=ROUNDING)
    alone = PositionNorm().apply(variables, x)
    centred = x - x.mean((1, 2), keepdims=True)
    expected = centred / np.sqrt((centred**2).mean((1, 2, 3), keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(alone, expected, atol=ROUNDING)
