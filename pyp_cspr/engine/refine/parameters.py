"""What can be refined, and how each group of parameters moves the projections that it holds together.

A mode is a row of ``PARTICLE_MODES`` or ``EXPOSURE_MODES``: a name, how many columns it has, the derivative of the local
parameters with respect to them, how they are read and moved, their unit and prior.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable, Dict, Iterable, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.ctf_refinement import CTF_PARAMETERS, DEFOCUS, MAGNIFICATION, PHASE
from ..core.gauge import rotation_vectors
from ..core.geometry import matrix_to_tilt, project, rotation_vector_to_matrix, rotation_x, rotation_y, rotation_z
from ..core.refinement import AMPLITUDE
from ..core.splines import grid_slopes, grid_weights
from ..model.tables import LARGEST_MAGNIFICATION

LOCAL = 5  # wx, wy, wz, sx, sy: rotation about the microscope's axes in radians, shift in angstrom
LOCAL_AMPLITUDE = 6  # and log of the amplitude
LOCAL_CTF = 10  # and mean defocus, the two components of astigmatism (angstrom), phase (radians)
LOCAL_MAGNIFICATION = CTF_PARAMETERS  # and log of the magnification
DEGREE = float(np.pi / 180.0)


@dataclass
class SeriesGeometry:
    """The unknowns of one series. P particles, E exposures; angstrom, rotations as matrices.

    The unknowns of the CTF are changes against what the tables say, 0 to start with. They and all after them may be left out.
    """

    tilts: NDArray[np.float64]  # (E, 3, 3) T_e
    shifts: NDArray[np.float64]  # (E, 2) b_e
    poses: NDArray[np.float64]  # (P, 3, 3) R_p
    positions: NDArray[np.float64]  # (P, 3) x_p
    field_size: Tuple[float, float] = (1.0, 1.0)  # angstrom, of the images: the deformation grid spans it
    grid: int = 0  # control values per side of the deformation grid; 0: none
    deformations: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0, 2)))  # (E, grid^2, 2)
    hand: float = 1.0  # defocus = that of the exposure + hand * depth (sentence 10 of conventions.py)
    defocus: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))  # (E, 3) mean, two of astigmatism
    particle_defocus: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (P,)
    phase: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (E,) radians
    magnification: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (E,) m_e, 1: as the pixel size says
    defocus_grid: int = 0  # control values per side of the grid of regional defocus; 0: none
    regional_defocus: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))  # (E, defocus_grid^2)
    amplitude: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (E,) log of a factor of the measured one

    def __post_init__(self) -> None:
        particles, exposures = len(self.poses), len(self.tilts)
        shapes = {"deformations": (exposures, self.grid**2, 2), "defocus": (exposures, 3), "particle_defocus": (particles,),
                  "phase": (exposures,), "regional_defocus": (exposures, self.defocus_grid**2), "amplitude": (exposures,)}
        for name, shape in shapes.items():
            if not getattr(self, name).size:
                setattr(self, name, np.zeros(shape))
        if not self.magnification.size:
            self.magnification = np.ones(exposures)

    def orientations(self) -> NDArray[np.float64]:
        """M = T_e R_p, ``(P, E, 3, 3)``."""
        matrices: NDArray[np.float64] = self.tilts[None] @ self.poses[:, None]
        return matrices

    def undeformed(self) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """T_e x_p ``(P, E, 3)`` and its depth ``(P, E)``."""
        seen, depth = project(self.tilts, 0.0, self.positions[:, None])
        return np.concatenate([seen, depth[..., None]], axis=-1), depth

    def basis(self, grid: int) -> NDArray[np.float64]:
        """B-spline weights of the control values of a ``grid`` at every projection, ``(P, E, grid^2)``."""
        seen, _ = self.undeformed()
        return grid_weights(seen[..., :2], self.field_size, grid)

    def slopes(self, grid: int) -> NDArray[np.float64]:
        """How the weights change with (T_e x_p)_xy, ``(P, E, 2, grid^2)`` per angstrom."""
        seen, _ = self.undeformed()
        return grid_slopes(seen[..., :2], self.field_size, grid)

    def strain(self) -> NDArray[np.float64]:
        """How the deformation changes with (T_e x_p)_xy: ``(P, E, 2, 2)``, component, direction."""
        return np.einsum("pejb,ebi->peij", self.slopes(self.grid), self.deformations)

    def defocus_slope(self) -> NDArray[np.float64]:
        """How the regional defocus changes with (T_e x_p)_xy: ``(P, E, 2)``."""
        return np.einsum("pejb,eb->pej", self.slopes(self.defocus_grid), self.regional_defocus)

    def centres(self) -> NDArray[np.float64]:
        """u = m_e (T_e x_p)_xy + b_e + d_e of every projection, ``(P, E, 2)``."""
        seen, _ = self.undeformed()
        centres = self.magnification[:, None] * seen[..., :2] + self.shifts
        if self.grid >= 2:
            centres = centres + np.einsum("peb,ebi->pei", self.basis(self.grid), self.deformations)
        return centres

    def defocus_changes(self) -> NDArray[np.float64]:
        """(mean, half difference times cos and sin of twice the angle) that every projection's CTF adds to its exposure's.

        ``(P, E, 3)`` in angstrom: the depth and the unknowns of exposure, region and particle. ``components_to_form`` of
        ``core.ctf_refinement`` turns it into what is added to a defocus form.
        """
        _, depth = self.undeformed()
        changes: NDArray[np.float64] = np.broadcast_to(self.defocus, depth.shape + (3,)).copy()
        changes[..., 0] += self.hand * depth + self.particle_defocus[:, None]
        if self.defocus_grid >= 2:
            changes[..., 0] += np.einsum("peb,eb->pe", self.basis(self.defocus_grid), self.regional_defocus)
        return changes

    def of_particles(self, some: slice) -> SeriesGeometry:
        """The same exposures with some of the particles, not copied."""
        return replace(self, poses=self.poses[some], positions=self.positions[some],
                       particle_defocus=self.particle_defocus[some])

    def copy(self) -> SeriesGeometry:
        return SeriesGeometry(
            self.tilts.copy(), self.shifts.copy(), self.poses.copy(), self.positions.copy(), self.field_size, self.grid,
            self.deformations.copy(), self.hand, self.defocus.copy(), self.particle_defocus.copy(), self.phase.copy(),
            self.magnification.copy(), self.defocus_grid, self.regional_defocus.copy(), self.amplitude.copy(),
        )


Array = NDArray[np.float64]
Derivative = Callable[[SeriesGeometry, int], Array]


@dataclass(frozen=True)
class Mode:
    """One group of columns. ``scale`` turns the user's unit into the solver's (radians, angstrom)."""

    name: str
    columns: Callable[[SeriesGeometry], int]
    derivative: Derivative  # (geometry, local) -> (P, E, local, columns)
    offset: Callable[[SeriesGeometry, SeriesGeometry], Array]  # (geometry, start) -> (n, columns)
    move: Callable[[SeriesGeometry, Array], None]  # by (n, columns), in place
    scale: float
    unit: str
    sigma: float  # standard deviation of the prior, in ``unit``
    local: int = LOCAL  # how many local parameters it needs

    @property
    def ctf(self) -> bool:
        """Whether it moves the CTF, which images multiplied by it do not allow."""
        return self.local == LOCAL_CTF


def _zeros(geometry: SeriesGeometry, local: int, columns: int) -> Array:
    return np.zeros((len(geometry.poses), len(geometry.tilts), local, columns))


def _carry(geometry: SeriesGeometry, out: Array, moved: Array) -> None:
    """Enter what a displacement ``moved`` (P, E, 3, columns) in the microscope frame does to centre and defocus."""
    out[:, :, 3:LOCAL] = geometry.magnification[:, None, None] * moved[:, :, :2]
    if geometry.grid >= 2:
        out[:, :, 3:LOCAL] += geometry.strain() @ moved[:, :, :2]
    if out.shape[2] >= LOCAL_CTF:
        out[:, :, DEFOCUS.start] = geometry.hand * moved[:, :, 2]
        if geometry.defocus_grid >= 2:
            out[:, :, DEFOCUS.start] += np.einsum("pej,pejc->pec", geometry.defocus_slope(), moved[:, :, :2])


def _pose(geometry: SeriesGeometry, local: int) -> Array:
    """A rotation alpha of the particle in the specimen frame is seen as w = T_e alpha."""
    out = _zeros(geometry, local, 3)
    out[:, :, :3] = geometry.tilts
    return out


def _position(geometry: SeriesGeometry, local: int) -> Array:
    """A displacement xi is seen as s = (T_e xi)_xy and changes the depth by (T_e xi)_z."""
    out = _zeros(geometry, local, 3)
    _carry(geometry, out, np.broadcast_to(geometry.tilts, out.shape[:2] + (3, 3)))
    return out


def tilt_axes(tilts: Array) -> Array:
    """(E, 3, 3): the microscope-frame axes about which the tilt, axis and third angle turn an exposure, as columns."""
    _, ytilt, zrot = matrix_to_tilt(tilts)
    outer = rotation_z(zrot)
    first = outer @ np.array([0.0, 1.0, 0.0])
    second = np.broadcast_to([0.0, 0.0, 1.0], first.shape)
    third = outer @ rotation_y(ytilt) @ np.array([1.0, 0.0, 0.0])
    return np.stack([first, second, third], axis=-1)


def _turn(axis: int) -> Derivative:
    """Turning an exposure turns every particle in it, and moves it by its lever arm w x T_e x_p, in depth as well."""

    def derivative(geometry: SeriesGeometry, local: int) -> Array:
        seen, _ = geometry.undeformed()
        w = tilt_axes(geometry.tilts)[..., axis]
        out = _zeros(geometry, local, 1)
        out[:, :, :3, 0] = w
        _carry(geometry, out, np.cross(np.broadcast_to(w, seen.shape), seen)[..., None])
        return out

    return derivative


def _deformation(geometry: SeriesGeometry, local: int) -> Array:
    basis = geometry.basis(geometry.grid)
    out = np.zeros(basis.shape[:2] + (local, basis.shape[2], 2))
    out[:, :, 3, :, 0] = out[:, :, 4, :, 1] = basis
    return out.reshape(basis.shape[:2] + (local, -1))


def _regional_defocus(geometry: SeriesGeometry, local: int) -> Array:
    out = _zeros(geometry, local, geometry.defocus_grid**2)
    out[:, :, DEFOCUS.start] = geometry.basis(geometry.defocus_grid)
    return out


def _magnification(geometry: SeriesGeometry, local: int) -> Array:
    """It spreads the particles about the image of the specimen's origin, and each particle about its own centre."""
    seen, _ = geometry.undeformed()
    out = _zeros(geometry, local, 1)
    out[:, :, 3:LOCAL, 0] = seen[..., :2]
    out[:, :, MAGNIFICATION, 0] = 1.0 / geometry.magnification
    return out


