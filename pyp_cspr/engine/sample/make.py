"""Writes a sample data set: tilt series as a microscope and an alignment program leave them, stars, and the truth apart.

OUT/
  TS_01.mrc .tlt .xf .xtilt      raw tilt images by tilt angle (int16 electrons, dark particles), IMOD's alignment of them
  optimisation_set.star particles.star tomograms.star tilt_series/TS_01.star       RELION 5
  reference.mrc                  the true map
  truth.star                     what was simulated (sample/truth.py); the files above hold the settings' errors
  settings.json                  the settings, version and image size
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, Union

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import InputError
from ..io.config import write_json
from ..io.images import RawImages
from ..io.imod import write_alignment
from ..io.mrc import write_map, write_stack
from ..io.relion import write_dataset
from ..model.tables import Dataset
from .acquisition import acquire, add_errors, attenuation
from .settings import SampleSettings
from .simulate import Simulator
from .structure import load_structure
from .truth import write_truth

MARK = "settings.json"

PathLike = Union[str, "os.PathLike[str]"]


def make_sample(
    folder: PathLike, settings: SampleSettings, threads: int = 1,
    done: Callable[[int], Any] = lambda count: None, overwrite: bool = False,
) -> Dict[str, Any]:
    """Simulate and write; ``done(1)`` after each of the series x tilts images. Returns what was made, for a summary.

    Raises InputError where the settings cannot be met, or where the folder holds a sample already and not ``overwrite``.
    """
    settings.check()
    out = Path(folder).absolute()
    if os.path.exists(out / MARK) and not overwrite:
        raise InputError(f"{folder}: holds a sample data set already; give another folder or --overwrite")
    structure = load_structure(settings.structure, settings.box, settings.pixel, settings.symmetry)
    truth = acquire(settings, structure.radius, lambda name: str(out / f"{name}.mrc"))
    write_map(out / "reference.mrc", structure.reference(), settings.pixel)
    simulator = Simulator(structure, truth, settings)
    for series, path in enumerate(truth.series["images"].tolist()):
        write_stack(path, simulator.images(series, threads, done), settings.pixel)
    truth.exposures["scale"] = signal_scale(truth, settings)
    written = add_errors(truth, settings)
    for series, path in enumerate(truth.series["images"].tolist()):
        tilts = written.exposures.take(written.exposures_of(series))
        write_alignment(path[: -len(".mrc")], tilts["rotation"], tilts["shift"], settings.pixel)
    write_dataset(written, out)
    write_truth(out / "truth.star", truth)
    size = int(truth.series["image_size"][0, 0])
    # What is stated last says that all the rest is there.
    write_json(out / MARK, {"version": __version__, "image_size": size, "settings": settings.to_dict()})
    return {
        "folder": str(out), "series": settings.series, "particles": len(truth.particles), "tilts": settings.tilts,
        "projections": int(truth.visible.sum()), "image_size": size, "pixel": settings.pixel, "box": settings.box,
        "bytes": sum(os.path.getsize(path) for path in truth.series["images"].tolist()),
    }


def signal_scale(truth: Dataset, settings: SampleSettings) -> NDArray[np.float64]:
    """Signal amplitude of each exposure after its image, read from its file, is divided by its standard deviation.

    With noise it is relative to an undamaged thin specimen, in whose image the deviation is that of the electrons alone;
    without noise relative to the best exposure.
    """
    deviation = np.empty(len(truth.exposures))
    for series in range(len(truth.series)):
        images = RawImages(truth, series)
        for row in truth.exposures_of(series):
            deviation[row] = images.statistics(int(row))[1]
    counts = settings.dose * settings.pixel**2
    through = attenuation(truth.exposures["rotation"], settings.thickness, settings.mean_free_path)
    scale = counts * through / deviation / np.sqrt(counts)
    return scale / scale.max() if settings.noise == "none" else scale
