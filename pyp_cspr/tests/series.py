"""A tilt series in memory for tests of refinement: coefficients of particles at known poses, with a CTF and white noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.ctf import defocus_form, wavelength
from pyp_cspr.engine.core.geometry import tilt_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.rotation_grid import random_rotations
from pyp_cspr.engine.core.symmetry import group_matrices
from pyp_cspr.engine.core.weighting import ctf_values
from pyp_cspr.engine.refine.parameters import SeriesGeometry
from pyp_cspr.engine.refine.search import SearchData
from pyp_cspr.tests.blobs import Blobs, asymmetric_blobs

BOX, PIXEL, LIMIT = 40, 6.0, 15.0
EXTENT = 60.0  # angstrom, radius of the particle


@dataclass
class Series:
    """The truth and the data; crops lie about whole pixels near where the particles were first believed to be."""

    truth: SeriesGeometry
    data: SearchData


def blob_map(symmetry: str) -> NDArray[np.float32]:
    """A particle with a point group, (BOX,) * 3."""
    blobs = asymmetric_blobs(PIXEL, EXTENT, count=10)
    group = group_matrices(symmetry)
    everywhere = np.concatenate([blobs.positions @ g.T for g in group])
    return Blobs(everywhere, np.tile(blobs.weights, len(group)), blobs.sigma).volume(BOX, PIXEL)


def make_series(
    particles: int, tilts: Sequence[float], snr: float, symmetry: str = "C1", offset: float = 0.0, seed: int = 1
) -> Series:
    """Random poses and positions seen at ``tilts`` (degrees). ``snr``: variance of a projection's pixels over the noise's.

    ``offset`` angstrom (standard deviation per axis) is how far the crops' centres are off. 0 for ``snr``: no noise.
    """
    random = np.random.default_rng(seed)
    angles = np.asarray(tilts, dtype=np.float64)
    truth = SeriesGeometry(
        tilt_to_matrix(np.full(len(angles), 0.7), angles, np.full(len(angles), -85.0)),
        random.normal(size=(len(angles), 2)) * 5.0, random_rotations(particles, random),
        random.uniform(-1000, 1000, (particles, 3)) * [1, 1, 0.2],
    )
    field, band = BOX * PIXEL, make_band(BOX, BOX * PIXEL / LIMIT)
    reference = Reference(blob_map(symmetry), 1.5, BOX // 2 - 1)
    p, e = (index.ravel() for index in np.indices((particles, len(angles))))
    clean = reference.slices(truth.orientations()[p, e], band)
    centre = np.rint((truth.centres()[p, e] + random.normal(size=(len(p), 2)) * offset) / PIXEL) * PIXEL
    shift = (truth.centres()[p, e] - centre) / field
    ctf = ctf_values(band, field, defocus_form(np.full(len(p), 3e4), np.full(len(p), 2.9e4), np.full(len(p), 30.0)),
                     np.full(len(p), 0.07), wavelength(300.0), 2.7)
    data = ctf * clean * np.exp(-2j * np.pi * (shift @ np.stack([band.kx, band.ky])))
    signal = 2 * (np.abs(clean) ** 2).sum() / len(p)
    noise = signal / (BOX**2 * (snr or 1.0))
    if snr:
        data = data + np.sqrt(noise / 2) * (random.normal(size=data.shape) + 1j * random.normal(size=data.shape))
    return Series(truth, SearchData(
        (ctf * data / noise).astype(np.complex64), (ctf**2 / noise).astype(np.float32), band, field, 1.0, [reference],
        np.zeros(len(p), np.int64), p, e, centre,
    ))