def _magnification_move(geometry: SeriesGeometry, step: Array) -> None:
    change = geometry.magnification - 1.0 + step[:, 0]
    geometry.magnification = 1.0 + np.clip(change, -LARGEST_MAGNIFICATION, LARGEST_MAGNIFICATION)


def _magnification_offset(geometry: SeriesGeometry, start: SeriesGeometry) -> Array:
    return (geometry.magnification - start.magnification)[:, None]


def _straight(first: int, columns: int) -> Derivative:
    """A parameter that is itself a local one."""

    def derivative(geometry: SeriesGeometry, local: int) -> Array:
        out = _zeros(geometry, local, columns)
        out[:, :, first : first + columns] = np.eye(columns)
        return out

    return derivative


def _pose_offset(geometry: SeriesGeometry, start: SeriesGeometry) -> Array:
    return rotation_vectors(geometry.poses @ np.swapaxes(start.poses, 1, 2))


def _pose_move(geometry: SeriesGeometry, step: Array) -> None:
    geometry.poses = rotation_vector_to_matrix(step) @ geometry.poses


def _angles(geometry: SeriesGeometry) -> Array:
    """(E, 3) tilt, axis and third angle in degrees."""
    xtilt, ytilt, zrot = matrix_to_tilt(geometry.tilts)
    return np.stack([ytilt, zrot, xtilt], axis=-1)


