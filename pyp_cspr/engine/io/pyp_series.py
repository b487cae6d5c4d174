"""A series of a PYP project: what is known of it besides the alignment of its particles. See ``pyp_dataset.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..conventions import DARK_PARTICLES
from ..core.geometry import pyp_tilt_matrix
from ..errors import InputError
from ..model.tables import LARGEST_GRID
from . import pyp_geometry as pyp

Columns = Dict[str, NDArray]

LARGEST = 1e9  # no angle, length or index of a table is beyond it


@dataclass(frozen=True)
class PypOptics:
    """What a PYP project says of all its series (pyp keys in brackets)."""

    pixel: float  # A, of the images (scope_pixel x data_bin)
    voltage: float = 300.0  # kV (scope_voltage)
    cs: float = 2.7  # mm (scope_cs)
    amplitude_contrast: float = 0.07  # (scope_wgh)
    dose: float = 1.0  # e/A^2 of a tilt (scope_dose_rate)
    dose_before: float = 0.0  # e/A^2 before the first (scope_init_dose)
    hand: float = -1.0  # +1 with csp_ctf_handedness
    box: int = 0  # pixels (extract_box)
    bin: float = 1.0  # of the particles (extract_bin)
    contrast: float = DARK_PARTICLES  # -1; 1 where the images have white particles (data_invert)


@dataclass(frozen=True)
class PypSeries:
    """What a PYP project knows of a series besides the alignment of its particles: n images, by tilt angle."""

    name: str
    images: str  # absolute path
    image_size: Tuple[int, int]
    specimen_size: Tuple[int, int, int]  # unbinned pixels of the tomogram
    linear: NDArray[np.float64]  # (n, 2, 2) F of the .xf
    offset: NDArray[np.float64]  # (n, 2) d of the .xf, pixels
    tilt: NDArray[np.float64]  # (n,) deg
    order: NDArray[np.int64]  # (n,) acquisition order
    ctf: NDArray[np.float64]  # (n, 3) DF1, DF2, ANGAST as measured
    enabled: NDArray[np.bool_]  # (n,) False: an excluded view
    positions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))  # picked, unbinned pixels, PYP's frame
    indices: Optional[NDArray[np.int64]] = None  # whose positions these are (PTLIDX); None: they count from 0
    left_out: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # of particles with Keep_CSP No

    @property
    def size(self) -> NDArray[np.float64]:
        return np.array(self.specimen_size, dtype=np.float64)

    def positions_of(self, index: ArrayLike, where: str) -> NDArray[np.float64]:
        """Picked positions ``(n, 3)`` of particles ``(n,)``. Raises InputError, from ``where`` on, for one without."""
        known = range(len(self.positions)) if self.indices is None else self.indices.tolist()
        row_of = {number: row for row, number in enumerate(known)}
        wanted = np.asarray(index, dtype=np.int64).tolist()
        missing = next((number for number in wanted if number not in row_of), None)
        if missing is not None:
            raise InputError(f"{where}: series {self.name}: particle {missing}, but {len(row_of)} positions are known and none "
                             f"is its own; add it to csp/{self.name}_boxes3d.txt")
        return self.positions[[row_of[number] for number in wanted]].reshape(-1, 3)


class SeriesTables(NamedTuple):
    """PYP's three tables of a series by PYP's column names."""

    projections: Columns
    particles: Columns
    tilts: Columns


class Part(NamedTuple):
    """Columns of one series for the data set's tables."""

    exposures: Dict[str, Any]
    particles: Dict[str, Any]
    visible: NDArray[np.bool_]
    grid: int


def check_numbers(values: ArrayLike, what: str) -> None:
    """Raise InputError for a number that is none, or so large that no table has it: what is done with it would overflow."""
    flat = np.ravel(np.asarray(values, dtype=np.float64))
    bad = np.flatnonzero(~(np.abs(flat) <= LARGEST))
    if len(bad):
        raise InputError(f"{what}: {flat[bad[0]]:g}, want numbers of up to {LARGEST:g}; mend it")


def particle_name(series: str, index: int) -> str:
    """PYP's name of a particle of a series."""
    return f"{series}_spk{index:04d}"


def base_shift(series: PypSeries, pixel: float) -> NDArray[np.float64]:
    """b_e ``(n, 2)`` that the .xf alone says."""
    middle = pyp.raw_shift(series.linear, series.offset) + np.array(series.image_size) / 2.0
    return pyp.pixel_to_image(middle, series.image_size, pixel)


def affine_grid(series: PypSeries, optics: PypOptics) -> int:
    """2 where the .xf has a magnification that moves a corner of the image by a tenth of a pixel or more, else 0."""
    worst = np.abs(pyp.affine_deformation(series.linear, series.image_size)).max(initial=0.0)
    return 2 if worst > 0.1 else 0


def start_exposures(series: PypSeries, optics: PypOptics, height: float) -> Dict[str, Any]:
    """Columns of the exposures as the alignment and the CTFs have them; ``height`` (angstrom) of the specimen's middle."""
    defocus = series.ctf.copy()
    defocus[:, :2] += pyp.plane_defocus(series.tilt, series.offset, height, optics.pixel, optics.hand)[:, None]
    deformation = np.zeros((len(series.tilt), 2 * LARGEST_GRID**2))
    if affine_grid(series, optics):
        deformation = pyp.affine_deformation(series.linear, np.array(series.image_size) * optics.pixel)
    return {
        "slice": np.arange(len(series.tilt)),
        "order": series.order,
        "rotation": pyp_tilt_matrix(series.tilt, pyp.tilt_axis(series.linear)),
        "shift": base_shift(series, optics.pixel),
        "dose_before": optics.dose_before + series.order * optics.dose,
        "dose": np.full(len(series.tilt), optics.dose),
        "defocus": defocus,
        "phase_shift": np.zeros(len(series.tilt)),
        "enabled": series.enabled,
        "deformation": deformation,
    }
