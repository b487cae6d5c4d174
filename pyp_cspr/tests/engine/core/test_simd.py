"""Each call of ``_simd``, compiled and plain, does what its docstring says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.core._jit import Kernel, jit
from pyp_cspr.engine.core._simd import flat, load4, load8, pack4, store4, store8


@jit
def combine_doubles(out, values, number):
    line = flat(values)
    first = load4(line, np.uint64(1))
    second = pack4(1.0, number, -2.0, line[0])
    store4(out, np.uint64(0), first + second)
    store4(out, np.uint64(4), first - second * number)
    store4(out, 8, first * second)


@jit
def combine_floats(out, values, number):
    first, second = load8(values, np.uint64(0)), load8(values, np.uint64(3))
    store8(out, np.uint64(1), first * number - second * (first + second))


@jit
def take_at(out, values, place):
    store8(out, 0, load8(values, place[0]))


@pytest.fixture(params=["compiled", "plain"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Calls a kernel as machine code made here, or as the plain function."""

    def call(kernel, *arguments) -> None:
        if not isinstance(kernel, Kernel):
            if request.param == "compiled":
                pytest.skip("compilation is off")
            kernel(*arguments)
        elif request.param == "plain":
            kernel.function(*arguments)
        else:
            monkeypatch.setattr("pyp_cspr.engine.core._jit.cache_directory", lambda: str(tmp_path))
            Kernel(kernel.function, kernel.options)(*arguments)

    return call


@pytest.mark.kernel
def test_vectors_of_doubles(run) -> None:
    values = np.array([[0.5, 2.0, -3.0], [4.0, 7.0, 1.0]])
    out = np.zeros(12)
    run(combine_doubles, out, values, 3.0)
    first, second = values.ravel()[1:5], np.array([1.0, 3.0, -2.0, 0.5])
    np.testing.assert_allclose(out, np.concatenate([first + second, first - 3 * second, first * second]))


@pytest.mark.kernel
def test_vectors_of_floats_begin_anywhere(run) -> None:
    values = np.arange(12, dtype=np.float32)[1:]  # no vector of it lies on a multiple of 32 bytes
    out = np.zeros(10, np.float32)
    run(combine_floats, out, values, np.float32(2.0))
    first, second = values[:8], values[3:11]
    np.testing.assert_allclose(out, [0, *(2 * first - second * (first + second)), 0])


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["u1", "i2", "u4"])
def test_an_index_may_be_any_whole_number(run, kind: str) -> None:
    """200 is -56 where eight bits are taken for signed."""
    values, out = np.arange(300, dtype=np.float32), np.zeros(8, np.float32)
    run(take_at, out, values, np.array([200], kind))
    np.testing.assert_array_equal(out, values[200:208])
