"""Slices against the naive twin, against exact transforms, and their signs."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.fourier import crops_to_coefficients
from pyp_cspr.engine.core.geometry import euler_to_matrix, rotation_vector_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.tests.blobs import asymmetric_blobs, correlation
from pyp_cspr.tests.naive import projection as naive


def random_rotations(count: int, random: np.random.Generator) -> np.ndarray:
    """(count, 3, 3), uniform."""
    quaternion = random.normal(size=(count, 4))
    angle = 2 * np.arctan2(np.linalg.norm(quaternion[:, 1:], axis=1), quaternion[:, 0])
    axis = quaternion[:, 1:] / np.linalg.norm(quaternion[:, 1:], axis=1, keepdims=True)
    return rotation_vector_to_matrix(angle[:, None] * axis)


@pytest.mark.kernel
@pytest.mark.parametrize("box, padding, radius", [(12, 1.0, 5.0), (12, 2.0, 5.0), (14, 1.5, 4.0)])
def test_slices_agree_with_their_naive_twin(box: int, padding: float, radius: float, random: np.random.Generator) -> None:
    volume = random.normal(size=(box,) * 3).astype(np.float32)
    rotations = np.concatenate([random_rotations(2, random), np.eye(3)[None], np.diag([-1.0, 1.0, -1.0])[None]])
    reference = Reference(volume, padding, radius, correct=False)
    band = make_band(box, radius)
    transform = naive.centred_transform(volume, reference.padded)
    expected = naive.slices(transform, rotations, band.kx, band.ky, reference.padded / box)
    result = reference.slices(rotations, band)
    assert result.dtype == np.complex64
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


def test_scale_places_coefficients_of_another_field_of_view(random: np.random.Generator) -> None:
    box = 16
    volume = random.normal(size=(box,) * 3).astype(np.float32)
    reference = Reference(volume, 1.5, correct=False)
    band = make_band(box, 6)
    rotations = random_rotations(3, random)
    transform = naive.centred_transform(volume, reference.padded)
    expected = naive.slices(transform, rotations, band.kx, band.ky, 1.07 * reference.padded / box)
    np.testing.assert_allclose(reference.slices(rotations, band, 1.07), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("padding, least", [(1.0, 0.997), (1.5, 0.9995), (2.0, 0.9998)])
def test_slices_of_blobs_are_their_exact_transform(padding: float, least: float, random: np.random.Generator) -> None:
    """Correlation as in the field's measurements: a particle of half the box."""
    box, pixel = 40, 3.0
    blobs = asymmetric_blobs(pixel, 0.23 * box * pixel)
    band = make_band(box, box // 2 - 1)
    rotations = random_rotations(8, random)
    k = (band.kx[:, None] * rotations[:, None, 0] + band.ky[:, None] * rotations[:, None, 1]) / (box * pixel)
    exact = blobs.transform(k, pixel)
    result = Reference(blobs.volume(box, pixel), padding).slices(rotations, band)
    assert correlation(result, exact) > least
    assert abs(np.vdot(exact, result) / np.vdot(exact, exact) - 1) < 0.01  # same scale: plain sums on both sides


def test_slice_is_the_transform_of_the_projection() -> None:
    """Signs and centre: the image of M has its atoms at (M x)_xy; a shift of half a pixel would fail clearly."""
    box, pixel = 40, 3.0
    blobs = asymmetric_blobs(pixel, 0.22 * box * pixel)
    band = make_band(box, box // 2 - 1)
    rotation = euler_to_matrix(20.0, 57.0, -131.0)
    image = crops_to_coefficients(blobs.image(rotation, box, pixel)[None], band, 1.0)
    reference = Reference(blobs.volume(box, pixel))
    right = reference.slices(rotation[None], band)
    assert correlation(right, image) > 0.9998
    assert correlation(reference.slices(rotation.T[None], band), image) < 0.9
    half_pixel = np.exp(-1j * np.pi * band.kx / box)
    assert correlation(right * half_pixel, image) < 0.98


def test_threads_change_nothing(random: np.random.Generator) -> None:
    volume = random.normal(size=(16,) * 3).astype(np.float32)
    rotations = random_rotations(7, random)
    reference, band = Reference(volume), make_band(16, 7)
    np.testing.assert_array_equal(reference.slices(rotations, band), reference.slices(rotations, band, threads=3))


def test_wrong_input_is_refused() -> None:
    volume = np.zeros((12, 12, 12), np.float32)
    with pytest.raises(ValueError, match="even cube"):
        Reference(volume[:10])
    with pytest.raises(ValueError, match="even cube"):
        Reference(volume, 0.5)
    with pytest.raises(ValueError, match="even cube"):
        Reference(volume, 1.0, 6)
    reference = Reference(volume, 1.0, 4)
    with pytest.raises(ValueError, match="reach"):
        reference.slices(np.eye(3)[None], make_band(12, 5))
    with pytest.raises(ValueError, match="not a rotation"):
        reference.slices(np.full((1, 3, 3), np.nan), make_band(12, 4))
    with pytest.raises(ValueError, match="want"):
        reference.slices(np.eye(3), make_band(12, 4))
