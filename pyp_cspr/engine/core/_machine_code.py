"""Machine code of kernels: how it is kept in files, loaded by LLVM, and called. numba is not needed for any of it.

A kernel's code is the object file that LLVM has made of it for one set of kinds of arguments. By numba's calling convention it
is a C function that returns a status, 0 if all is well, and takes: where to put its result, where to put an exception, and its
arguments, of which an array is two owners (none here), its size, bytes of an element, data, shape and strides.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Union

import numpy as np

Result = Union[None, str, List[str]]  # nothing, the kind of a number, or those of a tuple

_NUMBERS = {
    "|b1": ctypes.c_uint8, "|i1": ctypes.c_int8, "|u1": ctypes.c_uint8, "<i2": ctypes.c_int16, "<u2": ctypes.c_uint16,
    "<i4": ctypes.c_int32, "<u4": ctypes.c_uint32, "<i8": ctypes.c_int64, "<u8": ctypes.c_uint64, "<f4": ctypes.c_float,
    "<f8": ctypes.c_double,
}
NONE = "none"
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400  # of numpy's flags of an array


class ArrayKind(NamedTuple):
    dtype: str
    ndim: int
    flags: int


class MachineCode(NamedTuple):
    """``symbol`` is empty where the code cannot be loaded without numba, which runs the kernel then."""

    symbol: str
    result: Result
    code: bytes


def kind_of(value: Any) -> Any:
    """What of an argument decides which machine code takes it; a hashable thing of strings, numbers and tuples."""
    if isinstance(value, np.ndarray):
        return ArrayKind(value.dtype.str, value.ndim, value.flags.num & (CONTIGUOUS | ALIGNED | WRITEABLE))
    if isinstance(value, bool):
        return "|b1"
    if isinstance(value, int):
        return "<i8"
    if isinstance(value, np.generic):
        return value.dtype.str
    if isinstance(value, float):
        return "<f8"
    if value is None:
        return NONE
    if isinstance(value, tuple):
        return tuple([kind_of(part) for part in value])
    raise TypeError(f"a kernel takes arrays, numbers and tuples of them, not {type(value).__name__}")


def file_name(kernel: str, kinds: Tuple) -> str:
    """The name of the file with the code of ``kernel`` for arguments of these kinds, on this processor."""
    digest = hashlib.sha256(f"{_processor()} {kinds!r}".encode()).hexdigest()[:24]
    return f"{kernel}-{digest}.code"


def read(path: Path) -> Optional[MachineCode]:
    """The code of a file; None where there is none, or it is not as it was written."""
    try:
        digest, content = path.read_bytes().split(b"\n", 1)
        if digest.decode() != hashlib.sha256(content).hexdigest():
            return None
        head, code = content.split(b"\n", 1)
        symbol, result = json.loads(head)
        return MachineCode(symbol, result, code)
    except (OSError, ValueError, TypeError):
        return None


def write(path: Path, code: MachineCode) -> None:
    """Write the file, whole or not at all. A folder that takes none is no error: the next process compiles again.

    Who may read it the umask says: a group may share a folder.
    """
    content = json.dumps([code.symbol, code.result]).encode() + b"\n" + code.code
    aside = f"{path}.{os.urandom(8).hex()}"
    with suppress(OSError):
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise


def load(code: MachineCode, kinds: Tuple) -> Callable:
    """The function of the code, which takes arguments of these kinds."""
    import llvmlite.binding as llvm

    engine = _new_engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.code))
    engine.finalize_object()
    address = engine.get_function_address(code.symbol)
    if not address:
        raise RuntimeError(f"kernel {code.symbol}: its code lacks it")
    types: List[Any] = [ctypes.c_void_p, ctypes.c_void_p]
    for kind in kinds:
        types += _types_of(kind)
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(address)
    make_result, take_result = _result(code.result)

    def call(*arguments: Any) -> Any:
        flat: List[Any] = []
        for argument in arguments:
            _flatten(argument, flat)
        result, exception = make_result(), ctypes.c_void_p()
        status = function(ctypes.addressof(result), ctypes.addressof(exception), *flat)
        if status:
            raise RuntimeError(f"kernel {code.symbol} failed with status {status}")
        return take_result(result)

    return call


def _types_of(kind: Any) -> List[Any]:
    if isinstance(kind, ArrayKind):
        return 2 * [ctypes.c_void_p] + 2 * [ctypes.c_int64] + [ctypes.c_void_p] + 2 * kind.ndim * [ctypes.c_int64]
    if isinstance(kind, tuple):
        return [type_ for part in kind for type_ in _types_of(part)]
    return [ctypes.c_void_p if kind == NONE else _NUMBERS[kind]]


def _flatten(argument: Any, flat: List[Any]) -> None:
    if isinstance(argument, np.ndarray):
        flat += (None, None, argument.size, argument.itemsize, argument.ctypes.data, *argument.shape, *argument.strides)
    elif isinstance(argument, tuple):
        for part in argument:
            _flatten(part, flat)
    else:
        flat.append(argument if argument is None or isinstance(argument, (float, np.floating)) else int(argument))


def _result(kind: Result) -> Tuple[Callable, Callable]:
    """(memory for a result, the result in it)."""
    if kind is None:
        return ctypes.c_void_p, lambda memory: None
    parts = [kind] if isinstance(kind, str) else kind
    fields = [(f"part{i}", _NUMBERS[part]) for i, part in enumerate(parts)]
    structure = type("Result", (ctypes.Structure,), {"_fields_": fields})

    def take(memory: Any) -> Tuple[Any, ...]:
        values = [getattr(memory, name) for name, _ in fields]
        return tuple(bool(value) if part == "|b1" else value for part, value in zip(parts, values))

    return structure, (lambda memory: take(memory)[0]) if isinstance(kind, str) else take


def can_be_passed(kind: Any) -> bool:
    """Whether numbers of this kind can be passed to machine code, or returned by it; arrays and tuples always can."""
    return not isinstance(kind, str) or kind == NONE or kind in _NUMBERS


@functools.lru_cache(maxsize=None)
def _processor() -> str:
    """What machine code is made for."""
    import llvmlite
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return f"{llvmlite.__version__} {llvm.get_default_triple()} {llvm.get_host_cpu_name()} {features}"


_engines: List[Any] = []  # whose memory the code lies in


def _new_engine() -> Any:
    """One for each kernel: in one, an object file's copy of a function that kernels share could be taken for another's."""
    import llvmlite.binding as llvm

    if not _engines:
        with suppress(RuntimeError):
            llvm.initialize()  # which newer versions do by themselves, and say so
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    _engines.append(llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine))
    return _engines[-1]
