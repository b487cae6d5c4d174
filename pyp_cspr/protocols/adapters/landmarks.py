"""Where particles fall in the tilt images, as landmarks that the host's viewers show on the images."""

from __future__ import annotations

import csv
import os
from typing import Any, List

import numpy as np
from tomo.objects import LandmarkModel

from ...engine.model.tables import Dataset
from .from_sets import Conversion
from .to_sets import match_rows

FIELDS = ("xCoor", "yCoor", "tiltIm", "chainId", "xResid", "yResid")  # of tomo's LandmarkModel.addLandmark


def fill_landmarks(
    target: Any, folder: str, tilt_series: Any, owner: Any, conversion: Conversion, result: Dataset, diameter: float
) -> None:
    """A model for each tilt series that has particles: their centres in the images that are used, in pixels of the images.

    Pixel k is k, not k + 1/2; tilt images count from 1; a chain is a particle, by the number that it has in its set. Centres
    outside the image are left out. The text files go to ``folder``; ``tilt_series`` is the refined set and ``owner`` a pointer
    to it; ``diameter`` is that of the particles in angstrom.
    """
    os.makedirs(folder, exist_ok=True)
    target.copyInfo(tilt_series)
    target.setSetOfTiltSeries(owner)
    numbers = {row: number for number, row in conversion.particle_rows.items()}
    chains = {after: numbers[before] for before, after in match_rows(conversion, result).items()}
    known = {name: series for series, name in enumerate(result.series["name"].tolist())}
    for item in [one.clone(ignoreAttrs=[]) for one in tilt_series.iterItems()]:
        series = known.get(str(item.getTsId()))
        if series is None:
            continue
        rows = _landmarks(result, series, chains)
        model = LandmarkModel(tsId=item.getTsId(), fileName=os.path.join(folder, f"{item.getTsId()}.sfid"),
                              size=round(diameter), applyTSTransformation=False)  # places are in the images as they are
        model.setTiltSeries(item)
        model.setCount(len({row[3] for row in rows}))
        _write(model.getFileName(), rows)
        target.append(model)
    target.write()


def _landmarks(result: Dataset, series: int, chains: Any) -> List[List[Any]]:
    """(x, y, image, particle, 0, 0) of every projection that counts and whose centre is inside its image."""
    particles, exposures = result.particles_of(series), result.exposures_of(series)
    size = result.series["image_size"][series]
    u, _ = result.project(series)
    place = u / float(result.series["pixel"][series]) + size // 2
    shown = result.used(series) & ((place > -0.5) & (place < size - 0.5)).all(axis=2)
    slices = result.exposures["slice"][exposures]
    rows = []
    for row, column in np.argwhere(shown):
        x, y = place[row, column]
        rows.append([f"{x:.4f}", f"{y:.4f}", int(slices[column]) + 1, chains[int(particles[row])], 0, 0])
    return rows


def _write(path: str, rows: List[List[Any]]) -> None:
    """As tomo writes its models, but in one go: it opens the file for each landmark."""
    temporary = f"{path}.part"
    with open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(FIELDS)
        writer.writerows(rows)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