def _angle_mode(name: str, axis: int, sigma: float) -> Mode:
    def offset(geometry: SeriesGeometry, start: SeriesGeometry) -> Array:
        change = (_angles(geometry) - _angles(start))[:, axis : axis + 1]
        return np.deg2rad((change + 180.0) % 360.0 - 180.0)

    def move(geometry: SeriesGeometry, step: Array) -> None:
        angles = _angles(geometry)
        angles[:, axis] += np.rad2deg(step[:, 0])
        geometry.tilts = rotation_z(angles[:, 1]) @ rotation_y(angles[:, 0]) @ rotation_x(angles[:, 2])

    return Mode(name, lambda g: 1, _turn(axis), offset, move, DEGREE, "deg", sigma)


def _plain_mode(
    name: str,
    attribute: str,
    part: Tuple[int, ...],
    derivative: Derivative,
    unit: str,
    sigma: float,
    local: int = LOCAL,
    columns: Optional[Callable[[SeriesGeometry], int]] = None,
) -> Mode:
    """A mode whose parameters are the columns ``part`` of an array of the geometry (all, where empty), and add up."""

    def values(geometry: SeriesGeometry) -> Array:
        array = getattr(geometry, attribute)
        flat = array.reshape(len(array), -1)
        return flat[:, part] if part else flat

    def move(geometry: SeriesGeometry, step: Array) -> None:
        array = getattr(geometry, attribute)
        flat = array.reshape(len(array), -1).copy()
        flat[:, part if part else slice(None)] += step
        setattr(geometry, attribute, flat.reshape(array.shape))

    def offset(geometry: SeriesGeometry, start: SeriesGeometry) -> Array:
        return values(geometry) - values(start)

    count = columns or (lambda g: len(part))
    scale = {"deg": DEGREE, "%": 0.01}.get(unit, 1.0)
    return Mode(name, count, derivative, offset, move, scale, unit, sigma, local)


