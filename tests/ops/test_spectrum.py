"""Masks: the frequencies that pass, compared with the definition and with the original's table."""

import numpy as np
import pytest

from aliasfree_jax.ops import spectrum

# N, cutoff, highest |k| that the low-pass filter passes, halved last bin of the interpolation mask.
TABLE = [
    (224, 0.25, 27, 28),
    (224, 0.5, 55, 56),
    (224, 0.75, 83, None),
    (112, 0.5, 27, 28),
    (56, 0.5, 13, 14),
    (28, 0.5, 6, 7),
    (14, 0.5, 3, None),
    (7, 0.5, 1, None),
    (9, 0.5, 2, None),
    (15, 0.5, 3, None),
    (6, 0.5, 1, None),
    (4, 0.5, 0, 1),
    (2, 0.5, 0, None),
    (1, 0.5, 0, None),
    (3, 0.5, 0, None),
    (8, 0.25, 0, 1),
    (32, 0.75, 11, None),
    (28, 0.75, 9, None),
    (30, 0.75, 11, None),
    (36, 0.25, 3, None),  # the original drops a legal bin here: wrong case (a)
    (8, 1.0, 3, None),
]


def response(weights: tuple[float, ...], n: int) -> np.ndarray:
    """Returns the gain of each FFT bin 0 to n // 2 of the filter on a grid of n samples."""
    matrix = spectrum.filter_matrix(n, spectrum.uniform_positions(n, n), weights)
    return np.fft.rfft(matrix[:, 0])


