"""PYP's tables and the data set: nothing is lost there and back, and PYP's own tables put particles where PYP had them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pyp_cspr.engine.core.geometry import matrix_to_euler, matrix_to_tilt, pyp_tilt_matrix, rotation_angle
from pyp_cspr.engine.core.splines import grid_weights
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io import pyp_aligned
from pyp_cspr.engine.io import pyp_geometry as pyp
from pyp_cspr.engine.io.cistem import CistemTable, ExtendedTable, format_cistem, format_extended, parse_cistem, parse_extended
from pyp_cspr.engine.io.pyp_dataset import (
    PypOptics,
    PypSeries,
    SeriesTables,
    read_pyp_dataset,
    series_of,
    start_dataset,
    write_pyp_dataset,
)
from pyp_cspr.engine.io.relion import read_dataset, read_tomograms, write_dataset
from pyp_cspr.engine.model.tables import PARTICLES, Dataset, Table

PIXEL, IMAGE, SPECIMEN = 1.7, (400, 421), (440, 420, 160)


def through_files(tables):
    """As the files' bytes hold them."""
    result = {}
    for name, one in tables.items():
        extended = parse_extended(format_extended(ExtendedTable(CistemTable(one.particles), CistemTable(one.tilts))), "x")
        projections = parse_cistem(format_cistem(CistemTable(one.projections)), "x")
        result[name] = SeriesTables(projections.columns, extended.particles.columns, extended.tilts.columns)
    return result


def make_series(random, magnification=1.0, n=7) -> PypSeries:
    axis = -85.3 + random.normal(0, 0.2, n)
    linear = np.swapaxes(pyp_tilt_matrix(np.zeros(n), axis), 1, 2)[:, :2, :2] * magnification
    ctf = np.stack([random.uniform(2e4, 4e4, n), random.uniform(2e4, 4e4, n), random.uniform(0, 180, n)], axis=1)
    return PypSeries("TS_1", "/nowhere/TS_1.mrc", IMAGE, SPECIMEN, linear, random.normal(0, 8, (n, 2)), np.linspace(-54, 54, n),
                     random.permutation(n), ctf, np.arange(n) != 5, random.uniform(0.3, 0.7, (30, 3)) * SPECIMEN)


def started(random, optics, series, count=30):
    index = np.arange(count)
    rotation = Rotation.from_quat(random.normal(size=(count, 4))).as_matrix()
    return start_dataset([series], optics, {"TS_1": (index, rotation, random.normal(0, 2, (count, 3)))})


def refined(random, dataset: Dataset) -> Dataset:
    """As a refinement leaves it: everything moved a little."""
    moved = Dataset(dataset.series.copy(), dataset.exposures.copy(), dataset.particles.copy(), dataset.visible.copy(),
                    dataset.box, dataset.box_pixel)
    n, m = len(moved.exposures), len(moved.particles)
    tilt = matrix_to_tilt(moved.exposures["rotation"])
    moved.exposures["rotation"] = pyp_tilt_matrix(tilt[1] + random.normal(0, 0.4, n), -tilt[2] + random.normal(0, 0.4, n))
    moved.exposures["shift"] += random.normal(0, 9, (n, 2))
    moved.exposures["defocus"][:, :2] += random.normal(0, 300, (n, 1))
    moved.exposures["phase_shift"][:] = random.uniform(0, 120, n)
    moved.particles["position"] += random.normal(0, 5, (m, 3))
    moved.particles["score"][:] = random.uniform(5, 40, m)
    moved.particles["weight"][:] = random.uniform(0.1, 1, m)
    moved.assign_halves()
    moved.visible[3, 2] = False
    return moved


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.particles["name"].tolist() == other.particles["name"].tolist()
    for name in ("half", "series"):
        assert one.particles[name].tolist() == other.particles[name].tolist()
    for name in ("slice", "order"):
        assert one.exposures[name].tolist() == other.exposures[name].tolist()
    assert_allclose(other.particles["position"], one.particles["position"], atol=1e-5)
    assert rotation_angle(one.particles["rotation"], other.particles["rotation"]).max() < 4e-5  # float32 of 360 degrees
    assert rotation_angle(one.exposures["rotation"], other.exposures["rotation"]).max() < 4e-5
    assert_allclose(other.exposures["shift"], one.exposures["shift"], atol=1e-4)
    assert_allclose(other.particles["score"], one.particles["score"], rtol=1e-6)
    assert_allclose(other.particles["weight"], one.particles["weight"], rtol=1e-6)
    used = one.exposures["enabled"]
    assert_allclose(other.exposures["defocus"][used], one.exposures["defocus"][used], atol=4e-3)
    assert_allclose(other.exposures["phase_shift"][used], one.exposures["phase_shift"][used], atol=1e-4)
    assert (other.used(0) == one.used(0)).all()
    # what images are cut by: where each projection is, and its defocus
    assert_allclose(other.project(0)[0][one.used(0)], one.project(0)[0][one.used(0)], atol=3e-3)


