"""RELION 5 particles in Scipion: reliontomo's RelionSetOfPseudoSubtomograms. Its class comes with the set, nothing is imported.

A particle was cut at C (rlnCenteredCoordinateXAngst ...) in the orientation A_sub (rlnTomoSubtomogramRot ...), and refined in
that frame to A_part (rlnAngleRot ...) and the origin o (rlnOriginXAngst ...): R_p = A_sub A_part, x_p = C - A_sub o. The item's
transform has A_sub and o, its attributes the rest. A_sub and C stay, as the images were cut there.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List

import numpy as np
from pwem.objects import Transform
from tomo.constants import SCIPION

from ...engine.core.geometry import euler_to_matrix, matrix_to_euler
from ...engine.errors import InputError
from ...engine.io.relion import write_dataset
from ...engine.io.relion_labels import ANGLES, CENTRED, ORIGINS, SUBTOMOGRAM_ANGLES
from ...engine.io.star import StarBlock, read_star, write_star
from ...engine.model.tables import Dataset

SERIES_LABEL = "_volName"  # where a set keeps the particles' tilt series


def is_pseudo(particles: Any) -> bool:
    """Whether a set is one of RELION's pseudo-subtomograms."""
    return any(kind.__name__ == "RelionSetOfPseudoSubtomograms" for kind in type(particles).__mro__)


def refusal(particles: Any) -> str:
    """Why a set of RELION particles cannot be read, a sentence; or nothing."""
    if not particles.areRe5Particles():
        return "The particles are of RELION 4: extract them with RELION 5 first, or refine their stars with `cspr refine`."
    first = particles.getFirstItem()
    if first is not None and not any(_centred(item).any() for item in particles.iterItems()):
        return "The particles have no centred coordinates, as those of Warp: extract them with RELION 5 first."
    return ""


def _centred(item: Any) -> Any:
    return np.array([value or 0.0 for value in (item.getXInImg(), item.getYInImg(), item.getZInImg())], dtype=np.float64)


def _cut(item: Any) -> Any:
    """inv(M) = [A_sub | -o], the origin in pixels of the set."""
    transform = item.getTransform()
    return np.linalg.inv(np.eye(4) if transform is None else np.asarray(transform.getMatrix(), dtype=np.float64))


def read_particle(item: Any, pixel: float) -> Dict[str, Any]:
    """Series, half-set and pose of an item; ``pixel`` is that of its set in angstrom. Raises InputError."""
    angles = [item.getRot(), item.getTilt(), item.getPsi()]
    if None in angles:
        raise InputError(f"particle {item.getRelionParticleName()}: has no angles; take particles that were aligned")
    inverse = _cut(item)
    return {
        "tsId": str(item.getTsId()),
        "position": _centred(item) + pixel * inverse[:3, :3] @ inverse[:3, 3],
        "rotation": inverse[:3, :3] @ euler_to_matrix(*[float(angle) for angle in angles]),
        "half": int(item.getRdnSubset() or 0),
    }


def read_visible(item: Any) -> Any:
    """Which images of its series an item is to be seen in, ``(n,)`` bool, of those that RELION knows; None: not said."""
    text = str(item.getVisibleFrames() or "")
    flags = re.findall(r"[01]", text) if re.fullmatch(r"\[[01,\s]+\]", text) else []
    return np.array([flag == "1" for flag in flags]) if flags else None


def frames_text(visible: Any) -> str:
    """RELION's word for the images that show a particle, of flags ``(n,)``."""
    return "[" + ",".join("1" if flag else "0" for flag in visible) + "]"


def update_particle(item: Any, rotation: Any, position: Any, half: int, visible: Any, pixel: float) -> None:
    """Give an item the pose R_p, x_p (angstrom), a half-set, and the images, of those that are used, that show it."""
    cut = _cut(item)[:3, :3]
    origin = cut.T @ (_centred(item) - np.asarray(position, dtype=np.float64))
    rot, tilt, psi = (float(angle) for angle in matrix_to_euler(cut.T @ np.asarray(rotation, dtype=np.float64)))
    inverse = np.eye(4)
    inverse[:3, :3] = cut
    inverse[:3, 3] = -origin / pixel
    item.setTransform(Transform(np.linalg.inv(inverse)))
    item.setCoords(*(float(value) for value in origin))
    item.setRot(rot)
    item.setTilt(tilt)
    item.setPsi(psi)
    item.setRdnSubset(int(half))
    item.setVisibleFrames(frames_text(visible))


def attach_stars(target: Any, source: Any, folder: str, result: Dataset, rows: Dict[int, int]) -> None:
    """Write the stars of a filled set, with the geometry of ``result``, and make them the set's own.

    ``rows`` has the result's row of each item. Excluded views are left out, as RELION knows none. Paths are written as
    ``folder`` is: RELION looks for them from the project's folder, where it must be run.
    """
    shown = _without_excluded(result)
    write_dataset(shown, folder)
    tomograms = os.path.join(folder, "tomograms.star")
    _mend_tomograms(tomograms, folder, source)
    _write_particles(os.path.join(folder, "particles.star"), target, source, shown, rows)
    star = os.path.join(folder, "optimisation_set.star")
    files = {"rlnTomoParticlesFile": [os.path.join(folder, "particles.star")], "rlnTomoTomogramsFile": [tomograms]}
    write_star(star, {"": StarBlock(columns=files, loop=False)})
    pixel = float(shown.series["pixel"][0])
    target.setTsSamplingRate(pixel)
    target.setRelionBinning(float(source.getSamplingRate()) / pixel)
    target.setNReParticles(target.getSize())
    target.filesMaster = star  # reads the others


