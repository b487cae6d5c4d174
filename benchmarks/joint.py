"""Joint against alternating against particles-only refinement: errors over the Cramer-Rao bound, and the work it takes.

    python benchmarks/joint.py [--particles 60] [--doses 1 3 9] [--starts 1 2 4 8 12] [--picture FILE] [--json FILE]

One simulated tilt series (the built-in sample: hexon, 41 tilts, 4 A/pixel, overlapping particles) for each dose, refined
against the true map. Starts: rms errors on each component of S degrees and 2 S angstrom for particles, and 0.5 deg, 0.5 deg,
4 A for tilts. The bound is that of the data, of view and place of each projection; it does not depend on the gauge.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from pyp_cspr.engine.core.geometry import rotation_angle
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.symmetry import group_matrices
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.model.settings import RefineSettings
from pyp_cspr.engine.model.tables import Dataset
from pyp_cspr.engine.model.task import ChunkJournal
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.pipeline.refine_series import refine_series, refinement_grid, stage_radii, uncertainties
from pyp_cspr.engine.pipeline.selection import evaluator
from pyp_cspr.engine.pipeline.series_model import SeriesModel, geometry_of
from pyp_cspr.engine.refine.parameters import SeriesGeometry
from pyp_cspr.engine.refine.solve import SolveOptions, solve_series
from pyp_cspr.engine.sample.acquisition import add_errors
from pyp_cspr.engine.sample.make import make_sample
from pyp_cspr.engine.sample.settings import SampleSettings
from pyp_cspr.engine.sample.truth import read_truth

PARTICLES = ("rotation", "position")
EXPOSURES = ("tilt_angle", "axis_angle", "shift")
FINEST = 8.5  # angstrom


def errors(geometry: SeriesGeometry, truth: SeriesGeometry) -> Tuple[np.ndarray, np.ndarray]:
    """View error (deg) and place error (A) of every projection, modulo C3."""
    group = group_matrices("C3")
    view = np.min([rotation_angle(geometry.orientations() @ g, truth.orientations()) for g in group], axis=0)
    return view, np.linalg.norm(geometry.centres() - truth.centres(), axis=-1)


def alternate(model: SeriesModel, start: SeriesGeometry, radii: List[float]) -> Tuple[SeriesGeometry, int]:
    """Particles and exposures in turn, each to convergence, until neither gains: PYP's way, with our derivatives."""
    geometry, work = start, 0
    for number, radius in enumerate(radii):
        model.measure(geometry)
        evaluate = evaluator(model, model.band.prefix(radius), SolveOptions())
        last = number == len(radii) - 1
        cost = np.inf
        for _ in range(30 if last else 5):
            for free in (EXPOSURES, PARTICLES):
                solution = solve_series(start, geometry, model.projections.used, evaluate, last, SolveOptions(free=free))
                geometry = solution.geometry
                work += solution.report.evaluations
            now = float(solution.local.cost.sum())
            if cost - now < 0.05 * len(geometry.poses):
                break
            cost = now
    return geometry, work


