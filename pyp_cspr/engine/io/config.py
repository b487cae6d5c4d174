"""Settings and small records: TOML and JSON, and pages; written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any, Dict, Type, TypeVar, Union

import numpy as np
import tomli_w

from ..errors import InputError
from ..model.settings import Settings
from .mrc import write_aside

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PathLike = Union[str, "os.PathLike[str]"]
S = TypeVar("S", bound=Settings)


def read_toml(path: PathLike) -> Dict[str, Any]:
    """The tables of a TOML file. Raises InputError where it is missing or wrong."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise InputError(f"{name}: cannot be read as TOML: {_reason(error)}; mend the file or its path") from None


def write_toml(path: PathLike, values: Dict[str, Any]) -> None:
    """Write nested dictionaries as TOML. Raises InputError where the file cannot be written."""
    write_whole(path, tomli_w.dumps(values).encode())


def read_settings(path: PathLike, kind: Type[S], table: str = "") -> S:
    """Settings of class ``kind`` from a TOML file, or from its ``[table]``; what the file leaves out has its default.

    Raises InputError where the file is missing or wrong, or holds a setting that ``kind`` does not know.
    """
    values = read_toml(path)
    where = os.fspath(path)
    if table:
        where = f"{where} [{table}]"
        values = values.get(table, {})
        if not isinstance(values, dict):
            raise InputError(f"{where}: is a value, want a table of settings")
    return kind.from_dict(values, where)


def write_settings(path: PathLike, settings: Settings, table: str = "") -> None:
    """Write all settings as TOML, in ``[table]`` where it is given. Raises InputError where the file cannot be written."""
    values = settings.to_dict()
    write_toml(path, {table: values} if table else values)


def read_json(path: PathLike) -> Any:
    """The value of a JSON file. Raises InputError where it is missing or wrong."""
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: cannot be read as JSON: {_reason(error)}; mend the file or its path") from None


def write_json(path: PathLike, value: Any) -> None:
    """Write a value as JSON; NumPy's numbers and arrays become plain ones, NaN and infinities null.

    Raises InputError where the file cannot be written, TypeError for what JSON cannot hold.
    """
    write_whole(path, (json.dumps(_plain(value), indent=1, allow_nan=False) + "\n").encode())


def write_whole(path: PathLike, content: bytes) -> int:
    """Write a file whole or not at all; returns the bytes written. Raises InputError where it cannot be written."""
    write_aside(path, lambda temporary: _fill(temporary, content))
    return len(content)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _fill(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
