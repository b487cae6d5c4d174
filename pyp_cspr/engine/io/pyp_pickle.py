"""PYP's ``pkl/SERIES.pkl``: a pickled dictionary of tables of numbers, read without running anything that is in it.

A pickle is a program: it may call any function that can be imported. Here nothing can be: the classes of NumPy and pandas that
such a file names are stood in for by inert ones, which keep what they are given and from which the arrays are then taken;
any other name is refused. Objects of Python are refused within arrays as well.
"""

from __future__ import annotations

import io
import os
import pickle
from typing import Any, Dict, List, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .text import PathLike, read_bytes

Value = Union[NDArray, Dict[str, Any], List[Any], str, float, int, None]

LARGEST = 256 * 2**20  # bytes: tables of a series have less than a thousandth of it
MOST_COLUMNS = 10_000
_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric", "numpy")
_TABLES = ("pandas", "pandas.arrays", "pandas._libs.arrays", "pandas.core.frame", "pandas.core.internals.managers",
           "pandas.core.internals.blocks", "pandas._libs.internals", "pandas.core.indexes.base",
           "pandas.core.indexes.range", "pandas.core.indexes.numeric", "pandas.core.series")
_PLAIN = {"dict": dict, "list": list, "tuple": tuple, "set": set, "OrderedDict": dict, "slice": slice}


