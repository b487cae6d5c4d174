"""Transforms: the definition, the origin, padding and cropping, and the plane that is its own mate."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core import fourier
from pyp_cspr.engine.core.band import make_band
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.naive.projection import centred_transform


@pytest.mark.kernel
# By our own kernels, in passes of 4, 2, 3, 5, 7, 11 and 13, box / 2 even and odd; by scipy 14, too small, and 34 = 2 x 17.
@pytest.mark.parametrize("box", [16, 18, 20, 22, 26, 28, 30, 32, 14, 34])
@pytest.mark.parametrize("share", [1.0, 0.5])  # the whole band, and one that needs fewer rows
def test_coefficients_are_the_plain_sum_about_the_centre(box: int, share: float, random: np.random.Generator) -> None:
    band = make_band(box, share * (box // 2 - 1))
    images = random.normal(size=(3, box, box)).astype(np.float32)
    axis = np.arange(box) - box // 2
    wave_x = np.exp(-2j * np.pi * np.outer(band.kx, axis) / box)
    wave_y = np.exp(-2j * np.pi * np.outer(band.ky, axis) / box)
    expected = 2.5 * np.einsum("jy,byx,jx->bj", wave_y, images, wave_x)
    for threads in (1, 2):
        result = fourier.crops_to_coefficients(images, band, 2.5, threads)
        assert result.dtype == np.complex64
        np.testing.assert_allclose(result, expected, atol=2e-5 * np.abs(expected).max())


def test_displaced_particle_carries_minus_the_phase() -> None:
    box, pixel = 32, 2.0
    band = make_band(box, 8)
    blobs = asymmetric_blobs(pixel, 12.0)
    shift = np.array([3.0, -1.7])
    images = np.stack([blobs.image(np.eye(3), box, pixel), blobs.image(np.eye(3), box, pixel, shift)])
    still, moved = fourier.crops_to_coefficients(images, band, 1.0)
    phase = np.exp(-2j * np.pi * (band.kx * shift[0] + band.ky * shift[1]) / (box * pixel))
    np.testing.assert_allclose(moved, still * phase, atol=1e-4 * np.abs(still).max())


def test_images_of_another_box_are_refused() -> None:
    with pytest.raises(ValueError, match="want"):
        fourier.crops_to_coefficients(np.zeros((2, 16, 18), np.float32), make_band(16, 5), 1.0)


def test_no_images_give_no_rows() -> None:
    assert fourier.crops_to_coefficients(np.zeros((0, 16, 16), np.float32), make_band(16, 5), 1.0).shape[0] == 0


@pytest.mark.parametrize("box, padded, extent", [(12, 12, 6), (12, 18, 9), (12, 24, 7), (14, 22, 11)])
def test_half_cube_is_part_of_the_whole_transform(box: int, padded: int, extent: int, random: np.random.Generator) -> None:
    volume = random.normal(size=(box,) * 3).astype(np.float32)
    whole = centred_transform(volume, padded)
    index = (np.arange(-extent, extent + 1) + padded // 2) % padded
    expected = whole[np.ix_(index, index, index[extent:])]
    half = fourier.volume_to_half(volume, padded, extent)
    np.testing.assert_allclose(half, expected, atol=1e-5 * np.abs(expected).max())


def test_completing_adds_the_mates_of_the_plane(random: np.random.Generator) -> None:
    half = random.normal(size=(5, 5, 3)) + 1j * random.normal(size=(5, 5, 3))
    before = half.copy()
    fourier.complete_plane(half)
    np.testing.assert_array_equal(half[:, :, 1:], before[:, :, 1:])
    np.testing.assert_allclose(half[4, 1, 0], before[4, 1, 0] + np.conj(before[0, 3, 0]))
    np.testing.assert_allclose(half[:, :, 0], np.conj(half[::-1, ::-1, 0]))


def test_gridding_factor_is_undone() -> None:
    box, padded = 12, 18
    factor = fourier.gridding_factor(box, padded)
    assert factor[box // 2] == 1.0
    assert factor[0] == pytest.approx(np.sinc(1 / 3) ** 2)
    taper = factor[:, None, None] * factor[:, None] * factor
    np.testing.assert_allclose(fourier.correct_gridding(taper, padded), 1.0, rtol=1e-6)


@pytest.mark.parametrize("box, padding, padded", [(128, 1.0, 128), (128, 1.5, 192), (64, 1.1, 70), (10, 1.5, 16)])
def test_padded_box_is_even_and_holds_every_neighbour(box: int, padding: float, padded: int) -> None:
    assert fourier.padded_box(box, padding) == padded
    extent = fourier.half_extent(box, padding, box // 2 - 1)
    assert extent <= padded // 2
    assert extent >= (box // 2 - 1) * padded / box + 1 - 1e-6


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        fourier.volume_to_half(np.zeros((8, 8, 8)), 6)
    with pytest.raises(ValueError, match="do not fit"):
        fourier.volume_to_half(np.zeros((8, 8, 8)), 8, 5)


@pytest.mark.parametrize("box", [16, 18])
def test_coefficients_go_back_to_the_image_within_the_band(random: np.random.Generator, box: int) -> None:
    """A band-limited image without a mean comes back; one with more in it comes back low-passed."""
    band = make_band(box, box // 2 - 2)
    images = random.normal(size=(3, box, box)).astype(np.float32)
    coefficients = fourier.crops_to_coefficients(images, band, 1.0)
    low = fourier.coefficients_to_images(coefficients, band)
    np.testing.assert_allclose(fourier.crops_to_coefficients(low, band, 1.0), coefficients, atol=1e-4)
    whole = np.fft.fftn(images, axes=(1, 2))
    k = np.fft.fftfreq(box) * box
    radius = np.hypot(k[:, None], k[None, :])
    whole[:, (radius > box // 2 - 2) | (radius == 0)] = 0
    np.testing.assert_allclose(low, np.fft.ifftn(whole, axes=(1, 2)).real, atol=1e-5)
