from __future__ import annotations

import struct

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.cistem import (
    CistemTable,
    ExtendedTable,
    column_statistics,
    films,
    new_projections,
    parse_cistem,
    read_cistem,
    read_extended,
    read_stat,
    write_cistem,
    write_extended,
)
from pyp_cspr.engine.io.cistem_columns import DTYPES, IDS, PARTICLE_COLUMNS, PROJECTION_COLUMNS, TILT_COLUMNS, TYPES
from pyp_cspr.tests.golden import cistem as golden


def random_bits(random, count, kind):
    """Values with any bits that a file can hold, infinities and NaN with payloads among the floats."""
    dtype = np.dtype(DTYPES[kind])
    return np.frombuffer(random.bytes(count * dtype.itemsize), dtype).copy()


def random_table(random, count, columns):
    return CistemTable({name: random_bits(random, count, kind) for name, _, kind in columns})


def assert_same_bits(first, second):
    assert list(first.columns) == list(second.columns)
    for name, values in first.columns.items():
        assert values.dtype == second.columns[name].dtype, name
        assert values.tobytes() == second.columns[name].tobytes(), name


def test_golden_projections(tmp_path):
    path = tmp_path / "a.cistem"
    path.write_bytes(golden.PROJECTIONS)
    table = read_cistem(path)
    assert len(table) == 2
    assert list(table.columns) == golden.NAMES
    assert table.ids["ORIGINAL_Y_POSITION"] == 17179869184
    for name, values in golden.VALUES.items():
        assert table.columns[name].tolist() == (np.float32(values).tolist() if TYPES[name] == 3 else values), name
    write_cistem(tmp_path / "b.cistem", table)
    assert (tmp_path / "b.cistem").read_bytes() == golden.PROJECTIONS


def test_golden_extended(tmp_path):
    path = tmp_path / "a_extended.cistem"
    path.write_bytes(golden.EXTENDED)
    extended = read_extended(path)
    assert extended.particles.columns["PIND"].tolist() == [0, 7]
    assert extended.particles.columns["PSHIFT_Z"].tolist() == [-5.75, 0.5]
    assert extended.particles.columns["PPHI"].tolist() == [-90.0, 12.5]
    assert extended.particles.columns["ORIGINAL_Z_POSITION_3D"].tolist() == [128.0, 64.0]
    assert extended.particles.columns["POCC"].tolist() == [100.0, 0.0]
    assert extended.tilts.columns["RIND"].tolist() == [0, 1, 0]
    assert extended.tilts.columns["TILTAXIS"].tolist() == [-85.5, -85.25, -85.5]
    write_extended(tmp_path / "b.cistem", extended)
    assert (tmp_path / "b.cistem").read_bytes() == golden.EXTENDED


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_every_bit_survives(tmp_path, random, count):
    columns = [*PROJECTION_COLUMNS, ("ASSIGNED_SUBSET", IDS["ASSIGNED_SUBSET"], 2), ("PRE_EXPOSURE", IDS["PRE_EXPOSURE"], 3)]
    table = random_table(random, count, columns)
    write_cistem(tmp_path / "a.cistem", table)
    assert_same_bits(read_cistem(tmp_path / "a.cistem"), table)
    extended = ExtendedTable(random_table(random, count, PARTICLE_COLUMNS), random_table(random, count, TILT_COLUMNS))
    extended.particles.columns["PIND"] = random.permutation(count).astype("<i4")
    extended.tilts.columns["TIND"] = np.arange(count, dtype="<i4") // 3
    extended.tilts.columns["RIND"] = np.arange(count, dtype="<i4") % 3
    write_extended(tmp_path / "b.cistem", extended)
    back = read_extended(tmp_path / "b.cistem")
    assert_same_bits(back.particles, extended.particles)
    assert_same_bits(back.tilts, extended.tilts)


def test_columns_are_found_by_id_and_written_in_pyps_order(tmp_path, random):
    table = random_table(random, 5, PROJECTION_COLUMNS)
    names = random.permutation(list(table.columns)).tolist()
    rows = np.empty(5, np.dtype([(name, DTYPES[TYPES[name]]) for name in names]))
    for name in names:
        rows[name] = table.columns[name]
    header = struct.pack("<ii", len(names), 5) + b"".join(struct.pack("<qb", IDS[name], TYPES[name]) for name in names)
    (tmp_path / "a.cistem").write_bytes(header + rows.tobytes())
    shuffled = read_cistem(tmp_path / "a.cistem")
    assert list(shuffled.columns) == names
    write_cistem(tmp_path / "b.cistem", shuffled)
    assert_same_bits(read_cistem(tmp_path / "b.cistem"), table)


