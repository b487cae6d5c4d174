"""Make the pictures of "Looking at single projections": one particle with right signs, and with the tilt angles negated.

    python docs/make_debug_pictures.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from make_pictures import run, save
from PIL import Image

from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.pipeline.check import with_signs

PARTICLE = "TS_01/13"


def make_debug_pictures(work: Path) -> None:
    data, wrong = work / "data", work / "wrong"
    options = ["--series", "1", "--particles", "40", "--tilts", "21", "--box", "48", "--pixel", "6", "--seed", "3"]
    run(["sample", str(data), *options])
    write_dataset(with_signs(read_dataset(data), -1, 1), wrong)
    for name, folder in (("right", data), ("wrong", wrong)):
        plan = work / f"{name}-run"
        run(["plan", str(folder), "--out", str(plan)])
        run(["chunk", str(plan / "tasks" / "0000.json"), "--debug", str(work / name), "--particles", PARTICLE,
             "--reference", str(data / "reference.mrc")])
        with Image.open(work / name / "start" / f"{PARTICLE.replace('/', '_')}.png") as picture:
            save(f"debug_{name}.png", picture)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make_debug_pictures(Path(folder))
