"""RELION 4 and 5 tomography projects: optimisation_set.star, particles.star, tomograms.star and tilt-series stars.

What the files mean is said in ``engine/conventions.py``, sentences 5 to 10. RELION's projection matrix acts on corner
coordinates in unbinned pixels: W = image size / 2 + shift / pixel - T_e (tomogram size / 2), with halves not rounded, while
our image centre is pixel N // 2; the half pixel of odd images is settled here and nowhere else.

Columns of our own begin with ``cspr``; RELION ignores them. They hold what RELION has no word for: excluded views, scores,
weights, and the geometry with which extracted stacks were cut.
"""

from __future__ import annotations

import os
from typing import List, Tuple, Union

from ..errors import InputError
from ..model.tables import Dataset
from .relion_particles import apply_optics, check_stacks, has_stacks, read_particles, rescale_warp_coordinates, set_extraction
from .relion_tomograms import existing, pick_block, read_tomograms
from .relion_writing import write_dataset
from .star import read_star

__all__ = ["find_files", "find_tilt_stars", "read_dataset", "read_tomograms", "write_dataset"]

PathLike = Union[str, "os.PathLike[str]"]


def read_dataset(path: PathLike, need_images: bool = True, images: str = "auto") -> Dataset:
    """The data set of a folder with an ``optimisation_set.star``, or of such a star, in RELION's 4 or 5 form.

    With ``need_images`` every image file must be there and fit; without it only the files that exist must fit. ``images``:
    "auto" takes extracted 2D stacks where particles have them, "raw" always the tilt series, "stacks" always the stacks.

    Raises InputError, in one line, for everything that cannot be: see ``Dataset.validate`` and the tests of this module.
    """
    if images not in ("auto", "raw", "stacks"):
        raise ValueError(f"images {images!r}, want auto, raw or stacks")
    particle_file, tomogram_file, source = find_files(path)
    blocks = read_star(particle_file)
    particles = pick_block(blocks, "particles", "rlnTomoName")
    if len(particles) == 0:
        raise InputError(f"{particle_file}: the particle list is empty; nothing to do")
    optics = blocks.get("optics")
    stacks = has_stacks(blocks, particles, optics) and images != "raw"
    if images == "stacks" and not stacks:
        raise InputError(f"{particle_file}: no extracted 2D stacks (rlnImageName); read the tilt series instead")
    series, exposures = read_tomograms(tomogram_file, need_images, stacks)
    dataset = read_particles(particles, particle_file, series, exposures, stacks)
    dataset.source = source
    if optics is not None:
        apply_optics(dataset, particles, optics, stacks)
    elif stacks:
        raise InputError(f"{particle_file}: no data_optics block; extracted stacks need rlnImageSize and rlnImagePixelSize")
    if stacks:
        rescale_warp_coordinates(dataset, particles)
    dataset.validate()
    if stacks:
        set_extraction(dataset)
        check_stacks(dataset, need_images)
    return dataset


def find_files(path: PathLike) -> Tuple[str, str, str]:
    """(particles star, tomograms star, optimisation set) of a data set. Raises InputError where they are not there."""
    name = os.fspath(path)
    star = os.path.join(name, "optimisation_set.star") if os.path.isdir(name) else name
    if os.path.isdir(name) and not os.path.exists(star):
        raise InputError(f"{name}: no optimisation_set.star in this folder; give such a folder or the star itself")
    for block in read_star(star).values():
        if block.has("rlnTomoParticlesFile", "rlnTomoTomogramsFile"):
            files = [existing(block.single(label), star) for label in ("rlnTomoParticlesFile", "rlnTomoTomogramsFile")]
            return files[0], files[1], os.path.abspath(star)
    raise InputError(f"{star}: no _rlnTomoParticlesFile and _rlnTomoTomogramsFile; give an optimisation_set.star")


def find_tilt_stars(tomograms: PathLike) -> List[str]:
    """The tilt-series stars that a tomograms star names; none where its own blocks hold the tilts, as in RELION 4."""
    name = os.fspath(tomograms)
    table = pick_block(read_star(name), "global", "rlnTomoName")
    if "rlnTomoTiltSeriesStarFile" not in table:
        return []
    return [existing(star, name) for star in table.texts("rlnTomoTiltSeriesStarFile")]
