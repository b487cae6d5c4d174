"""RELION 5 particles made with reliontomo's own classes, reader and writer, or a reason why they cannot be."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def reliontomo() -> Any:
    """(objects, converter of RELION 5) of the plugin; skips where it cannot be imported.

    One module of the plugin wants a function of scipion-app, the host's launcher, which nothing here calls.
    """
    names = ("scipion", "scipion.install", "scipion.install.funcs")
    launcher = importlib.util.find_spec("scipion") is not None
    for name in () if launcher else names:
        sys.modules[name] = types.ModuleType(name)
    if not launcher:
        sys.modules[names[-1]].mkdir = Path.mkdir  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own modules
            from reliontomo import objects
            from reliontomo.convert import convert50_tomo
    except ImportError as error:
        pytest.skip(f"the plugins scipion-em-reliontomo, scipion-em-relion and scipion-em-imod are not there ({error})")
    finally:
        for name in () if launcher else names:
            del sys.modules[name]
    return objects, convert50_tomo


def write_input(folder: Path, made: Any, seed: int = 8, stacks: bool = False) -> Path:
    """Stars of RELION 5 for the particles of ``make_sets``: cut in one frame, refined to another. Returns the optimisation set.

    The tomograms and tilt-series stars are those of reliontomo's writer.
    """
    _, convert = reliontomo()
    random = np.random.default_rng(seed)
    tilt_series = {item.getTsId(): item.clone(ignoreAttrs=[]) for item in made.tilt_series.iterItems()}
    tomograms = {item.getTsId(): item.clone() for item in made.tomograms.iterItems()}
    ctfs = {item.getTsId(): item.clone(ignoreAttrs=[]) for item in made.ctfs.iterItems()}
    folder.mkdir(parents=True, exist_ok=True)
    writer = convert.Writer()
    writer.tomoSet2Star(tomograms, tilt_series, str(folder), outFileName="tomograms.star")
    writer.tsSet2Star(tilt_series, ctfs, str(folder))
    labels = ["rlnTomoName", "rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi", "rlnAngleRot",
              "rlnAngleTilt", "rlnAnglePsi", "rlnAngleTiltPrior", "rlnAnglePsiPrior", "rlnOpticsGroup", "rlnTomoParticleName",
              "rlnTomoVisibleFrames", "rlnImageName", "rlnCtfImage", "rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst",
              "rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst", "rlnRandomSubset",
              "sciXCoord", "sciYCoord", "sciZCoord", "sciGroupId"]
    lines = []
    for number, item in enumerate([one.clone() for one in made.particles.iterItems()]):
        name = item.getCoordinate3D().getTomoId()
        angles = [f"{value:.6f}" for value in random.uniform(-170, 170, 6) * (1, 0.4, 1, 1, 0.4, 1) + (0, 75, 0, 0, 75, 0)]
        origin, centre = random.normal(size=3) * 8.0, random.normal(size=3) * 30.0
        frames = random.integers(0, 2, 4)
        place = centre / made.coordinates.getSamplingRate()
        lines.append([name, *angles, "90", "0", "1", f"{name}/{number + 1}", "[" + ",".join(map(str, frames)) + "]",
                      f"sub/{number + 1}_data.mrc", f"sub/{number + 1}_weights.mrc", *(f"{x:.6f}" for x in origin),
                      *(f"{x:.6f}" for x in centre), str(1 + (number // 2) % 2), *(f"{x:.6f}" for x in place), "1"])
    text = f"# version 50001\n\ndata_general\n\n_rlnTomoSubTomosAre2DStacks {int(stacks)}\n\n\n"
    text += "# version 50001\n\ndata_optics\n\nloop_\n"
    optics = {"rlnOpticsGroup": "1", "rlnOpticsGroupName": "optics1", "rlnSphericalAberration": "1.9", "rlnVoltage": "200",
              "rlnAmplitudeContrast": "0.11", "rlnTomoTiltSeriesPixelSize": "2.7", "rlnCtfDataAreCtfPremultiplied": "1",
              "rlnImageDimensionality": "3", "rlnTomoSubtomogramBinning": "2", "rlnImagePixelSize": "5.4", "rlnImageSize": "16"}
    text += "".join(f"_{label} #{index}\n" for index, label in enumerate(optics, 1)) + " ".join(optics.values()) + "\n\n\n"
    text += "# version 50001\n\ndata_particles\n\nloop_\n"
    text += "".join(f"_{label} #{index}\n" for index, label in enumerate(labels, 1))
    (folder / "particles.star").write_text(text + "".join(" ".join(line) + "\n" for line in lines) + "\n")
    star = folder / "optimisation_set.star"
    files = {"Particles": folder / "particles.star", "Tomograms": folder / "tomograms.star"}
    star.write_text("data_\n\n" + "".join(f"_rlnTomo{name}File {file}\n" for name, file in files.items()))
    return star


def read_set(folder: Path, star: Any, made: Any, pixel: float = 2.7, binning: float = 2.0, box: int = 16) -> Any:
    """The set that reliontomo makes of stars."""
    objects, _ = reliontomo()
    from pyworkflow.object import Pointer
    from reliontomo.convert import readSetOfPseudoSubtomograms

    folder.mkdir(parents=True, exist_ok=True)
    acquisition = made.tilt_series.getAcquisition()
    particles = objects.createSetOfRelionPSubtomograms(str(folder), str(star), Pointer(made.coordinates), tsSamplingRate=pixel,
                                                       relionBinning=binning, boxSize=box, acquisition=acquisition)
    particles.setAreRe5Particles(True)
    readSetOfPseudoSubtomograms(particles, isRelion5=True)
    particles.write()
    return particles
