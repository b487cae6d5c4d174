"""Back-projection puts a particle where it is."""

from __future__ import annotations

import numpy as np

from pyp_cspr.engine.core.geometry import project, tilt_to_matrix
from pyp_cspr.engine.sample.tomogram import back_project


def test_a_spot_seen_in_all_images_is_found_at_its_place_in_the_tomogram() -> None:
    """Images of another size, pixel and shift than the tomogram; the place would be another with any sign wrong."""
    place, pixel, voxel = np.array([90.0, -60.0, 45.0]), 5.0, 15.0
    rotations = tilt_to_matrix(0.0, np.linspace(-60, 60, 25), 80.0)
    shifts = np.random.default_rng(1).normal(size=(25, 2)) * 20.0
    y, x = np.mgrid[:90, :101]
    images = []
    for rotation, shift in zip(rotations, shifts):
        u, _ = project(rotation, shift, place)
        column, row = u / pixel + (101 // 2, 90 // 2)
        images.append(np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 3.0**2)))
    volume = back_project(np.array(images), rotations, shifts, pixel, (28, 26, 20), voxel)
    assert volume.shape == (20, 26, 28)
    peak = np.unravel_index(volume.argmax(), volume.shape)
    wanted = place[::-1] / voxel + (10, 13, 14)
    np.testing.assert_allclose(peak, wanted, atol=0.51)
    assert volume.max() > 8 * np.abs(np.delete(volume.reshape(-1), volume.argmax())).std()
