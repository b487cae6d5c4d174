"""Tilt images of a known specimen: dark particles on a bright field, in electrons for each pixel."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Deque, Iterator

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ..core.ctf import defocus_form, phase_offset, wavelength
from ..core.weighting import dose_amplitude
from ..errors import InputError
from ..model.tables import Dataset
from .acquisition import attenuation, generator
from .settings import SampleSettings
from .structure import Structure
from .transform import Transform

ELECTRON_MASS_ENERGY = 510998.95  # eV
LARGEST_COUNT = 32767  # int16


def interaction_constant(voltage: float) -> float:
    """Phase in radians for each volt and angstrom: 2 pi m e lambda / h^2, 6.5262e-4 at 300 kV (Kirkland 2010, eq. 5.6).

    ``voltage`` in kV.
    """
    energy = voltage * 1e3
    return float(
        2 * np.pi / (wavelength(voltage) * energy) * (ELECTRON_MASS_ENERGY + energy) / (2 * ELECTRON_MASS_ENERGY + energy)
    )


class Simulator:
    """Makes the tilt images of a true data set, each by itself, so that the order and the threads do not matter.

    An image is N t (1 - 2 C * phi): N = dose pixel^2, t the part of the electrons that the ice lets through unscattered, phi
    the phase shift by the particles in the weak-phase approximation, C the CTF (sentence 12 of ``engine/conventions.py``). Each
    spatial frequency is damped by the dose before the middle of the exposure (Grant and Grigorieff 2015). No particle's
    signal is cut off: it is drawn on a field that holds what the CTF spreads out.
    """

    def __init__(self, structure: Structure, truth: Dataset, settings: SampleSettings) -> None:
        self.truth, self.settings = truth, settings
        fine = structure.fine()
        self._transform = Transform(fine, structure.box * structure.pixel / len(fine), structure.limit)
        spread = wavelength(settings.voltage) * (truth.exposures["defocus"][:, 0].max() + settings.thickness) * structure.limit
        reach = (structure.radius + spread) / settings.pixel + 4
        self.field = max(2 * settings.box, 2 * int(scipy.fft.next_fast_len(int(np.ceil(reach)), real=True)))
        lam, edge = wavelength(settings.voltage), self.field * settings.pixel
        self._spherical = 0.5 * np.pi * lam**3 * settings.cs * 1e7 / edge**4
        self._form_unit = np.pi * lam / edge**2
        self._constant = float(phase_offset(settings.amplitude_contrast))
        kx, ky = np.arange(self.field // 2 + 1), np.fft.fftfreq(self.field) * self.field
        self._k = np.hypot(kx, ky[:, None]) / edge  # 1/A

    def phase(self, exposure: int) -> NDArray[np.float32]:
        """2 C * phi of all particles of an exposure (row), ``(ny, nx)``: white particles, no noise, no ice."""
        truth, settings = self.truth, self.settings
        series = int(truth.exposures["series"][exposure])
        column = int(np.flatnonzero(truth.exposures_of(series) == exposure)[0])
        rows = truth.particles_of(series)
        u, changes = truth.project(series)[0][:, column], truth.defocus_changes(series)[:, column]
        nx, ny = truth.series["image_size"][series]
        image = np.zeros((ny, nx), np.float32)
        filters = np.full(self._k.shape, 2 * interaction_constant(settings.voltage) * settings.contrast, np.float32)
        if settings.damage:
            before, dose = truth.exposures["dose_before"][exposure], truth.exposures["dose"][exposure]
            filters *= dose_amplitude(self._k, before, dose, settings.voltage).astype(np.float32)
        defocus, magnification = truth.exposures["defocus"][exposure], truth.exposures["magnification"][exposure]
        for i, row in enumerate(rows):
            place = u[i] / settings.pixel + np.array([nx // 2, ny // 2])
            whole = np.rint(place).astype(int)
            along = defocus[:2] + changes[i]
            form = defocus_form(along[0], along[1], defocus[2]) * self._form_unit
            rotation = magnification * truth.exposures["rotation"][exposure] @ truth.particles["rotation"][row]
            patch = self._transform.render(
                rotation, self.field, settings.pixel, place - whole, filters, (form, self._spherical, self._constant)
            )
            _add(image, patch, whole)
        return image

    def expected(self, exposure: int) -> NDArray[np.float32]:
        """Expected electrons of each pixel, ``(ny, nx)``."""
        settings = self.settings
        through = attenuation(self.truth.exposures["rotation"][exposure], settings.thickness, settings.mean_free_path)
        counts = self.truth.exposures["dose"][exposure] * settings.pixel**2 * through
        # Where particles overlap the weak-phase image may fall below 0; electrons cannot.
        return np.maximum(np.float32(counts) * (1 - self.phase(exposure)), 0).astype(np.float32)

    def image(self, exposure: int) -> NDArray[Any]:
        """The tilt image ``(ny, nx)``: int16 with Poisson noise, or float32 without noise."""
        expected = self.expected(exposure)
        if self.settings.noise == "none":
            return expected
        series = int(self.truth.exposures["series"][exposure])
        rng = generator(self.settings.seed, series, 5, int(self.truth.exposures["slice"][exposure]))
        counts = rng.poisson(expected)
        if counts.max() > LARGEST_COUNT:
            raise InputError(f"dose {self.settings.dose:g} e/A^2: {counts.max()} electrons on a pixel do not fit int16")
        return counts.astype(np.int16)

    def images(self, series: int, threads: int, done: Callable[[int], Any]) -> Iterator[NDArray[Any]]:
        """The images of a series in the order of the stack; ``done(1)`` after each. Few are held at a time."""
        rows = self.truth.exposures_of(series)
        rows = rows[np.argsort(self.truth.exposures["slice"][rows])]
        with ThreadPoolExecutor(max(1, threads)) as pool:
            waiting: Deque[Future] = deque()
            for row in rows:
                waiting.append(pool.submit(self.image, int(row)))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
                    done(1)
            while waiting:
                yield waiting.popleft().result()
                done(1)


def _add(image: NDArray, patch: NDArray, centre: NDArray) -> None:
    """Add a patch whose pixel size // 2 lies at pixel ``centre`` (x, y); what falls outside is lost."""
    size = len(patch)
    left, top = (int(c) - size // 2 for c in centre)
    x, y = slice(max(left, 0), min(left + size, image.shape[1])), slice(max(top, 0), min(top + size, image.shape[0]))
    if x.start < x.stop and y.start < y.stop:
        image[y, x] += patch[y.start - top : y.stop - top, x.start - left : x.stop - left]
