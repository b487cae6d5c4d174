"""The truth of a sample data set, ``truth.star``: what was simulated, never what a program should read to reconstruct.

Three blocks, ``cspr_series``, ``cspr_exposures`` and ``cspr_particles``: every column of ``model/tables.py`` by its own name,
in its own unit, with a suffix where a value has parts:

- vectors: X, Y (and Z); defocus: U, V, Angle
- matrices: Rot, Tilt, Psi in degrees, the angles of sentence 5 of ``engine/conventions.py``, of the matrix as it is. (T_e is
  therefore not given by its tilt angle; ``core.geometry.matrix_to_tilt`` tells it.)

A block ``cspr_general`` has the box, its pixel size and the format's version. Numbers are written with all their digits.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Sequence, Union

import numpy as np

from ..core.geometry import euler_to_matrix, matrix_to_euler
from ..errors import InputError
from ..io.star import StarBlock, read_star, write_star
from ..model.tables import EXPOSURES, PARTICLES, SERIES, Column, Dataset, Table

VERSION = 1
PARTS = {(2,): ("X", "Y"), (3,): ("X", "Y", "Z"), (3, 3): ("Rot", "Tilt", "Psi")}
LEFT_OUT = ("extract_rotation", "extract_shift", "extract_position", "stack", "score", "sigma", "deformation", "defocus_offset",
            "deformation_grid", "defocus_field", "defocus_grid")  # of stacks and refinements
ADDED = ("magnification",)  # columns that older files do not have

PathLike = Union[str, "os.PathLike[str]"]


def write_truth(path: PathLike, truth: Dataset) -> None:
    """Write the tables. Raises InputError where the file cannot be written."""
    general = {"csprVersion": [str(VERSION)], "csprBox": [str(truth.box)], "csprBoxPixel": [repr(float(truth.box_pixel))]}
    write_star(path, [
        StarBlock("cspr_general", general, loop=False),
        _to_block("cspr_series", truth.series),
        _to_block("cspr_exposures", truth.exposures),
        _to_block("cspr_particles", truth.particles),
    ])


def read_truth(path: PathLike) -> Dataset:
    """The data set of ``write_truth``; all projections visible. Raises InputError where it is not such a file."""
    blocks = read_star(path)
    for name in ("cspr_general", "cspr_series", "cspr_exposures", "cspr_particles"):
        if name not in blocks:
            raise InputError(f"{path}: no data_{name}; give the truth.star that cspr sample wrote")
    general = blocks["cspr_general"]
    if int(general.integers("csprVersion")[0]) != VERSION:
        raise InputError(f"{path}: version {general.single('csprVersion')}, want {VERSION}; make the sample again")
    series = _to_table(SERIES, blocks["cspr_series"])
    exposures = _to_table(EXPOSURES, blocks["cspr_exposures"])
    particles = _to_table(PARTICLES, blocks["cspr_particles"])
    counts = np.bincount(exposures["series"], minlength=len(series))
    visible = np.arange(counts.max())[None, :] < counts[particles["series"]][:, None]
    truth = Dataset(
        series, exposures, particles, visible, int(general.integers("csprBox")[0]), float(general.floats("csprBoxPixel")[0]),
        source=os.fspath(path),
    )
    truth.validate()
    return truth


def _names(column: Column) -> List[str]:
    base = "cspr" + "".join(word.capitalize() for word in column.name.split("_"))
    if column.name == "defocus":
        return [base + part for part in ("U", "V", "Angle")]
    return [base + part for part in PARTS.get(column.shape, ("",))]


def _kept(schema: Sequence[Column]) -> List[Column]:
    return [column for column in schema if column.name not in LEFT_OUT]


def _to_block(name: str, table: Table) -> StarBlock:
    columns: Dict[str, List[str]] = {}
    for column in _kept(table.schema):
        values: Any = table[column.name]
        parts = matrix_to_euler(values) if column.shape == (3, 3) else values.reshape(len(table), -1).T
        for part_name, part in zip(_names(column), parts):
            columns[part_name] = [_text(value) for value in part.tolist()]
    return StarBlock(name, columns)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else value if isinstance(value, str) else repr(value)


def _to_table(schema: Sequence[Column], block: StarBlock) -> Table:
    columns: Dict[str, Any] = {}
    for column in _kept(schema):
        names = _names(column)
        if names[0] not in block and column.name in ADDED:
            continue
        if column.dtype == "U":
            columns[column.name] = block.texts(names[0])
            continue
        parts = [block.floats(name) for name in names]
        if column.shape == (3, 3):
            columns[column.name] = euler_to_matrix(*parts)
        else:
            columns[column.name] = np.stack(parts, axis=-1).reshape((len(block),) + column.shape)
    return Table(schema, columns)