def test_unknown_ids_are_skipped_by_type():
    for kind, dtype in DTYPES.items():
        columns = [(1, 9), (123456789, kind), (4, 3)]
        header = struct.pack("<ii", 3, 2) + b"".join(struct.pack("<qb", *column) for column in columns)
        rows = b"".join(struct.pack("<I", row) + bytes(np.dtype(dtype).itemsize) + struct.pack("<f", row / 4) for row in (1, 2))
        table = parse_cistem(header + rows, "x")
        assert table.columns["POSITION_IN_STACK"].tolist() == [1, 2]
        assert table.columns["PSI"].tolist() == [0.25, 0.5]
        assert list(table.columns) == ["POSITION_IN_STACK", "PSI"]
    for kind in (1, 8):  # texts
        header = struct.pack("<ii", 3, 2) + b"".join(struct.pack("<qb", *column) for column in [(1, 9), (-5, kind), (4, 3)])
        rows = struct.pack("<Ii3s", 1, 3, b"abc") + struct.pack("<f", 0.25) + struct.pack("<Iif", 2, 0, 0.5)
        assert parse_cistem(header + rows, "x").columns["PSI"].tolist() == [0.25, 0.5]


def test_file_names_of_cistem(tmp_path):
    table = new_projections(3)
    names = np.empty(3, dtype=object)
    names[:] = ["a b.mrc", "", "/ü/stack.mrc"]
    table.columns["STACK_FILENAME"] = names
    write_cistem(tmp_path / "a.cistem", table)
    back = read_cistem(tmp_path / "a.cistem")
    assert back.columns["STACK_FILENAME"].tolist() == names.tolist()
    assert back.columns["OCCUPANCY"].tolist() == [100, 100, 100]
    data = (tmp_path / "a.cistem").read_bytes()
    for end in range(len(data)):
        with pytest.raises(InputError):
            parse_cistem(data[:end], "x")


def test_truncated_and_inconsistent_files(tmp_path):
    for data, read in ((golden.PROJECTIONS, read_cistem), (golden.EXTENDED, read_extended)):
        path = tmp_path / "a.cistem"
        for end in range(len(data)):
            path.write_bytes(data[:end])
            with pytest.raises(InputError, match=r"a\.cistem: (byte|row)") as caught:
                read(path)
            assert "\n" not in str(caught.value)
        path.write_bytes(data + b"\0")
        with pytest.raises(InputError, match=f"byte {len(data)}: 1 bytes after the last row"):
            read(path)


def changed(data, place, form, value):
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


@pytest.mark.parametrize(
    ("place", "form", "value", "message"),
    [
        (0, "<i", 0, "0 columns, 2 rows"),
        (0, "<i", -1, "-1 columns"),
        (0, "<i", 2**31 - 1, "header says 2147483647 columns, the file ends"),
        (4, "<i", -1, "-1 rows"),
        (4, "<i", 2**31 - 1, "row 3: ends at byte"),
        (4, "<i", 3, "row 3: ends at byte"),
        (4, "<i", 1, "bytes after the last row"),
        (16, "<b", 0, r"byte 8: column 1 \(id 1, POSITION_IN_STACK\) has the type 0; want 1 to 9"),
        (16, "<b", 10, "has the type 10"),
        (16, "<b", 8, "has the type 8, want 9"),
        (8, "<q", 4, r"byte 17: column 2 \(id 4, PSI\) a second time"),
    ],
)
def test_wrong_headers(place, form, value, message):
    with pytest.raises(InputError, match=message):
        parse_cistem(changed(golden.PROJECTIONS, place, form, value), "a.cistem")


