"""From a kernel to machine code, by numba. With ``_simd_types`` the only importer of numba."""

from __future__ import annotations

import functools
import struct
import types as python_types
from typing import Any, Iterator, Tuple

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core.errors import NumbaError

from . import _simd_types  # noqa: F401 - numba learns of vectors
from ._jit import Kernel, cache_directory
from ._machine_code import ALIGNED, CONTIGUOUS, NONE, WRITEABLE, ArrayKind, MachineCode, Result, can_be_passed

# No "ninf" and no "nnan": checks for NaN must survive.
_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

_NOT_ALONE = MachineCode("", None, b"")

# What machine code may call, which every process has: of the C library, and of its mathematics.
_OF_C = {"memset", "memcpy", "memmove"} | {
    name + end for end in ("", "f") for name in (
        "sin", "cos", "sincos", "tan", "asin", "acos", "atan", "atan2", "exp", "exp2", "log", "log2", "log10", "pow", "sqrt",
        "floor", "ceil", "trunc", "rint", "round", "nearbyint", "fmod", "hypot", "cbrt", "fabs", "fma", "fmin", "fmax",
    )
}


def compile_kernel(kernel: Kernel, kinds: Tuple) -> MachineCode:
    """The machine code of ``kernel`` for arguments of these kinds.

    It has no symbol where it cannot run without numba: it makes arrays, or returns them, or this system's object files are not
    those of Linux.
    """
    signature = tuple(_numba_type(kind) for kind in kinds)
    function = _bare_function(kernel)
    try:
        function.compile(signature)
    except NumbaError:
        return _NOT_ALONE  # if it cannot be compiled at all, numba says so again, to whoever calls it
    overload = function.overloads[signature]
    result, known = _kind_of_result(overload.fndesc.restype)
    code = bytes(overload.library._get_compiled_object())
    if not known or not all(map(_passable, kinds)) or not set(_undefined(code)) <= _OF_C:
        return _NOT_ALONE
    return MachineCode(overload.fndesc.llvm_func_name, result, code)


@functools.lru_cache(maxsize=None)
def numba_function(kernel: Kernel) -> Any:
    """The kernel as numba's own function, which has numba's own cache."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = cache_directory()  # read when a function is decorated, so other users of numba keep theirs
    try:
        return _decorated(kernel, numba_function, cache=True)
    finally:
        numba.config.CACHE_DIR = before


@functools.lru_cache(maxsize=None)
def _bare_function(kernel: Kernel) -> Any:
    """The kernel without what lets Python call it."""
    return _decorated(kernel, _bare_function, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def _decorated(kernel: Kernel, likewise: Any, **options: Any) -> Any:
    """numba's function of a kernel; those that it calls are made ``likewise``."""
    function = kernel.function
    used = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    known = {name: likewise(value) if isinstance(value, Kernel) else value for name, value in used.items()}
    copy = python_types.FunctionType(function.__code__, known, function.__name__, function.__defaults__, function.__closure__)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", **{**options, **kernel.options})(copy)


def _numba_type(kind: Any) -> Any:
    if isinstance(kind, ArrayKind):
        layout = "C" if kind.flags & CONTIGUOUS else "A"
        return types.Array(numba.from_dtype(np.dtype(kind.dtype)), kind.ndim, layout, readonly=not kind.flags & WRITEABLE,
                           aligned=bool(kind.flags & ALIGNED))
    if isinstance(kind, tuple):
        return types.BaseTuple.from_types([_numba_type(part) for part in kind])
    return types.none if kind == NONE else numba.from_dtype(np.dtype(kind))


def _passable(kind: Any) -> bool:
    return all(map(_passable, kind)) if type(kind) is tuple else can_be_passed(kind)


def _kind_of_result(result: Any) -> Tuple[Result, bool]:
    """(kind, whether machine code can return it)."""
    if result == types.none:
        return None, True
    parts = list(result) if isinstance(result, types.BaseTuple) else [result]
    if not all(isinstance(part, (types.Boolean, types.Integer, types.Float)) for part in parts):
        return None, False
    kinds = [numba.np.numpy_support.as_dtype(part).str for part in parts]
    return (kinds if isinstance(result, types.BaseTuple) else kinds[0]), all(map(can_be_passed, kinds))


def _undefined(code: bytes) -> Iterator[str]:
    """Names that an ELF object file of 64 bits wants from elsewhere; of another file, one that nobody has."""
    sections = {section.name(): section.data() for section in llvm.ObjectFileRef.from_data(code).sections()}
    if not code.startswith(b"\x7fELF\x02\x01") or b".symtab" not in sections or b".strtab" not in sections:
        yield "no table of symbols"
        return
    names = sections[b".strtab"]
    for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", sections[b".symtab"]):
        if name and not section:
            yield names[name : names.index(0, name)].decode()
