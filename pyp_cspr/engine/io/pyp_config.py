"""The configuration of a PYP project: its text files, and the command line above them.

``.pyp_config``, ``frealign.config`` and ``parameters.config`` have a key and its value on each line, with or without ``=``
between them; ``#`` starts a comment. ``.pyp_config.toml`` is flat TOML. Files that are missing are passed over.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, List, Sequence, Tuple, Union

from ..errors import InputError
from ..model.pyp_configuration import PypConfiguration
from ..model.pyp_keys import all_keys, find_key, old_names
from .config import read_toml

PathLike = Union[str, "os.PathLike[str]"]
FILES = (".pyp_config", ".pyp_config.toml", "frealign.config", "parameters.config")  # each above those before it
COMMAND_LINE = "command line"
LARGEST = 4_000_000  # bytes; a configuration has a few thousand

_LINE = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*(?:=|[ \t]|$)[ \t]*(.*)", re.ASCII)
_NUMBER = re.compile(r"-[\d.]")


def read_configuration(folder: PathLike, arguments: Sequence[str] = ()) -> PypConfiguration:
    """All that a project folder's files and the command line say, each above those before it (``FILES``).

    Raises InputError with the file and line for what is unknown or wrong, with the nearest known name for an unknown key.
    """
    configuration = PypConfiguration()
    for name in FILES:
        path = Path(folder) / name
        if path.exists() or path.is_symlink():
            read = read_configuration_toml if name.endswith(".toml") else read_configuration_text
            configuration = configuration.merged(read(path))
    return configuration.merged(parse_arguments(arguments))


def read_configuration_text(path: PathLike) -> PypConfiguration:
    """One text file of keys. Raises InputError with the file and line."""
    found = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        origin = f"{os.fspath(path)}:{number}"
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise InputError(f"{origin}: {stripped[:60]!r} is not a key and its value; mend or remove the line")
        found.append((match.group(1), _bare(match.group(2)), origin))
    return _configured(found)


def read_configuration_toml(path: PathLike) -> PypConfiguration:
    """One flat TOML file of keys. Raises InputError with the file and line."""
    text = _read_text(path)
    try:
        values = read_toml(path)
    except RecursionError:
        raise InputError(f"{os.fspath(path)}: is nested too deep; PYP's keys are flat") from None
    return _configured([(name, _toml_text(name, value, _toml_origin(path, text, name)), _toml_origin(path, text, name))
                        for name, value in values.items()])


def parse_arguments(arguments: Sequence[str]) -> PypConfiguration:
    """The command line: ``-key value``, ``-key=value``, and of a True or False ``-key`` and ``-no-key`` alone.

    Raises InputError for what is not of that form, and for unknown keys and wrong values.
    """
    found: List[Tuple[str, str, str]] = []
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        index += 1
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not name:
            raise InputError(f"{COMMAND_LINE}: {argument[:60]!r} is no key; write -key value")
        if name.startswith("no-") and not equals:
            name, value = name[3:], "False"
            _must_be_flag(name, argument)
        elif not equals:
            if index < len(arguments) and _is_value(arguments[index]):
                value = arguments[index]
                index += 1
            else:
                _must_be_flag(name, argument)
                value = "True"
        found.append((name, value, COMMAND_LINE))
    return _configured(found)


def write_configuration(configuration: PypConfiguration) -> str:
    """The text of a file that ``read_configuration_text`` reads as the same values."""
    keys = all_keys()
    return "".join(f"{name} = {_quoted(keys[name].write(configuration.values[name]))}\n" for name in configuration.names())


def _configured(found: Sequence[Tuple[str, str, str]]) -> PypConfiguration:
    """PYP copies its metric_ keys over those of the same meaning, so they come last."""
    configuration = PypConfiguration()
    for name, text, origin in sorted(found, key=lambda entry: entry[0].startswith("metric_")):
        configuration.give(name, text, origin)
    return configuration


def _is_value(text: str) -> bool:
    return not text.startswith("-") or bool(_NUMBER.match(text)) or text == "-"


def _must_be_flag(name: str, argument: str) -> None:
    key = find_key(name, COMMAND_LINE)
    if key is not None and key.kind is not bool:
        raise InputError(f"{COMMAND_LINE}: {argument} needs a value: {key.meaning}")


def _bare(value: str) -> str:
    """The value without quotes around it and without a comment after it."""
    value = value.strip()
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        if end > 0 and not value[end + 1 :].split("#")[0].strip():
            return value[1:end]
    return re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()


def _quoted(text: str) -> str:
    return text if text and not re.search(r"[\s#'\"]", text) else f"'{text}'" if "'" not in text else f'"{text}"'


def _read_text(path: PathLike) -> str:
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read ({reason}); mend the file or its path") from None
    if len(content) > LARGEST:
        raise InputError(f"{name}: is larger than {LARGEST} bytes, so it is no configuration; remove it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{name}:{line}: is not text (UTF-8); write the file again") from None


def _toml_origin(path: PathLike, text: str, name: str) -> str:
    match = re.search(rf"^[ \t]*\[?[ \t]*[\"']?{re.escape(name)}[\"']?[ \t]*[=.\]]", text, re.MULTILINE)
    line = f":{text.count(chr(10), 0, match.start()) + 1}" if match else ""
    return f"{os.fspath(path)}{line}"


def _toml_text(name: str, value: Any, origin: str) -> str:
    if isinstance(value, dict):
        raise InputError(f"{origin}: {name[:60]!r} is a table; PYP's keys are flat, such as csp_refine_particles = true")
    if isinstance(value, list):
        if not value or any(isinstance(part, (dict, list)) for part in value):
            raise InputError(f"{origin}: {name[:60]!r} is not a value or a list of values for each iteration")
        return ":".join(_toml_text(name, part, origin) for part in value)
    return str(value)


def known_name(name: str) -> str:
    """The present name of a key. Raises InputError with the nearest known name."""
    find_key(name, COMMAND_LINE)
    return old_names().get(name, name)
