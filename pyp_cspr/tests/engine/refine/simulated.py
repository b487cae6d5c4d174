"""A tilt series that the engine's own projector has made: truth, a perturbed start, and what a solver asks for."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.ctf import defocus_form, phase_offset, wavelength
from pyp_cspr.engine.core.ctf_refinement import components_to_form, ctf_equations
from pyp_cspr.engine.core.gauge import Geometry, remove_gauge, rotation_vectors
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix, tilt_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.refinement import LocalEquations, local_equations
from pyp_cspr.engine.core.weighting import ctf_values, weigh
from pyp_cspr.engine.refine.parameters import LARGEST_MAGNIFICATION, MODES, SeriesGeometry
from pyp_cspr.engine.refine.solve import Solution, SolveOptions, solve_series

BOX, PIXEL, RADIUS = 64, 4.0, 25.0  # to 10.24 A
FIELD = BOX * PIXEL
WAVELENGTH, CS = wavelength(300.0), 2.7
STAGES = (60.0, 30.0, 15.0, FIELD / RADIUS)  # angstrom

# Start errors of each mode, in its unit, standard deviation of each parameter.
ERRORS = {"rotation": 4 / np.sqrt(3), "position": 8 / np.sqrt(3), "tilt_angle": 0.5, "axis_angle": 0.5, "third_angle": 0.3,
          "shift": 4.0, "deformation": 8.0, "defocus": 300.0, "astigmatism": 150.0, "particle_defocus": 200.0, "phase": 10.0,
          "regional_defocus": 200.0, "magnification": 0.5, "amplitude": 20.0}


def particle_map(seed: int = 0) -> NDArray[np.float32]:
    """An irregular particle of 110 A, (BOX,) * 3."""
    random = np.random.default_rng(seed)
    noise = gaussian_filter(random.normal(size=(BOX,) * 3), 1.0) + 2 * gaussian_filter(random.normal(size=(BOX,) * 3), 2.5)
    distance = np.sqrt(((np.indices((BOX,) * 3) - BOX // 2) ** 2).sum(axis=0))
    volume = (noise - 0.5 * noise.min()) / (1 + np.exp(distance - 0.22 * BOX))
    return (volume / volume.std()).astype(np.float32)


class SimulatedSeries:
    """``snr`` is signal over noise per coefficient; 0: no noise, weighed as if it were 10,000.

    ``perturbed`` names the modes whose parameters start wrong. ``order`` (P,) permutes the particles, noise and all.
    """

    def __init__(
        self,
        particles: int = 24,
        tilts: int = 41,
        snr: float = 0.0,
        perturbed: Tuple[str, ...] = ("rotation", "position", "tilt_angle", "axis_angle", "shift"),
        grid: int = 0,
        seed: int = 1,
        order: Optional[NDArray[np.int64]] = None,
        defocus_grid: int = 0,
        threads: int = 1,
    ) -> None:
        random = np.random.default_rng(seed)
        self.threads = threads
        self.band = make_band(BOX, RADIUS)
        self.reference = Reference(particle_map(), 1.5, RADIUS * (1 + LARGEST_MAGNIFICATION))
        angles = np.linspace(-60.0, 60.0, tilts)
        field_size = (3000.0, 3200.0)
        truth = SeriesGeometry(
            tilt_to_matrix(random.normal(size=tilts), angles, np.full(tilts, 85.0)), random.normal(size=(tilts, 2)) * 5,
            rotation_vector_to_matrix(random.normal(size=(particles, 3)) * 2),
            random.uniform(-1, 1, (particles, 3)) * [1300, 1400, 300], field_size, grid, hand=-1.0,
            defocus_grid=defocus_grid,
        )
        start = truth.copy()
        for name in perturbed:  # the modes' own steps, so that truth lies in what they span
            mode = MODES[name]
            rows = particles if name in ("rotation", "position", "particle_defocus") else tilts
            mode.move(start, random.normal(size=(rows, mode.columns(start))) * ERRORS[name] * mode.scale)
        if grid and "deformation" in perturbed:  # the truth bends, the start is straight
            truth.deformations, start.deformations = start.deformations, truth.deformations
        if defocus_grid and "regional_defocus" in perturbed:
            truth.regional_defocus, start.regional_defocus = start.regional_defocus, truth.regional_defocus
        defocus = random.uniform(2e4, 3e4, tilts)
        self.base = defocus_form(defocus, defocus - random.uniform(0, 800, tilts), random.uniform(-90, 90, tilts))
        self.offset = phase_offset(0.07, np.full(tilts, 20.0))
        shape = particles, tilts
        views = zip(truth.orientations().swapaxes(0, 1), truth.magnification)
        clean = np.stack([self.reference.slices(view, self.band, float(scale)) for view, scale in views], axis=1)
        noise = random.normal(size=(2, *clean.shape))
        self.centre = (np.rint(start.centres() / PIXEL) * PIXEL).reshape(-1, 2)
        self.truth, self.start, self.used = truth, start, np.ones(shape, bool)
        self.exposure = np.nonzero(self.used)[1]
        shift = truth.centres().reshape(-1, 2) - self.centre
        data = clean.reshape(len(shift), -1) * ctf_values(self.band, FIELD, *self.optics(truth), WAVELENGTH, CS)
        data *= np.exp(-2j * np.pi * (shift @ np.stack([self.band.kx, self.band.ky])) / FIELD)
        power = float((np.abs(data) ** 2).mean()) / (snr or 1e4)
        if snr:
            data += np.sqrt(power / 2) * (noise[0] + 1j * noise[1]).reshape(data.shape)
        self.data = data.astype(np.complex64)
        if order is not None:  # last of all: the images of a particle are the same ones, to the last bit
            for geometry in (truth, start):
                geometry.poses, geometry.positions = geometry.poses[order], geometry.positions[order]
                geometry.particle_defocus = geometry.particle_defocus[order]
            self.data = self.data.reshape(*shape, -1)[order].reshape(self.data.shape)
            self.centre = self.centre.reshape(*shape, 2)[order].reshape(-1, 2)
        shells = int(self.band.shell.max()) + 1
        self.amplitude, self.noise = np.ones((tilts, shells)), np.full((tilts, shells), power)
        self.weighted, self.weight = np.empty((0, 0), np.complex64), np.empty((0, 0), np.float32)

    def optics(self, geometry: SeriesGeometry) -> Tuple[NDArray, NDArray]:
        """(defocus form, phase) of every projection."""
        form = self.base[self.exposure] + components_to_form(geometry.defocus_changes()[self.used])
        return form, (self.offset + geometry.phase)[self.exposure]

    def weigh(self, geometry: SeriesGeometry) -> None:
        """D and W with the CTF of a geometry, as the pipeline does before each stage."""
        self.weighted = self.data.copy()
        form, phase = self.optics(geometry)
        self.weight = weigh(self.weighted, self.band, FIELD, np.zeros((len(form), 2)), form, phase, WAVELENGTH, CS,
                            self.amplitude[self.exposure], self.noise[self.exposure])

    def evaluate(self, count: int, threads: int):
        """What ``solve_series`` calls."""
        references, zeros = [self.reference], np.zeros(len(self.data), np.int64)

        def call(rotations, centres, rows=None, ctf=None, magnification=None, gain=None) -> LocalEquations:
            scale = 1.0 if magnification is None else magnification
            rows = np.arange(len(self.data)) if rows is None else rows
            shifts, which = centres - self.centre[rows], zeros[rows]
            if ctf is None:
                return local_equations(self.weighted, self.weight, self.band, FIELD, references, which, rotations, shifts,
                                       scale, rows=rows, count=count, threads=threads, gain=gain)
            exposure = self.exposure[rows]
            forms, phases = self.base[exposure] + ctf.form, self.offset[exposure] + ctf.phase
            return ctf_equations(self.data, self.band, FIELD, self.amplitude, self.noise, exposure, references, which,
                                 rotations, shifts, forms, phases, WAVELENGTH, CS, scale, rows, count, threads,
                                 magnified=magnification is not None, gain=gain)

        return call

    def solve(self, options: SolveOptions, stages: Tuple[float, ...] = STAGES) -> Solution:
        """From coarse to fine."""
        geometry, self.evaluations, self.projections = self.start, 0, 0
        for number, resolution in enumerate(stages):
            self.weigh(geometry)
            evaluate = self.evaluate(self.band.prefix(FIELD / resolution), self.threads)
            last = number == len(stages) - 1
            solution = solve_series(self.start, geometry, self.used, evaluate, last, options)
            geometry = solution.geometry
            self.evaluations += solution.report.evaluations
            self.projections += solution.report.projections
        return solution

    def errors(self, geometry: SeriesGeometry) -> NDArray[np.float64]:
        """(Q, 5) of every projection's local parameters, radians and angstrom: free of the gauge as they are."""
        turned = geometry.orientations() @ np.swapaxes(self.truth.orientations(), -1, -2)
        moved = geometry.centres() - self.truth.centres()
        return np.concatenate([rotation_vectors(turned), moved], axis=-1).reshape(-1, 5)

    def without_gauge(self, geometry: SeriesGeometry) -> Dict[str, float]:
        """Rms errors after the common motion of the series has been taken off: degrees and angstrom, per axis."""
        rigid = [Geometry(g.poses, g.positions, g.tilts, g.shifts) for g in (geometry, self.truth)]
        (moved,), _, _ = remove_gauge(rigid[:1], rigid[1:], np.eye(3)[None])

        def rms(values: NDArray) -> float:
            return float(np.sqrt(np.mean(values**2)))

        truth = rigid[1]
        turns = (moved.rotations, truth.rotations), (moved.tilts, truth.tilts)
        rotation, tilt = (np.rad2deg(rotation_vectors(a @ np.swapaxes(b, 1, 2))) for a, b in turns)
        return {"rotation": rms(rotation), "tilt": rms(tilt), "position": rms(moved.positions - truth.positions),
                "shift": rms(moved.shifts - truth.shifts)}
