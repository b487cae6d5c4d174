"""PYP's pickles are read as tables of numbers, whatever pandas wrote them, and nothing in them is ever run."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.pyp_pickle import read_pkl
from pyp_cspr.tests.golden.pyp_pickle import PICKLES


@pytest.mark.parametrize("made", PICKLES)
def test_tables_of_pandas(tmp_path, made) -> None:
    path = tmp_path / "TS_01.pkl"
    path.write_bytes(zlib.decompress(base64.b64decode(PICKLES[made])))
    tables = read_pkl(path)
    assert sorted(tables) == ["box", "ctf", "frames", "order", "tomo", "vir"]
    assert list(tables["tomo"]) == ["x", "y", "z"]
    assert [int(tables["tomo"][axis][0]) for axis in "xyz"] == [110, 105, 40]
    assert tables["order"]["order"].tolist() == [2, 0, 1]
    assert list(tables["ctf"]) == ["tilt_angle", "df1", "df2", "ast", "cc", "est_res"]
    assert tables["ctf"]["df2"].tolist() == [1e4, 2e4, 2.5e4]
    assert tables["ctf"]["est_res"].tolist() == [9, 8, 7]
    assert tables["box"]["3"].tolist() == [4.0, 8.0]
    assert tables["frames"] == ["a.tif", "b.tif"]
    assert tables["vir"] is None


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_arrays_of_numpy(tmp_path, protocol) -> None:
    path = tmp_path / "x.pkl"
    values = {"ali": np.arange(12.0).reshape(2, 6), "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "n": np.float64(2.5),
              "big": np.arange(3, dtype=">i4"), "names": np.array(["a", "bc"]), "one": 1, "t": (1.5, "x")}
    path.write_bytes(pickle.dumps(values, protocol))
    tables = read_pkl(path)
    assert (tables["ali"] == values["ali"]).all()
    assert (tables["f"] == values["f"]).all()
    assert tables["n"] == 2.5
    assert tables["big"].tolist() == [0, 1, 2]
    assert tables["names"].tolist() == ["a", "bc"]
    assert tables["t"] == [1.5, "x"]


class Runs:
    """A pickle of this would call a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function, arguments", [
    (os.system, ("touch {}",)), (eval, ("open('{}', 'w')",)), (exec, ("open('{}', 'w')",)),
    (subprocess.Popen, (["touch", "{}"],)),
    (getattr, ("x", "upper")), (np.save, ("{}", [1])), (open, ("{}", "w")), (os.mkdir, ("{}",)),
])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, function, arguments, protocol) -> None:
    made = str(tmp_path / "made")
    filled = [[part.format(made) for part in a] if isinstance(a, list) and isinstance(a[0], str) else
              a.format(made) if isinstance(a, str) else a for a in arguments]
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"ctf": Runs(function, *filled)}, protocol))
    with pytest.raises(InputError) as error:
        read_pkl(path)
    assert str(path) in str(error.value)
    assert os.listdir(tmp_path) == ["x.pkl"]


@pytest.mark.parametrize("value", [[1, 2], {1, 2}, {"a": {1}}, {"a": np.array([object()])}, {"a": np.array([print])}, 1j])
def test_what_is_no_table_is_refused(tmp_path, value) -> None:
    path = tmp_path / "x.pkl"
    try:
        path.write_bytes(pickle.dumps(value))
    except (TypeError, pickle.PicklingError):
        pytest.skip("cannot be pickled")
    with pytest.raises(InputError):
        read_pkl(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_pickles_are_errors_of_one_line(tmp_path, data) -> None:
    whole = zlib.decompress(base64.b64decode(next(iter(PICKLES.values()))))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path / "x.pkl"
    path.write_bytes(bytes(content))
    message = ""
    try:
        read_pkl(path)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
