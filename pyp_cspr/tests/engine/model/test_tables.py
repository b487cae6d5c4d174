"""Tables and the data set: schemas, selection, half-sets, and one line for each inconsistency."""

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import euler_to_matrix, tilt_to_matrix
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table


def make_dataset(tilts=(3, 2), particles=(4, 3)) -> Dataset:
    """Two series ``a`` and ``b`` with different numbers of tilts and particles, mixed in the particle table."""
    images = {"images": ["/a.mrc", "/b.mrc"], "image_size": [[100, 80]] * 2, "pixel": [2.0, 2.0]}
    series = Table(SERIES, {"name": ["a", "b"], **images})
    of_tilt = np.repeat([0, 1], tilts)
    angles = np.concatenate([np.linspace(-40, 40, n) for n in tilts])
    exposures = Table(EXPOSURES, {
        "series": of_tilt,
        "slice": np.concatenate([np.arange(n) for n in tilts]),
        "rotation": tilt_to_matrix(np.zeros(len(angles)), angles, np.full(len(angles), 85.0)),
        "shift": np.arange(2.0 * len(angles)).reshape(-1, 2),
        "defocus": np.tile([2e4, 1.9e4, 30.0], (len(angles), 1)),
    })
    of_particle = np.random.default_rng(0).permutation(np.repeat([0, 1], particles))
    count = len(of_particle)
    random = np.random.default_rng(1)
    table = Table(PARTICLES, {
        "name": [f"p{i}" for i in range(count)],
        "series": of_particle,
        "position": random.normal(scale=50, size=(count, 3)),
        "rotation": euler_to_matrix(*random.uniform(0, 180, (3, count))),
    })
    visible = np.ones((count, max(tilts)), bool)
    return Dataset(series, exposures, table, visible, extra={"rlnClass": [str(i) for i in range(count)]})


def test_a_good_data_set_validates():
    make_dataset().validate()


def test_every_column_has_a_unit_or_says_what_it_is():
    for schema in (SERIES, EXPOSURES, PARTICLES):
        names = [column.name for column in schema]
        assert len(set(names)) == len(names)
        assert all(column.doc for column in schema)


def test_a_table_fills_in_defaults_and_keeps_types():
    table = make_dataset().series
    assert table["hand"].tolist() == [-1.0, -1.0]
    assert table["contrast"].tolist() == [-1.0, -1.0]
    assert table["specimen_size"].shape == (2, 3)
    assert table["premultiplied"].dtype == bool
    assert table["image_size"].dtype == np.int64


def test_a_table_refuses_unknown_missing_and_misshapen_columns():
    good = {"name": ["a"], "images": [""], "image_size": [[4, 4]], "pixel": [1.0]}
    with pytest.raises(KeyError, match="unknown column 'pixle'"):
        Table(SERIES, {**good, "pixle": [1.0]})
    with pytest.raises(KeyError, match="'pixel' is missing"):
        Table(SERIES, {name: value for name, value in good.items() if name != "pixel"})
    with pytest.raises(ValueError, match="column 'image_size'"):
        Table(SERIES, {**good, "image_size": [4]})
    with pytest.raises(ValueError, match="column 'pixel'"):
        Table(SERIES, {**good, "pixel": [1.0, 2.0]})


def test_setting_a_column_keeps_its_shape_and_longer_names():
    table = make_dataset().particles
    table["weight"] = 0.5
    assert (table["weight"] == 0.5).all()
    table["name"] = [f"a much longer name {i}" for i in range(len(table))]
    assert table["name"][0] == "a much longer name 0"
    with pytest.raises(ValueError, match="broadcast"):
        table["position"] = np.zeros((2, 3))


def test_a_taken_or_copied_table_is_independent():
    table = make_dataset().particles
    for other in (table.copy(), table.take(np.arange(len(table)))):
        other["position"] = 0.0
    assert np.abs(table["position"]).min() > 0


