"""Make the pictures of the documentation from a sample data set and its refinement.

    python docs/make_pictures.py [WORK]

WORK (a temporary folder if not given) gets the data and the runs; what is there already is used. The page's picture needs
chromium and is left as it is where that is missing.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.filters import soft_mask
from pyp_cspr.engine.core.fsc import fsc, resolutions
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.pipeline.reporting import load_refinement
from pyp_cspr.engine.report import figures
from pyp_cspr.engine.report.html import figure_png
from pyp_cspr.engine.report.refinement import RefinementData, weights_by_band
from pyp_cspr.engine.report.style import FAINT, INK, PALETTE, STYLE, resolution_axis

IMAGES = Path(__file__).resolve().parent / "images"
ERRORS = ["--pose-error", "2", "--position-error", "4", "--tilt-error", "0.5", "--axis-error", "0.5", "--shift-error", "4"]
LARGEST = 300_000  # bytes of a picture
GAP = 20  # pixels between pictures
PAGE = 1700  # pixels of the report that are shown


def run(arguments: Sequence[str]) -> None:
    print("cspr " + " ".join(arguments), flush=True)
    if main(list(arguments)) != 0:
        raise SystemExit(f"failed: cspr {' '.join(arguments)}")


def make_runs(work: Path) -> None:
    """The sample with errors and its refinement; the same sample without, reconstructed; images of noise only, refined."""
    for name, options in (("sample", ERRORS), ("truth", []), ("noise", ["--contrast", "1e-6", *ERRORS[:4]])):
        if not (work / name / "truth.star").exists():
            run(["sample", str(work / name), *options])
    for name in ("sample", "noise"):
        run(["refine", str(work / name), "--reference", str(work / name / "reference.mrc"), "--out", str(work / f"{name}-run"),
             "--symmetry", "C3"])
    run(["reconstruct", str(work / "truth"), "--out", str(work / "truth-run"), "--symmetry", "C3"])


def load(folder: Path) -> RefinementData:
    summary = json.loads((folder / "summary.json").read_text())
    history = summary["iterations"]
    return load_refinement(folder, history, len(history) - 1, summary["reason"])


def save(name: str, picture: Image.Image) -> None:
    """As PNG, made smaller until it fits."""
    while True:
        stream = io.BytesIO()
        picture.convert("RGB").save(stream, "PNG", optimize=True)
        if stream.tell() < LARGEST:
            break
        picture = picture.resize((int(0.9 * picture.width), int(0.9 * picture.height)), Image.Resampling.LANCZOS)
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / name).write_bytes(stream.getvalue())
    print(f"docs/images/{name}: {stream.tell() // 1000} kB, {picture.width} x {picture.height}")


def drawn(figure: Figure, width: int) -> Image.Image:
    return Image.open(io.BytesIO(figure_png(figure, dpi=width / figure.get_figwidth()))).convert("RGB")


def stacked(*rows: Image.Image) -> Image.Image:
    """Pictures of one width, one above the other."""
    page = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        page.paste(row, (0, top))
        top += row.height
    return page


def beside(*pictures: Image.Image) -> Image.Image:
    """Pictures in a row."""
    height = max(one.height for one in pictures)
    page = Image.new("RGB", (sum(one.width for one in pictures) + GAP * (len(pictures) - 1), height), "white")
    left = 0
    for one in pictures:
        page.paste(one, (left, 0))
        left += one.width + GAP
    return page


def curves_to_truth(maps: Dict[str, Path], truth: Path) -> Figure:
    """FSC of maps to the truth under the truth's own mask; where each falls to one half is printed as well."""
    reference, pixel = read_map(truth)
    mask = soft_mask(reference, pixel).values
    frequency = 1.0 / resolutions(len(reference), pixel)[1:]
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4))
        axes = figure.subplots()
        looks = [dict(color=PALETTE[1]), dict(color=PALETTE[0], linewidth=2.4),
                 dict(color=INK, linestyle=(0, (4, 2)), linewidth=1.2)]
        lowest = -0.05
        for (name, path), look in zip(maps.items(), looks):
            curve = fsc(read_map(path)[0] * mask, reference * mask)
            below = np.flatnonzero(curve[1:] < 0.5)
            where = f"{1 / frequency[below[0]]:.1f} A" if len(below) else "nowhere"
            print(f"FSC to the truth, {name}: below 0.5 at {where}; mean over shells 1 to 29 {curve[1:30].mean():.3f}")
            axes.plot(frequency, curve[1:], label=name, **look)
            lowest = min(lowest, float(curve.min()))
        axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.set(xlim=(0, frequency[-1]), ylim=(lowest - 0.03, 1.03), ylabel="FSC to the true structure")
        resolution_axis(axes, frequency[-1])
        axes.legend(loc="best")
    return figure


