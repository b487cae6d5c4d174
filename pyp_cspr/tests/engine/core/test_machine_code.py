"""Machine code of kernels: kept in files, found whole or not at all, run without numba, right for every kind of argument."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import pytest

from pyp_cspr.engine.core import _machine_code as machine_code
from pyp_cspr.engine.core._jit import Kernel
from pyp_cspr.engine.core._machine_code import MachineCode

needs_compiler = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")


def add_up(arrays, extra, number, whole, really):
    total = number + whole
    for array in arrays:
        for i in range(array.shape[0]):
            for j in range(array.shape[1]):
                total += array[i, j]
    if extra is not None:
        total += extra[0]
    return total if really else -total


def statistics(values):
    least, place = values[0], 0
    for i in range(values.size):
        if values[i] < least:
            least, place = values[i], i
    return place, least, values.size > 2


def is_rising(values):
    for i in range(1, values.size):
        if values[i] <= values[i - 1]:
            return False
    return True


def halve(values):
    for i in range(values.size):
        values[i] = values[i] / 2


def makes_arrays(values):
    return np.sort(values)[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setattr("pyp_cspr.engine.core._jit.cache_directory", lambda: str(tmp_path))
    monkeypatch.setattr("pyp_cspr.engine.core._compile.cache_directory", lambda: str(tmp_path))
    return tmp_path


def read_all(folder: Path) -> Tuple[MachineCode, ...]:
    found = [machine_code.read(path) for path in sorted(folder.glob("*.code"))]
    return tuple(code for code in found if code is not None)


@needs_compiler
def test_arguments_of_every_kind_arrive(folder: Path) -> None:
    kernel = Kernel(add_up, {})
    plain = np.arange(6.0).reshape(2, 3)
    strided, turned = np.arange(24.0).reshape(4, 6)[::2, ::2], plain.T
    unaligned = np.frombuffer(bytes(1) + plain.tobytes(), np.uint8)[1:].view(np.float64).reshape(2, 3)  # and read-only
    assert not unaligned.flags.aligned
    whole_numbers = np.arange(6, dtype=np.int16).reshape(3, 2)
    for arrays in ((plain,), (plain, plain + 1), (strided, strided[:1]), (turned,), (unaligned,), (whole_numbers,)):
        for extra in (None, np.array([0.25])):
            for numbers in ((1.5, 2, True), (np.float32(0.5), np.int32(-7), False), (np.float64(3), np.uint8(9), True)):
                assert kernel(arrays, extra, *numbers) == pytest.approx(add_up(arrays, extra, *numbers), rel=1e-12)
    assert all(code.symbol for code in read_all(folder))


@needs_compiler
@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [5, 4], [np.float32(0.5)]])
def test_results_of_every_kind_come_back(folder: Path, values: Any) -> None:
    array = np.array(values)
    place, least, many = Kernel(statistics, {})(array)
    assert (place, least, many) == (int(np.argmin(array)), array.min(), len(array) > 2)
    assert [type(part) for part in (place, many)] == [int, bool]
    rising = Kernel(is_rising, {})(array)
    assert rising is bool(np.all(np.diff(array) > 0))
    assert Kernel(halve, {})(np.ones(3)) is None
    assert all(code.symbol for code in read_all(folder))


@needs_compiler
def test_a_kernel_that_makes_arrays_is_left_to_numba(folder: Path) -> None:
    kernel = Kernel(makes_arrays, {})
    assert kernel(np.array([3.0, -1.0])) == -1.0
    assert [code.symbol for code in read_all(folder)] == [""]
    assert Kernel(makes_arrays, {})(np.array([3.0, -2.0])) == -2.0  # as another process finds it


@needs_compiler
def test_what_cannot_be_compiled_is_said(folder: Path) -> None:
    from numba.core.errors import TypingError

    frozen = np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(TypingError, match="readonly"):
        Kernel(halve, {})(frozen)
    with pytest.raises(TypeError, match="takes arrays, numbers and tuples of them, not str"):
        Kernel(halve, {})("text")


@needs_compiler
def test_a_damaged_file_is_made_anew(folder: Path) -> None:
    values = np.ones(3)
    Kernel(halve, {})(values)
    (path,) = folder.glob("*.code")
    whole = path.read_bytes()
    other_name, other_result = whole.replace(b'["_', b'["X', 1), whole.replace(b"null", b'"<f8"', 1)
    assert whole not in (other_name, other_result)
    for damaged in (b"", whole[:-1], whole[:20], whole[:-9] + b"otherwise", b"{}\n" + whole, b"null\n", other_name,
                    other_result):
        path.write_bytes(damaged)
        assert machine_code.read(path) is None
        Kernel(halve, {})(values)
        assert machine_code.read(path) is not None
    assert values[0] == 0.5**9


@needs_compiler
def test_code_that_lacks_its_function_is_refused(folder: Path) -> None:
    Kernel(halve, {})(np.ones(3))
    (code,) = read_all(folder)
    with pytest.raises(RuntimeError, match="kernel other: its code lacks it"):
        machine_code.load(code._replace(symbol="other"), (machine_code.kind_of(np.ones(3)),))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    code = MachineCode("_Zsymbol", ["<i8", "|b1"], b"code\n\0more")
    path = tmp_path / "x.code"
    assert machine_code.read(path) is None
    machine_code.write(path, code)
    assert machine_code.read(path) == code
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.code"]
    mask = os.umask(0o022)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask  # a group may share the folder
    machine_code.write(tmp_path / "missing" / "x.code", code)  # no error: the next process compiles again
    assert not (tmp_path / "missing").exists()


def test_kinds_tell_apart_what_code_must_tell_apart() -> None:
    values = np.zeros((4, 4), np.float32)
    frozen = values.copy()
    frozen.flags.writeable = False
    different = [values, values[0], values[::2], values.astype(float), frozen, 1, 1.0, True, np.int32(1), np.float32(1), None,
                 (values,), (values, values), (values[0],)]
    kinds = [machine_code.kind_of(value) for value in different]
    assert len(set(kinds)) == len(kinds)
    assert machine_code.kind_of(values) == machine_code.kind_of(np.ones((7, 2), np.float32))
    assert machine_code.kind_of(1) == machine_code.kind_of(np.int64(1))
    assert len({machine_code.file_name("a.b", kind) for kind in kinds}) == len(kinds)


PROGRAM = """
import sys
import numpy as np
from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.insertion import Accumulator
from pyp_cspr.engine.core.projection import Reference
band, turns = make_band(8, 3), np.stack([np.eye(3)] * 2)
slices = Reference(np.ones((8, 8, 8), np.float32)).slices(turns, band)
sums = Accumulator(8, 1.0, 3)
sums.insert(slices, np.ones(slices.shape, np.float32), turns, band)
print("numba" in sys.modules, float(sums.denominator.sum()))
"""


@needs_compiler
@pytest.mark.timeout(120)
def test_a_second_process_does_without_numba(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[4]
    environment = dict(os.environ, CSPR_CACHE_DIR=str(tmp_path), PYTHONPATH=str(root))
    command = [sys.executable, "-c", PROGRAM]
    said = [subprocess.check_output(command, env=environment, text=True, timeout=50).split() for _ in range(2)]
    first, second = said
    assert (first[0], second[0]) == ("True", "False")
    assert first[1] == second[1]
    assert len(list(tmp_path.rglob("*.code"))) >= 3


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_whole_refinement_does_without_numba(small_sample: Path, tmp_path: Path) -> None:
    """Once its kernels are compiled: so the code of each of them can be kept."""
    program = "import sys; from pyp_cspr.engine.cli import main; print(main(sys.argv[1:]), 'numba' in sys.modules)"
    for run in ("first", "second"):
        command = [sys.executable, "-c", program, "refine", str(small_sample), "--out", str(tmp_path / run), "--reference",
                   str(small_sample / "reference.mrc"), "--iterations", "1", "--processes", "1", "--no-report"]
        said = subprocess.check_output(command, text=True, timeout=250).split()
    assert said[-2:] == ["0", "False"]
