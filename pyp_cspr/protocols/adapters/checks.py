"""What is wrong, or looks wrong, with sets before anything is run: a plain sentence for each."""

from __future__ import annotations

import os
from typing import Any, List, Set

from ...engine.io.star import read_star
from .from_sets import box_of, image_path, series_label

NAMED = 5  # identifiers in a sentence
UNLIKE = 2.0  # times: a reference that is so much larger or smaller than the sub-tomograms has a wrong pixel, most likely


def series_of(particles: Any) -> Set[str]:
    """Identifiers of the tilt series that a set has particles of."""
    label = series_label(particles)
    return {str(row[label]) for row in particles.aggregate(["count"], label, [label])}  # as tomo's getTomograms


def missing_images(tilt_series: Any, used: Set[str]) -> List[str]:
    """The first tilt series of ``used`` whose images are not there."""
    for item in tilt_series.iterItems():
        if str(item.getTsId()) in used:
            first = item.getFirstItem()
            path = image_path(first.getFileName()) if first is not None else ""
            if not os.path.exists(path):
                return [f"The images of tilt series {item.getTsId()} are not there: {path or 'it has none'}."]
    return []


def input_warnings(particles: Any, tilt_series: Any, ctfs: Any) -> List[str]:
    """What will be left out, and poses that are not there."""
    found, warnings = series_of(particles), []
    for what, known in (("tilt series", tilt_series.getTSIds()), ("CTFs", ctfs.getTSIds())):
        lost = sorted(found - {str(name) for name in known})
        if lost:
            names = ", ".join(lost[:NAMED]) + (" ..." if len(lost) > NAMED else "")
            warnings.append(f"There are particles of {names}, but no {what} of that name: they are left out.")
    first = particles.getFirstItem()
    if first is not None and not first.hasTransform():
        warnings.append("The sub-tomograms have no alignment: their rotations start at 0. Search rotations first, or take the "
                        "result of sub-volume averaging.")
    return warnings


def reference_warnings(particles: Any, reference: Any) -> List[str]:
    """A reference of quite another size than the sub-tomograms."""
    size, box = reference.getDim(), box_of(particles)
    if not size or not box:
        return []
    theirs, ours = size[0] * reference.getSamplingRate(), box * particles.getSamplingRate()
    if not 1 / UNLIKE <= theirs / ours <= UNLIKE:
        return [f"The reference is {theirs:.0f} A wide and the sub-tomograms are {ours:.0f} A: are their pixel sizes right?"]
    return []


def resolution_warnings(asked: Any, pixel: float) -> List[str]:
    """Details finer than a map can hold; ``asked`` is a resolution or a list of them in angstrom, ``pixel`` the map's."""
    values = asked if isinstance(asked, (list, tuple)) else [asked]
    beyond = [value for value in values if 0 < value < 2.0 * pixel * 0.999]
    if beyond:
        return [f"A detail of {min(beyond):g} A is finer than the map can hold: {2.0 * pixel:g} A, two pixels, is taken."]
    return []


def all_in_half_sets(folder: str) -> bool:
    """Whether the data set that was written to ``folder`` says the half-set of every particle."""
    particles = read_star(os.path.join(folder, "particles.star"))["particles"]
    return "rlnRandomSubset" in particles and bool(particles.integers("rlnRandomSubset").all())
