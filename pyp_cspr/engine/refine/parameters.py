"""What can be refined, and how each group of parameters moves the projections that it holds together.

A mode is a row of ``PARTICLE_MODES`` or ``EXPOSURE_MODES``: a name, how many columns it has, its unit, and the derivative of
the local parameters (rotation about the microscope's axes in radians, shift in angstrom) with respect to its columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import matrix_to_tilt, project, rotation_vector_to_matrix, rotation_x, rotation_y, rotation_z

LOCAL = 5  # wx, wy, wz, sx, sy


@dataclass
class SeriesGeometry:
    """The unknowns of one series. P particles, E exposures; angstrom, rotations as matrices."""

    tilts: NDArray[np.float64]  # (E, 3, 3) T_e
    shifts: NDArray[np.float64]  # (E, 2) b_e
    poses: NDArray[np.float64]  # (P, 3, 3) R_p
    positions: NDArray[np.float64]  # (P, 3) x_p
    field_size: Tuple[float, float] = (1.0, 1.0)  # angstrom, of the images: the deformation grid spans it
    grid: int = 0  # control values per side of the deformation grid; 0: none
    deformations: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0, 2)))  # (E, grid^2, 2)

    def orientations(self) -> NDArray[np.float64]:
        """M = T_e R_p, ``(P, E, 3, 3)``."""
        matrices: NDArray[np.float64] = self.tilts[None] @ self.poses[:, None]
        return matrices

    def undeformed(self) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """T_e x_p ``(P, E, 3)`` and its depth ``(P, E)``."""
        seen, depth = project(self.tilts, 0.0, self.positions[:, None])
        return np.concatenate([seen, depth[..., None]], axis=-1), depth

    def basis(self) -> NDArray[np.float64]:
        """Bilinear B-spline weights of the deformation grid at every projection, ``(P, E, grid^2)``."""
        seen, _ = self.undeformed()
        if self.grid < 2:
            return np.zeros(seen.shape[:2] + (0,))
        weights = []
        for axis in range(2):
            place = np.clip((seen[..., axis] / self.field_size[axis] + 0.5) * (self.grid - 1), 0.0, self.grid - 1.0)
            weights.append(np.clip(1.0 - np.abs(place[..., None] - np.arange(self.grid)), 0.0, 1.0))
        product: NDArray[np.float64] = weights[1][..., :, None] * weights[0][..., None, :]
        return product.reshape(seen.shape[:2] + (-1,))

    def centres(self) -> NDArray[np.float64]:
        """u of every projection, ``(P, E, 2)``: rigid geometry, shift and deformation."""
        seen, _ = self.undeformed()
        centres = seen[..., :2] + self.shifts
        if self.grid >= 2:
            centres = centres + np.einsum("peb,ebi->pei", self.basis(), self.deformations)
        return centres

    def copy(self) -> SeriesGeometry:
        return SeriesGeometry(self.tilts.copy(), self.shifts.copy(), self.poses.copy(), self.positions.copy(), self.field_size,
                              self.grid, self.deformations.copy())


Derivative = Callable[[SeriesGeometry], NDArray[np.float64]]


@dataclass(frozen=True)
class Mode:
    """One group of columns. ``scale`` turns the user's unit into the solver's (radians, angstrom)."""

    name: str
    columns: Callable[[SeriesGeometry], int]
    derivative: Derivative  # (P, E, 5, columns)
    scale: float
    unit: str


def _pose(geometry: SeriesGeometry) -> NDArray[np.float64]:
    """A rotation alpha of the particle in the specimen frame is seen as w = T_e alpha."""
    out = np.zeros((len(geometry.poses), len(geometry.tilts), LOCAL, 3))
    out[:, :, :3] = geometry.tilts
    return out


def _position(geometry: SeriesGeometry) -> NDArray[np.float64]:
    """A displacement xi is seen as s = (T_e xi)_xy."""
    out = np.zeros((len(geometry.poses), len(geometry.tilts), LOCAL, 3))
    out[:, :, 3:] = geometry.tilts[:, :2]
    return out


def tilt_axes(tilts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(E, 3, 3): the microscope-frame axes about which the tilt, axis and third angle turn an exposure, as columns."""
    _, ytilt, zrot = matrix_to_tilt(tilts)
    outer = rotation_z(zrot)
    first = outer @ np.array([0.0, 1.0, 0.0])
    second = np.broadcast_to([0.0, 0.0, 1.0], first.shape)
    third = outer @ rotation_y(ytilt) @ np.array([1.0, 0.0, 0.0])
    return np.stack([first, second, third], axis=-1)


