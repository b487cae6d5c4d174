"""Reconstruction against RELION: the same images, the same poses, time, memory and FSC to the truth.

    python benchmarks/reconstruct.py [--boxes 128 192] [--projections 4000] [--cores 1 2] [--json FILE]

The images are exact projections (a non-uniform transform, neither program's projector) of the adenovirus hexon with CTF,
sub-pixel shifts and white noise, in RELION-5 2D stacks, which both programs read: 40 tilts of each particle. Times are of
whole processes, start and files and finishing included, and, "inside", of the second run in one process, without the start of
Python and the loading of compiled kernels. RELION makes one map; we make two half maps, the map, FSC and mask.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from pyp_cspr.engine.core.ctf import defocus_form, phase_offset, wavelength
from pyp_cspr.engine.core.filters import soft_sphere
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import matrix_to_euler, project, tilt_to_matrix
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import write_dataset
from pyp_cspr.engine.io.star import StarBlock, write_star
from pyp_cspr.engine.model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from pyp_cspr.engine.sample.structure import load_structure
from pyp_cspr.engine.sample.transform import Transform

COMPUTE = ("fourier", "weigh", "insert", "add", "finalise")  # what is neither start-up nor files
TILTS = 40
PIXEL = 2.0
SNR = 0.06  # variance of the signal over that of the noise, in the box


def simulate(folder: Path, box: int, projections: int, seed: int = 1) -> Dataset:
    """Stacks, RELION-5 stars and a RELION-3.1 star of the same projections."""
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    count = max(1, projections // TILTS)
    structure = load_structure("hexon", box, PIXEL)
    truth = structure.reference()
    write_map(folder / "truth.mrc", truth, PIXEL)
    fine = structure.fine()
    transform = Transform(fine, box * PIXEL / len(fine), structure.limit)
    angles = np.linspace(-60, 60, TILTS)
    tilts = tilt_to_matrix(np.zeros(TILTS), angles, np.full(TILTS, 85.3))
    poses = Rotation.random(count, random_state=seed).as_matrix()
    extracted = rng.uniform(-500, 500, (count, 3))
    positions = extracted + rng.normal(0, 2 * PIXEL, (count, 3))
    defocus = np.stack([rng.uniform(2e4, 4e4, TILTS), np.zeros(TILTS), rng.uniform(-90, 90, TILTS)], axis=1)
    defocus[:, 1] = defocus[:, 0] - 500
    particle_names = [f"TS_1/{p}" for p in range(count)]
    paths = [str(folder / "stacks" / f"{p:05d}.mrcs") for p in range(count)]
    (folder / "stacks").mkdir()
    series = Table(
        SERIES,
        {
            "name": ["TS_1"],
            "images": [""],
            "image_size": [[4096, 4096]],
            "specimen_size": [[4096, 4096, 1024]],
            "pixel": [PIXEL],
            "contrast": [1.0],
            "stack_pixel": [PIXEL],
            "stack_box": [box],
            "hand": [-1.0],
        },
    )
    exposures = Table(
        EXPOSURES,
        {
            "series": np.zeros(TILTS, int),
            "slice": np.arange(TILTS),
            "rotation": tilts,
            "defocus": defocus,
            "extract_rotation": tilts,
        },
    )
    particles = Table(
        PARTICLES,
        {
            "name": particle_names,
            "series": np.zeros(count, int),
            "position": positions,
            "rotation": poses,
            "half": 1 + np.arange(count) % 2,
            "stack": paths,
            "extract_position": extracted,
        },
    )
    dataset = Dataset(series, exposures, particles, np.ones((count, TILTS), bool), box, PIXEL)
    rows = _write_stacks(folder, dataset, transform, box, rng)
    write_dataset(dataset, folder)
    _write_relion(folder / "relion.star", rows, box)
    return dataset


def _write_stacks(
    folder: Path, dataset: Dataset, transform: Transform, box: int, rng: np.random.Generator
) -> List[Dict[str, Any]]:
    import mrcfile

    exposures, particles = dataset.exposures, dataset.particles
    u, depth = dataset.project(0)
    centre, _ = project(exposures["extract_rotation"], exposures["extract_shift"], particles["extract_position"][:, None, :])
    lam = wavelength(300.0)
    k = 1.0 / (box * PIXEL)
    filters = np.ones((box, box // 2 + 1), np.float32)
    sigma = None
    rows = []
    for p, path in enumerate(particles["stack"]):
        images = np.empty((TILTS, box, box), np.float32)
        for e in range(TILTS):
            rotation = exposures["rotation"][e] @ particles["rotation"][p]
            defocus = exposures["defocus"][e] + np.array([1.0, 1.0, 0.0]) * -depth[p, e]
            axx, axy, ayy = defocus_form(*defocus)
            form = np.pi * lam * k**2 * np.array([axx, 2 * axy, ayy])
            spherical = 0.5 * np.pi * lam**3 * 2.7e7 * k**4
            shift = u[p, e] - centre[p, e]
            images[e] = transform.render(
                rotation, box, PIXEL, shift / PIXEL, filters, (form, spherical, float(phase_offset(0.07)))
            )
            rot, tilt, psi = matrix_to_euler(rotation)
            rows.append(
                {
                    "image": f"{e + 1:06d}@{path}",
                    "rot": rot,
                    "tilt": tilt,
                    "psi": psi,
                    "x": -shift[0],
                    "y": -shift[1],
                    "u": defocus[0],
                    "v": defocus[1],
                    "angle": defocus[2],
                    "half": particles["half"][p],
                }
            )
        if sigma is None:
            sigma = float(images.std() / np.sqrt(SNR))
        images += rng.normal(0, sigma, images.shape).astype(np.float32)
        images /= sigma
        with mrcfile.new(path) as mrc:
            mrc.set_data(images)
            mrc.voxel_size = PIXEL
    return rows


def _write_relion(path: Path, rows: List[Dict[str, Any]], box: int) -> None:
    optics = {
        "rlnOpticsGroup": ["1"],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": ["300"],
        "rlnSphericalAberration": ["2.7"],
        "rlnAmplitudeContrast": ["0.07"],
        "rlnImagePixelSize": [f"{PIXEL}"],
        "rlnImageSize": [f"{box}"],
        "rlnImageDimensionality": ["2"],
    }
    labels = {
        "rlnAngleRot": "rot",
        "rlnAngleTilt": "tilt",
        "rlnAnglePsi": "psi",
        "rlnOriginXAngst": "x",
        "rlnOriginYAngst": "y",
        "rlnDefocusU": "u",
        "rlnDefocusV": "v",
        "rlnDefocusAngle": "angle",
    }
    particles = {
        "rlnImageName": [row["image"] for row in rows],
        "rlnOpticsGroup": ["1"] * len(rows),
        "rlnRandomSubset": [str(row["half"]) for row in rows],
    }
    particles.update({label: [f"{row[name]:.6f}" for row in rows] for label, name in labels.items()})
    write_star(path, {"optics": StarBlock("optics", optics), "particles": StarBlock("particles", particles)})


def timed(command: List[str], cores: int) -> Tuple[float, float]:
    """(wall seconds, peak resident bytes) of a whole process on ``cores`` cores."""
    code = (
        "import os,resource,subprocess,sys,time,json\n"
        f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])\n"
        "t=time.perf_counter(); r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.PIPE,text=True)\n"
        "t=time.perf_counter()-t\n"
        "memory=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss*1024\n"
        "sys.exit(r.stderr) if r.returncode else print(json.dumps([t, memory]))"
    )
    environment = dict(os.environ, OMP_NUM_THREADS=str(cores))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second run finds the modules compiled
    out = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True, env=environment)
    seconds, memory = json.loads(out.stdout)
    return float(seconds), float(memory)


def timed_inside(arguments: List[str], cores: int) -> Tuple[float, float]:
    """The same of the second of two equal runs in one process: without the start of Python and the loading of kernels."""
    code = (
        "import contextlib,io,json,os,resource,sys,time\n"
        f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])\n"
        "from pyp_cspr.engine.cli import main\n"
        "for _ in range(2):\n"
        "    start=time.perf_counter()\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "        failed=main(sys.argv[1:])\n"
        "    seconds=time.perf_counter()-start\n"
        "memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024\n"
        "sys.exit('failed') if failed else print(json.dumps([seconds, memory]))"
    )
    out = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    seconds, memory = json.loads(out.stdout)
    return float(seconds), float(memory)


def fsc_to_truth(map_: np.ndarray, truth: np.ndarray) -> Tuple[float, float]:
    """Mean FSC over all shells to 0.9 Nyquist, and FSC there, in a soft sphere around the particle."""
    box = len(truth)
    sphere = soft_sphere(box, 75.0 / PIXEL, 8.0)
    curve = fsc(map_ * sphere, truth * sphere)
    top = int(0.45 * box)
    return float(curve[1 : top + 1].mean()), float(curve[top - 3 : top + 1].mean())


def run_box(box: int, projections: int, cores: List[int], folder: Path, repeats: int) -> List[Dict[str, Any]]:
    """Every program in turn, ``repeats`` rounds, so that all see the same machine."""
    simulate(folder, box, projections)
    truth, _ = read_map(folder / "truth.mrc")
    ours = ["reconstruct", str(folder), "--no-dose-weighting", "--overwrite", "--no-report", "--processes", "1"]
    relion = shutil.which("relion_reconstruct")
    cases: List[Tuple[str, int, List[str], Path, bool]] = []
    for n in cores:
        for padding in ("1", "1.09375", "1.5"):
            out = folder / f"ours_{padding}_{n}"
            arguments = [*ours, "--out", str(out), "--padding", padding, "--threads", str(n)]
            command = [sys.executable, "-m", "pyp_cspr.engine.cli", *arguments]
            cases.append((f"cspr, padding {padding}", n, command, out / "map.mrc", False))
            cases.append((f"cspr, padding {padding}, inside", n, arguments, out / "map.mrc", True))
    if relion:
        out = folder / "relion.mrc"
        command = [relion, "--i", str(folder / "relion.star"), "--o", str(out), "--ctf"]
        cases.append(("relion_reconstruct", 1, command, out, False))
        cases.append(("relion_reconstruct, no gridding", 1, [*command, "--skip_gridding"], out, False))
    runs: Dict[int, List[Tuple[float, float]]] = {i: [] for i in range(len(cases))}
    quality: Dict[int, Tuple[float, float]] = {}
    compute: Dict[int, List[float]] = {i: [] for i in range(len(cases))}
    for _ in range(repeats):
        for i, (_, n, command, result, inside) in enumerate(cases):
            runs[i].append((timed_inside if inside else timed)(command, n))
            quality[i] = fsc_to_truth(read_map(result)[0], truth)
            if inside:
                stages = json.loads((result.parent / "journal.json").read_text())["total"]["seconds"]
                compute[i].append(sum(stages[name] for name in COMPUTE))
    results = []
    for i, (name, n, _, _, _) in enumerate(cases):
        seconds = float(np.median([run[0] for run in runs[i]]))
        row = {"program": name, "box": box, "cores": n, "projections": projections, "seconds": seconds,
               "seconds_min": min(run[0] for run in runs[i]), "projections_per_second": projections / seconds,
               "peak_GB": max(run[1] for run in runs[i]) / 1024**3, "fsc_mean": quality[i][0], "fsc_0.9_nyquist": quality[i][1]}
        if compute[i]:
            row["compute_seconds"] = float(np.median(compute[i]))
        results.append(row)
        print_row(row)
    return results


def print_row(row: Dict[str, Any]) -> None:
    compute = f"{row['compute_seconds']:8.2f}" if "compute_seconds" in row else " " * 8
    print(
        f"{row['program']:34} {row['box']:4d} {row['cores']:5d} {row['seconds']:8.2f} {row['seconds_min']:8.2f} {compute} "
        f"{row['projections_per_second']:8.0f} {row['peak_GB']:8.2f} {row['fsc_mean']:9.4f} {row['fsc_0.9_nyquist']:9.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[128, 192])
    parser.add_argument("--projections", type=int, default=4000)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    print("program                             box cores  seconds  (least)  compute   proj/s  peak GB  FSC mean  at 0.9 N")
    rows = []
    for box in args.boxes:
        with tempfile.TemporaryDirectory() as folder:
            rows += run_box(box, args.projections, args.cores, Path(folder), args.repeats)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