def _without_excluded(result: Dataset) -> Dataset:
    enabled = result.exposures["enabled"]
    width = max(int(enabled[result.exposures_of(series)].sum()) for series in range(len(result.series)))
    visible = np.zeros((len(result.particles), width), bool)
    for series in range(len(result.series)):
        flags = enabled[result.exposures_of(series)]
        particles = result.particles_of(series)
        visible[particles, : flags.sum()] = result.visible[particles, : len(flags)][:, flags]
    return Dataset(result.series, result.exposures.take(enabled), result.particles, visible, result.box, result.box_pixel,
                   result.extra, result.source)


def _old_block(path: str, name: str) -> Any:
    """A block of a star of the input set; None where there is none."""
    return read_star(path).get(name) if path and os.path.exists(path) else None


def _mend_tomograms(path: str, folder: str, source: Any) -> None:
    """Paths from the project's folder, and what the input's tomograms star says besides."""
    block = read_star(path)["global"]
    names = block.texts("rlnTomoName")
    block.columns["rlnOpticsGroupName"] = [_optics(source).texts("rlnOpticsGroupName")[0]] * len(names)
    old = _old_block(source.getTomogramsStar(), "global")
    if old is not None and set(names) <= set(old.texts("rlnTomoName")):
        place = [old.texts("rlnTomoName").index(name) for name in names]
        for label, values in old.columns.items():
            if label not in block:
                block.columns[label] = [values[row] for row in place]
    stars = [os.path.join(folder, name) for name in block.texts("rlnTomoTiltSeriesStarFile")]
    block.columns["rlnTomoTiltSeriesStarFile"] = stars
    write_star(path, {"global": block})
    for name, star in zip(names, stars):
        tilts = read_star(star)[name]
        images = tilts.texts("rlnMicrographName")
        # a stack in RELION's eyes
        tilts.columns["rlnMicrographName"] = [image if image.endswith("mrcs") else f"{image}:mrcs" for image in images]
        write_star(star, {name: tilts})


def _optics(source: Any) -> StarBlock:
    block = _old_block(source.getParticlesStar(), "optics")
    if block is None or "rlnOpticsGroupName" not in block:
        raise InputError(f"{source.getParticlesStar()}: no optics groups; give particles whose star files are still there")
    return block


def _write_particles(path: str, target: Any, source: Any, shown: Dataset, rows: Dict[int, int]) -> None:
    """The columns that reliontomo writes of a set, and the scores."""
    stacks, pixel = bool(source.are2dStacks()), float(source.getSamplingRate())
    columns: Dict[str, List[str]] = {}

    def add(label: str, value: Any) -> None:
        text = f"{value:.12g}" if isinstance(value, float) else str(value)
        columns.setdefault(label, []).append(text)

    lengths = np.bincount(shown.exposures["series"], minlength=len(shown.series))[shown.particles["series"]]
    for item in target.iterItems():
        row, inverse = rows[item.getObjId()], _cut(item)
        origin = [-float(value) * pixel for value in inverse[:3, 3]]
        add("rlnTomoName", item.getTsId())
        for labels, values in (
            (SUBTOMOGRAM_ANGLES, [float(angle) for angle in matrix_to_euler(inverse[:3, :3])]),
            (ANGLES, [item.getRot(), item.getTilt(), item.getPsi()]),
            (("rlnAngleTiltPrior", "rlnAnglePsiPrior"), [item.getTiltPrior() or 0.0, item.getPsiPrior() or 0.0]),
            (ORIGINS, origin),
            (CENTRED, _centred(item).tolist()),
        ):
            for label, value in zip(labels, values):
                add(label, value)
        add("rlnOpticsGroup", item.getOpticsGroupId())
        add("rlnTomoParticleName", item.getRelionParticleName())
        add("rlnTomoVisibleFrames", frames_text(shown.visible[row, : lengths[row]]))
        add("rlnImageName", item.getFileName() or "None")
        if not stacks:
            add("rlnCtfImage", item.getCtfFile() or "None")
        add("rlnGroupNumber", item.getGroupId())
        add("rlnClassNumber", item.getClassId())
        add("rlnNormCorrection", item.getNormCorrection())
        add("rlnRandomSubset", item.getRdnSubset())
        if item.hasCoordinate3D():
            coordinate = item.getCoordinate3D()
            for axis, value in zip("XYZ", coordinate.getPosition(SCIPION)):
                add(f"sci{axis}Coord", float(value))
            add("sciGroupId", coordinate.getGroupId())
        add("rlnLogLikeliContribution", item.getLogLikeliContribution())
        add("rlnMaxValueProbDistribution", item.getMaxValueProbDistribution())
        add("rlnNrOfSignificantSamples", item.getNrOfSignificantSamples())
        score = float(shown.particles["score"][row])
        add("csprScore", score if np.isfinite(score) else "nan")
    general = StarBlock(columns={"rlnTomoSubTomosAre2DStacks": [str(int(stacks))]}, loop=False)
    write_star(path, {"general": general, "optics": _optics(source), "particles": StarBlock(columns=columns)})
