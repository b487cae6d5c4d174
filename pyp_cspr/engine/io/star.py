"""STAR files: blocks of loops or single values, kept as text.

The reader is our own and not emtable's: a value in quotes may hold spaces (optics group names, paths of the user), and a
wrong file must end in one line that names the line, not in a traceback.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .mrc import write_aside

PathLike = Union[str, "os.PathLike[str]"]

# A quote opens a value only at its start and closes it only before white space (STAR, Hall 1991). A bracketed list is one
# value even with spaces in it: RELION writes none, other programs do.
TOKEN = re.compile(
    r"""'(?P<single>(?:[^']|'(?=\S))*)'(?=\s|$)"""
    r"""|"(?P<double>(?:[^"]|"(?=\S))*)"(?=\s|$)"""
    r"""|(?P<list>\[[^\]]*\])(?=\s|$)|\#.*|(?P<plain>\S+)"""
)

# What is written without quotes: nothing that could be a label, a comment or the start of a block, or a list in brackets.
PLAIN = re.compile(r"(?!(?i:data_|loop_$))[^\s'\"#_\[]\S*|\[[^\]\s]*\]").fullmatch


@dataclass
class StarBlock:
    """One ``data_`` block: columns of text, all equally long; ``loop`` is False for single values (one row).

    ``name`` has no ``data_``; column names have no leading underscore. ``where`` names the file in messages.
    """

    name: str = ""
    columns: Dict[str, List[str]] = field(default_factory=dict)
    loop: bool = True
    where: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def has(self, *columns: str) -> bool:
        """Whether all of ``columns`` are there."""
        return all(column in self.columns for column in columns)

    def texts(self, column: str) -> List[str]:
        """A column as text. Raises InputError where it is missing."""
        try:
            return self.columns[column]
        except KeyError:
            raise InputError(f"{self.where}: data_{self.name} has no column _{column}; add it") from None

    def floats(self, column: str, default: Union[float, None] = None) -> NDArray[np.float64]:
        """A column as float64; ``default`` fills a missing one. Raises InputError for what is not a finite number."""
        if default is not None and column not in self.columns:
            return np.full(len(self), float(default))
        texts = self.texts(column)
        try:
            values = np.array(texts, dtype=np.float64) if texts else np.empty(0)
        except ValueError:
            values = np.array([_float_or_nan(text) for text in texts])
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = int(bad[0])
            raise InputError(f"{self.where}: data_{self.name} row {row + 1}: _{column} is {texts[row]!r}, want a number")
        return values

    def integers(self, column: str, default: Union[int, None] = None) -> NDArray[np.int64]:
        """A column as int64. Raises InputError for what is not a whole number."""
        values = self.floats(column, default)
        bad = np.flatnonzero((values != np.rint(values)) | (np.abs(values) > 2**53))
        if len(bad):
            row = int(bad[0])
            raise InputError(f"{self.where}: data_{self.name} row {row + 1}: _{column} is {values[row]:g}, want a whole number")
        return values.astype(np.int64)

    def vectors(self, column: str, length: int) -> NDArray[np.float64]:
        """A column of ``[a,b,c]`` as ``(rows, length)`` float64. Raises InputError."""
        texts = self.texts(column)
        values = np.empty((len(texts), length))
        for row, text in enumerate(texts):
            parts = text.strip("[]").replace(",", " ").split()
            numbers = [_float_or_nan(part) for part in parts]
            if len(numbers) != length or not np.all(np.isfinite(numbers)):
                raise InputError(f"{self.where}: data_{self.name} row {row + 1}: _{column} is {text!r}, want {length} numbers")
            values[row] = numbers
        return values

    def single(self, column: str) -> str:
        """The value of a block of singles (or of a loop of one row). Raises InputError."""
        texts = self.texts(column)
        if len(texts) != 1:
            raise InputError(f"{self.where}: data_{self.name}: _{column} has {len(texts)} values, want one")
        return texts[0]


