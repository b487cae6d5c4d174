"""How kernels are compiled, where the machine code is kept, and how threads share the work. The only importer of numba.

Kernels release the interpreter's lock, so threads are plain Python threads that call one compiled kernel on separate
ranges: nothing of OpenMP or TBB is started, a fork stays safe, and each kernel is compiled once.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numba
import numpy as np

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT_BYTES = 2**25  # of free memory at the end of the heap, and arrays below that lie in the heap

# No "ninf" and no "nnan": checks for NaN must survive.
_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


def jit(function: Optional[Callable] = None, **options: Any) -> Any:
    """Decorator of every kernel: ``numba.njit`` without the lock, with the project's fast-math set and cache.

    Nothing is compiled until the first call. ``options`` override numba's.
    """
    if function is None:
        return functools.partial(jit, **options)
    settings: Dict[str, Any] = {"nogil": True, "cache": True, "fastmath": _FASTMATH, "error_model": "numpy"}
    settings.update(options)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = cache_directory()  # read when a function is decorated, so other users of numba keep theirs
    try:
        return numba.njit(**settings)(function)
    finally:
        numba.config.CACHE_DIR = before


@functools.lru_cache(maxsize=None)
def cache_directory() -> str:
    """Folder of the compiled kernels, made if need be; one for each text of the kernels and each node.

    Under CSPR_CACHE_DIR, NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache, the first that is set. numba itself does not see that
    a kernel called from another file has changed, so a hash of all kernel files is part of the name; the node is part of
    it because homes are shared between nodes and their file systems do not keep the order of writes.
    """
    key = f"{_kernel_hash()}-{platform.node() or 'node'}"
    own = os.environ.get("CSPR_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "pyp_cspr"
    folder = base / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(str(folder), os.W_OK | os.X_OK):
            return str(folder)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="pyp_cspr-")  # private to this process, lost with it: slower, never wrong


def _kernel_hash() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__} {platform.python_version()}".encode())
    folder = Path(__file__).parent
    for path in [Path(__file__)] + sorted(folder.parent.rglob("*_kernels.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def available_threads() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@functools.lru_cache(maxsize=None)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cspr")


def run_ranges(call: Callable[[int, int], Any], count: int, threads: int = 1, pieces_per_thread: int = 1) -> None:
    """``call(start, stop)`` on ranges that cover ``range(count)``; at once on ``threads`` threads.

    How the ranges fall depends on ``threads``, so a call must not mix what it reads or writes between items.
    """
    pieces = min(count, max(1, threads) * pieces_per_thread if threads > 1 else 1)
    if pieces <= 1:
        if count:
            call(0, count)
        return
    edges = [count * i // pieces for i in range(pieces + 1)]
    pool = _pool(threads, os.getpid())  # the process id: a forked child must not wait for threads it does not have
    for job in [pool.submit(call, start, stop) for start, stop in zip(edges[:-1], edges[1:])]:
        job.result()


def prepare_process() -> None:
    """Make this process fit for many small tasks on several threads, for the rest of its life.

    BLAS keeps to one thread. Its matrices are small here, and after each call its threads spin for a while on the cores that
    the kernels' threads need: with them a series on two threads was slower than on one.

    Freed memory is kept. glibc gives arrays of some 100 kB back to the system at once, which then clears their pages anew:
    half the time of transforming crops, in which threads wait for each other.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        set_option(option, KEPT_BYTES)
