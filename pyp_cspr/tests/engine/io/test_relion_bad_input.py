"""RELION projects that cannot be read: one line says what is wrong and where, whatever is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import write_stack
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.io.star import read_star, write_star

from .projects import PIXEL, SIZES, TILTS, change, drop, edit, make_dataset


def break_truncated(folder):
    os.truncate(folder / "series 1.mrc", 5000)


def break_missing_image(folder):
    os.unlink(folder / "series 0.mrc")


def break_image_size(folder):
    write_stack(folder / "series 0.mrc", np.zeros((9, 10, 10), "i2"), 4.5)


def break_few_images(folder):
    write_stack(folder / "series 0.mrc", np.zeros((TILTS[0], SIZES[0][1], SIZES[0][0]), "i2"), PIXEL)


def break_drop(file, block, *labels):
    return lambda folder: drop(folder / file, block, *labels)


def break_change(file, block, label, row, value):
    return lambda folder: change(folder / file, block, label, row, value)


def break_empty_list(folder):
    blocks = read_star(folder / "particles.star")
    blocks["particles"].columns = {name: [] for name in blocks["particles"].columns}
    write_star(folder / "particles.star", blocks)


def break_mirror(folder):
    star = folder / "tilt_series" / "TS_a.star"
    drop(star, "TS_a", "rlnTomoYTilt")
    blocks = read_star(star)
    tilts = blocks["TS_a"]
    text = tilts.columns["rlnTomoProjZ"][1]
    numbers = [-float(number) for number in text.strip("[]").split(",")]
    tilts.columns["rlnTomoProjZ"][1] = "[" + ",".join(map(str, numbers)) + "]"
    write_star(star, blocks)


TILT = "tilt_series/TS_a.star"
BROKEN = {
    "truncated MRC": (break_truncated, "series 1.mrc: truncated"),
    "missing image": (break_missing_image, r"series TS_a: images .*series 0.mrc' do not exist"),
    "pixel size of the header": (break_image_size, "pixel size 4.5 A in its header, 3.7 A for series TS_a"),
    "more tilts than images": (break_few_images, r"series 0.mrc: 5 images, the star of series TS_a wants 6"),
    "no angles": (break_drop("particles.star", "particles", "rlnAngleRot"), "no column _rlnAngleRot"),
    "no defocus": (break_drop(TILT, "TS_a", "rlnDefocusU"), "TS_a.star: data_TS_a has no column _rlnDefocusU"),
    "no pixel size": (break_drop("tomograms.star", "global", "rlnTomoTiltSeriesPixelSize"), "_rlnTomoTiltSeriesPixelSize; add"),
    "no voltage": (break_drop("tomograms.star", "global", "rlnVoltage"), "no column _rlnVoltage"),
    "no series name": (break_drop("particles.star", "particles", "rlnTomoName"), "no column _rlnTomoName"),
    "unknown series": (break_change("particles.star", "particles", "rlnTomoName", 3, "TS_z"), "particle 4 is of series 'TS_z'"),
    "pixel size 0": (
        break_change("tomograms.star", "global", "rlnTomoTiltSeriesPixelSize", 1, "0"),
        "series TS_b: pixel size 0 A",
    ),
    "pixel sizes disagree": (
        break_change("particles.star", "optics", "rlnTomoTiltSeriesPixelSize", 0, "3.8"),
        "_rlnTomoTiltSeriesPixelSize 3.8, tomograms star 3.7",
    ),
    "pixel sizes disagree in the tomograms": (
        break_change("tomograms.star", "global", "rlnTomoTiltSeriesPixelSize", 0, "4.0"),
        "pixel size 3.7 A in its header, 4 A for series TS_a",
    ),
    "voltages disagree": (
        break_change("particles.star", "optics", "rlnVoltage", 0, "300"),
        "_rlnVoltage 300, tomograms star 200",
    ),
    "NaN coordinate": (
        break_change("particles.star", "particles", "rlnCenteredCoordinateYAngst", 2, "nan"),
        "row 3: _rlnCenteredCoordinateYAngst is 'nan'",
    ),
    "infinite shift": (break_change(TILT, "TS_a", "rlnTomoXShiftAngst", 0, "inf"), "_rlnTomoXShiftAngst is 'inf'"),
    "empty particle list": (break_empty_list, "particle list is empty"),
    "hand": (break_change("tomograms.star", "global", "rlnTomoHand", 0, "0"), "series TS_a: hand 0"),
    "half": (break_change("particles.star", "particles", "rlnRandomSubset", 0, "3"), "rlnRandomSubset is 3"),
    "same name": (break_change("particles.star", "particles", "rlnTomoParticleName", 0, "TS_a/1"), "'TS_a/1' occurs 2 times"),
    "same series": (break_change("tomograms.star", "global", "rlnTomoName", 1, "TS_a"), "unknown|occurs 2 times|TS_b"),
    "visible frames": (break_change("particles.star", "particles", "rlnTomoVisibleFrames", 0, "[1,1]"), "2 values for 5 tilts"),
    "visible text": (break_change("particles.star", "particles", "rlnTomoVisibleFrames", 0, "[1,1,1,1,2]"), "want \\[1,0"),
    "optics group": (break_change("particles.star", "particles", "rlnOpticsGroup", 5, "9"), "optics group 9"),
    "tilt star missing": (lambda folder: os.unlink(folder / TILT), "names 'tilt_series/TS_a.star', which does not exist"),
    "particles star missing": (lambda folder: os.unlink(folder / "particles.star"), "names 'particles.star'"),
    "no set": (lambda folder: os.unlink(folder / "optimisation_set.star"), "no optimisation_set.star in this folder"),
    "matrix": (
        lambda folder: (
            drop(folder / TILT, "TS_a", "rlnTomoYTilt"),
            change(folder / TILT, "TS_a", "rlnTomoProjX", 1, "[1,1,0,3]"),
        ),
        "tilt 2: its projection matrix",
    ),
    "mirror": (break_mirror, "tilt 2: its projection matrix is not a rotation"),
    "frame count": (
        break_change("tomograms.star", "global", "rlnTomoFrameCount", 0, "7"),
        "rlnTomoFrameCount 7, its table has 5",
    ),
    "slice": (break_change(TILT, "TS_a", "rlnMicrographName", 0, "x@a.mrc"), "NUMBER@STACK"),
    "binary": (lambda folder: (folder / "tomograms.star").write_bytes(os.urandom(2000)), "tomograms.star"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_bad_input_is_one_line(project, case):
    breaks, message = BROKEN[case]
    breaks(project)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(project)
    assert "\n" not in str(caught.value)


STACK_BROKEN = {
    "missing": (lambda folder: os.unlink(folder / "cut" / "4.mrcs"), r"cut/4.mrcs does not exist"),
    "images": (
        lambda folder: write_stack(folder / "cut" / "0.mrcs", np.zeros((3, 16, 16), "f2"), 9.25),
        "3 images, particle TS_a/0 has 5",
    ),
    "box": (
        lambda folder: write_stack(folder / "cut" / "3.mrcs", np.zeros((4, 18, 18), "f2"), 9.25),
        "18 x 18 pixels, rlnImageSize is 16",
    ),
    "pixel": (
        lambda folder: write_stack(folder / "cut" / "3.mrcs", np.zeros((4, 16, 16), "f2"), 9.9),
        "pixel size 9.9 A in its header",
    ),
    "image pixel": (break_change("particles.star", "optics", "rlnImagePixelSize", 0, "0"), "rlnImagePixelSize 0"),
    "image size": (break_drop("particles.star", "optics", "rlnImageSize"), "rlnImageSize 0"),
    "groups": (break_change("particles.star", "particles", "rlnOpticsGroup", 1, "2"), "_rlnVoltage 300|several optics groups"),
    "no optics": (lambda folder: edit(folder / "particles.star", "data_optics", "data_other"), "no data_optics"),
}


@pytest.mark.parametrize("case", list(STACK_BROKEN))
def test_bad_stacks_are_one_line(tmp_path, case):
    write_dataset(make_dataset(tmp_path, stacks=True), tmp_path)
    breaks, message = STACK_BROKEN[case]
    breaks(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_unwritable_folders(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset(tmp_path / "missing")
    (tmp_path / "file").write_text("data_\n_x 1\n")
    with pytest.raises(InputError, match="no _rlnTomoParticlesFile"):
        read_dataset(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        write_dataset(make_dataset(tmp_path), tmp_path / "file" / "out")


@pytest.fixture(scope="module")
def small_project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_dataset(make_dataset(folder), folder)
    return folder


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_fuzz_of_projects_gives_a_dataset_or_input_error(small_project, data):
    """Any value of any file replaced by something else: a data set or one line, nothing else."""
    file = small_project / data.draw(
        st.sampled_from(["particles.star", "tomograms.star", "tilt_series/TS_b.star", "optimisation_set.star"])
    )
    text = file.read_text()
    words = [i for i, word in enumerate(text.split(" ")) if word]
    place = data.draw(st.sampled_from(words))
    value = data.draw(
        st.sampled_from(
            ["", "-1", "0", "1e300", "-1e18", "nan", "x", "[1,2,3,4]", "[]", "'", "a b", "1@", "../..", "2.5", "é\n", "/"]
        )
    )
    pieces = text.split(" ")
    pieces[place] = value
    try:
        file.write_text(" ".join(pieces))
        try:
            read_dataset(small_project)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
    finally:
        file.write_text(text)