@pytest.mark.parametrize("hand", [False, True])
@pytest.mark.parametrize("magnification", [1.0, 1.015])
def test_there_and_back(random, hand, magnification) -> None:
    optics = PypOptics(PIXEL, hand=1.0 if hand else -1.0, dose=3.0, box=64, bin=2)
    series = make_series(random, magnification)
    dataset = refined(random, started(random, optics, series))
    tables, warnings = write_pyp_dataset(dataset, {"TS_1": series})
    again = read_pyp_dataset([series], optics, through_files(tables))
    assert warnings == []
    assert_same(dataset, again)
    assert (again.box, again.box_pixel) == (64, 3.4)
    assert again.series["deformation_grid"][0] == (2 if magnification > 1 else 0)
    assert_allclose(again.exposures["dose_before"], series.order * 3.0)


def test_offsets_of_particles_defocus_survive(random) -> None:
    optics, series = PypOptics(PIXEL), make_series(random)
    dataset = refined(random, started(random, optics, series))
    offset = random.normal(0, 200, len(dataset.particles))
    dataset.particles["defocus_offset"] = offset - offset.mean()
    again = read_pyp_dataset([series], optics, through_files(write_pyp_dataset(dataset, {"TS_1": series})[0]))
    assert_allclose(again.particles["defocus_offset"], dataset.particles["defocus_offset"], atol=0.1)


def test_a_deformation_of_a_refinement_survives(random) -> None:
    optics, series = PypOptics(PIXEL), make_series(random)
    dataset = refined(random, started(random, optics, series))
    dataset.series["deformation_grid"][0] = 2
    dataset.exposures["deformation"][:, :8] = random.normal(0, 15, (7, 8))
    again = read_pyp_dataset([series], optics, through_files(write_pyp_dataset(dataset, {"TS_1": series})[0]))
    used = dataset.used(0)
    assert_allclose(again.project(0)[0][used], dataset.project(0)[0][used], atol=0.1)


def test_projections_are_what_pyp_computes_from_particles_and_tilts(random) -> None:
    """PSI to SHY of the table against PYP's formulas with the table's own particles and tilts, and whole crops."""
    optics, series = PypOptics(PIXEL), make_series(random)
    dataset = refined(random, started(random, optics, series))
    one = write_pyp_dataset(dataset, {"TS_1": series})[0]["TS_1"]
    p, table, blocks = one.projections, one.particles, one.tilts
    rows = {int(t): k for k, t in enumerate(blocks["TIND"])}
    for row in range(0, len(p["PSI"]), 7):
        i, k = int(p["PIND"][row]), rows[int(p["TIND"][row])]
        pose = Rotation.from_euler("ZYZ", [-table[name][i] for name in ("PPHI", "PTHETA", "PPSI")], degrees=True).as_matrix()
        seen = Rotation.from_euler("ZY", [-blocks["TILTAXIS"][k], blocks["TILTANG"][k]], degrees=True).as_matrix()
        matrix = Rotation.from_euler("ZYZ", [p[name][row] for name in ("PHI", "THETA", "PSI")], degrees=True).as_matrix()
        assert_allclose(matrix, pose @ seen.T, atol=1e-9)  # E_pk = E_p M_k^T
        s = np.array([table[f"PSHIFT_{axis}"][i] for axis in "XYZ"])
        shift = -(seen @ s)[:2] + (blocks["TSHIFT_X"][k], blocks["TSHIFT_Y"][k])
        left = np.array([p["X_SHIFT"][row], p["Y_SHIFT"][row]]) - shift
        assert np.abs(left).max() <= PIXEL / 2 + 1e-6  # what rounding the crop leaves, which PYP would drop
    for name in ("ORIGINAL_X_POSITION", "ORIGINAL_Y_POSITION"):
        assert (p[name] == np.rint(p[name])).all()


