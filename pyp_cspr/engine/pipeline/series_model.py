"""The coefficients of one series against its references, at any geometry, within a bound of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from ..core._jit import run_ranges
from ..core.agreement import agreement
from ..core.ctf import defocus_form, phase_offset, wavelength
from ..core.ctf_refinement import components_to_form, ctf_equations
from ..core.projection import Reference
from ..core.refinement import PARAMETERS, LocalEquations, local_equations
from ..core.weighting import dose_amplitude, weigh
from ..io.images import SeriesImages, open_images
from ..model.settings import ReconstructSettings, RefineSettings
from ..model.tables import Dataset
from ..model.task import ChunkJournal, MapGrid
from ..refine.noise import ShellSums, Spectra, fit_spectra, without_own_noise
from ..refine.parameters import SeriesGeometry
from ..refine.search import SearchData
from ..refine.solve import CtfChange
from .extract import CropGrid, ExposureView, source_pixel

EXTRACT_BATCH = 256  # crops of an exposure at a time, at most
EXTRACT_SHARE = 0.125  # of the memory, beside the coefficients, for the crops of all threads
BYTES_PER_COEFFICIENT = 8 + 8 + 4  # X, D and W


class Projections(NamedTuple):
    """The projections of a series that are used, Q in the order of particles and then exposures."""

    particle: NDArray[np.int64]  # (Q,) index within the series
    exposure: NDArray[np.int64]  # (Q,) index within the series
    centre: NDArray[np.float64]  # (Q, 2) of the crops, angstrom
    used: NDArray[np.bool_]  # (P, E)


class _Block(NamedTuple):
    """Some particles' projections in memory."""

    rows: NDArray[np.int64]  # (B,) which projections
    data: NDArray[np.complex64]  # (B, n) X
    weighted: NDArray[np.complex64]  # (B, n) D
    weight: NDArray[np.float32]  # (B, n) W


