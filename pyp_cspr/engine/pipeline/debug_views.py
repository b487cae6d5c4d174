"""Projections of single particles at the poses that a data set has: images, what they should be, and how far they agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.ctf import defocus_form
from ..core.ctf_refinement import form_to_defocus
from ..core.fourier import coefficients_to_images
from ..core.geometry import euler_to_matrix, matrix_to_euler, matrix_to_tilt, tilt_to_matrix
from ..core.projection import Reference
from ..core.weighting import ctf_values
from ..model.settings import ReconstructSettings
from ..model.tables import Dataset
from ..model.task import ChunkJournal, MapGrid
from ..refine.noise import Spectra
from ..refine.parameters import SeriesGeometry
from .check import with_signs
from .series_model import SeriesModel, geometry_of

COLUMNS = ("slice", "order", "tilt", "axis", "dose", "defocus_u", "defocus_v", "defocus_angle", "phase_shift", "depth", "x",
           "y", "crop_x", "crop_y", "rot", "tilt_of_view", "psi", "score", "peak", "peak_x", "peak_y", "middle", "amplitude",
           "noise_power", "model_power", "residual_power")


@dataclass
class Setup:
    """What is looked at, and with what."""

    dataset: Dataset
    references: Sequence[Reference]
    settings: ReconstructSettings
    grid: MapGrid  # as far in Fourier space as is looked
    threads: int
    memory: int


class SeriesView:
    """The model of one series and its spectra at the present poses."""

    def __init__(self, setup: Setup, series: int) -> None:
        self.setup, self.series = setup, series
        dataset = setup.dataset
        self.name = str(dataset.series["name"][series])
        self.model = SeriesModel(dataset, series, setup.references, setup.grid, setup.settings, ChunkJournal(), setup.threads,
                                 setup.memory)
        self.geometry = geometry_of(dataset, series)
        # Signs are compared with weights that do not come from the poses as given: theirs would favour the shells in which
        # a wrong sign still fits.
        self.impartial = self.model.measure_blindly(self.geometry)
        self.spectra = self.model.measure(self.geometry)
        self.pixel = self.model.field / self.model.band.box
        self.depth = dataset.project(series)[1]
        self.negated = None if dataset.is_stacks(series) else self._with_tilts_negated()

    def _with_tilts_negated(self) -> Tuple[SeriesModel, SeriesGeometry]:
        """The same with the tilt angles negated, and the crops where the particles would then be; its images are read once."""
        one, other = self.setup, with_signs(self.setup.dataset, -1, 1)
        model = SeriesModel(other, self.series, one.references, one.grid, one.settings, ChunkJournal(), one.threads, one.memory,
                            opened=self.model.images)
        return model, geometry_of(other, self.series)

    def sheet(self, index: int) -> Tuple[Any, NDArray, NDArray]:
        """(sheet or None where no exposure sees the particle, correlation before division by sigma ``(E, n, n)``, sigma)."""
        from ..report.figures_debug import ParticleSheet, peak_of

        model, band, c = self.model, self.model.band, self.model.projections
        rows = np.flatnonzero(c.particle == index)
        if not len(rows):
            return None, np.zeros(0), np.zeros(0)
        tilts = matrix_to_tilt(self.geometry.tilts)[1][c.exposure[rows]]
        rows = rows[np.argsort(tilts, kind="stable")]
        exposure = c.exposure[rows]
        data = model.coefficients(rows)
        forms = model.forms(self.geometry)[rows]
        view = self.geometry.orientations()[index, exposure]
        shift = self.geometry.centres()[index, exposure] - c.centre[rows]
        ctf = _ctf(model, rows, forms)
        expected = self._expected(model, rows, view, shift, ctf, self.spectra)
        noise = _noise(model, self.spectra, rows, ctf)
        raw, sigma = _correlation(data, expected, noise, band)
        # What is shown is filtered by how much signal its shells hold, image and reference alike.
        shown = self._signal_filter(expected, noise)
        totals = raw.sum(axis=0) / max(float(np.sqrt((sigma**2).sum())), 1e-30)
        table = self._rows(rows, view, forms, data, expected, noise)
        for line, one, width in zip(table, raw, sigma):
            line.update(peak_of(_middle(one / max(width, 1e-30)), self.pixel))
        dataset = self.setup.dataset
        row = int(dataset.particles_of(self.series)[index])
        shells = np.arange(1, model.shells)
        per_shell = [_by_shell(band.shell, *three, model.shells) for three in zip(data, expected, 1.0 / noise)]
        sheet = ParticleSheet(
            name=str(dataset.particles["name"][row]), series=self.name, half=int(dataset.particles["half"][row]),
            pixel=self.pixel, resolution=self.setup.grid.field / self.setup.grid.radius, rows=table,
            image=coefficients_to_images(data * shown, band), model=coefficients_to_images(expected * shown, band),
            residual=coefficients_to_images((data - expected) * shown, band), ctf=_ctf_images(ctf, band),
            correlation=_middle(raw / np.maximum(sigma, 1e-30)[:, None, None]), shells=np.array(per_shell)[:, 1:],
            frequency=shells / model.field, together=_middle(totals.astype(np.float32)),
            alternatives=self._alternatives(rows, index, data, view, shift, forms),
        )
        return sheet, _middle(raw), sigma

    def _expected(
        self, model: SeriesModel, rows: NDArray, view: NDArray, shift: NDArray, ctf: NDArray, spectra: Spectra
    ) -> NDArray[np.complex64]:
        """What the images should be: amplitude x CTF x slice of the reference, at the particle's place."""
        band = model.band
        slices = np.empty((len(rows), len(band)), np.complex64)
        which, exposure = model.which[rows], model.projections.exposure[rows]
        scale = model.crop_grid.scale * self.geometry.magnification[exposure]
        for number, reference in enumerate(model.references):
            part = np.flatnonzero(which == number)
            if len(part):
                slices[part] = reference.slices(np.ascontiguousarray(view[part]), band, scale[part], model.threads)
        frequency = np.stack([band.kx, band.ky]).astype(np.float64) / model.field
        amplitude = spectra.amplitude[exposure][:, band.shell]
        phase = np.exp(-2j * np.pi * (shift @ frequency))
        return np.asarray(slices * phase * amplitude * (ctf**2 if model.premultiplied else ctf), dtype=np.complex64)

    def _signal_filter(self, expected: NDArray, noise: NDArray) -> NDArray[np.float32]:
        """(n,) signal over signal and noise in each shell, over the exposures together."""
        shell = self.model.band.shell
        signal = np.bincount(shell, (np.abs(expected) ** 2).mean(axis=0), minlength=self.model.shells)
        total = signal + np.bincount(shell, noise.mean(axis=0), minlength=self.model.shells)
        return (signal / np.maximum(total, 1e-30)).astype(np.float32)[shell]

    def _rows(
        self, rows: NDArray, view: NDArray, forms: NDArray, data: NDArray, expected: NDArray, noise: NDArray
    ) -> List[Dict[str, float]]:
        """The table's numbers; its correlation peaks are added by the caller."""
        c, exposures = self.model.projections, self.model.exposures
        _, ytilt, zrot = matrix_to_tilt(self.geometry.tilts)
        centres, defocus = self.geometry.centres(), form_to_defocus(forms)
        score = 100.0 * _scores(data, expected, noise)
        table = []
        for line, row in enumerate(rows.tolist()):
            p, e = int(c.particle[row]), int(c.exposure[row])
            angles = matrix_to_euler(view[line])
            table.append({
                "slice": float(exposures["slice"][e]), "order": float(exposures["order"][e]), "tilt": float(ytilt[e]),
                "axis": float(-zrot[e]), "dose": float(exposures["dose_before"][e]), "defocus_u": float(defocus[line, 0]),
                "defocus_v": float(defocus[line, 1]), "defocus_angle": float(defocus[line, 2]),
                "phase_shift": float(exposures["phase_shift"][e]), "depth": float(self.depth[p, e]),
                "x": float(centres[p, e, 0]), "y": float(centres[p, e, 1]), "crop_x": float(c.centre[row, 0]),
                "crop_y": float(c.centre[row, 1]), "rot": float(angles[0]), "tilt_of_view": float(angles[1]),
                "psi": float(angles[2]), "score": float(score[line]), "amplitude": float(self.spectra.factor[e]),
                "noise_power": float(noise[line].mean()), "model_power": float((np.abs(expected[line]) ** 2).mean()),
                "residual_power": float((np.abs(data[line] - expected[line]) ** 2).mean()),
            })
        return table

    def _alternatives(
        self, rows: NDArray, index: int, data: NDArray, view: NDArray, shift: NDArray, forms: NDArray
    ) -> Dict[str, float]:
        """Mean score (100 times the correlation) with one sign changed at a time; but for the tilt angles in the same crops.

        By the weights of ``impartial``, so that "as given" is not the mean of the sheet's scores.
        """
        c = self.model.projections
        exposure, pose = c.exposure[rows], self.geometry.poses[index]
        xtilt, ytilt, zrot = (angles[exposure] for angles in matrix_to_tilt(self.geometry.tilts))
        rot, tilt, psi = matrix_to_euler(pose)
        mirror = np.diag([1.0, 1.0, -1.0])
        tilts = self.geometry.tilts[exposure]
        reversed_hand = forms - 2.0 * float(self.setup.dataset.series["hand"][self.series]) * self._depth_form(rows)
        changed = {
            "as given": (view, shift, forms),
            "tilt axis turned by 180°": (tilt_to_matrix(xtilt, ytilt, zrot + 180.0) @ pose, shift, forms),
            "pose transposed": (tilts @ pose.T, shift, forms),
            "pose mirrored": (tilts @ mirror @ pose @ mirror, shift, forms),
            "psi negated": (tilts @ euler_to_matrix(rot, tilt, -psi), shift, forms),
            "shift negated": (view, -shift, forms),
            "defocus hand reversed": (view, shift, reversed_hand),
        }
        noise = _noise(self.model, self.impartial, rows, _ctf(self.model, rows, forms))
        scores = {}
        for name, (turned, moved, form) in changed.items():
            expected = self._expected(self.model, rows, turned, moved, _ctf(self.model, rows, form), self.impartial)
            scores[name] = float(100.0 * _scores(data, expected, noise).mean())
            if name == "as given" and self.negated is not None:
                scores["tilt angles negated"] = self._negated_score(*self.negated, index)
        scores["contrast inverted"] = -scores["as given"]
        return scores

    def _negated_score(self, model: SeriesModel, geometry: SeriesGeometry, index: int) -> float:
        c = model.projections
        rows = np.flatnonzero(c.particle == index)
        if not len(rows):
            return 0.0
        exposure = c.exposure[rows]
        shift = geometry.centres()[index, exposure] - c.centre[rows]
        ctf = _ctf(model, rows, model.forms(geometry)[rows])
        expected = self._expected(model, rows, geometry.orientations()[index, exposure], shift, ctf, self.impartial)
        noise = _noise(model, self.impartial, rows, ctf)
        return float(100.0 * _scores(model.coefficients(rows), expected, noise).mean())

    def _depth_form(self, rows: NDArray) -> NDArray[np.float64]:
        c = self.model.projections
        depth = self.depth[c.particle[rows], c.exposure[rows]]
        return defocus_form(depth, depth, np.zeros(len(rows)))