PARTICLE_MODES = (
    Mode("rotation", lambda g: 3, _pose, _pose_offset, _pose_move, DEGREE, "deg", 30.0),
    _plain_mode("position", "positions", (0, 1, 2), _position, "A", 20.0),
    _plain_mode("particle_defocus", "particle_defocus", (0,), _straight(DEFOCUS.start, 1), "A", 300.0, local=LOCAL_CTF),
)
EXPOSURE_MODES = (
    _angle_mode("tilt_angle", 0, 1.5),
    _angle_mode("axis_angle", 1, 1.0),
    _angle_mode("third_angle", 2, 1.0),
    _plain_mode("shift", "shifts", (0, 1), _straight(3, 2), "A", 100.0),
    _plain_mode("deformation", "deformations", (), _deformation, "A", 20.0,
                columns=lambda g: 2 * g.grid**2 if g.grid >= 2 else 0),
    _plain_mode("defocus", "defocus", (0,), _straight(DEFOCUS.start, 1), "A", 750.0, LOCAL_CTF),
    _plain_mode("astigmatism", "defocus", (1, 2), _straight(DEFOCUS.start + 1, 2), "A", 300.0, LOCAL_CTF),
    _plain_mode("phase", "phase", (0,), _straight(PHASE, 1), "deg", 20.0, local=LOCAL_CTF),
    _plain_mode("regional_defocus", "regional_defocus", (), _regional_defocus, "A", 300.0, LOCAL_CTF,
                lambda g: g.defocus_grid**2 if g.defocus_grid >= 2 else 0),
    _plain_mode("amplitude", "amplitude", (0,), _straight(AMPLITUDE, 1), "%", 30.0, local=LOCAL_AMPLITUDE),
    Mode("magnification", lambda g: 1, _magnification, _magnification_offset, _magnification_move, 0.01, "%", 1.0,
         local=LOCAL_MAGNIFICATION),
)
MODES: Dict[str, Mode] = {mode.name: mode for mode in PARTICLE_MODES + EXPOSURE_MODES}


def prior_sigmas() -> Dict[str, float]:
    """The default standard deviation of every mode's prior, in its unit."""
    return {name: mode.sigma for name, mode in MODES.items()}


def local_size(free: Iterable[str]) -> int:
    """How many local parameters the free modes need: 5, 6, 10 for those of the CTF, 11. ValueError for unknown names."""
    names = list(free)
    for name in names:
        if name not in MODES:
            raise ValueError(f"no mode {name!r}; there are {', '.join(MODES)}")
    return max([MODES[name].local for name in names], default=LOCAL)


@dataclass(frozen=True)
class Layout:
    """Which columns of a block belong to which mode, and how many local parameters they act on."""

    modes: Tuple[Mode, ...]
    slices: Dict[str, slice]
    size: int
    local: int

    @classmethod
    def of(cls, modes: Tuple[Mode, ...], free: Sequence[str], geometry: SeriesGeometry) -> Layout:
        """The modes of ``free`` that are among ``modes``; ``free`` also says whether the CTF moves."""
        chosen, slices, size = [], {}, 0
        for mode in modes:
            columns = mode.columns(geometry)
            if mode.name in free and columns:
                slices[mode.name] = slice(size, size + columns)
                size += columns
                chosen.append(mode)
        return cls(tuple(chosen), slices, size, local_size(free))

    def derivative(self, geometry: SeriesGeometry) -> Array:
        """(P, E, local, size)."""
        parts = [mode.derivative(geometry, self.local) for mode in self.modes]
        return np.concatenate(parts, axis=-1) if parts else _zeros(geometry, self.local, 0)

    def offset(self, geometry: SeriesGeometry, start: SeriesGeometry, rows: int) -> Array:
        """How far every parameter is from its start, ``(rows, size)``, radians and angstrom."""
        parts = [mode.offset(geometry, start) for mode in self.modes]
        return np.concatenate(parts, axis=1) if parts else np.zeros((rows, 0))

    def move(self, geometry: SeriesGeometry, step: Array) -> None:
        """Move the geometry in place by ``step`` (n, size)."""
        for mode in self.modes:
            mode.move(geometry, step[:, self.slices[mode.name]])

    def precision(self, sigmas: Dict[str, float]) -> Array:
        """1 / sigma^2 of every column from the modes' prior standard deviations in the user's unit; 0 where there is none."""
        sigma = self._columns(sigmas)
        with np.errstate(divide="ignore"):
            return 1.0 / sigma**2

    def bounds(self, limits: Dict[str, float]) -> Array:
        """The tolerance of every column, ``(size,)`` in radians and angstrom, inf where there is none."""
        return self._columns(limits)

    def _columns(self, values: Dict[str, float]) -> Array:
        out = np.full(self.size, np.inf)
        for mode in self.modes:
            out[self.slices[mode.name]] = values.get(mode.name, np.inf) * mode.scale
        return out