def test_rows_of_a_series_and_their_projections():
    data = make_dataset()
    for series in (0, 1):
        particles, exposures = data.particles_of(series), data.exposures_of(series)
        assert (data.particles["series"][particles] == series).all()
        seen, depth = data.project(series)
        assert seen.shape == (len(particles), len(exposures), 2)
        expected = data.exposures["rotation"][exposures[-1]] @ data.particles["position"][particles[0]]
        np.testing.assert_allclose(seen[0, -1], expected[:2] + data.exposures["shift"][exposures[-1]])
        assert depth[0, -1] == pytest.approx(expected[2])


def test_hidden_and_excluded_projections_are_not_used():
    data = make_dataset()
    first = data.particles_of(1)[0]
    data.visible[first, 1] = False
    data.exposures["enabled"][data.exposures_of(1)[0]] = False
    assert data.used(1).shape == (3, 2)
    assert data.used(1)[0].tolist() == [False, False]
    assert data.used(1)[1].tolist() == [False, True]
    assert data.used(0).all()


def test_selected_particles_keep_what_belongs_to_them():
    data = make_dataset()
    data.visible[5, 0] = False
    chosen = data.select_particles(data.particles["series"] == 1)
    rows = data.particles_of(1)
    assert chosen.particles["name"].tolist() == [f"p{i}" for i in rows]
    assert chosen.extra["rlnClass"] == [str(i) for i in rows]
    np.testing.assert_array_equal(chosen.visible, data.visible[rows])
    chosen.validate()


def test_halves_are_even_within_every_series_and_stay_once_given():
    data = make_dataset(particles=(9, 8))
    data.particles["half"][data.particles_of(0)[2]] = 2
    data.assign_halves()
    half = data.particles["half"]
    assert set(half.tolist()) == {1, 2}
    assert half[data.particles_of(0)[2]] == 2
    assert (half[data.particles_of(0)] == 1).sum() == 4
    assert (half[data.particles_of(1)] == 1).sum() == 4
    before = half.copy()
    data.assign_halves()
    np.testing.assert_array_equal(data.particles["half"], before)


def test_series_of_one_particle_fill_both_halves():
    data = make_dataset(particles=(1, 1))
    data.assign_halves()
    assert sorted(data.particles["half"].tolist()) == [1, 2]


def _set(table, column, row, value):
    def change(data):
        getattr(data, table)[column][row] = value

    return change


def _drop_exposures(data):
    data.exposures = data.exposures.take(data.exposures["series"] == 0)


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: setattr(d, "particles", d.particles.take(slice(0))), "particle list is empty"),
    (lambda d: setattr(d, "series", d.series.take(slice(0))), "no tilt series"),
    (_set("particles", "name", 3, "p1"), "particle 'p1' occurs 2 times"),
    (_set("series", "name", 1, "a"), "series 'a' occurs 2 times"),
    (_set("particles", "position", (2, 1), np.nan), "particles p2: position is not a number"),
    (_set("exposures", "defocus", (4, 0), np.inf), "exposures b exposure 4: defocus is not a number"),
    (_set("series", "cs", 1, np.nan), "series b: cs is not a number"),
    (_set("series", "pixel", 0, 0.0), "series a: pixel size 0 A"),
    (_set("series", "voltage", 1, -300.0), "series b: voltage -300 kV"),
    (_set("series", "hand", 1, 0.0), "series b: hand 0"),
    (_drop_exposures, "series b: no tilt images"),
    (_set("exposures", "rotation", 3, 1.1 * np.eye(3)), "exposure 3: its matrix is not a rotation"),
    (_set("particles", "rotation", 6, np.zeros((3, 3))), "particle 6: its matrix is not a rotation"),
])
def test_each_inconsistency_is_one_line_that_says_where(change, message):
    data = make_dataset()
    data.source = "set.star"
    change(data)
    with pytest.raises(InputError) as caught:
        data.validate()
    text = str(caught.value)
    assert text.startswith("set.star: ")
    assert message in text
    assert "\n" not in text
    assert ";" in text  # what to do about it


def test_a_missing_score_is_no_error():
    data = make_dataset()
    assert np.isnan(data.particles["score"]).all()
    data.validate()


def test_a_mirrored_matrix_is_refused():
    data = make_dataset()
    data.particles["rotation"][2] = data.particles["rotation"][2] @ np.diag([1.0, 1.0, -1.0])
    with pytest.raises(InputError, match="particle 2: its matrix is not a rotation"):
        data.validate()