def _turn(axis: int) -> Derivative:
    """Turning an exposure turns every particle in it, and moves it by its lever arm: s = (w x T_e x_p)_xy."""

    def derivative(geometry: SeriesGeometry) -> NDArray[np.float64]:
        seen, _ = geometry.undeformed()
        w = tilt_axes(geometry.tilts)[..., axis]
        out = np.zeros(seen.shape[:2] + (LOCAL, 1))
        out[:, :, :3, 0] = w
        out[:, :, 3:, 0] = np.cross(np.broadcast_to(w, seen.shape), seen)[..., :2]
        return out

    return derivative


def _shift(geometry: SeriesGeometry) -> NDArray[np.float64]:
    out = np.zeros((len(geometry.poses), len(geometry.tilts), LOCAL, 2))
    out[:, :, 3:] = np.eye(2)
    return out


def _deformation(geometry: SeriesGeometry) -> NDArray[np.float64]:
    basis = geometry.basis()
    out = np.zeros(basis.shape[:2] + (LOCAL, basis.shape[2], 2))
    out[:, :, 3, :, 0] = basis
    out[:, :, 4, :, 1] = basis
    return out.reshape(basis.shape[:2] + (LOCAL, -1))


DEGREE = float(np.pi / 180.0)
PARTICLE_MODES = (
    Mode("rotation", lambda g: 3, _pose, DEGREE, "deg"),
    Mode("position", lambda g: 3, _position, 1.0, "A"),
)
EXPOSURE_MODES = (
    Mode("tilt_angle", lambda g: 1, _turn(0), DEGREE, "deg"),
    Mode("axis_angle", lambda g: 1, _turn(1), DEGREE, "deg"),
    Mode("third_angle", lambda g: 1, _turn(2), DEGREE, "deg"),
    Mode("shift", lambda g: 2, _shift, 1.0, "A"),
    Mode("deformation", lambda g: 2 * g.grid**2 if g.grid >= 2 else 0, _deformation, 1.0, "A"),
)


@dataclass(frozen=True)
class Layout:
    """Which columns of a block belong to which mode."""

    modes: Tuple[Mode, ...]
    slices: Dict[str, slice]
    size: int

    @classmethod
    def of(cls, modes: Tuple[Mode, ...], free: List[str], geometry: SeriesGeometry) -> Layout:
        chosen, slices, size = [], {}, 0
        for mode in modes:
            columns = mode.columns(geometry)
            if mode.name in free and columns:
                slices[mode.name] = slice(size, size + columns)
                size += columns
                chosen.append(mode)
        return cls(tuple(chosen), slices, size)

    def derivative(self, geometry: SeriesGeometry) -> NDArray[np.float64]:
        """(P, E, 5, size)."""
        parts = [mode.derivative(geometry) for mode in self.modes]
        shape = (len(geometry.poses), len(geometry.tilts), LOCAL, 0)
        return np.concatenate(parts, axis=-1) if parts else np.zeros(shape)

    def precision(self, sigmas: Dict[str, float]) -> NDArray[np.float64]:
        """1 / sigma^2 of every column from the modes' prior standard deviations in the user's unit."""
        out = np.zeros(self.size)
        for mode in self.modes:
            sigma = sigmas.get(mode.name, np.inf) * mode.scale
            out[self.slices[mode.name]] = 0.0 if np.isinf(sigma) else 1.0 / sigma**2
        return out


def apply_particle_step(geometry: SeriesGeometry, layout: Layout, step: NDArray[np.float64]) -> None:
    """Move the particles in place; ``step`` (P, size)."""
    if "rotation" in layout.slices:
        geometry.poses = rotation_vector_to_matrix(step[:, layout.slices["rotation"]]) @ geometry.poses
    if "position" in layout.slices:
        geometry.positions = geometry.positions + step[:, layout.slices["position"]]


def apply_exposure_step(geometry: SeriesGeometry, layout: Layout, step: NDArray[np.float64]) -> None:
    """Move the exposures in place; ``step`` (E, size)."""
    angles = np.zeros((len(geometry.tilts), 3))
    for column, name in enumerate(("tilt_angle", "axis_angle", "third_angle")):
        if name in layout.slices:
            angles[:, column] = np.rad2deg(step[:, layout.slices[name]][:, 0])
    if angles.any():
        xtilt, ytilt, zrot = matrix_to_tilt(geometry.tilts)
        geometry.tilts = rotation_z(zrot + angles[:, 1]) @ rotation_y(ytilt + angles[:, 0]) @ rotation_x(xtilt + angles[:, 2])
    if "shift" in layout.slices:
        geometry.shifts = geometry.shifts + step[:, layout.slices["shift"]]
    if "deformation" in layout.slices:
        part = step[:, layout.slices["deformation"]]
        geometry.deformations = geometry.deformations + part.reshape(len(part), -1, 2)