def test_trap_film_index_in_image_is_active(random) -> None:
    """0 is the first film, not an inactive image; below 0 is inactive."""
    optics, series = PypOptics(PIXEL), make_series(random)
    dataset = refined(random, started(random, optics, series))
    tables = through_files(write_pyp_dataset(dataset, {"TS_1": series})[0])
    first = read_pyp_dataset([series], optics, tables)
    tables["TS_1"].projections["IMAGE_IS_ACTIVE"][:] = 4
    assert (read_pyp_dataset([series], optics, tables).visible == first.visible).all()
    assert first.visible.sum() == len(tables["TS_1"].projections["PIND"])
    tables["TS_1"].projections["IMAGE_IS_ACTIVE"][0] = -1
    assert read_pyp_dataset([series], optics, tables).visible.sum() == first.visible.sum() - 1


def test_trap_phase_shift_in_radians_or_degrees(random) -> None:
    optics, series = PypOptics(PIXEL), make_series(random)
    tables = through_files(write_pyp_dataset(refined(random, started(random, optics, series)), {"TS_1": series})[0])
    table = tables["TS_1"].projections
    used = series.enabled
    for value, degrees in ((0.5 * np.pi, 90.0), (90.0, 90.0), (0.0, 0.0)):
        table["PHASE_SHIFT"][:] = value
        assert_allclose(read_pyp_dataset([series], optics, tables).exposures["phase_shift"][used], degrees, atol=1e-4)
    rising = np.linspace(3.0, 90.0, len(series.tilt))  # small ones as well, where others are too large for radians
    table["PHASE_SHIFT"][:] = rising[table["IMIND"]]
    assert_allclose(read_pyp_dataset([series], optics, tables).exposures["phase_shift"][used], rising[used], atol=1e-4)


# --- PYP's own tables ---------------------------------------------------------------------------------------------------


def pyp_made(random, series, turn=0.0, shifts=0.0):
    """Tables as PYP's refinement leaves them, by document 02 alone: crops at the floor, at the alignment's angles; shifts of s
    and T_k. Returns them and where each projection is, in raw pixels."""
    m, n = 30, len(series.tilt)
    stored = series.positions[:m]
    s = random.normal(0, 3, (m, 3))
    tilt_shift = random.normal(0, shifts, (n, 2)) if shifts else np.zeros((n, 2))
    angles = random.uniform(-180, 180, (m, 3))
    tilt = series.tilt + turn * np.sign(np.arange(n) - 2.5)
    axis = pyp.tilt_axis(series.linear)
    crop = np.floor(pyp.raw_positions(stored, SPECIMEN, series.tilt, series.linear, series.offset, IMAGE))
    seen = np.stack([Rotation.from_euler("ZY", [-b, a], degrees=True).as_matrix() for a, b in zip(tilt, axis)])
    shift = -np.einsum("eij,pj->pei", seen, s)[..., :2] + tilt_shift
    p, e = [index.ravel() for index in np.meshgrid(np.arange(m), np.arange(n), indexing="ij")]
    zero = np.zeros(m * n)
    projections = {name: zero.copy() for name in ("PHASE_SHIFT", "IMAGE_IS_ACTIVE", "RIND", "FIND", "SCORE")}
    projections.update(
        X_SHIFT=shift[p, e, 0], Y_SHIFT=shift[p, e, 1], ORIGINAL_X_POSITION=crop[p, e, 0], ORIGINAL_Y_POSITION=crop[p, e, 1],
        IMIND=e, PIND=p, TIND=series.order[e], OCCUPANCY=zero + 100, DEFOCUS_1=zero + 3e4, DEFOCUS_2=zero + 3e4,
        DEFOCUS_ANGLE=zero)
    particles = {"PIND": np.arange(m), "PSCORE": np.full(m, 20.0), "POCC": np.full(m, 100.0)}
    for i, name in enumerate("XYZ"):
        particles[f"PSHIFT_{name}"], particles[f"ORIGINAL_{name}_POSITION_3D"] = s[:, i], stored[:, i]
    particles.update(PPSI=angles[:, 0], PTHETA=angles[:, 1], PPHI=angles[:, 2])
    tilts = {"TIND": series.order, "RIND": np.zeros(n), "TSHIFT_X": tilt_shift[:, 0], "TSHIFT_Y": tilt_shift[:, 1],
             "TILTANG": tilt, "TILTAXIS": axis}
    return SeriesTables(projections, particles, tilts), crop + shift / PIXEL