def measure(dataset: Dataset, truth: Dataset, reference: Reference, settings: RefineSettings) -> List[Dict[str, Any]]:
    grid = refinement_grid(map_grid(dataset, settings), FINEST)
    model = SeriesModel(dataset, 0, [reference], grid, settings, ChunkJournal(), 1)
    start, true = geometry_of(dataset, 0), geometry_of(truth, 0)
    radii = stage_radii(model.field, settings.start_resolution, FINEST)
    rows = []

    def row(method: str, geometry: SeriesGeometry, work: int, seconds: float) -> None:
        view, place = errors(geometry, true)
        found = np.median(view, axis=1) < 5.0
        rows.append(
            {
                "method": method,
                "view": float(np.sqrt((view[found] ** 2).mean())),
                "place": float(np.sqrt((place[found] ** 2).mean())),
                "converged": float(found.mean()),
                "evaluations": work,
                "seconds": seconds,
                "projections_per_second": len(model) / seconds,
            }
        )

    begin = time.process_time()
    solution, _, journal = refine_series(model, start, start.copy(), radii, SolveOptions())
    row("joint", solution.geometry, journal["evaluations"], time.process_time() - begin)
    view_sigma, place_sigma = uncertainties(model, solution)
    bound = {"bound_view": float(np.sqrt(np.nanmean(view_sigma**2))), "bound_place": float(np.sqrt(np.nanmean(place_sigma**2)))}
    view, place = errors(solution.geometry, true)
    found = np.median(view, axis=1) < 5.0
    rows[0]["variance_view"] = float(np.nanmean((view[found] / view_sigma[found]) ** 2))
    rows[0]["variance_place"] = float(np.nanmean((place[found] / place_sigma[found]) ** 2))
    begin = time.process_time()
    geometry, work = alternate(model, start, radii)
    row("alternating", geometry, work, time.process_time() - begin)
    begin = time.process_time()
    solution, _, journal = refine_series(model, start, start.copy(), radii, SolveOptions(free=PARTICLES))
    row("particles only", solution.geometry, journal["evaluations"], time.process_time() - begin)
    for entry in rows:
        entry.update(bound, view_ratio=entry["view"] / bound["bound_view"], place_ratio=entry["place"] / bound["bound_place"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=60)
    parser.add_argument("--doses", type=float, nargs="+", default=[1.0, 3.0, 9.0])
    parser.add_argument("--starts", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0, 12.0])
    parser.add_argument("--picture", metavar="FILE")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    print(" dose  start method          view/deg  ratio  place/A  ratio  found  evals  proj/s  variance")
    everything = []
    for dose in args.doses:
        with tempfile.TemporaryDirectory() as name:
            made = SampleSettings(series=1, particles=args.particles, dose=dose, seed=int(10 * dose))
            make_sample(name, made, threads=2)
            given, truth = read_dataset(name), read_truth(Path(name) / "truth.star")
            volume, _ = read_map(Path(name) / "reference.mrc")
            settings = RefineSettings()
            grid = refinement_grid(map_grid(given, settings), FINEST)
            reference = Reference(volume, 1.5, grid.radius)
            for size in args.starts:
                wrong = replace(made, pose_error=size, position_error=2 * size, tilt_error=0.5, axis_error=0.5, shift_error=4.0)
                dataset = add_errors(given, wrong)
                for entry in measure(dataset, truth, reference, settings):
                    entry.update(dose=dose, start=size)
                    everything.append(entry)
                    print_row(entry)
    if args.json:
        Path(args.json).write_text(json.dumps(everything, indent=1))
    if args.picture:
        draw(everything, args.picture)


def print_row(entry: Dict[str, Any]) -> None:
    variance = f"{entry['variance_view']:.2f} {entry['variance_place']:.2f}" if "variance_view" in entry else ""
    print(
        f"{entry['dose']:5.1f} {entry['start']:6.1f} {entry['method']:15} {entry['view']:8.3f} {entry['view_ratio']:6.2f} "
        f"{entry['place']:8.3f} {entry['place_ratio']:6.2f} {entry['converged']:6.1%} {entry['evaluations']:6d} "
        f"{entry['projections_per_second']:7.0f}  {variance}",
        flush=True,
    )


def draw(rows: List[Dict[str, Any]], path: str) -> None:
    """Two panels: particles found, and place error over the bound, against the start error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {"joint": "#1f6f8b", "alternating": "#d1603d", "particles only": "#8a8a8a"}
    styles = ["-", "--", ":", "-."]
    for number, dose in enumerate(sorted({row["dose"] for row in rows})):
        for method, colour in colours.items():
            part = [row for row in rows if row["dose"] == dose and row["method"] == method]
            x = [row["start"] for row in part]
            label = f"{method}, {dose:g} e/Å² a tilt"
            left.plot(
                x,
                [100 * row["converged"] for row in part],
                styles[number % 4],
                marker="o",
                markersize=4,
                color=colour,
                label=label,
            )
            right.plot(x, [row["place_ratio"] for row in part], styles[number % 4], marker="o", markersize=4, color=colour)
    left.set(xlabel="start error of each component (deg; twice that in Å)", ylabel="particles within 5° (%)", ylim=(0, 103))
    right.set(xlabel=left.get_xlabel(), ylabel="place error / Cramér-Rao bound", yscale="log")
    right.axhline(1.0, color="black", linewidth=0.8)
    left.legend(fontsize=7, frameon=False, handlelength=3.6)  # long enough to tell dashes from lines
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