def noise_curves(data: RefinementData) -> Figure:
    """Corrected FSC of the half maps of pure noise, every iteration."""
    box, pixel = data.summary["box"], data.summary["pixel"]
    first = int(np.ceil(box * pixel / 30.0))
    worst = max(float(curve[first:-1].max()) for curve in data.curves)
    print(f"pure noise: largest FSC beyond 30 A in any iteration {worst:.3f}; "
          f"resolutions {[entry['resolution_0143'] for entry in data.history]}")
    return figures.fsc_by_iteration(data.curves, box, pixel, [None] * len(data.curves))


def page_picture(report: Path) -> Optional[Image.Image]:
    """The top of the report in light, and what follows it in dark; they meet between two rows of sections."""
    browser = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
    if browser is None:
        return None
    pages = []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        work = f"{report.parent.parent}/"  # nobody needs to see where the pictures were made
        page.write_text(report.read_text(encoding="utf-8").replace(work, ""), encoding="utf-8")
        for scheme in (1, 0):
            path = Path(folder) / f"{scheme}.png"
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size=1180,{PAGE}",
                       f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={path}", page.as_uri()]
            subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)
            pages.append(Image.open(path).convert("RGB"))
    light = np.asarray(pages[0])
    rows = np.flatnonzero((light == light[0, 0]).all(axis=(1, 2)))
    gaps = [run for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if run[0] > PAGE / 3]
    middle = int(np.median(max(gaps, key=len)))  # before a chapter
    pages[1].paste(pages[0].crop((0, 0, pages[0].width, middle)), (0, 0))
    whole = pages[1].crop((0, 0, pages[1].width, int(gaps[-1][0]) + GAP // 2))
    return whole.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def make_pictures(work: Path) -> None:
    data = load(work / "sample-run")
    pixel = data.summary["pixel"]
    views = figures.maps_compared(data.first_map, data.last_map, pixel, ("before", "after"))
    halves = figures.fsc_by_iteration(data.curves, data.summary["box"], pixel, [e["resolution_0143"] for e in data.history])
    truth = curves_to_truth(
        {"before": work / "sample-run" / "iterations" / "000" / "map.mrc", "after": work / "sample-run" / "map.mrc",
         "at the true poses": work / "truth-run" / "map.mrc"}, work / "sample" / "reference.mrc")
    save("before_after.png", stacked(drawn(views, 1200 + GAP), beside(drawn(halves, 600), drawn(truth, 600))))
    weights, bands = weights_by_band(data.tables, data.history[-1]["limit"])
    save("weights.png", beside(drawn(figures.scores_by_tilt(data.end, [table.score for table in data.tables]), 600),
                               drawn(figures.exposure_weights(data.end, weights, bands), 600)))
    view, place = (np.concatenate([getattr(table, name).ravel() for table in data.tables])
                   for name in ("view_sigma", "place_sigma"))
    save("progress.png", beside(drawn(figures.progress(data.history), 600), drawn(figures.uncertainties(view, place), 600)))
    save("geometry.png", beside(drawn(figures.geometry_change(data.start, data.end), 600),
                                drawn(figures.shift_vectors(data.start, data.end), 600)))
    save("noise.png", drawn(noise_curves(load(work / "noise-run")), 640))
    page = page_picture(work / "sample-run" / "report.html")
    if page is not None:
        save("report.png", page)


def documentation(arguments: Sequence[str]) -> None:
    if arguments:
        work = Path(arguments[0]).absolute()
        work.mkdir(parents=True, exist_ok=True)
        make_runs(work)
        make_pictures(work)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder))
        make_pictures(Path(folder))


if __name__ == "__main__":
    documentation(sys.argv[1:])