def raw(dataset, u):
    return pyp.image_to_pixel(u, IMAGE, PIXEL)


def test_trap_floor_rounded_centres(random) -> None:
    """PYP's crops are rounded down, and its tilt shifts absorb the half pixel that is lost; ours must not lose it again."""
    optics, series = PypOptics(PIXEL), make_series(random)
    tables, where = pyp_made(random, series, shifts=12.0)
    dataset = read_pyp_dataset([series], optics, {"TS_1": tables})
    found = raw(dataset, dataset.project(0)[0])
    error = (found - where).reshape(-1, 2)
    assert np.abs(error.mean(axis=0)).max() < 0.02  # no half pixel
    assert np.sqrt((error**2).mean(axis=0)).max() < 0.32  # the floor's own 1/sqrt(12)
    # without regard to the crops every projection would be half a pixel off
    base = pyp.pixel_to_image(pyp.raw_shift(series.linear, series.offset) + np.array(IMAGE) / 2, IMAGE, PIXEL)
    naive = dataset.project(0)[0] - dataset.exposures["shift"] + base + np.stack(
        [tables.tilts["TSHIFT_X"], tables.tilts["TSHIFT_Y"]], axis=1)
    assert_allclose((raw(dataset, naive) - where).mean(axis=(0, 1)), 0.5, atol=0.06)


def test_trap_shifts_before_the_first_refinement_have_the_wrong_sign(random) -> None:
    """X_SHIFT = (floor(u) - u) pixel bin: taken at its word it would move everything by up to two pixels."""
    optics, series = PypOptics(PIXEL, bin=2), make_series(random)
    (projections, particles, tilts), _ = pyp_made(random, series)
    for name in "XYZ":
        particles[f"PSHIFT_{name}"][:] = 0.0
    exact = pyp.raw_positions(series.positions, SPECIMEN, series.tilt, series.linear, series.offset, IMAGE)
    rest = (np.floor(exact) - exact)[projections["PIND"], projections["IMIND"]] * PIXEL * 2
    projections["X_SHIFT"], projections["Y_SHIFT"] = rest[:, 0], rest[:, 1]
    dataset = read_pyp_dataset([series], optics, {"TS_1": SeriesTables(projections, particles, tilts)})
    assert_allclose(raw(dataset, dataset.project(0)[0]), exact, atol=1e-9)


def test_trap_pyps_crops_do_not_move_with_refined_tilt_angles(random) -> None:
    """Tilt angles refined by 3 deg turn the projections, but PYP's crops stay: particles are where they were cut."""
    optics, series = PypOptics(PIXEL), make_series(random)
    series = replace(series, positions=(series.positions - np.array(SPECIMEN) / 2) * (2.4, 2.4, 0.2) + np.array(SPECIMEN) / 2)
    tables, where = pyp_made(random, series, turn=3.0, shifts=12.0)
    dataset = read_pyp_dataset([series], optics, {"TS_1": tables})
    error = (raw(dataset, dataset.project(0)[0]) - where).reshape(-1, 2)
    assert dataset.series["deformation_grid"][0] >= 2
    assert np.sqrt((error**2).mean()) < 1.0
    rigid = dataset.project(0)[0] - np.einsum(
        "pec,eci->pei", grid_weights(dataset.project(0)[0] - dataset.exposures["shift"], dataset.field(0),
                                     int(dataset.series["deformation_grid"][0])), dataset.deformations(0))
    assert np.sqrt(((raw(dataset, rigid) - where) ** 2).mean()) > 1.5
    assert_allclose(matrix_to_tilt(dataset.exposures["rotation"])[1], tables.tilts["TILTANG"], atol=1e-9)