class _Inert:
    """Stands for a class or a function of a pickle: keeps what it is called with and what it is set to."""

    name = ""

    arguments: Tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_: Any) -> _Inert:  # what makes an object of a pickle need not call __init__
        one = super().__new__(cls)
        one.arguments, one.state = arguments, None
        return one

    def __init__(self, *arguments: Any) -> None:
        """All is done."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle._Unpickler):  # that in Python: a damaged file cannot make it reserve memory, as the one in C does
    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__", "collections") and name in _PLAIN:
            return _PLAIN[name]
        if (module, name) in (("_codecs", "encode"), ("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"),
                              ("builtins", "object"), ("__builtin__", "object")) or module in _ARRAYS + _TABLES:
            return type("Inert", (_Inert,), {"name": name})
        raise InputError(f"{self.where}: names {module}.{name}, which no table of numbers needs; it is not read. Export the "
                         "series as text (.xf, .tlt, .ctf, _boxes3d.txt)")

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(f"{self.where}: refers to what lies elsewhere; want a dictionary of tables")


def read_pkl(path: PathLike) -> Dict[str, Value]:
    """The tables by name: arrays, dictionaries of columns, lists, numbers and texts; what is none of them is left out.

    Raises InputError for a file that is no such pickle or that holds anything else than numbers and texts.
    """
    name = os.fspath(path)
    data = read_bytes(path)
    if len(data) > LARGEST:
        raise InputError(f"{name}: {len(data)} bytes; want the tables of one series")
    try:
        found = _Reader(data, name).load()
        plain = _plain(found, 0)
    except InputError as error:
        raise InputError(str(error) if name in str(error) else f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle can fail in any way, and none is a fault of the program
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise InputError(f"{name}: not a pickled dictionary of tables ({reason}); export the series as text") from None
    if not isinstance(plain, dict):
        raise InputError(f"{name}: holds a {type(plain).__name__}, want a dictionary of tables")
    return plain


def _plain(value: Any, depth: int) -> Any:
    if depth > 20:
        raise InputError("is nested too deep")
    if isinstance(value, _Inert):
        return _of_inert(value, depth)
    if isinstance(value, dict):
        return {str(_plain(key, depth + 1)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, int, float, str, bytes, slice)):
        return value
    raise InputError(f"holds a {type(value).__name__}")


def _of_inert(value: _Inert, depth: int) -> Any:
    if value.name in ("_reconstruct", "_frombuffer"):
        return _array(value)
    if value.name == "dtype":
        return _dtype(value).str
    if value.name == "scalar":
        kind, content = value.arguments
        return np.frombuffer(_bytes(content), _dtype(kind))[0].item()
    if value.name == "__pyx_unpickle_NDArrayBacked":  # pandas' array of texts
        parts = value.state or value.arguments[2]
        inner = [part for part in parts if isinstance(part, _Inert) and part.name == "_reconstruct"]
        return _array(inner[0])
    if value.name in ("DataFrame", "_reconstructor"):
        return _frame(value, depth)
    if value.name == "encode":
        return _bytes(value)
    raise InputError(f"holds a {value.name}")


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, _Inert) and value.name == "encode":  # how old protocols write bytes
        text, coding = value.arguments
        if coding == "latin1":
            return str(text).encode("latin1")
    if isinstance(value, str):
        return value.encode("latin1")
    raise InputError("holds an array without bytes")


def _dtype(value: Any) -> np.dtype:
    if isinstance(value, _Inert) and value.name == "dtype":
        word = value.arguments[0]
        order = value.state[1] if value.state else "="
        if isinstance(word, str) and word[:1] in "fiubU" and word[1:].isdigit():
            return np.dtype((order if order in "<>" else "") + word)
    raise InputError("holds an array of objects, not of numbers")


def _array(value: _Inert) -> NDArray:
    if value.name == "_frombuffer":
        content, kind, shape, order = value.arguments
        return np.frombuffer(_bytes(content), _dtype(kind)).reshape(shape, order=order)
    _, shape, kind, fortran, content = value.state
    if isinstance(kind, _Inert) and kind.name == "dtype" and kind.arguments[0] == "O8" and isinstance(content, list):
        plain = [_plain(item, 0) for item in content]
        if all(isinstance(item, (str, int, float, bool)) or item is None for item in plain):
            return np.array(["" if item is None else str(item) for item in plain]).reshape(shape)
    return np.frombuffer(_bytes(content), _dtype(kind)).reshape(shape, order="F" if fortran else "C")


# --- tables of pandas ---------------------------------------------------------------------------------------------------


def _frame(value: _Inert, depth: int) -> Dict[str, NDArray]:
    """The columns of a DataFrame, whichever of pandas' versions wrote it."""
    state = value.state
    manager = state.get("_mgr", state.get("_data")) if isinstance(state, dict) else None
    if not isinstance(manager, _Inert):
        raise InputError("holds a table in an unknown form")
    if manager.arguments and len(manager.arguments) >= 2:  # since pandas 1.3: (blocks, axes)
        blocks, axes = manager.arguments[:2]
        pairs = [_block(block) for block in blocks]
    else:
        newest = manager.state[-1]["0.14.1"]
        axes, pairs = newest["axes"], [(_plain(block["values"], depth), block["mgr_locs"]) for block in newest["blocks"]]
    names = _labels(axes[0])
    columns: Dict[str, NDArray] = {}
    for values, places in pairs:
        indices = list(range(len(names)))[places] if isinstance(places, slice) else np.asarray(_plain(places, depth)).tolist()
        for index, row in zip(indices, np.atleast_2d(values)):
            columns[names[index]] = row
    return {name: columns[name] for name in names if name in columns}


def _block(block: Any) -> Tuple[NDArray, Any]:
    if not isinstance(block, _Inert) or len(block.arguments) < 2:
        raise InputError("holds a table in an unknown form")
    return np.asarray(_plain(block.arguments[0], 0)), block.arguments[1]


def _labels(index: Any) -> List[str]:
    """Column names of an index: of texts, of numbers, or a range."""
    if not isinstance(index, _Inert) or index.name != "_new_Index":
        raise InputError("holds a table without column names")
    content = index.arguments[1]
    if "data" in content:
        return [str(label) for label in np.asarray(_plain(content["data"], 0)).tolist()]
    labels = range(content["start"], content["stop"], content["step"])
    if len(labels) > MOST_COLUMNS:
        raise InputError(f"holds a table of {len(labels)} columns")
    return [str(label) for label in labels]