def read_star(path: PathLike) -> Dict[str, StarBlock]:
    """All blocks of a STAR file, by name without ``data_``, in the file's order.

    Raises InputError where the file is missing, is not text, or does not follow the format.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a text file; want a STAR file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read: {reason}; check the path") from None
    return _parse(lines, name)


def _parse(lines: Sequence[str], name: str) -> Dict[str, StarBlock]:
    blocks: Dict[str, StarBlock] = {}
    number = 0
    block = StarBlock()
    while number < len(lines):
        line = lines[number].strip()
        if not line or line[0] == "#":
            number += 1
        elif line[:5].lower() == "data_":
            words = _tokens(line)
            if len(words) > 1:
                raise InputError(f"{name}: line {number + 1}: {line[:40]!r}, want data_NAME alone on its line")
            block = StarBlock(line.split()[0][5:], where=name)
            if block.name in blocks:
                raise InputError(f"{name}: line {number + 1}: a second block data_{block.name}; rename one of them")
            blocks[block.name] = block
            number += 1
        elif not blocks:
            raise InputError(f"{name}: line {number + 1}: {line[:40]!r} before any data_ block; not a STAR file")
        elif line.split()[0].lower() == "loop_":
            if block.columns:
                raise InputError(f"{name}: line {number + 1}: a second loop_ in data_{block.name}; give it its own data_ block")
            number = _parse_loop(lines, number + 1, block, name)
        elif line[0] == "_":
            number = _parse_single(lines, number, block, name)
        else:
            raise InputError(f"{name}: line {number + 1}: {line[:40]!r} belongs to no loop_; check the lines above it")
    if not blocks:
        raise InputError(f"{name}: no data_ block; not a STAR file")
    return blocks


def _parse_loop(lines: Sequence[str], number: int, block: StarBlock, name: str) -> int:
    """Read labels and rows from line ``number`` on; returns the line after the loop."""
    labels: List[str] = []
    while number < len(lines):
        words = lines[number].split()
        if words and words[0][0] == "_":
            if words[0][1:] in labels:
                raise InputError(f"{name}: line {number + 1}: column {words[0]} twice in data_{block.name}; remove one")
            labels.append(words[0][1:])
        elif words and words[0][0] != "#":
            break
        number += 1
    if not labels:
        raise InputError(f"{name}: line {number + 1}: loop_ of data_{block.name} without columns")
    rows: List[List[str]] = []
    width = len(labels)
    while number < len(lines):
        line = lines[number]
        if "'" in line or '"' in line or "#" in line or "[" in line:
            words = _tokens(line)
        else:
            words = line.split()
        if words:
            if len(words) == 1 and _starts_block(line.strip()):
                break
            if len(words) != width:
                raise InputError(f"{name}: line {number + 1}: {len(words)} values, data_{block.name} has {width} columns")
            rows.append(words)
        number += 1
    columns: Sequence[Tuple[str, ...]] = list(zip(*rows)) if rows else [()] * width
    block.columns = {label: list(values) for label, values in zip(labels, columns)}
    return number


def _parse_single(lines: Sequence[str], number: int, block: StarBlock, name: str) -> int:
    words = _tokens(lines[number])
    label = words[0][1:]
    if block.columns and block.loop:
        raise InputError(f"{name}: line {number + 1}: _{label} after the loop_ of data_{block.name}; give it its own block")
    if len(words) != 2:
        raise InputError(f"{name}: line {number + 1}: _{label} has {len(words) - 1} values, want one")
    if label in block.columns:
        raise InputError(f"{name}: line {number + 1}: _{label} twice in data_{block.name}; remove one")
    block.loop = False
    block.columns[label] = [words[1]]
    return number + 1


def _starts_block(word: str) -> bool:
    return word[:5].lower() == "data_" or word.lower() == "loop_"


def _tokens(line: str) -> List[str]:
    """The values of a line, without quotes and comments."""
    words = []
    for match in TOKEN.finditer(line):
        if match.lastgroup is not None:
            words.append(match.group(match.lastgroup))
    return words


def _float_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def write_star(path: PathLike, blocks: Union[Dict[str, StarBlock], Iterable[StarBlock]]) -> None:
    """Write blocks in RELION's layout; the file appears whole or not at all.

    A dictionary's keys name the blocks. Raises InputError where the file cannot be written, ValueError for columns of
    unequal length or for text that STAR cannot hold.
    """
    named = list(blocks.items()) if isinstance(blocks, dict) else [(block.name, block) for block in blocks]
    text = "".join(_format_block(name, block) for name, block in named)

    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)

    write_aside(path, write)


def _format_block(name: str, block: StarBlock) -> str:
    lengths = {len(values) for values in block.columns.values()}
    if len(lengths) > 1 or (not block.loop and lengths != {1}):
        raise ValueError(f"data_{name}: columns of {sorted(lengths)} values")
    lines = ["", f"data_{name}", ""]
    if block.loop:
        lines.append("loop_")
        lines += [f"_{label} #{index}" for index, label in enumerate(block.columns, 1)]
        columns = [[value if PLAIN(value) else _quote(value) for value in values] for values in block.columns.values()]
        layout = " ".join(f"%{max(map(len, values), default=0)}s" for values in columns)
        lines += [layout % row for row in zip(*columns)]
    else:
        width = max(map(len, block.columns), default=0)
        lines += [f"_{label:<{width}} {_quote(values[0])}" for label, values in block.columns.items()]
    return "\n".join(lines) + "\n\n"


def _quote(value: str) -> str:
    if PLAIN(value):
        return value
    for mark in "'\"":
        if "\n" not in value and "\r" not in value and not re.search(mark + r"(\s|$)", value):
            return mark + value + mark
    raise ValueError(f"{value!r} cannot be written to a STAR file")
