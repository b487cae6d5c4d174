"""What protocols say and refuse before anything runs, and what they give to the engine."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pwem.objects import Volume, VolumeMask
from pyworkflow.object import Float
from pyworkflow.protocol import params
from tomo.objects import AverageSubTomogram, SetOfSubTomograms

from pyp_cspr.engine.cli import main, reconstruct
from pyp_cspr.engine.cli.options import settings_of
from pyp_cspr.engine.core.filters import soft_sphere
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import write_dataset
from pyp_cspr.engine.model.settings import ReconstructSettings
from pyp_cspr.protocols import (
    ProtPypCsprExport,
    ProtPypCsprFilter,
    ProtPypCsprImport,
    ProtPypCsprPostProcess,
    ProtPypCsprReconstruct,
    ProtPypCsprRefine,
    ProtPypCsprSample,
)
from pyp_cspr.protocols.adapters import volumes
from pyp_cspr.protocols.adapters.from_sets import SCORE, read_sets

from .sets import change, make_sets, write_image

pytestmark = pytest.mark.timeout(120)
PROTOCOLS = (ProtPypCsprExport, ProtPypCsprFilter, ProtPypCsprImport, ProtPypCsprPostProcess, ProtPypCsprReconstruct,
             ProtPypCsprRefine, ProtPypCsprSample)


@pytest.fixture
def made(tmp_path):
    return make_sets(tmp_path / "sets", pixel=5.0, coordinate_pixel=10.0, sub_pixel=10.0)


@pytest.fixture
def refine(made, tmp_path):
    return with_inputs(ProtPypCsprRefine(), made, tmp_path)


def with_inputs(protocol, made, tmp_path, box: int = 16, pixel: float = 10.0):
    protocol.inputParticles.set(made.particles)
    protocol.inputTiltSeries.set(made.tilt_series)
    protocol.inputCTFs.set(made.ctfs)
    if hasattr(protocol, "inputReference"):
        reference = AverageSubTomogram()
        reference.setFileName(write_image(tmp_path / "reference.mrc", (box,) * 3, pixel))
        reference.setSamplingRate(pixel)
        protocol.inputReference.set(reference)
    return protocol


def one_error(protocol) -> str:
    errors = protocol._validate()
    assert len(errors) == 1, errors
    assert errors[0].endswith(".")
    assert "\n" not in errors[0]
    return errors[0]


def test_good_input_is_accepted(refine, made, tmp_path) -> None:
    assert refine._validate() == []
    assert refine._warnings() == []
    assert with_inputs(ProtPypCsprReconstruct(), made, tmp_path)._validate() == []
    assert with_inputs(ProtPypCsprFilter(), scored(made), tmp_path)._validate() == []
    assert ProtPypCsprSample()._validate() == []


def scored(made):
    """The sets with scores of 10, 11, ... but for the first particle."""
    particles = SetOfSubTomograms(filename=":memory:")
    particles.copyInfo(made.particles)
    for number, item in enumerate([one.clone() for one in made.particles.iterItems()]):
        setattr(item, SCORE, Float(9.0 + number if number else None))
        particles.append(item)
    return replace(made, particles=particles)


def number_fields():
    """(protocol, name) of every field that takes a number or a choice."""
    for kind in PROTOCOLS:
        for name, parameter in kind()._definition.iterParams():
            if isinstance(parameter, (params.IntParam, params.FloatParam)):
                yield pytest.param(kind, name, id=f"{kind.__name__[11:]}-{name}")


@pytest.mark.parametrize("kind, name", list(number_fields()))
def test_an_emptied_field_is_named(kind, name, monkeypatch) -> None:
    """Once where the host does not see it, and at most once more by the host."""
    protocol = kind()
    monkeypatch.setattr(protocol, "validateInstallation", list)  # of the plugin, which is not loaded
    getattr(protocol, name).set(None)
    label = protocol.getParam(name).getLabel()
    assert protocol._validate() == [f"{label}: give a number."]
    shown = [error for error in protocol.validate() if "EMPTY" not in error]  # inputs that are not chosen
    assert shown in ([f"*{label}* should be {kind}", f"{label}: give a number."] for kind in ("an integer", "a float")) or (
        shown == [f"{label}: give a number."] and not protocol.evalParamCondition(name))


@pytest.mark.parametrize("kind, name", [
    pytest.param(kind, name, id=f"{kind.__name__[11:]}-{name}") for kind in PROTOCOLS
    for name, parameter in kind()._definition.iterParams() if isinstance(parameter, params.EnumParam)])
@pytest.mark.parametrize("beyond", [0, -1])
def test_a_choice_that_is_none_is_named(kind, name, beyond) -> None:
    """As a workflow that was edited may have it."""
    protocol = kind()
    parameter = protocol.getParam(name)
    count = len(parameter.choices)
    getattr(protocol, name).set(beyond or count)
    assert protocol._validate() == [f"{parameter.getLabel()}: {beyond or count} is none of its choices, 0 to {count - 1}."]


def test_tilt_series_that_cannot_be_used_are_refused(refine, made) -> None:
    made.tilt_series._interpolated.set(True)
    assert "interpolated" in one_error(refine)
    made.tilt_series._interpolated.set(False)
    made.tilt_series._ctfCorrected.set(True)
    assert "corrected already" in one_error(refine)
    made.tilt_series._ctfCorrected.set(False)
    made.tilt_series._hasAlignment.set(False)
    assert "not aligned" in one_error(refine)


def test_sets_without_a_common_tilt_series_are_refused(tmp_path) -> None:
    made = make_sets(tmp_path / "sets", names=("A",), particle_names=("B",))
    assert "identifiers (tsId)" in one_error(with_inputs(ProtPypCsprRefine(), made, tmp_path))


@pytest.mark.parametrize("name, value, words", [
    ("tasksPerChunk", 0, "Tilt series per chunk"),
    ("iterations", -1, "Iterations"),
    ("symmetry", "Q7", "'Symmetry' 'Q7': "),
    ("huber", -1.0, "'Weigh down outliers beyond (standard deviations)' -1; it must be 0 or above"),
    ("searchCone", "20 400", "in a cone of (degrees), by iteration' 400; it must be 180"),
    ("resolution", "-5", "'Finest detail used (A), by iteration' -5 and 'Coarsest stage (A)' 60"),
    ("mapPixel", -1.0, "'Pixel of the map' -1 A; it must be above 0"),
    ("priorShift", -1.0, "'Shifts of tilt images: allowed change (A)' -1"),
    ("priorShift", None, "Shifts of tilt images: allowed change (A): give a number"),
    ("mapTiltMin", 95.0, "'Tilt angles of the map, from (degrees)' 95 is above 'Tilt angles of the map, to (degrees)' 90"),
    ("refinementLast", -2, "'Tilt images that refine particles, last (-1: all)' -2"),
    ("padding", 9.0, "'Padding factor' 9; it must be from 1 to 4"),
    ("mapBox", 33, "'Box of the map' 33; it must be even"),
    ("mapPixel", 2.0, "finer than that of the tilt series, 5 A"),
    ("mapBox", 64, "larger than the tilt images (64 x 48 pixels"),
    ("maskSource", 2, "Mask: choose one"),
])
def test_values_that_cannot_be_are_refused(refine, name, value, words) -> None:
    getattr(refine, name).set(value)
    assert words in one_error(refine)
    assert "Form" not in one_error(refine)


@pytest.mark.parametrize("name, value, words", [
    ("boxSize", 33, "'Box of the reference (pixels)' 33; it must be even and at least 16."),
    ("nSeries", 0, "'Tilt series' 0; it must be at least 1."),
    ("poseError", -1.0, "'Error of the rotations (degrees, rms)' -1; it must not be negative."),
])
def test_samples_that_cannot_be_are_refused(name, value, words) -> None:
    protocol = ProtPypCsprSample()
    getattr(protocol, name).set(value)
    assert one_error(protocol) == words


def test_references_and_masks_that_do_not_fit_are_refused(refine, made, tmp_path) -> None:
    assert "is odd" in one_error(with_inputs(refine, made, tmp_path, box=15))
    assert "finer than that of the tilt series" in one_error(with_inputs(refine, made, tmp_path, pixel=2.5))
    with_inputs(refine, made, tmp_path)
    mask = VolumeMask()
    mask.setFileName(write_image(tmp_path / "mask.mrc", (12, 12, 12), 10.0))
    mask.setSamplingRate(10.0)
    refine.maskSource.set(2)
    refine.inputMask.set(mask)
    assert "another box" in one_error(refine)


def test_suspicious_settings_are_warned_of(refine) -> None:
    refine.priorThirdAngle.set(1.0)
    refine.sameReference.set(True)
    assert len(refine._warnings()) == 2


def test_particles_without_partners_are_warned_of(tmp_path) -> None:
    made = make_sets(tmp_path / "sets", names=("A", "B", "C"), ctf_names=("A", "B"), particle_names=("A", "C", "D"))
    for kind in (ProtPypCsprRefine, ProtPypCsprFilter, ProtPypCsprReconstruct):
        assert with_inputs(kind(), made, tmp_path)._warnings() == [
            "There are particles of D, but no tilt series of that name: they are left out.",
            "There are particles of C, D, but no CTFs of that name: they are left out.",
        ]


def test_disabled_series_are_warned_of(refine, made) -> None:
    """All of them disabled is an error, as are series without any image left."""
    change(made.ctfs, "enabled", False, "TS_2", 0)
    assert refine._validate() == []
    assert refine._commonSeries() == {"TS_1"}
    assert refine._warnings() == ["The CTFs of TS_2 are disabled: the particles there are left out."]
    change(made.tilt_series, "enabled", False, "TS_1", 0)
    assert "No tilt series has both CTFs and particles" in one_error(refine)


def test_series_without_an_image_are_warned_of(refine, made) -> None:
    change(made.ctfs, "enabled", False, "TS_2")
    assert refine._validate() == []
    assert refine._warnings() == ["TS_2: no tilt image is enabled and has an enabled CTF, so the particles there are left out."]
    change(made.tilt_series, "enabled", False, "TS_1")
    assert one_error(refine) == "TS_1, TS_2: no tilt image is enabled and has an enabled CTF."


def test_numbers_that_are_not_there_are_refused(refine, made) -> None:
    change(made.ctfs, "_defocusU", None, "TS_2", 3)
    assert one_error(refine) == "TS_2: tilt image 3: its defocus is not known; estimate it, or exclude the image."


def test_particles_without_poses_are_warned_of(refine, made) -> None:
    particles = SetOfSubTomograms(filename=":memory:")
    particles.copyInfo(made.particles)
    for item in [one.clone() for one in made.particles.iterItems()]:
        item._transform = None
        particles.append(item)
    refine.inputParticles.set(particles)
    assert "no alignment" in "".join(refine._warnings())


def test_a_reference_with_a_wrong_pixel_is_warned_of(made, tmp_path) -> None:
    refine = with_inputs(ProtPypCsprRefine(), made, tmp_path)
    assert refine._warnings() == []
    refine.inputReference.get().setSamplingRate(40.0)
    assert "are their pixel sizes right" in "".join(refine._warnings())
    refine.inputReference.get().setSamplingRate(5.0)
    refine.resolution.set("30 9")
    assert "9 A is finer than the map can hold: 10 A" in "".join(refine._warnings())


def test_what_is_not_there_is_refused(made, tmp_path) -> None:
    refine = with_inputs(ProtPypCsprRefine(), made, tmp_path)
    stack = Path(made.tilt_series.getFirstItem().getFirstItem().getFileName())
    stack.rename(stack.with_suffix(".gone"))
    try:
        assert f"The images of tilt series TS_1 are not there: {stack}" in one_error(refine)
    finally:
        stack.with_suffix(".gone").rename(stack)
    empty = SetOfSubTomograms(filename=":memory:")
    refine.inputParticles.set(empty)
    assert "is empty" in one_error(refine)


@pytest.mark.parametrize("half, used", [(1, True), (0, False)])
def test_half_maps_of_the_reference_are_used_where_particles_have_half_sets(made, tmp_path, monkeypatch, half, used) -> None:
    """On the map's grid, each for its own half-set."""
    refine = with_inputs(ProtPypCsprRefine(), made, tmp_path)
    monkeypatch.setattr(refine, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    for number in (1, 2):
        write_map(tmp_path / f"given{number}.mrc", np.full((16, 16, 16), number, np.float32), 10.0)
    refine.inputReference.get().setHalfMaps([str(tmp_path / f"given{number}.mrc") for number in (1, 2)])
    assert refine._validate() == []
    conversion = read_sets(made.particles, made.tilt_series, made.ctfs)
    conversion.dataset.particles["half"] = half
    write_dataset(conversion.dataset, tmp_path / "data")
    refine.volumesStep("", "", 12, 10.0, refine._halves())
    for number in (1, 2):
        values, pixel = read_map(tmp_path / f"half{number}.mrc")
        assert (len(values), pixel) == (12, 10.0)
        assert values[6, 6, 6] == pytest.approx(number, abs=1e-3)
    request = {"inputs": [], "settings": refine._values(), "mask": 1, "tasks_per_chunk": 1}
    options = [str(word) for word in refine._options(request, 1)]
    wanted = ["--halves", str(tmp_path / "half1.mrc"), str(tmp_path / "half2.mrc")]
    assert ("--halves" in options) == used
    assert not used or options[options.index("--halves"):][:3] == wanted
    refine.useHalfMaps.set(False)
    assert "--halves" not in refine._options(request, 1)
    refine.useHalfMaps.set(True)
    (tmp_path / "given2.mrc").unlink()
    assert "half map" in one_error(refine)


def test_other_volumes_of_the_same_name_are_converted_anew(refine) -> None:
    """The steps' arguments are all that Continue looks at."""
    refine.inputReference.get().setObjId(5)
    before = refine._inputIds()
    refine.inputReference.get().setObjId(6)
    assert refine._inputIds() != before
    assert refine._inputIds()[:3] == before[:3]


def test_landmarks_have_a_size_where_coordinates_have_no_box(refine, made, monkeypatch) -> None:
    monkeypatch.setattr(refine, "_grid", lambda: {"box": 24, "pixel": 5.0})
    assert refine._diameter(made.coordinates) == 8 * 10.0
    made.coordinates._boxSize.set(None)
    assert refine._diameter(made.coordinates) == 120.0


def test_weights_of_tilt_images_are_a_choice(refine) -> None:
    words = []
    for value in range(3):
        refine.exposureWeighting.set(value)
        assert refine._validate() == []
        words.append(refine._values()["exposure_weighting"])
        for name in ("scoreFraction", "scoreTransition"):
            assert refine.evalParamCondition(name) == (words[-1] == "score")
    assert words == ["measured", "score", "dose"]


def test_sizes_of_grids_are_asked_for_where_they_are_used(refine) -> None:
    for prior, grid in (("priorDeformation", "deformationGrid"), ("priorRegionalDefocus", "defocusGrid")):
        for value in (0.0, 20.0, None):
            getattr(refine, prior).set(value)
            assert bool(refine.evalParamCondition(grid)) == bool(value)


def test_methods_say_how_half_sets_were_refined(refine) -> None:
    assert "each half-set against its own map" in refine._methods()[0]
    refine.halfReferences.set(False)
    assert "both half-sets against the same map" in refine._methods()[0]


@pytest.mark.parametrize("count, words", [(1, "after 1 iteration;"), (3, "after 3 iterations;")])
def test_the_summary_counts_iterations(refine, tmp_path, monkeypatch, count, words) -> None:
    monkeypatch.setattr(refine, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    (tmp_path / "refine").mkdir()
    summary = {"resolution_0143": 9.0, "iterations": [{}] * (count + 1), "reason": "all are done", "n_particles": 8,
               "n_projections": 40, "n_series": 2}
    (tmp_path / "refine" / "summary.json").write_text(json.dumps(summary))
    assert words in refine._summary()[1]


def test_the_filter_has_no_settings_that_do_nothing() -> None:
    """It is one short job: no chunks, no threads, no memory for projections."""
    protocol = ProtPypCsprFilter()
    assert not [name for name in ("tasksPerChunk", "memory", "processes") if hasattr(protocol, name)]


def test_a_reconstruction_gets_the_settings_of_its_form(made, tmp_path, monkeypatch) -> None:
    protocol = with_inputs(ProtPypCsprReconstruct(), made, tmp_path)
    protocol.mapTiltMin.set(-40.0)
    protocol.mapParticles.set(0.5)
    protocol.doseWeighting.set(False)
    protocol.symmetry.set("C3")
    seen = {}

    def run(*words, **unused) -> None:
        parser = argparse.ArgumentParser()
        reconstruct.add_args(parser)
        seen["settings"] = settings_of(parser.parse_args([str(word) for word in words[1:]]))
        (tmp_path / "reconstruct").mkdir()
        (tmp_path / "reconstruct" / "summary.json").write_text("{}")

    monkeypatch.setattr(protocol, "runEngine", run)
    monkeypatch.setattr(protocol, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    protocol.reconstructStep(protocol._values(), 1)
    wanted = ReconstructSettings(map_tilt_min=-40.0, map_particles=0.5, dose_weighting=False, symmetry="C3")
    assert seen["settings"] == wanted


def test_a_reconstruction_needs_to_know_its_box(made, tmp_path) -> None:
    protocol = with_inputs(ProtPypCsprReconstruct(), made, tmp_path)
    (tmp_path / "sets" / "sub.mrc").unlink()
    made.particles._firstDim.clear()
    assert "give a box of the map" in one_error(protocol)
    protocol.mapBox.set(16)
    assert protocol._validate() == []


def test_a_filter_of_nothing_is_refused(made, tmp_path) -> None:
    protocol = with_inputs(ProtPypCsprFilter(), made, tmp_path)
    protocol.byScore.set(2)
    assert "Nothing to filter by" in one_error(protocol)
    protocol.minProjections.set(5)
    assert protocol._validate() == []
    protocol.minProjections.set(6)
    assert "6 is more than the 5 images" in one_error(protocol)


def test_particles_without_scores_cannot_be_filtered_by_them(made, tmp_path) -> None:
    protocol = with_inputs(ProtPypCsprFilter(), made, tmp_path)
    for by_score in (0, 1):
        protocol.byScore.set(by_score)
        assert "The particles have no scores: refine them first" in one_error(protocol)
    with_inputs(protocol, scored(made), tmp_path)
    for score, good in ((0.0, True), (16.0, True), (16.1, False), (-0.1, False)):
        protocol.score.set(score)
        assert (protocol._validate() == []) == good
    assert one_error(protocol) == "Lowest score to keep: must be from 0 to 16.00, the best that a particle has."


def test_a_filter_says_what_each_rule_removed(made, tmp_path, monkeypatch) -> None:
    """The engine itself runs, on the sets."""
    protocol = with_inputs(ProtPypCsprFilter(), scored(made), tmp_path)
    monkeypatch.setattr(protocol, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    monkeypatch.setattr(protocol, "runEngine", lambda *words, **unused: main([str(word) for word in words]))
    protocol.byScore.set(1)
    protocol.score.set(12.0)
    protocol.distance.set(10000.0)
    protocol.convertStep([], -1, True)
    protocol.filterStep(protocol._rules())
    lines = protocol._summary()
    assert lines[:3] == ["2 of 8 particles are left.",
                         "Removed: 1 without a score, 2 below the score, 3 too near to a better one.",
                         "Score threshold 12.000: as given."]
    assert protocol._methods() == ["Particles were selected by a score of 12 or more and a distance of 10000 A or more from "
                                   "better particles (cspr)."]


@pytest.mark.parametrize("kind", [kind for kind in PROTOCOLS if kind is not ProtPypCsprRefine])
def test_every_protocol_has_a_sentence_for_the_methods(kind, tmp_path) -> None:
    protocol = kind()
    protocol.setWorkingDir(str(tmp_path))
    (sentence,) = protocol._methods()
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert "cspr" in sentence


def test_threads_are_shared_among_chunks(refine, made, tmp_path) -> None:
    refine.numberOfThreads.set(5)  # one of the host's threads is the master's
    refine.binThreads.set(3)
    assert (refine._concurrency(), refine._jobThreads()) == (4, 3)
    protocol = with_inputs(ProtPypCsprReconstruct(), made, tmp_path)  # of steps one after the other
    protocol.numberOfThreads.set(7)
    assert protocol._machine(1) == ["--processes", 2, "--threads", 3, "--memory", 0.0]
    assert protocol._machine(2) == ["--processes", 1, "--threads", 7, "--memory", 0.0]
    protocol.processes.set(7)
    assert protocol._machine(1)[:4] == ["--processes", 7, "--threads", 1]


def test_volumes_are_resampled_about_their_centre(tmp_path) -> None:
    """A ball off the centre stays where it is, in angstrom, on another grid."""
    z, y, x = (np.mgrid[:40, :40, :40] - 20) * 3.0
    ball = np.exp(-((x - 12.0) ** 2 + (y + 6.0) ** 2 + (z - 9.0) ** 2) / 2 / 10.0**2).astype(np.float32)
    write_map(tmp_path / "in.mrc", ball, 1.0)  # a header that says nothing: the set's sampling rate counts
    volume = Volume()
    volume.setFileName(str(tmp_path / "in.mrc:mrc"))
    volume.setSamplingRate(3.0)
    assert volumes.write_volume(volume, str(tmp_path / "same.mrc")) == (40, 3.0)
    same, pixel = read_map(tmp_path / "same.mrc")
    assert pixel == pytest.approx(3.0)
    np.testing.assert_array_equal(same, ball)
    assert volumes.write_volume(volume, str(tmp_path / "out.mrc"), 24, 5.0) == (24, 5.0)
    made, pixel = read_map(tmp_path / "out.mrc")
    z, y, x = (np.mgrid[:24, :24, :24] - 12) * 5.0
    wanted = np.exp(-((x - 12.0) ** 2 + (y + 6.0) ** 2 + (z - 9.0) ** 2) / 2 / 10.0**2)
    assert pixel == pytest.approx(5.0)
    np.testing.assert_allclose(made, wanted, atol=0.02)
    mask = volumes.resample(soft_sphere(40, 10.0, 3.0), 3.0, 24, 5.0, mask=True)
    assert mask.min() == 0.0
    assert mask.max() == 1.0
    assert mask.sum() * 125 == pytest.approx(soft_sphere(40, 10.0, 3.0).sum() * 27, rel=0.02)


def test_a_reference_that_is_no_cube_is_refused(tmp_path) -> None:
    volume = Volume()
    volume.setFileName(write_image(tmp_path / "flat.mrc", (4, 8, 8), 3.0))
    volume.setSamplingRate(3.0)
    with pytest.raises(InputError, match="must be a cube"):
        volumes.write_volume(volume, str(tmp_path / "out.mrc"))


def sign(tilt: int, hand: int, mirrored: bool, score: float, sigmas: float):
    return {"tilt_sign": tilt, "hand": hand, "mirrored_reference": mirrored, "score": score, "sigmas": sigmas}


@pytest.mark.parametrize("signs, advice", [
    ([sign(1, 1, False, 40.0, 0.0), sign(1, -1, False, 20.0, 9.0)], ""),  # as given is the best
    ([sign(1, -1, False, 41.0, 0.0), sign(1, 1, False, 40.0, 1.5)], ""),  # not sure
    ([sign(1, -1, False, 45.0, 0.0), sign(1, 1, False, 40.0, 5.0)], "other defocus handedness: mean score 45.00 against 40.00"),
    ([sign(-1, 1, True, 45.0, 0.0), sign(1, 1, False, 40.0, 5.0)], "negate the tilt angles and mirror the reference"),
])
def test_a_wrong_hand_stops_the_run(refine, tmp_path, monkeypatch, signs, advice) -> None:
    def run(*words, output, **unused):
        assert words[0] == "check"
        Path(output).write_text(json.dumps({"signs": signs}))

    monkeypatch.setattr(refine, "runEngine", run)
    monkeypatch.setattr(refine, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    if not advice:
        refine.checkHandStep(-1)
        return
    with pytest.raises(RuntimeError) as caught:
        refine.checkHandStep(-1)
    assert advice in str(caught.value)
    assert "5.0 standard errors" in str(caught.value)
