"""Small data sets with image files, whose every column differs from its default, and ways to compare and damage them."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

import numpy as np

from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix, tilt_to_matrix
from pyp_cspr.engine.io.mrc import write_stack
from pyp_cspr.engine.io.star import read_star, write_star
from pyp_cspr.engine.model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table

SIZES = ((60, 46), (51, 43))  # x, y of the two series: even and odd
TILTS = (5, 4)
PIXEL = 3.7


def make_dataset(folder: Path, stacks: bool = False, particles: int = 6, images: bool = True) -> Dataset:
    """Two series of different sizes and tilts; with ``stacks``, extracted stacks of box 16 at 2.5 times the pixel."""
    random = np.random.default_rng(5)
    count = sum(TILTS)
    owner = np.repeat([0, 1], [particles - particles // 2, particles // 2])
    files = []
    for row, (nx, ny) in enumerate(SIZES):
        files.append(str(folder / f"series {row}.mrc") if not stacks else "")
        if images and not stacks:
            write_stack(files[row], random.normal(size=(TILTS[row] + 1, ny, nx)).astype(np.float32), PIXEL)
    series = {
        "name": ["TS_a", "TS_b"],
        "images": files,
        "image_size": SIZES,
        "specimen_size": [(64, 50, 20), (55, 45, 21)],
        "pixel": [PIXEL, PIXEL],
        "voltage": [200.0, 300.0],
        "cs": [2.7, 0.01],
        "amplitude_contrast": [0.07, 0.1],
        "hand": [1.0, -1.0],
        "contrast": [1.0, 1.0] if stacks else [-1.0, 1.0],
    }
    if stacks:
        series.update({"stack_pixel": [9.25, 9.25], "stack_box": [16, 16], "premultiplied": [True, False]})
    angles = [random.uniform(-2, 2, count), random.uniform(-60, 60, count), random.uniform(-180, 180, count)]
    exposures = {
        "series": np.repeat([0, 1], TILTS),
        "slice": np.concatenate([np.arange(n) + 1 for n in TILTS]),
        "order": np.concatenate([random.permutation(n) for n in TILTS]),
        "rotation": tilt_to_matrix(*angles),
        "shift": random.normal(0, 20, (count, 2)),
        "dose_before": random.uniform(0, 100, count),
        "dose": random.uniform(1, 3, count),
        "defocus": random.uniform(1e4, 4e4, (count, 3)) * (1, 1, 1e-3),
        "phase_shift": random.uniform(0, 180, count),
        "scale": random.uniform(0.4, 1, count),
        "enabled": np.arange(count) != 3,
    }
    if stacks:
        exposures["extract_rotation"] = tilt_to_matrix(*(a + 0.3 for a in angles))
        exposures["extract_shift"] = exposures["shift"] + random.normal(size=(count, 2))
    position = random.uniform(-40, 40, (particles, 3)) * (1, 1, 0.5)
    rows = {
        "name": [f"TS_{'ab'[s]}/{i}" for i, s in enumerate(owner)],
        "series": owner,
        "position": position,
        "rotation": rotation_vector_to_matrix(random.normal(size=(particles, 3))),
        "half": 1 + np.arange(particles) % 2,
        "score": np.where(np.arange(particles) == 2, np.nan, random.uniform(0, 100, particles)),
        "weight": random.uniform(0, 1, particles),
    }
    visible = np.arange(max(TILTS)) < np.array(TILTS)[owner][:, None]
    visible[1, 2] = visible[4, 0] = False
    if stacks:
        exposures["slice"] = np.concatenate([np.arange(n) for n in TILTS])  # no stack, so the star has no word for it
        rows["extract_position"] = position + random.normal(size=position.shape)
        rows["stack"] = [str(folder / "cut" / f"{i}.mrcs") for i in range(particles)]
        for row, name in enumerate(rows["stack"]):
            if images:
                write_stack(name, random.normal(size=(visible[row].sum(), 16, 16)).astype(np.float16), 9.25)
    extra = {
        "rlnClassNumber": [str(1 + i % 3) for i in range(particles)],
        "rlnGroupName": [f"group {i}" if i % 2 else "plain" for i in range(particles)],
    }
    box, box_pixel = (16, 9.25) if stacks else (32, 2 * PIXEL)
    return Dataset(Table(SERIES, series), Table(EXPOSURES, exposures), Table(PARTICLES, rows), visible, box, box_pixel, extra)


def differences(a: Dataset, b: Dataset, tolerance: float = 1e-9) -> List[str]:
    """The columns in which two data sets differ by more than ``tolerance`` relative to the column's largest value."""
    found = []
    for kind in ("series", "exposures", "particles"):
        for name, first in getattr(a, kind).columns.items():
            second = getattr(b, kind)[name]
            if first.dtype.kind == "f":
                scale = max(1.0, np.nanmax(np.abs(first), initial=0.0))
                same = np.allclose(first, second, rtol=0, atol=tolerance * scale, equal_nan=True)
            else:
                same = np.array_equal(first, second)
            if not same:
                found.append(f"{kind}.{name}")
    for name in ("box", "box_pixel", "extra"):
        if getattr(a, name) != getattr(b, name):
            found.append(name)
    if not np.array_equal(a.visible, b.visible):
        found.append("visible")
    return found


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first ``old`` of a text file."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


def columns_of(path: Path, block: str) -> Tuple[List[str], List[List[str]]]:
    """Labels and rows of a loop, read plainly."""
    lines = path.read_text().split(f"data_{block}\n")[1].split("\ndata_")[0].splitlines()
    labels = [line.split()[0][1:] for line in lines if line.startswith("_")]
    rows = [line.split() for line in lines if line.strip() and line[0] not in "_#" and not line.startswith("loop_")]
    return labels, rows


def drop(path: Path, block: str, *labels: str) -> None:
    """Remove columns of a star."""
    blocks = read_star(path)
    for label in labels:
        del blocks[block].columns[label]
    write_star(path, blocks)


def change(path: Path, block: str, label: str, row: int, value: str) -> None:
    """Set one value of a star."""
    blocks = read_star(path)
    blocks[block].columns[label][row] = value
    write_star(path, blocks)
