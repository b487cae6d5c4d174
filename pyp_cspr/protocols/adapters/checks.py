"""What is wrong, or looks wrong, with sets before anything is run: a plain sentence for each."""

from __future__ import annotations

import os
from typing import Any, List, Set, Tuple

import numpy as np

from ...engine.errors import InputError
from ...engine.io.star import read_star
from .from_sets import NO_IMAGE, Conversion, box_of, by_name, image_path, read_series, series_label

NAMED = 5  # identifiers in a sentence
DEFOCUS = (1000.0, 150_000.0)  # angstrom, of usual tilt series
UNLIKE = 2.0  # times: a reference that is so much larger or smaller than the sub-tomograms has a wrong pixel, most likely


def series_of(particles: Any) -> Set[str]:
    """Identifiers of the tilt series that a set has particles of."""
    label = series_label(particles)
    return {str(row[label]) for row in particles.aggregate(["count"], label, [label])}  # as tomo's getTomograms


def common_series(particles: Any, tilt_series: Any, ctfs: Any) -> Set[str]:
    """Identifiers of the tilt series that have CTFs and particles, and are not disabled."""
    return series_of(particles) & enabled_series(tilt_series) & enabled_series(ctfs)


def enabled_series(items: Any) -> Set[str]:
    """Identifiers of the series of a set that are not disabled."""
    return {str(item.getTsId()) for item in items.iterItems() if item.isEnabled()}


def look_at_images(tilt_series: Any, ctfs: Any, used: Set[str]) -> Tuple[List[str], List[str]]:
    """(what cannot be read, what looks wrong) of the tilt images and CTFs of the series ``used``, a sentence each."""
    errors: List[str] = []
    empty: List[str] = []
    odd: List[str] = []
    estimates = by_name(ctfs)
    for name, item in by_name(tilt_series).items():
        if str(name) not in used:
            continue
        try:
            _, exposures = read_series(item, estimates[name], Conversion())
        except InputError as error:
            errors.append(f"{error}.")
            continue
        defocus = [np.mean(one["defocus"][:2]) for one in exposures if one["enabled"]]
        if not exposures:
            empty.append(str(name))
        elif not DEFOCUS[0] <= np.mean(defocus) <= DEFOCUS[1]:
            odd.append(f"{name} ({np.mean(defocus):.4g} A)")
    if empty and len(empty) == len(used):
        errors.append(f"{_names(empty)}: {NO_IMAGE}.")
    warnings = [f"{_names(empty)}: {NO_IMAGE}, so the particles there are left out."] if empty else []
    if odd:
        warnings.append(f"The mean defocus of {_names(odd)} is unusual: underfocus is positive, and 10000 A are 1 micrometre.")
    return errors[:NAMED], warnings


def _names(names: List[str]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


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
    for what, items in (("tilt series", tilt_series), ("CTFs", ctfs)):
        known = {str(name) for name in items.getTSIds()}
        if found - known:
            lost = _names(sorted(found - known))
            warnings.append(f"There are particles of {lost}, but no {what} of that name: they are left out.")
        disabled = sorted(found & known - enabled_series(items))
        if disabled:
            warnings.append(f"The {what} of {_names(disabled)} are disabled: the particles there are left out.")
    warnings += look_at_images(tilt_series, ctfs, common_series(particles, tilt_series, ctfs))[1]
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