@pytest.mark.parametrize(("n", "cutoff", "highest", "_"), TABLE)
def test_lowpass_passes_the_frequencies_of_the_table(n, cutoff, highest, _):
    expected = (np.arange(n // 2 + 1) <= highest).astype(float)
    # float64 rounding of sums of n cosines.
    np.testing.assert_allclose(response(spectrum.lowpass_weights(n, cutoff), n), expected, atol=1e-13)


def test_everything_passes_at_cutoff_1_without_a_multiple_of_4():
    np.testing.assert_allclose(response(spectrum.lowpass_weights(14, 1.0), 14), np.ones(8), atol=1e-13)


def original_lowpass_mask(n: int, cutoff: float) -> np.ndarray:
    """The original's mask by its definition, except that DC passes where the original raises an error."""
    low = int((n * cutoff) // 2)
    mask = np.ones(n)
    mask[low + 1 : n - low] = 0
    if n % 4 == 0 and low > 0:
        mask[low] = mask[n - low] = 0
    return mask[: n // 2 + 1]


@pytest.mark.parametrize("cutoff", [0.25, 0.5, 0.75, 1.0])
def test_lowpass_is_the_originals_mask_at_every_size(cutoff):
    for n in range(1, 130):
        actual = response(spectrum.lowpass_weights(n, cutoff), n)
        np.testing.assert_allclose(actual, original_lowpass_mask(n, cutoff), atol=1e-12, err_msg=f"{n}")


@pytest.mark.parametrize("stride", range(2, 9))
def test_lowpass_before_a_stride_stops_the_new_nyquist_frequency(stride):
    for outputs in range(1, 40):
        weights = spectrum.lowpass_weights(stride * outputs, 1 / stride)
        assert 2 * (len(weights) - 1) < max(outputs, 1), (stride, outputs)


@pytest.mark.parametrize(("n", "cutoff", "_", "halved"), [row for row in TABLE if row[3]])
def test_interpolation_halves_the_bin_of_the_table(n, cutoff, _, halved):
    weights = spectrum.original_upsample_weights(round(n * cutoff), round(1 / cutoff))
    assert weights == (*[1.0] * halved, 0.5)


@pytest.mark.parametrize(
    ("n", "factor", "expected"),
    [
        (7, 2, (1, 1, 1, 1)),  # 14 on the fine grid: no half bin
        (6, 2, (1, 1, 1, 0.5)),
        (7, 4, (1, 1, 1, 0.5)),  # wrong case (b): halves a legal frequency
        (14, 3, (1,) * 8),  # wrong case (c): Nyquist at full weight on both sides
        (1, 2, (1,)),
    ],
)
def test_the_originals_interpolation_mask_with_its_faults(n, factor, expected):
    assert spectrum.original_upsample_weights(n, factor) == expected


@pytest.mark.parametrize("n", range(1, 34))
def test_the_originals_mask_is_exact_for_factor_2(n):
    assert spectrum.original_upsample_weights(n, 2) == spectrum.resample_weights(n, 2 * n)


def test_bands_count_cycles_an_image():
    assert spectrum.band_weights(8, 2) == (1, 1, 1)
    assert spectrum.band_weights(8, 4) == (1, 1, 1, 1, 0.5)  # the Nyquist bin, shared by both signs
    assert spectrum.band_weights(8, 99) == spectrum.band_weights(8, 4)
    assert spectrum.band_weights(7, 99) == (1, 1, 1, 1)


def test_resampling_keeps_what_both_grids_hold():
    assert spectrum.resample_weights(8, 16) == (1, 1, 1, 1, 0.5)
    assert spectrum.resample_weights(8, 8) == (1, 1, 1, 1, 0.5)
    assert spectrum.resample_weights(16, 8) == (1, 1, 1, 1)  # without the new Nyquist frequency
    assert spectrum.resample_weights(16, 7) == (1, 1, 1, 1)
    assert spectrum.resample_weights(5, 1) == (1,)
    for m in (8, 12):
        assert spectrum.resample_weights(8, m, nyquist=False) == (1, 1, 1, 1)
        assert spectrum.resample_weights(7, m, nyquist=False) == spectrum.resample_weights(7, m)
    assert spectrum.resample_weights(16, 7, nyquist=False) == spectrum.resample_weights(16, 7)


@pytest.mark.parametrize("nyquist", [True, False])
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("n", range(1, 20))
def test_exact_grid_is_the_smallest_without_aliases(n, degree, nyquist):
    kept = (n - 1) // 2
    top = degree * (n // 2 if nyquist else kept)

    def harmless(grid: int) -> bool:
        aliases = {abs(k - turns * grid) for k in range(-top, top + 1) for turns in range(-9, 10) if turns}
        return min(aliases) > kept

    grid = spectrum.exact_grid(n, degree, nyquist=nyquist)
    assert harmless(grid)
    assert not harmless(grid - 1) or grid == 1


def test_exact_grid_for_the_maps_of_a_224_pixel_image():
    assert [spectrum.exact_grid(n, 2) for n in (56, 28, 14, 7)] == [84, 42, 21, 10]
    assert [spectrum.exact_grid(n, 2, nyquist=False) for n in (56, 28, 14, 7)] == [82, 40, 19, 10]


def test_the_matrix_evaluates_the_trigonometric_polynomial():
    n, positions, weights = 9, (0.0, 0.4, -3.7, 25.25), (1.0, 0.5, 0.25)
    expected = [
        [
            sum((1 if k == 0 else 2) * w * np.cos(2 * np.pi * k * (p - j) / n) for k, w in enumerate(weights))
            / n
            for j in range(n)
        ]
        for p in positions
    ]
    np.testing.assert_allclose(spectrum.filter_matrix(n, positions, weights), expected, atol=1e-14)


def by_fft(n: int, m: int, weights: tuple[float, ...], offset: float) -> np.ndarray:
    """Computes `filter_matrix` at m equidistant positions by numpy's FFT of each unit vector."""
    k = np.arange(len(weights))
    spectra = (
        np.fft.fft(np.eye(n), axis=0)[: len(k)]
        * (np.asarray(weights) * np.exp(2j * np.pi * k * offset / n))[:, None]
    )
    waves = np.exp(2j * np.pi * np.outer(np.arange(m), k) / m)
    positive, constant = waves[:, 1:] @ spectra[1:], waves[:, :1] @ spectra[:1]
    return (constant + positive + positive.conj()).real / n


@pytest.mark.parametrize("n", range(1, 34))
def test_every_size_and_filter_by_fft(n):
    filters = {
        "lowpass": (n, spectrum.lowpass_weights(n, 0.5), 0.0),
        "shift": (n, spectrum.resample_weights(n, n), -0.3),
        "double": (2 * n, spectrum.resample_weights(n, 2 * n), 0.0),
        "double, original": (2 * n, spectrum.original_upsample_weights(n, 2), 0.0),
        "polynomial grid": (
            spectrum.exact_grid(n, 2),
            spectrum.resample_weights(n, spectrum.exact_grid(n, 2)),
            0.0,
        ),
        "half": (-(-n // 2), spectrum.resample_weights(n, -(-n // 2)), 0.0),
    }
    for name, (m, weights, offset) in filters.items():
        matrix = spectrum.filter_matrix(n, spectrum.uniform_positions(n, m, offset), weights)
        # float64 rounding of sums of at most 33 terms of order 1.
        np.testing.assert_allclose(matrix, by_fft(n, m, weights, offset), atol=1e-13, err_msg=name)


def test_matrices_are_shared_and_read_only():
    first = spectrum.filter_matrix(6, (0.0, 1.5), (1.0, 1.0))
    assert spectrum.filter_matrix(6, (0.0, 1.5), (1.0, 1.0)) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


def test_positions_of_a_sliding_filter():
    assert spectrum.uniform_positions(6, 4, 0.5) == (0.5, 2.0, 3.5, 5.0)
    assert spectrum.strided_positions(6, 2) == (0, 2, 4)
    assert spectrum.strided_positions(5, 2) == (0, 2, 4)  # the last step around the circle is shorter
    assert spectrum.strided_positions(5, 2, any_size=True) == pytest.approx((0, 5 / 3, 10 / 3))
    assert spectrum.strided_positions(8, 4, taps=4, first=-1) == (-1, 0, 1, 2, 3, 4, 5, 6)
    assert spectrum.strided_positions(5, 2, taps=2, any_size=True) == pytest.approx(
        (0, 1, 5 / 3, 8 / 3, 10 / 3, 13 / 3)
    )
    assert spectrum.strided_positions(6, 2, any_size=True) == spectrum.strided_positions(6, 2)


@pytest.mark.parametrize("stride", [2, 3, 4, 8])
def test_products_with_a_lowpassed_factor_fold_above_the_following_filter(stride):
    """The stem's activation needs no finer grid at any size.

    Aliases of the highest product frequency K1 + K2 stay above the kept band R.
    """
    for n in range(2 * stride, 400):
        factor = len(spectrum.lowpass_weights(n, 1 - 1 / stride)) - 1
        kept = len(spectrum.resample_weights(n, -(-n // stride))) - 1
        assert n - (n // 2 + factor) > kept, n
