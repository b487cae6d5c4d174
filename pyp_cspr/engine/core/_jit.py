"""How kernels are compiled, where their machine code is kept, and how threads share the work.

A kernel is compiled by numba at its first call with arguments of new types, once on each node, and its machine code is kept in
a file. From then on a process takes it from there and does not even import numba, whose own start takes half a second of every
command and of every worker, and far more on a file system that a whole cluster shares.

Kernels release the interpreter's lock, so threads are plain Python threads that call one compiled kernel on separate
ranges: nothing of OpenMP or TBB is started, a fork stays safe, and each kernel is compiled once.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from . import _machine_code as machine_code

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT_BYTES = 2**28  # of free memory at the end of the heap: what the sums of a chunk have needed, the maps use again
HEAP_BYTES = 2**25  # arrays below that lie in the heap; more is not allowed

_preparing = threading.RLock()


class Kernel:
    """A function of arrays and numbers that runs as machine code. It takes its arguments by position."""

    def __init__(self, function: Callable, options: Dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.options = function, options
        self._name = f"{function.__module__.split('.')[-1]}.{function.__name__}"
        self.ready: Dict[Tuple, Callable] = {}  # by the kinds of the arguments

    def __call__(self, *arguments: Any) -> Any:
        kinds = tuple([machine_code.kind_of(argument) for argument in arguments])
        run = self.ready.get(kinds) or self._prepare(kinds)
        return run(*arguments)

    def _prepare(self, kinds: Tuple) -> Callable:
        with _preparing:
            if kinds not in self.ready:
                path = Path(cache_directory()) / machine_code.file_name(self._name, kinds)
                code = machine_code.read(path)
                if code is None:
                    from ._compile import compile_kernel

                    code = compile_kernel(self, kinds)
                    machine_code.write(path, code)
                if code.symbol:
                    self.ready[kinds] = machine_code.load(code, kinds)
                else:
                    from ._compile import numba_function

                    self.ready[kinds] = numba_function(self)
            return self.ready[kinds]


def jit(function: Optional[Callable] = None, **options: Any) -> Any:
    """Decorator of every kernel. Nothing is compiled until the first call; ``options`` are numba's.

    With NUMBA_DISABLE_JIT=1 a kernel is the plain function.
    """
    if function is None:
        return functools.partial(jit, **options)
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return function
    return Kernel(function, options)


@functools.lru_cache(maxsize=None)
def cache_directory() -> str:
    """Folder of the compiled kernels, made if need be; one for each text of the kernels and each node.

    Under CSPR_CACHE_DIR, NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache, the first that is set. A hash of all kernel files is part
    of the name, since a kernel changes with those that it calls; the node is part of it because homes are shared between nodes
    and their file systems do not keep the order of writes.
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
    """Of all that machine code depends on but the processor: the kernels, numba, and its settings."""
    settings = sorted(f"{name}={value}" for name, value in os.environ.items()
                      if name.startswith("NUMBA_") and name not in ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT"))
    digest = hashlib.sha256(f"{np.__version__} {platform.python_version()} {settings}".encode())
    numba = importlib.util.find_spec("numba")  # found, not imported
    own = Path(__file__).parent
    paths = [*sorted(own.glob("_*.py")), *sorted(own.parent.rglob("*_kernels.py"))]
    if numba is not None and numba.origin is not None:
        paths.append(Path(numba.origin).with_name("_version.py"))
    for path in paths:
        digest.update(path.name.encode() + (path.read_bytes() if path.exists() else b""))
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
    set_option(M_TRIM_THRESHOLD, KEPT_BYTES)
    set_option(M_MMAP_THRESHOLD, HEAP_BYTES)
