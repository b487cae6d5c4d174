"""The worked example of docs/pyp.md runs as it is written there, line by line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.core.filters import soft_mask
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "pyp.md"


def example() -> str:
    """The blocks of commands of the page's first chapter."""
    text = PAGE.read_text(encoding="utf-8")
    chapter = re.split(r"^## ", text, flags=re.MULTILINE)[1]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)
    blocks = [block for kind, block in fenced if not kind]
    assert len(blocks) == 3
    return "".join(blocks)


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="docs are not installed with the package")
@pytest.mark.timeout(500)
def test_the_example_runs_and_its_maps_are_right(tmp_path) -> None:
    for name, module in (("cspr", "cli"), ("csp", "cli.csp")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pyp_cspr.engine.{module} "$@"\n')
        program.chmod(0o755)
    environment = dict(os.environ, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", PYTHONPATH=str(ROOT))
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(["bash", "-e", "-c", example()], cwd=work, env=environment, capture_output=True, text=True,
                          timeout=450, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    maps = work / "PROJECT" / "frealign" / "maps"
    assert [path.name for path in sorted(maps.glob("PROJECT_r01_0?.*"))] == [
        f"PROJECT_r01_0{number}.{ending}" for number in (1, 2, 3) for ending in ("bz2", "mrc")]
    assert (work / "PROJECT" / "frealign" / "previous_01" / "maps" / "PROJECT_r01_03.mrc").exists()
    assert (work / "SHARPENED" / "map_sharpened.mrc").exists()
    assert len(read_dataset(work / "REFINED").particles) == 60
    truth, pixel = read_map(work / "SAMPLE" / "reference.mrc")
    mask = soft_mask(truth, pixel).values

    def quality(path: Path) -> float:
        return float(np.mean(fsc(read_map(path)[0] * mask, truth * mask)[1:20]))

    scratch = work / "PROJECT" / "frealign" / "scratch" / "PROJECT_r01_from02" / "run" / "iterations"
    assert quality(maps / "PROJECT_r01_03.mrc") > quality(scratch / "000" / "map.mrc") + 0.02
    assert (scratch.parent / "report.html").exists()
