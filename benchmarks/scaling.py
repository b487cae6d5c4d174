"""Time and memory of refinement against particles, tilts, box and threads.

    python benchmarks/scaling.py [--json FILE]

Each row is one process that refines one simulated series (no file is written but the sample) from 2 deg, 4 A and tilts of
0.5 deg, 0.5 deg, 4 A, to 8.5 A; box 96 has the same pixel and more of the particle's surroundings; box 128 has 2 A/px and
goes to 6 A, as in the comparison with RELION. The best of three runs in a process counts, whose kernels are loaded, with
extraction and all. Memory is the peak of the process; "bounded" runs with 8 MB of coefficients in memory at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict

BASE: Dict[str, Any] = {"particles": 60, "tilts": 41, "box": 64, "pixel": 4.0, "limit": 8.5}
CODE = """
import json, re, sys, time
from pyp_cspr.engine.core._jit import prepare_process
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.model.settings import RefineSettings
from pyp_cspr.engine.model.task import ChunkJournal
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.pipeline.refine_series import refine_series, refinement_grid, stage_radii
from pyp_cspr.engine.pipeline.series_model import SeriesModel, geometry_of
from pyp_cspr.engine.refine.solve import SolveOptions
folder, threads, memory, limit = sys.argv[1], int(sys.argv[2]), int(float(sys.argv[3])), float(sys.argv[4])
prepare_process()
dataset = read_dataset(folder)
dataset.assign_halves()
settings = RefineSettings()
grid = refinement_grid(map_grid(dataset, settings), limit)
reference = Reference(read_map(folder + "/reference.mrc")[0], 1.5, grid.radius)
def run():
    model = SeriesModel(dataset, 0, [reference], grid, settings, ChunkJournal(), threads, memory)
    start = geometry_of(dataset, 0)
    radii = stage_radii(model.field, 60.0, limit)
    return len(model), refine_series(model, start, start.copy(), radii, SolveOptions())[2]
times = []
for _ in range(4):
    begin = time.perf_counter()
    count, journal = run()
    times.append(time.perf_counter() - begin)
seconds = min(times[1:])
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))  # ru_maxrss has the parent's as well
print(json.dumps({"projections": count, "seconds": seconds, "evaluations": journal["evaluations"], "peak_MB": peak / 1024}))
"""


def run(particles: int, tilts: int, box: int, pixel: float, limit: float, threads: int, memory: float) -> Dict[str, Any]:
    from pyp_cspr.engine.sample.make import make_sample
    from pyp_cspr.engine.sample.settings import SampleSettings

    with tempfile.TemporaryDirectory() as name:
        errors = {"pose_error": 2.0, "position_error": 4.0, "tilt_error": 0.5, "axis_error": 0.5, "shift_error": 4.0}
        settings = SampleSettings(series=1, particles=particles, tilts=tilts, box=box, pixel=pixel, **errors)
        make_sample(Path(name) / "data", settings, threads=2)
        command = [sys.executable, "-c", CODE, str(Path(name) / "data"), str(threads), str(memory), str(limit)]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
    row: Dict[str, Any] = json.loads(out.stdout)
    row.update(particles=particles, tilts=tilts, box=box, threads=threads)
    row["projections_per_second"] = row["projections"] / row["seconds"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    cases = [dict(BASE)]
    cases += [dict(BASE, particles=number) for number in (30, 120, 240)]
    cases += [dict(BASE, tilts=number) for number in (21, 61)]
    cases += [dict(BASE, box=96), dict(BASE, box=128, pixel=2.0, limit=6.0)]
    cases += [dict(BASE, particles=200, box=128, pixel=2.0, limit=6.0)]
    print("particles  tilts  box  threads  memory     seconds  proj/s  evaluations  peak MB")
    rows = []
    for case in cases:
        for threads, memory, label in ((1, 2**40, "all"), (2, 2**40, "all"), (1, 8e6, "bounded")):
            if label == "bounded" and case["particles"] not in (60, 120, 240):
                continue
            row = dict(run(threads=threads, memory=memory, **case), memory=label)
            rows.append(row)
            print(
                f"{row['particles']:9d} {row['tilts']:6d} {row['box']:4d} {threads:8d}  {label:9} {row['seconds']:8.2f} "
                f"{row['projections_per_second']:7.0f} {row['evaluations']:12d} {row['peak_MB']:8.0f}",
                flush=True,
            )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
