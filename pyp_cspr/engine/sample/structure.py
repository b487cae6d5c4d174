"""From a model or a map to the particle that is simulated: its potential, its field of view, and the reference map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ..errors import InputError
from ..io.mrc import read_map
from . import model as atomic
from .transform import frequencies, lattice_to_map, transform_on_lattice

EDGE = (0.92, 1.08)  # of Nyquist: the soft end of the band. A hard one would ring beyond the box.
MAP_POTENTIAL = 2.3  # volt over ice, mean of the bright part of a map, whose own scale means nothing
MODEL_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
MAP_ENDINGS = (".mrc", ".map", ".ccp4", ".rec")


@dataclass(frozen=True)
class Structure:
    """One particle, centred; its potential relative to ice in volt.

    ``lattice`` is its continuous transform (V A^3) at multiples of 1 / (box pixel), ``[kz, ky, kx]``, faded out round the
    Nyquist frequency of ``pixel``; ``radius`` (A) holds all of it but that fading's faint rings.
    """

    name: str
    lattice: NDArray[np.complex64]
    box: int
    pixel: float
    radius: float

    @property
    def limit(self) -> float:
        """Frequency (1/A) beyond which there is nothing."""
        return EDGE[1] * 0.5 / self.pixel

    def reference(self) -> NDArray[np.float32]:
        """The true map ``(box, box, box)`` at ``pixel``, volt."""
        return lattice_to_map(self.lattice, self.box * self.pixel, self.box)

    def fine(self) -> NDArray[np.float32]:
        """The same on as many points as the faded band needs; the field of view is box * pixel."""
        return lattice_to_map(self.lattice, self.box * self.pixel, self.lattice.shape[0])


def load_structure(source: str, box: int, pixel: float, symmetry: str = "C1") -> Structure:
    """The particle of ``source``: "hexon", an atomic model (PDB, mmCIF) or a map (MRC), for a box and a pixel (A).

    A model with the cyclic ``symmetry`` Cn, n > 1, is turned until its axis is z. A map is taken as it is: white particle,
    origin at index size // 2. Raises InputError where the file is not one of these or the particle does not fit.
    """
    if source == atomic.HEXON:
        return _from_model(source, atomic.read_hexon()[0], box, pixel, "C3")
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such structure; give an atomic model, a map, or {atomic.HEXON!r}")
    name = path.name.lower()
    if name.endswith(MODEL_ENDINGS):
        return _from_model(path.name, atomic.read_model(path)[0], box, pixel, symmetry)
    if name.endswith(MAP_ENDINGS):
        return _from_map(path, box, pixel)
    raise InputError(f"{path}: neither a model ({' '.join(MODEL_ENDINGS[:4])}) nor a map ({' '.join(MAP_ENDINGS)})")


def _from_model(name: str, model: Any, box: int, pixel: float, symmetry: str) -> Structure:
    symmetry = symmetry.upper()
    order = int(symmetry[1:]) if symmetry[:1] == "C" and symmetry[1:].isdigit() else 1
    atomic.centre_model(model, order)
    radius = float(np.linalg.norm(atomic.positions(model), axis=1).max()) + 2.0
    _check_fit(name, radius, box, pixel)
    atoms, molecule, spacing = atomic.potential_grid(model, min(pixel / 2.5, 1.0))
    edge = box * pixel
    size = _fine_size(box)
    lattice = transform_on_lattice(atoms, spacing, 1.0 / edge, size)
    solvent = transform_on_lattice(molecule, spacing, 1.0 / edge, size)
    k2 = _square_frequency(size, edge)
    lattice -= atomic.ICE_POTENTIAL * solvent * np.exp(-0.25 * atomic.SOLVENT_B * k2)
    return Structure(name, _fade(lattice, k2, pixel), box, pixel, radius)


def _from_map(path: Path, box: int, pixel: float) -> Structure:
    values, source_pixel = read_map(path)
    if source_pixel <= 0:
        raise InputError(f"{path}: pixel size {source_pixel:g} A; write the right one into the map's header")
    if len(set(values.shape)) != 1:
        raise InputError(f"{path}: {' x '.join(map(str, values.shape[::-1]))} voxels; the map must be a cube")
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise InputError(f"{path}: the map is empty or holds values that are not numbers; give another")
    edge = box * pixel
    x = (np.arange(len(values)) - len(values) // 2) * source_pixel
    distance = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2)
    outer = min(0.5 * edge, -float(x[0]))
    soft = np.clip((outer - distance) / (0.1 * outer), 0.0, 1.0)
    rim = (distance > 0.9 * outer) & (distance <= outer)
    values = (values - np.median(values[rim])) * (0.5 - 0.5 * np.cos(np.pi * soft)).astype(np.float32)
    dark_end, bright_end = np.percentile(values[distance <= outer], [0.1, 99.9])
    if -dark_end >= bright_end:
        raise InputError(f"{path}: the particle is not brighter than its surroundings; invert the map")
    bright = values > 0.1 * bright_end
    values *= MAP_POTENTIAL / values[bright].mean()
    radius = float(np.percentile(distance[bright], 99.0)) + 2.0
    size = _fine_size(box)
    lattice = transform_on_lattice(values, source_pixel, 1.0 / edge, size)
    return Structure(path.name, _fade(lattice, _square_frequency(size, edge), pixel), box, pixel, radius)


def _check_fit(name: str, radius: float, box: int, pixel: float) -> None:
    need = int(np.ceil(2 * radius / pixel / 0.95 / 2)) * 2
    if need > box:
        raise InputError(f"{name}: is {2 * radius:.0f} A wide, more than {box} x {pixel:g} A; use --box {need} or more")


def _fine_size(box: int) -> int:
    """Points of the lattice: the faded band, and room for a fast transform."""
    return 2 * scipy.fft.next_fast_len(int(np.ceil(0.5 * EDGE[1] * box)) + 2)


def _square_frequency(size: int, edge: float) -> NDArray[np.float64]:
    k = frequencies(size) / edge
    return k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2


def _fade(lattice: NDArray, k2: NDArray, pixel: float) -> NDArray[np.complex64]:
    relative = np.clip((np.sqrt(k2) * 2 * pixel - EDGE[0]) / (EDGE[1] - EDGE[0]), 0.0, 1.0)
    return (lattice * (0.5 + 0.5 * np.cos(np.pi * relative))).astype(np.complex64)
