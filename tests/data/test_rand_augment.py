"""The operations of RandAugment at the original's magnitudes, and how they are drawn."""

import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.data.rand_augment import FILL, OPERATIONS, RandAugment
from aliasfree_jax.errors import ConfigError

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
GRADUAL = (*GEOMETRIC, "Color", "Contrast", "Brightness", "Sharpness")


class Coin:
    """A generator whose coin always falls on the same side."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


HEADS, TAILS = Coin(0.0), Coin(0.9)


def photograph(height: int = 40, width: int = 60, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (5, 6, channels), np.uint8)
    planes = [Image.fromarray(low[..., c]).resize((width, height)) for c in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def apply(name: str, image: np.ndarray, magnitude: float, coin: Coin = HEADS) -> np.ndarray:
    return np.asarray(OPERATIONS[name](Image.fromarray(image), magnitude, coin))


def test_there_are_fifteen():
    assert len(OPERATIONS) == 15


@pytest.mark.parametrize("name", GRADUAL)
def test_magnitude_zero_changes_nothing(name):
    np.testing.assert_array_equal(apply(name, photograph(), 0), photograph())


@pytest.mark.parametrize("name", GRADUAL)
def test_the_sign_is_a_coin(name):
    assert not np.array_equal(apply(name, photograph(), 9), apply(name, photograph(), 9, TAILS))


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ("AutoContrast", "Equalize", "Invert")])
def test_severity_grows(name):
    """`inc1`: the mean change at 9 exceeds that at 3."""
    image = photograph().astype(float)
    change = [np.abs(apply(name, photograph(), m) - image).mean() for m in (3, 9)]
    assert change[1] > change[0] > 0 or name == "Posterize" and change[1] > change[0]


def test_posterize_keeps_four_bits_less_with_magnitude():
    image = photograph()
    for magnitude, bits in ((0, 4), (2.4, 4), (2.5, 3), (5, 2), (9, 1), (9.9, 1), (10, 0)):
        kept = 256 - 2 ** (8 - bits)
        np.testing.assert_array_equal(apply("Posterize", image, magnitude), image & kept)


def test_solarize_inverts_from_a_threshold_on():
    image = photograph()
    for magnitude, threshold in ((0, 256), (5, 128), (9, 26), (10, 0)):
        np.testing.assert_array_equal(
            apply("Solarize", image, magnitude), np.where(image < threshold, image, 255 - image)
        )


def test_solarize_add_brightens_the_dark_half():
    image = photograph()
    for magnitude, more in ((0, 0), (5, 55), (9, 99), (9.5, 104), (10, 110)):
        expected = np.where(image < 128, np.minimum(image.astype(int) + more, 255), image)
        np.testing.assert_array_equal(apply("SolarizeAdd", image, magnitude), expected)


def test_translation_is_a_share_of_the_side_and_filled_with_the_mean_colour():
    image = photograph(40, 60)
    right = apply("TranslateX", image, 10)  # 0.45 * 60 = 27 pixels, from the right
    np.testing.assert_array_equal(right[:, :33], image[:, 27:])
    assert (right[:, 33:] == FILL).all()
    down = apply("TranslateY", image, 10, TAILS)  # 18 pixels, from above
    np.testing.assert_array_equal(down[18:], image[:22])
    assert (down[:18] == FILL).all()


def test_shear_and_rotation_move_the_border_as_far_as_they_say():
    # The row 30 below the origin is sheared by 0.3 * 30 = 9 pixels.
    image = np.zeros((41, 61, 3), np.uint8)
    image[:, 30] = 255
    sheared = apply("ShearX", image, 10)
    assert sheared[0].sum(axis=1).argmax() == 30 and sheared[30].sum(axis=1).argmax() == 21
    # 30 degrees about the centre: 15 rows above it the line is 15 tan(30) = 8.7 columns aside.
    turned = apply("Rotate", image, 10)
    assert turned[20].sum(axis=1).argmax() == 30
    assert abs(abs(int(turned[5].sum(axis=1).argmax()) - 30) - 8.7) <= 1


def test_enhancements_go_by_nine_tenths():
    image = photograph()
    np.testing.assert_allclose(apply("Brightness", image, 10, TAILS), image * 0.1, atol=1)
    np.testing.assert_allclose(apply("Brightness", image, 10), np.minimum(image * 1.9, 255), atol=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_shape_and_dtype_stay(channels, dtype):
    image = photograph(channels=channels)
    image = image if dtype == np.uint8 else (image / np.float32(255)).astype(np.float32)
    policy = RandAugment(operations=15, probability=1.0)
    for seed in range(4):
        out = policy(image, np.random.default_rng(seed))
        assert out.shape == image.shape and out.dtype == dtype
        assert dtype == np.uint8 or 0 <= out.min() <= out.max() <= 1


def test_same_generator_same_result_and_input_untouched():
    image, policy = photograph(), RandAugment.parse("rand-m9-mstd0.5-inc1")
    before = image.copy()
    first, same = (policy(image, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, same)
    np.testing.assert_array_equal(image, before)


def test_a_quarter_stays_as_it_is():
    """Two operations with probability 1/2 each."""
    image, policy = photograph(8, 8), RandAugment()
    same = sum(np.array_equal(policy(image, np.random.default_rng(s)), image) for s in range(400))
    assert 65 < same < 150  # 100 and a few operations without effect; 4 standard deviations are 35


def test_magnitudes_are_normal_and_cut(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "aliasfree_jax.data.rand_augment.OPERATIONS", {"spy": lambda image, m, rng: seen.append(m) or image}
    )
    rng = np.random.default_rng(0)
    for _ in range(500):
        RandAugment(9, 0.5, 2, 1.0)(photograph(8, 8), rng)
    assert len(seen) == 1000 and max(seen) == 10  # 2.3 % lie above
    assert abs(np.mean(seen) - 9) < 0.07 and 0.4 < np.std(seen) < 0.55


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rand-m9-mstd0.5-inc1", RandAugment(9, 0.5, 2, 0.5)),
        ("rand-m7-inc1-n3-p1", RandAugment(7, 0, 3, 1)),
        ("rand-inc1", RandAugment(9, 0, 2, 0.5)),
    ],
)
def test_notation(text, expected):
    assert RandAugment.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["rand-m9", "rand-m11-inc1", "rand-m9-inc0", "augmix-m3", "rand-m9-w0-inc1", "x"]
)
def test_other_notations_are_refused(text):
    with pytest.raises(ConfigError, match=f"{text}.* does not have the form 'rand-m9-mstd0.5-inc1'"):
        RandAugment.parse(text)


def test_other_channels_are_refused():
    with pytest.raises(ConfigError, match=r"1 or 3 channels, not 4: set data.rand_augment = ''"):
        RandAugment()(np.zeros((8, 8, 4), np.uint8), np.random.default_rng(0))
