"""The compile cache, threads, and importing without compiling."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyp_cspr.engine.core import _jit

_TWICE = """
import numpy as np
from pyp_cspr.engine.core import _jit, insertion, projection
from pyp_cspr.engine.core.band import make_band
band, turns = make_band(8, 3), np.stack([np.eye(3)] * 2)
slices = projection.Reference(np.ones((8, 8, 8), np.float32)).slices(turns, band)
insertion.Accumulator(8, 1.0, 3).insert(slices, np.ones(slices.shape, np.float32), turns, band)
print(_jit.cache_directory())
"""


@pytest.mark.kernel
@pytest.mark.parametrize("count, threads, pieces", [(0, 1, 1), (1, 4, 1), (7, 2, 1), (100, 3, 4), (5, 8, 4)])
def test_ranges_cover_every_item_once(count: int, threads: int, pieces: int) -> None:
    seen = [0] * count
    lock = threading.Lock()

    def call(start: int, stop: int) -> None:
        with lock:
            for i in range(start, stop):
                seen[i] += 1

    _jit.run_ranges(call, count, threads, pieces)
    assert seen == [1] * count


def test_error_in_a_thread_is_raised() -> None:
    def call(start: int, stop: int) -> None:
        if start:
            raise ValueError("range failed")

    with pytest.raises(ValueError, match="range failed"):
        _jit.run_ranges(call, 8, 2)


def test_libraries_keep_to_one_thread() -> None:
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    _jit.prepare_process()
    assert {library["num_threads"] for library in threadpool_info()} == {1}


FAULTS = """
import resource
import numpy as np
from pyp_cspr.engine.core._jit import prepare_process

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        arrays = [np.ones(70_000) for _ in range(8)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
prepare_process()
faults()
print(faults())
"""


@pytest.mark.timeout(60)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    """The pages of arrays that are made again and again are cleared once, not each time."""
    out = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=50).stdout
    before, after = map(int, out.split())
    assert after < max(1_000, before // 10)


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSPR_CACHE_DIR", str(tmp_path / "own"))
    _jit.cache_directory.cache_clear()
    try:
        folder = Path(_jit.cache_directory())
        assert folder.parent == tmp_path / "own"
        assert folder.is_dir()
    finally:
        monkeypatch.undo()
        _jit.cache_directory.cache_clear()


def test_cache_folder_falls_back_to_a_private_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CSPR_CACHE_DIR", str(tmp_path / "file"))
    _jit.cache_directory.cache_clear()
    try:
        folder = Path(_jit.cache_directory())
        assert folder.is_dir()
        assert tmp_path not in folder.parents
        folder.rmdir()
    finally:
        monkeypatch.undo()
        _jit.cache_directory.cache_clear()


@pytest.mark.timeout(60)
def test_importing_the_kernel_modules_compiles_nothing(tmp_path: Path) -> None:
    code = (
        "from pyp_cspr.engine.core import fourier, insertion, insertion_kernels, projection, projection_kernels, "
        "weighting, weighting_kernels as w\n"
        "assert not w.weigh.ready and not insertion_kernels.deposit.ready"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(tmp_path), timeout=50)
    assert not list(tmp_path.rglob("*.code"))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_processes_may_compile_at_once(tmp_path: Path) -> None:
    """Three processes start with an empty cache; a fourth finds it whole and compiles nothing."""
    environment = _environment(tmp_path)
    command = [sys.executable, "-c", _TWICE]
    jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    try:
        folders = {job.communicate(timeout=180)[0].decode().strip() for job in jobs}
    finally:
        for job in jobs:
            job.kill()
    assert [job.returncode for job in jobs] == [0, 0, 0]
    assert len(folders) == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.is_file()}
    assert {path.suffix for path in before} == {".code"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=50)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def _environment(cache: Path) -> dict:
    root = Path(__file__).resolve().parents[4]
    return dict(os.environ, CSPR_CACHE_DIR=str(cache), PYTHONPATH=str(root), NUMBA_DISABLE_JIT="0")