def test_regions_become_mean_tilts_with_a_field(random) -> None:
    """Two regions per tilt (piecewise constant in PYP): where particles are is kept, as far as a smooth field can."""
    optics, series = PypOptics(PIXEL), make_series(random)
    (projections, particles, tilts), _ = pyp_made(random, series)
    region = (series.positions[:, 0] > SPECIMEN[0] / 2).astype(int)
    both = {name: np.concatenate([values, values]) for name, values in tilts.items()}
    n = len(series.tilt)
    both["RIND"][n:] = 1
    both["TSHIFT_X"][n:] = 14.0
    projections["RIND"] = region[projections["PIND"]]
    projections["X_SHIFT"] = projections["X_SHIFT"] + 14.0 * projections["RIND"]
    dataset = read_pyp_dataset([series], optics, {"TS_1": SeriesTables(projections, particles, both)})
    where = np.stack([projections[f"ORIGINAL_{c}_POSITION"] + projections[f"{c}_SHIFT"] / PIXEL for c in "XY"], axis=-1)
    error = raw(dataset, dataset.project(0)[0])[projections["PIND"], projections["IMIND"]] - where
    assert np.sqrt((error**2).mean()) < 0.6 * 14.0 / PIXEL / 2
    assert_allclose(error.mean(axis=0), 0.0, atol=0.05)


@pytest.mark.parametrize("damage, words", [
    (lambda t: t.projections.__setitem__("IMIND", t.projections["IMIND"] + 3), "IMIND"),
    (lambda t: t.projections.__setitem__("TIND", t.projections["TIND"] + 1), "TIND"),
    (lambda t: t.projections.__setitem__("PIND", t.projections["PIND"] + 1), "PIND 30"),
    (lambda t: t.projections.__setitem__("RIND", t.projections["RIND"] + 1), "no tilt"),
    (lambda t: t.projections.__setitem__("FIND", t.projections["FIND"] + 1), "frames"),
    (lambda t: t.particles.__setitem__("PIND", t.particles["PIND"] * 0), "twice"),
])
def test_tables_that_contradict_each_other_are_refused(random, damage, words) -> None:
    series = make_series(random)
    tables, _ = pyp_made(random, series)
    damage(tables)
    with pytest.raises(InputError, match=words):
        read_pyp_dataset([series], PypOptics(PIXEL), {"TS_1": tables})


@pytest.mark.parametrize("table, column", [
    (table, column) for table, columns in (
        ("projections", (*pyp_aligned.PROJECTIONS, *pyp_aligned.PROJECTION_KEYS)),
        ("particles", ("PIND", *pyp_aligned.PARTICLES)),
        ("tilts", ("TIND", "RIND", *pyp_aligned.TILTS))) for column in columns])
def test_a_column_that_is_missing_or_holds_no_numbers_is_named(random, table, column) -> None:
    series = make_series(random)
    tables, _ = pyp_made(random, series)
    columns = getattr(tables, table)
    whole = np.asarray(columns[column], float)
    for value in (None, np.nan, np.inf, 1e30, 0.5):
        if value is None:
            del columns[column]
        elif value != 0.5 or column.endswith("IND") or column == "IMAGE_IS_ACTIVE":
            columns[column] = np.where(np.arange(len(whole)) == 1, value, whole)
        else:
            continue
        with pytest.raises(InputError, match=f"{table}: (no column {column};|row 2: {column} is )"):
            read_pyp_dataset([series], PypOptics(PIXEL), {"TS_1": tables})


def test_a_table_of_images_of_another_size_is_refused(random) -> None:
    """PIXEL_SIZE is the images' pixel times a whole binning, or not known."""
    series = make_series(random)
    tables, _ = pyp_made(random, series)
    for times, good in ((1.0, True), (4.0, True), (0.0, True), (0.5, False), (1.5, False), (-1.0, False)):
        size = times * PIXEL
        tables.projections["PIXEL_SIZE"] = np.full(len(tables.projections["PIND"]), size)
        if good:
            read_pyp_dataset([series], PypOptics(PIXEL), {"TS_1": tables})
        else:
            with pytest.raises(InputError, match=f"PIXEL_SIZE is {size:g} A, no multiple of the images' 1.7 A"):
                read_pyp_dataset([series], PypOptics(PIXEL), {"TS_1": tables})


def test_a_box_of_any_pixel_is_written_and_read(random) -> None:
    optics, series = PypOptics(PIXEL), make_series(random)
    dataset = refined(random, started(random, optics, series))
    for box_pixel, size in ((3 * PIXEL, 3 * PIXEL), (2.3 * PIXEL, PIXEL), (0.0, PIXEL)):
        dataset.box_pixel = box_pixel
        tables = write_pyp_dataset(dataset, {"TS_1": series})[0]
        assert_allclose(tables["TS_1"].projections["PIXEL_SIZE"], size)
        read_pyp_dataset([series], optics, through_files(tables))