@dataclass
class SeriesModel:
    """One series against its half-sets' references.

    All coefficients are kept where ``memory`` bytes hold them; otherwise they are cut from the images again, some particles
    at a time, whenever they are needed: slower, with the same result. ``start`` is the geometry at which crops are cut.

    ``reference_fsc``: references made of these very images hold their noise; by shell of the map, the signal's share of the
    references' power. Empty where the references are not of these images. ``opened``: the images, where they are
    open already.
    """

    dataset: Dataset
    series: int
    references: Sequence[Reference]
    grid: MapGrid  # as far as refinement reaches
    settings: ReconstructSettings
    journal: ChunkJournal
    threads: int = 1
    memory: int = 2 * 1024**3
    reference_fsc: Sequence[float] = ()
    opened: Optional[SeriesImages] = None

    def __post_init__(self) -> None:
        dataset, series = self.dataset, self.series
        rows, optics = dataset.exposures_of(series), dataset.series
        table = dataset.exposures.take(rows)
        self.exposures = table
        largest = float(table["magnification"].max())
        if largest > 1.0:  # such an image asks for more of the references than its coefficients' limit
            reach = min(self.grid.radius, int(self.references[0].radius / largest))
            self.grid = MapGrid(self.grid.box, self.grid.pixel, self.grid.padded, reach)
        self.crop_grid = CropGrid(source_pixel(dataset, series), self.grid)
        self.band = self.crop_grid.band
        self.field = self.crop_grid.field
        self.wavelength, self.cs = wavelength(optics["voltage"][series]), float(optics["cs"][series])
        self.premultiplied = bool(optics["premultiplied"][series])
        self.base = defocus_form(*table["defocus"].T)  # (E, 3), at depth 0
        self.phase = phase_offset(optics["amplitude_contrast"][series], table["phase_shift"])
        self.shells = int(self.band.shell.max()) + 1
        self.k = np.arange(self.shells) / self.field
        voltage = optics["voltage"][series]
        self.prior = np.stack([
            scale * dose_amplitude(self.k, before, dose, voltage)
            for scale, before, dose in zip(table["scale"], table["dose_before"], table["dose"])
        ])
        if isinstance(self.settings, RefineSettings) and self.settings.low_resolution:
            self.prior[:, self.k < 1.0 / self.settings.low_resolution] = 0.0  # no signal is expected, so these weigh nothing
        self.images = self.opened or open_images(dataset, series)
        self.spectra: Optional[Spectra] = None
        self._count = len(self.band)
        self._forms: NDArray[np.float64] = np.empty((0, 3))
        self._cut_at, _ = dataset.project(series)  # (P, E, 2): crops stay where the start puts them
        self.projections = self._find_projections()
        half = dataset.particles["half"][dataset.particles_of(series)]
        self.which = np.minimum(half[self.projections.particle], len(self.references)) - 1
        self._blocks = self._cut_blocks()
        self.evaluated: Callable[[], None] = lambda: None  # called after each evaluation of the equations
        self._resident: Optional[_Block] = None

    def __len__(self) -> int:
        return len(self.projections.particle)

    # --- coefficients -----------------------------------------------------------------------------------------------

    def _find_projections(self) -> Projections:
        """Which projections lie inside their images, and where their crops are centred."""
        used = self.dataset.used(self.series).copy()
        centre = np.zeros(used.shape + (2,))
        particles = self.dataset.particles_of(self.series)
        for column, exposure in enumerate(self.dataset.exposures_of(self.series)):
            rows = np.flatnonzero(used[:, column])
            if len(rows):
                placed, good = self._view(int(exposure), self.journal, 1).place(particles[rows], self._cut_at[rows, column])
                centre[rows, column] = placed
                used[rows[~good], column] = False
                self.journal.n_outside += int((~good).sum())
        index = np.nonzero(used)
        return Projections(index[0], index[1], centre[used], used)

    def _view(self, exposure: int, journal: ChunkJournal, threads: int) -> ExposureView:
        return ExposureView(self.dataset, self.series, exposure, self.images, self.crop_grid, self.settings, journal, threads)

    def _cut_blocks(self) -> List[NDArray[np.int64]]:
        """Rows of projections that fit the memory together; whole particles."""
        each = len(self.band) * BYTES_PER_COEFFICIENT
        room = max(1, int(self.memory // each))
        if len(self) <= room:
            return [np.arange(len(self))]
        count = -(-len(self) // room)
        edges = np.searchsorted(self.projections.particle, np.arange(self.projections.used.shape[0] + 1))
        bounds = np.unique(edges[np.searchsorted(edges, np.linspace(0, len(self), count + 1))])
        return [np.arange(low, high) for low, high in zip(bounds[:-1], bounds[1:])]

    @property
    def resident(self) -> bool:
        """Whether everything stays in memory."""
        return len(self._blocks) == 1

    def _extract(self, rows: NDArray[np.int64]) -> NDArray[np.complex64]:
        """X of some projections ``(B, n)``, each image read once."""
        data = np.empty((len(rows), len(self.band)), np.complex64)
        particles = self.dataset.particles_of(self.series)
        exposures = self.dataset.exposures_of(self.series)
        p, e = self.projections.particle[rows], self.projections.exposure[rows]
        columns = np.unique(e)
        journals: List[ChunkJournal] = []
        # Crops take their pixels twice, as a mask needs a copy.
        room = EXTRACT_SHARE * self.memory / (self.threads * 2 * 4 * self.crop_grid.box**2)
        batch = int(np.clip(room, 8, EXTRACT_BATCH))

        def work(first: int, last: int) -> None:
            journal = ChunkJournal()
            for column in columns[first:last]:
                places = np.flatnonzero(e == column)
                view = self._view(int(exposures[column]), journal, threads=1)
                for start in range(0, len(places), batch):
                    part = places[start : start + batch]
                    data[part], _, _ = view.coefficients(particles[p[part]], self._cut_at[p[part], column])
            journals.append(journal)

        run_ranges(work, len(columns), self.threads, pieces_per_thread=4)
        for journal in journals:
            for name, seconds in journal.seconds.items():
                self.journal.seconds[name] = self.journal.seconds.get(name, 0.0) + seconds / self.threads
        return data

    def coefficients(self, rows: NDArray[np.int64]) -> NDArray[np.complex64]:
        """X of some projections ``(B, n)``."""
        return self._extract(rows) if self._resident is None else self._resident.data[rows]

    def take_coefficients(self, finer: SeriesModel) -> None:
        """Those of ``finer``, the same projections to a finer limit, where both keep all: then nothing is cut again."""
        if self.resident and finer._resident is not None:
            inside, _ = finer.crop_grid.within(self.band.radius)
            nothing = np.empty((0, len(self.band)))
            self._resident = _Block(self._blocks[0], finer._resident.data[:, inside], nothing.astype(np.complex64),
                                    nothing.astype(np.float32))

    def _loaded(self, weighted: bool = True) -> Iterator[_Block]:
        """The blocks one after the other; their D and W only where ``weighted``."""
        for rows in self._blocks:
            if self._resident is not None:
                block = self._resident
            else:
                nothing = np.empty((0, len(self.band)))
                block = _Block(rows, self._extract(rows), nothing.astype(np.complex64), nothing.astype(np.float32))
            if weighted and not len(block.weighted):
                block = self._weigh(block)
            if self.resident:
                self._resident = block
            yield block

    def _weigh(self, block: _Block) -> _Block:
        assert self.spectra is not None, "measure comes first"
        data = np.empty((len(block.data), self._count), np.complex64)

        def copy(first: int, last: int) -> None:
            data[first:last] = block.data[first:last, : self._count]

        run_ranges(copy, len(data), self.threads)
        exposure = self.projections.exposure[block.rows]
        weight = weigh(
            data, self.band.up_to(self._count), self.field, np.zeros((len(data), 2)), self._forms[block.rows],
            self.phase[exposure], self.wavelength, self.cs, self.spectra.amplitude, self.spectra.noise, self.premultiplied,
            self.threads, exposure,
        )
        return block._replace(weighted=data, weight=weight)

    # --- against the model --------------------------------------------------------------------------------------------

    def forms(self, geometry: SeriesGeometry) -> NDArray[np.float64]:
        """(Q, 3) defocus of every projection at its present depth."""
        c = self.projections
        return self.base[c.exposure] + components_to_form(geometry.defocus_changes()[c.particle, c.exposure])

    def shell_sums(self, geometry: SeriesGeometry, count: Optional[int] = None) -> ShellSums:
        """Data against model by exposure and shell, of the first ``count`` coefficients (default: all).

        Premultiplied data are C X. Their least squares have the weight 1 / (C^2 s^2), so the amplitude comes from the sums of
        C X V* and C^2 |V|^2, and the noise from |C X - a C^2 V|^2, whose expectation is C^2 s^2.
        """
        band = self.band if count is None else self.band.up_to(count)
        tables = np.zeros((len(self.exposures), self.shells, 6 if self.premultiplied else 3))
        forms, orientations, centres = self.forms(geometry), geometry.orientations(), geometry.centres()
        c = self.projections
        for block in self._loaded(weighted=False):
            rows = block.rows
            p, e = c.particle[rows], c.exposure[rows]
            scale = self.crop_grid.scale * geometry.magnification[e]
            found = agreement(
                block.data, band, self.field, self.references, self.which[rows], orientations[p, e],
                centres[p, e] - c.centre[rows], forms[rows], self.phase[e], self.wavelength, self.cs, scale,
                self.premultiplied, self.threads,
            )
            np.add.at(tables[:, : found.shape[1]], e, found)
        match, model, data = tables[..., :3].transpose(2, 0, 1)
        if self.premultiplied:
            noise_match, noise_model, number = tables[..., 3:].transpose(2, 0, 1)
            return ShellSums(match, model, data, number, noise_match, noise_model)
        images = np.bincount(c.exposure, minlength=len(tables))
        number = np.outer(images, np.bincount(band.shell, minlength=self.shells)).astype(np.float64)
        return ShellSums(match, model, data, number, match, model)

    def measure(self, geometry: SeriesGeometry, count: Optional[int] = None) -> Spectra:
        """Amplitude and noise at this geometry; from now on the equations use them, and this geometry's CTF.

        With ``count`` only as far as the first so many coefficients reach, and the equations may use no more than these.
        """
        self._count = len(self.band) if count is None else count
        sums = self.shell_sums(geometry, count)
        if len(self.reference_fsc):
            shells = np.arange(len(self.reference_fsc))
            sums = without_own_noise(sums, np.interp(self.k * self.grid.field, shells, self.reference_fsc))
        return self.use(fit_spectra(sums, self.prior, self.k), geometry)

    def measure_blindly(self, geometry: SeriesGeometry) -> Spectra:
        """As ``measure`` where poses are not known: the prior's amplitude, and all power of the data as noise."""
        sums = self.shell_sums(geometry)
        self._count = len(self.band)
        nothing = np.zeros_like(sums.data)
        blind = sums._replace(match=nothing, model=nothing, noise_match=nothing, noise_model=nothing)
        spectra = fit_spectra(blind, self.prior, self.k)
        return self.use(spectra._replace(amplitude=self.prior.copy()), geometry)

    def use(self, spectra: Spectra, geometry: SeriesGeometry) -> Spectra:
        self.spectra, self._forms = spectra, self.forms(geometry)
        if self._resident is not None:
            nothing = np.empty((0, len(self.band)))
            self._resident = self._resident._replace(weighted=nothing.astype(np.complex64), weight=nothing.astype(np.float32))
        return spectra

    def search_data(self, exposures: Optional[NDArray[np.int64]] = None) -> Iterator[SearchData]:
        """What searches need, all or of some ``exposures``: whole particles, as many as the memory holds at once."""
        c = self.projections
        for block in self._loaded():
            keep: Union[slice, NDArray[np.int64]] = slice(None)  # all: views, no copies
            if exposures is not None:
                keep = np.flatnonzero(np.isin(c.exposure[block.rows], exposures))
            rows = block.rows[keep]
            yield SearchData(
                block.weighted[keep], block.weight[keep], self.band, self.field, self.crop_grid.scale, self.references,
                self.which[rows], c.particle[rows], c.exposure[rows], c.centre[rows], self.threads,
            )

    def equations(
        self,
        rotations: NDArray,
        centres: NDArray,
        count: int,
        rows: Optional[NDArray[np.int64]] = None,
        ctf: Optional[CtfChange] = None,
        magnification: Optional[NDArray] = None,
        gain: Optional[NDArray] = None,
    ) -> LocalEquations:
        """Local equations of projections (all, or ``rows``) with the first ``count`` coefficients.

        With ``ctf``, what the geometry adds to each projection's CTF, the CTF is part of the model and its parameters of the
        equations; else it is as it was when ``measure`` was called last. ``magnification`` of each projection's image; none: 1.
        ``gain`` multiplies each projection's amplitude, which is then among the parameters.
        """
        asked = np.arange(len(self)) if rows is None else rows
        parts, places = [], []
        for block in self._loaded(weighted=ctf is None):
            here = np.flatnonzero((asked >= block.rows[0]) & (asked <= block.rows[-1]))
            if len(here):
                change = None if ctf is None else CtfChange(ctf.form[here], ctf.phase[here])
                m, g = (None if values is None else values[here] for values in (magnification, gain))
                parts.append(self._block_equations(block, asked[here], rotations[here], centres[here], count, change, m, g))
                places.append(here)
        self.evaluated()
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return LocalEquations(np.zeros(0), np.zeros(0), np.zeros((0, PARAMETERS)), np.zeros((0, PARAMETERS, PARAMETERS)))
        order = np.argsort(np.concatenate(places), kind="stable")
        return LocalEquations(*(np.concatenate(columns)[order] for columns in zip(*parts)))

    def _block_equations(
        self, block: _Block, rows: NDArray, rotations: NDArray, centres: NDArray, count: int, ctf: Optional[CtfChange],
        magnification: Optional[NDArray], gain: Optional[NDArray],
    ) -> LocalEquations:
        shifts, picked = centres - self.projections.centre[rows], rows - block.rows[0]
        scale = self.crop_grid.scale if magnification is None else self.crop_grid.scale * magnification
        if ctf is None:
            return local_equations(block.weighted, block.weight, self.band, self.field, self.references, self.which[rows],
                                   rotations, shifts, scale, rows=picked, count=count, threads=self.threads, gain=gain)
        assert self.spectra is not None, "measure comes first"
        exposure = self.projections.exposure[rows]
        return ctf_equations(
            block.data, self.band, self.field, self.spectra.amplitude, self.spectra.noise, exposure, self.references,
            self.which[rows], rotations, shifts, self.base[exposure] + ctf.form, self.phase[exposure] + ctf.phase,
            self.wavelength, self.cs, scale, picked, count, self.threads, self.premultiplied, magnification is not None,
            gain,
        )

    def data_power(self) -> NDArray[np.float64]:
        """(Q,) sum of |X|^2 / s^2 of every projection."""
        assert self.spectra is not None, "measure comes first"
        power = np.empty(len(self))
        inverse = (1.0 / self.spectra.noise)[:, self.band.shell].astype(np.float32)
        for block in self._loaded(weighted=False):
            exposure = self.projections.exposure[block.rows]
            for column in np.unique(exposure):
                inside = np.flatnonzero(exposure == column)
                power[block.rows[inside]] = (np.abs(block.data[inside]) ** 2) @ inverse[column]
        return power


def geometry_of(dataset: Dataset, series: int, grid: int = 0, defocus_grid: int = 0) -> SeriesGeometry:
    """The present unknowns of a series; grids of a deformation and a regional defocus to be refined, where given.

    A field that the series has on a grid of another size is begun anew.
    """
    rows, particles = dataset.exposures_of(series), dataset.particles_of(series)
    has = int(dataset.series["deformation_grid"][series])
    grid = grid or has
    deformations = dataset.deformations(series) if grid == has else np.zeros((len(rows), grid * grid, 2))
    has = int(dataset.series["defocus_grid"][series])
    defocus_grid = defocus_grid or has
    fields = dataset.defocus_fields(series) if defocus_grid == has else np.zeros((len(rows), defocus_grid**2))
    width, height = dataset.field(series)
    return SeriesGeometry(
        dataset.exposures["rotation"][rows].copy(), dataset.exposures["shift"][rows].copy(),
        dataset.particles["rotation"][particles].copy(), dataset.particles["position"][particles].copy(),
        (float(width), float(height)), grid, deformations.copy(), float(dataset.series["hand"][series]),
        particle_defocus=dataset.particles["defocus_offset"][particles].copy(),
        magnification=dataset.exposures["magnification"][rows].copy(), defocus_grid=defocus_grid,
        regional_defocus=fields.copy(),
    )