def _ctf(model: SeriesModel, rows: NDArray, forms: NDArray) -> NDArray[np.float64]:
    phase = model.phase[model.projections.exposure[rows]]
    return np.asarray(ctf_values(model.band, model.field, forms, phase, model.wavelength, model.cs), dtype=np.float64)


def _noise(model: SeriesModel, spectra: Spectra, rows: NDArray, ctf: NDArray) -> NDArray[np.float64]:
    """(B, n) noise power of the images' coefficients."""
    noise: NDArray[np.float64] = spectra.noise[model.projections.exposure[rows]][:, model.band.shell]
    return noise * np.maximum(ctf**2, 1e-3) if model.premultiplied else noise  # of C X


def _scores(data: NDArray, expected: NDArray, noise: NDArray) -> NDArray[np.float64]:
    """(E,) correlation of images and model, coefficients weighted by 1 / noise power."""
    match = ((data * expected.conj()).real / noise).sum(axis=1)
    power = (np.abs(data) ** 2 / noise).sum(axis=1) * (np.abs(expected) ** 2 / noise).sum(axis=1)
    return np.asarray(match / np.sqrt(np.maximum(power, 1e-60)), dtype=np.float64)


def _correlation(
    data: NDArray, expected: NDArray, noise: NDArray, band: Any
) -> Tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Matched filter of images and model at every displacement ``(E, n, n)``, and its standard deviation in noise ``(E,)``."""
    maps = coefficients_to_images(data * expected.conj() / noise, band) * band.box**2
    return maps, np.sqrt(2.0 * (np.abs(expected) ** 2 / noise).sum(axis=1))


def _middle(maps: NDArray) -> NDArray:
    """The middle half of the maps' sides: a particle is not farther away."""
    size = maps.shape[-1]
    part = slice(size // 2 - size // 4, size // 2 + size // 4)
    return np.ascontiguousarray(maps[..., part, part])


def _by_shell(shell: NDArray, one: NDArray, two: NDArray, weight: NDArray, count: int) -> NDArray[np.float64]:
    """Correlation of two sets of coefficients in each shell."""
    def total(values: NDArray) -> NDArray:
        return np.bincount(shell, values * weight, minlength=count)

    power = total(np.abs(one) ** 2) * total(np.abs(two) ** 2)
    return np.asarray(total((one * two.conj()).real) / np.sqrt(np.maximum(power, 1e-60)))


def _ctf_images(ctf: NDArray, band: Any) -> NDArray[np.float32]:
    """(E, 2 r + 1, 2 r + 1) the CTF over the whole plane of frequencies, 0 outside the band."""
    reach = int(max(band.kx.max(), np.abs(band.ky).max()))
    images = np.zeros((len(ctf), 2 * reach + 1, 2 * reach + 1), np.float32)
    images[:, reach + band.ky, reach + band.kx] = ctf
    images[:, reach - band.ky, reach - band.kx] = ctf
    return images