def test_particles_that_no_tilt_sees_are_said_to_lose_their_half_set(random) -> None:
    optics, series = PypOptics(PIXEL), make_series(random)
    dataset = refined(random, started(random, optics, series))
    dataset.visible[[2, 7]] = False
    dataset.visible[9] = ~series.enabled  # in nothing but an excluded view
    tables, warnings = write_pyp_dataset(dataset, {"TS_1": series})
    assert len(warnings) == 1
    assert "TS_1: no tilt sees 3 of its particles" in warnings[0]
    half = read_pyp_dataset([series], optics, through_files(tables)).particles["half"]
    assert np.flatnonzero(half == 0).tolist() == [2, 7, 9]


def test_positions_go_by_index(random) -> None:
    series = make_series(random)
    places = random.permutation(30)
    named = replace(series, positions=series.positions[places], indices=places)
    assert_allclose(named.positions_of([4, 17, 4], "x"), series.positions[[4, 17, 4]])
    assert named.positions_of([], "x").shape == (0, 3)
    for missing in (30, -1):
        with pytest.raises(InputError, match=f"x: series TS_1: particle {missing}, but 30 positions are known and none is its"):
            named.positions_of([3, missing], "x")


def test_positions_that_are_missing_are_named(random) -> None:
    series = replace(make_series(random), positions=np.zeros((3, 3)))
    with pytest.raises(InputError, match="particle 3, but 3 positions"):
        started(random, PypOptics(PIXEL), series)


# --- RELION -> PYP -> RELION --------------------------------------------------------------------------------------------


def test_relion_stars_survive_pyps_tables(shared_data: Path, tmp_path, random) -> None:
    """Five real series: every number of the stars comes back to the digits that they are written with, or to float32's."""
    series, exposures = read_tomograms(shared_data / "metadata/relion5_tomo_project/tilt_series_metadata/tilt_series.star")
    count = 40
    owner = np.repeat(np.arange(len(series)), count)
    particles = Table(PARTICLES, {
        "name": [f"{series['name'][row]}/{i}" for i, row in enumerate(owner)],
        "series": owner,
        "position": np.round(random.uniform(-1500, 1500, (len(owner), 3)) * (1, 1, 0.3), 6),
        "rotation": Rotation.from_quat(random.normal(size=(len(owner), 4))).as_matrix(),
    })
    tilts = np.bincount(exposures["series"])
    visible = np.arange(tilts.max()) < tilts[owner][:, None]
    first = Dataset(series, exposures, particles, visible, 96, 2.7)
    first.assign_halves()
    known = [series_of(first, row) for row in range(len(series))]
    tables, warnings = write_pyp_dataset(first, {one.name: one for one in known})
    assert warnings == []
    optics = PypOptics(float(series["pixel"][0]), amplitude_contrast=0.1, dose=3.0, hand=1.0, box=96, bin=2)
    second = read_pyp_dataset(known, optics, through_files(tables))
    write_dataset(second, tmp_path)
    last = read_dataset(tmp_path, need_images=False)
    for row in range(len(series)):
        one, other = first.exposures.take(first.exposures_of(row)), last.exposures.take(last.exposures_of(row))
        mine, theirs = np.argsort(one["order"]), np.argsort(other["order"])
        angles = [np.stack(matrix_to_tilt(table["rotation"][rows])) for table, rows in ((one, mine), (other, theirs))]
        assert_allclose(angles[1], angles[0], atol=5e-6)
        assert_allclose(other["shift"][theirs], one["shift"][mine], atol=2e-5)
        assert_allclose(other["defocus"][theirs], one["defocus"][mine], atol=4e-3)
        for name in ("dose", "dose_before", "order", "phase_shift"):
            assert_allclose(other[name][theirs], one[name][mine], atol=1e-6)
    assert_allclose(last.particles["position"], first.particles["position"], atol=1e-6)
    assert rotation_angle(last.particles["rotation"], first.particles["rotation"]).max() < 4e-5
    for a, b in zip(matrix_to_euler(last.particles["rotation"]), matrix_to_euler(first.particles["rotation"])):
        assert np.abs((a - b + 180) % 360 - 180).max() < 3e-5
    assert (last.particles["half"] == first.particles["half"]).all()
    assert (last.series["specimen_size"] == first.series["specimen_size"]).all()
