"""Writes a PYP project from a data set by PYP's documented formats and formulas, with none of the engine's PYP code.

What it takes from the engine is the data set itself (poses in the engine's sense) and nothing of PYP: the 33 columns, the chain
of NORM and MATRIX, the z of the specimen, crops, shifts and binary tables are written out here once more.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
from pathlib import Path
from typing import Dict, List

import mrcfile
import numpy as np
from scipy.spatial.transform import Rotation

from pyp_cspr.engine.model.tables import Dataset

REC_BINNING, VOLUME_BINNING = 4, 2
CONFIG = """# a project of tests
data_set = "ribo"
data_mode = tomo
scope_pixel = {pixel!r}
scope_voltage = {voltage!r}
scope_cs = {cs!r}
scope_wgh = {wgh!r}
scope_dose_rate = {dose!r}
particle_sym = {symmetry}
extract_box = {box}
extract_bin = 1
tomo_ext_binn = {binning}
"""


def rx(a):
    return Rotation.from_euler("x", a, degrees=True).as_matrix()


def rz(a):
    return Rotation.from_euler("z", a, degrees=True).as_matrix()


def write_project(folder: Path, data: Dataset, symmetry: str = "C1", seed: int = 7) -> Path:
    """A project with an SVA table, as after sub-volume averaging. Returns the table's path."""
    random = np.random.default_rng(seed)
    for name in ("mrc", "ali", "ctf", "csp", "raw"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    series = data.series
    (folder / "ribo.films").write_text("".join(f"{name}\n" for name in series["name"]))
    (folder / ".pyp_config").write_text(CONFIG.format(
        pixel=float(series["pixel"][0]), voltage=float(series["voltage"][0]), cs=float(series["cs"][0]),
        wgh=float(series["amplitude_contrast"][0]), dose=float(data.exposures["dose"][0]), symmetry=symmetry,
        box=data.box, binning=VOLUME_BINNING))
    rows: List[str] = []
    for row in range(len(series)):
        rec = recorded(data, row)
        # whole tenths of pixels are what the list of boxes can hold
        picked = np.round(positions(data, row, rec) - random.normal(0, 3, (len(data.particles_of(row)), 3)), 1)
        write_series(folder, data, row, rec, float(picked[:, 2].min() + picked[:, 2].max()) / 2 - rec[2] / 2)
        rows += write_particles(folder, data, row, rec, picked, random, len(rows))
    table = folder / "alignments.txt"
    head = ["number", "lwedge", "uwedge", "posX", "posY", "posZ", "geomX", "geomY", "geomZ", "normalX", "normalY", "normalZ"]
    head += [f"matrix[{i}]" for i in range(16)] + [f"magnification[{i}]" for i in range(3)] + ["cutOffset", "filename"]
    table.write_text("\t".join(head) + "\n" + "".join(rows))
    return table


def recorded(data: Dataset, row: int) -> np.ndarray:
    """The tomogram's size in unbinned pixels: what the .rec has, times its binning."""
    return -(-data.series["specimen_size"][row] // REC_BINNING) * REC_BINNING


def write_series(folder: Path, data: Dataset, row: int, rec: np.ndarray, height: float) -> None:
    """Images, an empty tomogram, .xf, .tlt, .order and .ctf of a series whose particles are at a mean ``height`` (pixels)."""
    name, pixel = str(data.series["name"][row]), float(data.series["pixel"][row])
    exposures = data.exposures.take(data.exposures_of(row))
    os.link(str(data.series["images"][row]), folder / "mrc" / f"{name}.mrc")
    small = rec // REC_BINNING
    with mrcfile.new(str(folder / "mrc" / f"{name}.rec")) as mrc:
        mrc.set_data(np.zeros(small[::-1], np.int8))
        mrc.voxel_size = REC_BINNING * pixel
    # T = Rz(-b) Ry(a); the forward .xf turns by b, and the centre is seen at -F^-1 d
    size = data.series["image_size"][row]
    tilts, turns, lines, ctf = [], [], [], []
    for rotation in exposures["rotation"]:
        tilts.append(np.rad2deg(np.arctan2(-rotation[2, 0], rotation[2, 2])))
        turns.append(-np.rad2deg(np.arctan2(rotation[1, 0], rotation[0, 0])))
    for image, (tilt, turn) in enumerate(zip(tilts, turns)):
        forward = rz(turn)[:2, :2]
        seen = exposures["shift"][image] / pixel + size // 2 - size / 2
        d = -forward @ seen
        lines.append(" ".join(f"{value:.7f}" for value in [*forward.ravel(), *d]))
        rotation = exposures["rotation"][image]
        xy = np.linalg.solve(rotation[:2, :2], -exposures["shift"][image] - rotation[:2, 2] * height * pixel)
        depth = (rotation @ np.append(xy, height * pixel))[2]  # of the specimen at the image's centre: what a CTF fit sees
        u, v, angle = exposures["defocus"][image]
        moved = float(data.series["hand"][row]) * depth
        ctf.append(f"{tilt:.3f} {u + moved:.2f} {v + moved:.2f} {angle:.3f} 0.2 8.0")
    (folder / "ali" / f"{name}.xf").write_text("\n".join(lines) + "\n")
    (folder / "ali" / f"{name}.tlt").write_text("".join(f"{tilt:.5f}\n" for tilt in tilts))
    (folder / "raw" / f"{name}.order").write_text("".join(f"{order}\n" for order in exposures["order"]))
    (folder / "ctf" / f"{name}.ctf").write_text("\n".join(ctf) + "\n")


def positions(data: Dataset, row: int, rec: np.ndarray) -> np.ndarray:
    """True positions, unbinned pixels of PYP's specimen frame."""
    return data.particles["position"][data.particles_of(row)] / float(data.series["pixel"][row]) + rec / 2


def write_particles(
    folder: Path, data: Dataset, row: int, rec: np.ndarray, picked: np.ndarray, random: np.random.Generator, count: int
) -> List[str]:
    """_boxes3d.txt with picked positions, and lines of the SVA table, each with a normal and a translation of its own.

    x = x_pos + N (R~ x_ref + t~), R~ = J R J, t~ = J t, N = Rz(normalZ) Rx(normalX) Rz(normalY): so R~ = N^T R_p and
    x_pos = true position - N t~.
    """
    name = str(data.series["name"][row])
    mirror = np.diag([1.0, -1.0, 1.0])
    lines, boxes = [], [f"{'PTLIDX':>8}\t{'X':>8}\t{'Y':>8}\t{'Z':>8}\t{'Score':>8}\t{'Keep_CSP':>8}"]
    true = positions(data, row, rec)
    for index, (pose, place, box) in enumerate(zip(data.particles["rotation"][data.particles_of(row)], true, picked)):
        normal = random.uniform(-180, 180, 3)
        outer = rz(normal[2]) @ rx(normal[0]) @ rz(normal[1])
        t = mirror @ outer.T @ (place - box) / VOLUME_BINNING
        matrix = np.eye(4)
        matrix[:3, :3] = mirror @ (outer.T @ pose) @ mirror
        matrix[:3, 3] = t
        values = [count + index + 1, -60, 60, 16, 16, 16, 32, 32, 32, *normal, *matrix.ravel(), 1, 1, 1, 0.25]
        lines.append("\t".join(f"{value:.6f}" if isinstance(value, float) else str(value) for value in values)
                     + f"\t{name}_spk{index:04d}.rec\n")
        boxes.append(f"{index:8d}\t{box[0]:8.1f}\t{box[1]:8.1f}\t{box[2]:8.1f}\t{0.5:8.2f}\t{'Yes':>8}")
    (folder / "csp" / f"{name}_boxes3d.txt").write_text("\n".join(boxes) + "\n")
    return lines


# --- the tables that a PYP iteration leaves: document 02, section 1.3 ------------------------------------------------------

PROJECTIONS = (
    ("POSITION_IN_STACK", 1, 9), ("PSI", 4, 3), ("THETA", 4194304, 3), ("PHI", 8388608, 3), ("X_SHIFT", 8, 3),
    ("Y_SHIFT", 16, 3), ("DEFOCUS_1", 32, 3),
    ("DEFOCUS_2", 64, 3), ("DEFOCUS_ANGLE", 128, 3), ("PHASE_SHIFT", 256, 3), ("IMAGE_IS_ACTIVE", 2, 2),
    ("OCCUPANCY", 512, 3), ("LOGP", 1024, 3), ("SIGMA", 2048, 3), ("SCORE", 4096, 3), ("PIXEL_SIZE", 16384, 3),
    ("MICROSCOPE_VOLTAGE", 32768, 3), ("MICROSCOPE_CS", 65536, 3), ("AMPLITUDE_CONTRAST", 131072, 3),
    ("BEAM_TILT_X", 262144, 3), ("BEAM_TILT_Y", 524288, 3), ("IMAGE_SHIFT_X", 1048576, 3), ("IMAGE_SHIFT_Y", 2097152, 3),
    ("ORIGINAL_X_POSITION", 8589934592, 3), ("ORIGINAL_Y_POSITION", 17179869184, 3), ("IMIND", 20, 2), ("PIND", 15, 2),
    ("TIND", 35, 2), ("RIND", 70, 2), ("FIND", 55, 2), ("FSHIFT_X", 11, 3), ("FSHIFT_Y", 121, 3),
)
PARTICLES = (
    ("PIND", 15, 2), ("PSHIFT_X", 3, 3), ("PSHIFT_Y", 9, 3), ("PSHIFT_Z", 27, 3), ("PPSI", 81, 3), ("PTHETA", 273, 3),
    ("PPHI", 819, 3), ("ORIGINAL_X_POSITION_3D", 2457, 3), ("ORIGINAL_Y_POSITION_3D", 7371, 3),
    ("ORIGINAL_Z_POSITION_3D", 22113, 3), ("PSCORE", 66339, 3), ("POCC", 199017, 3),
)
TILTS = (("TIND", 35, 2), ("RIND", 70, 2), ("TSHIFT_X", 7, 3), ("TSHIFT_Y", 49, 3), ("TILTANG", 343, 3), ("TILTAXIS", 2401, 3))


def block(columns, values: Dict[str, np.ndarray]) -> bytes:
    count = len(next(iter(values.values())))
    data = struct.pack("<ii", len(columns), count)
    data += b"".join(struct.pack("<qb", identity, kind) for _, identity, kind in columns)
    for i in range(count):
        for name, _, kind in columns:
            value = values.get(name, np.zeros(count))[i]
            data += struct.pack("<f", value) if kind == 3 else struct.pack("<I" if kind == 9 else "<i", int(value))
    return data


def write_iteration(folder: Path, data: Dataset, iteration: int, volume: np.ndarray) -> None:
    """Map and archive of an iteration as PYP's own refinement leaves them: crops at the floor; T_k makes good for it."""
    maps = folder / "frealign" / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    pixel = float(data.series["pixel"][0])
    with mrcfile.new(str(maps / f"ribo_r01_{iteration:02d}.mrc")) as mrc:
        mrc.set_data(volume.astype(np.float32))
        mrc.voxel_size = pixel
    with tarfile.open(maps / f"ribo_r01_{iteration:02d}.bz2", "w:bz2") as archive:
        for row, name in enumerate(data.series["name"].tolist()):
            for ending, content in tables(data, row).items():
                info = tarfile.TarInfo(f"ribo_r01_{iteration:02d}/{name}_r01{ending}.cistem")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def tables(data: Dataset, row: int) -> Dict[str, bytes]:
    pixel, size = float(data.series["pixel"][row]), data.series["image_size"][row]
    exposures = data.exposures.take(data.exposures_of(row))
    rec = recorded(data, row)
    true = positions(data, row, rec)
    random = np.random.default_rng(row)
    s = random.normal(0, 2, true.shape) * pixel  # angstrom; true = stored - s
    stored = true + s / pixel
    poses = data.particles["rotation"][data.particles_of(row)]
    phi, theta, psi = (Rotation.from_matrix(np.swapaxes(poses, 1, 2)).as_euler("ZYZ", degrees=True)).T  # E = Rz Ry Rz
    projections: Dict[str, List[float]] = {name: [] for name, _, _ in PROJECTIONS}
    tilts: Dict[str, List[float]] = {name: [] for name, _, _ in TILTS}
    a = np.rad2deg(np.arctan2(-exposures["rotation"][:, 2, 0], exposures["rotation"][:, 2, 2]))
    b = -np.rad2deg(np.arctan2(exposures["rotation"][:, 1, 0], exposures["rotation"][:, 0, 0]))
    for k in range(len(exposures)):
        for name, value in zip(tilts, (exposures["order"][k], 0, 0.5 * pixel, 0.5 * pixel, a[k], b[k])):
            tilts[name].append(value)  # T_k makes good what the floor takes on average
    for i in range(len(true)):
        for k in range(len(exposures)):
            seen = Rotation.from_euler("ZY", [-b[k], a[k]], degrees=True).as_matrix()
            u = (seen @ (stored[i] - rec / 2))[:2] + exposures["shift"][k] / pixel + size // 2
            crop = np.floor(u)
            shift = -(seen @ s[i])[:2] + 0.5 * pixel
            euler = Rotation.from_matrix(poses[i].T @ seen.T).as_euler("ZYZ", degrees=True)
            depth = (seen @ (true[i] - rec / 2))[2] * pixel * float(data.series["hand"][row])
            values = dict(
                POSITION_IN_STACK=len(projections["PSI"]) + 1, PSI=euler[2], THETA=euler[1], PHI=euler[0], X_SHIFT=shift[0],
                Y_SHIFT=shift[1], DEFOCUS_1=exposures["defocus"][k, 0] + depth, DEFOCUS_2=exposures["defocus"][k, 1] + depth,
                DEFOCUS_ANGLE=exposures["defocus"][k, 2], OCCUPANCY=100, SIGMA=1, SCORE=20, PIXEL_SIZE=pixel,
                ORIGINAL_X_POSITION=crop[0], ORIGINAL_Y_POSITION=crop[1], IMIND=k, PIND=i, TIND=exposures["order"][k])
            for name in projections:
                projections[name].append(values.get(name, 0.0))
    particles = {"PIND": np.arange(len(true)), "PSCORE": np.full(len(true), 20.0), "POCC": np.full(len(true), 100.0),
                 "PPSI": -psi, "PTHETA": -theta, "PPHI": -phi}
    for axis in range(3):
        particles[f"PSHIFT_{'XYZ'[axis]}"] = s[:, axis]
        particles[f"ORIGINAL_{'XYZ'[axis]}_POSITION_3D"] = stored[:, axis]
    extended = struct.pack("<q", 15) + block(PARTICLES, particles) + struct.pack("<q", 35)
    extended += block(TILTS, {name: np.array(values) for name, values in tilts.items()})
    return {"": block(PROJECTIONS, {name: np.array(values) for name, values in projections.items()}), "_extended": extended}