def test_wrong_blocks(tmp_path):
    path = tmp_path / "a.cistem"
    second = golden.EXTENDED.index(struct.pack("<qii", 35, 6, 3))
    for data, message in (
        (changed(golden.EXTENDED, 0, "<q", 16), "block id 16, want 15"),
        (changed(golden.EXTENDED, second, "<q", 15), f"byte {second}: block id 15"),
        (golden.EXTENDED[:second], "ends before a block id"),
        (golden.PROJECTIONS, "block id"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_extended(path)
    path.write_bytes(golden.EXTENDED)
    extended = read_extended(path)
    extended.tilts.columns["RIND"][1] = 0
    write_extended(path, extended)
    with pytest.raises(InputError, match="tilts: row 2: TIND 0, RIND 0 a second time"):
        read_extended(path)
    extended.tilts.columns["RIND"][1] = 1
    extended.particles.columns["PIND"][1] = 0
    write_extended(path, extended)
    with pytest.raises(InputError, match="particles: row 2: PIND 0 a second time"):
        read_extended(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_extended(tmp_path / "missing")
    with pytest.raises(InputError, match="cannot be read"):
        read_cistem("a\0b")
    write_extended(path, ExtendedTable(CistemTable(), CistemTable()))  # a block may have no rows
    assert len(read_extended(path).tilts) == 0


def test_values_that_do_not_fit():
    table = new_projections(2)
    for name, values, message in (
        ("TIND", [0.5, 1], "whole"),
        ("TIND", [0, 2**31], "does not fit"),
        ("POSITION_IN_STACK", [-1, 1], "does not fit"),
        ("PSI", [1e39, 0], "too large"),
        ("PSI", [1, 2, 3], "lengths"),
        ("SIZE", [1, 2], "unknown column"),
    ):
        wrong = CistemTable({**table.columns, name: np.array(values)})
        with pytest.raises(ValueError, match=message):
            write_cistem("unwritten", wrong)
    table.columns["PSI"][1] = np.nan
    with pytest.raises(InputError, match="a: row 2: PSI is nan"):
        CistemTable(table.columns, "a").floats("PSI")
    with pytest.raises(InputError, match=r"a: no column SCORE_CHANGE \(id 8192\)"):
        CistemTable(table.columns, "a").floats("SCORE_CHANGE")
    with pytest.raises(InputError, match="row 1: PIXEL_SIZE"):
        CistemTable({"PIXEL_SIZE": np.array([0.5])}, "a").integers("PIXEL_SIZE")


def test_trap_film_index_in_image_is_active(tmp_path):
    """PYP keeps the series' number where cisTEM keeps a switch: 0 is the first series, not an inactive image."""
    table = new_projections(5)
    table.columns["IMAGE_IS_ACTIVE"][:] = [0, 0, 1, 2, -1]
    write_cistem(tmp_path / "a.cistem", table)
    film, active = films(read_cistem(tmp_path / "a.cistem"))
    assert film.tolist() == [0, 0, 1, 2, -1]
    assert active.tolist() == [True, True, True, True, False]



def test_trap_signs_are_kept(tmp_path):
    """Particles' angles are stored negated and so they stay: -12 must come back as -12, never as 348 or 12."""
    extended = ExtendedTable(
        CistemTable({name: np.full(1, -12.0 if name != "PIND" else 0) for name, _, _ in PARTICLE_COLUMNS}),
        CistemTable({name: np.full(1, -12.0 if name not in ("TIND", "RIND") else 0) for name, _, _ in TILT_COLUMNS}),
    )
    write_extended(tmp_path / "a.cistem", extended)
    back = read_extended(tmp_path / "a.cistem")
    for table, keys in ((back.particles, ("PIND",)), (back.tilts, ("TIND", "RIND"))):
        for name, values in table.columns.items():
            assert values[0] == (0 if name in keys else -12.0), name


def test_statistics(tmp_path, random):
    first, second = new_projections(3), new_projections(5)
    for table in (first, second):
        table.columns["SCORE"][:] = random.uniform(0, 30, len(table))
    write_cistem(tmp_path / "a_stat.cistem", column_statistics([first, second]))
    scores = np.concatenate([first.columns["SCORE"], second.columns["SCORE"]]).astype(float)
    stat = read_stat(tmp_path / "a_stat.cistem")
    assert len(stat) == 32
    np.testing.assert_allclose(stat["SCORE"], (scores.mean(), np.mean((scores - scores.mean()) ** 2)), rtol=1e-6)
    assert stat["OCCUPANCY"] == (100.0, 0.0)
    assert stat["POSITION_IN_STACK"] == (2.0, 1.0)  # 2.625 and 1.73, cut: the column is of whole numbers
    write_cistem(tmp_path / "a_stat.cistem", first)
    with pytest.raises(InputError, match="3 rows; a _stat"):
        read_stat(tmp_path / "a_stat.cistem")
    with pytest.raises(ValueError, match="no row"):
        column_statistics([])


def test_genuine_files(shared_data, tmp_path):
    """Files in PYP's own layout that another program's authors test with."""
    folder = shared_data / "metadata" / "cistem"
    table = read_cistem(folder / "test.cistem")
    assert list(table.columns) == [name for name, _, _ in PROJECTION_COLUMNS]
    assert len(table) == 29
    assert table.columns["POSITION_IN_STACK"].tolist() == list(range(1, 30))
    assert set(table.columns["PIXEL_SIZE"].tolist()) == {np.float32(8.4)}
    assert set(table.columns["MICROSCOPE_VOLTAGE"].tolist()) == {300.0}
    assert table.columns["THETA"][0] == np.frombuffer(bytes.fromhex("1622ea42"), "<f4")[0]
    assert table.columns["IMIND"][:3].tolist() == [4, 5, 20]
    assert np.all(table.floats("ORIGINAL_X_POSITION") % 1 == 0)
    write_cistem(tmp_path / "a.cistem", table)
    assert (tmp_path / "a.cistem").read_bytes() == (folder / "test.cistem").read_bytes()
    extended = read_extended(folder / "test.blocked.cistem")
    assert extended.particles.columns["PIND"].tolist() == [0, 1]
    assert extended.particles.columns["POCC"].tolist() == [100, 100]
    assert extended.particles.columns["ORIGINAL_X_POSITION_3D"].tolist() == [5016, 1344]
    assert len(extended.tilts) == 2
    write_extended(tmp_path / "b.cistem", extended)
    assert (tmp_path / "b.cistem").read_bytes() == (folder / "test.blocked.cistem").read_bytes()
    with pytest.raises(InputError):
        read_extended(folder / "test.cistem")
    with pytest.raises(InputError):
        read_cistem(folder / "test.blocked.cistem")
