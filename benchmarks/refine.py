"""Refinement of free poses against RELION: the same images, start, reference and resolution limit; time and error to the truth.

    python benchmarks/refine.py [--projections 4000] [--relion 200] [--limit 6] [--padding 1.5] [--json FILE]

The images are exact projections (a non-uniform transform, neither program's projector) of the adenovirus hexon in all
orientations, box 128, 2 A/px, with CTF and white noise. Every pose starts 2 degrees and 2 A per axis away. Ours is timed
in this process from images in memory to refined poses, compiled kernels being there. RELION (local search) is timed as the
difference between a run of some particles and one of half as many, which leaves out its fixed costs and its map. CPU
seconds are given beside wall seconds, for machines that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from pyp_cspr.engine.core._jit import prepare_process
from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.ctf import defocus_form, phase_offset, wavelength
from pyp_cspr.engine.core.filters import soft_sphere
from pyp_cspr.engine.core.fourier import crops_to_coefficients
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import euler_to_matrix, matrix_to_euler, rotation_angle, rotation_vector_to_matrix
from pyp_cspr.engine.core.insertion import Accumulator
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.refinement import local_equations
from pyp_cspr.engine.core.weighting import weigh
from pyp_cspr.engine.io.mrc import write_map
from pyp_cspr.engine.io.star import StarBlock, read_star, write_star
from pyp_cspr.engine.reconstruct.finalise import solve
from pyp_cspr.engine.refine.free import refine_free
from pyp_cspr.engine.sample.structure import load_structure
from pyp_cspr.engine.sample.transform import Transform

PIXEL = 2.0
SNR = 0.06  # variance of the signal over that of the noise, in the box
KILOVOLT, CS, CONTRAST = 300.0, 2.7, 0.07
STAGES = (16.0, 9.0)  # angstrom, before the limit


class Problem(NamedTuple):
    """Images (noise 1) and all that is known of them; poses M (n, 3, 3), shifts (n, 2) in angstrom from the box's centre."""

    images: NDArray[np.float32]
    reference: NDArray[np.float32]  # the true map in the images' scale
    radius: float  # of the particle, angstrom
    defocus: NDArray[np.float64]  # (n, 3)
    rotations: NDArray[np.float64]
    shifts: NDArray[np.float64]
    start_rotations: NDArray[np.float64]
    start_shifts: NDArray[np.float64]

    @property
    def field(self) -> float:
        return self.images.shape[1] * PIXEL


def simulate(count: int, box: int, seed: int = 1) -> Problem:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    structure = load_structure("hexon", box, PIXEL)
    fine = structure.fine()
    transform = Transform(fine, box * PIXEL / len(fine), structure.limit)
    rotations = Rotation.random(count, random_state=seed).as_matrix()
    shifts = rng.uniform(-4.0, 4.0, (count, 2))
    defocus = np.stack([rng.uniform(1e4, 2.5e4, count), np.zeros(count), rng.uniform(-90, 90, count)], axis=1)
    defocus[:, 1] = defocus[:, 0] - 300.0
    lam, k = wavelength(KILOVOLT), 1.0 / (box * PIXEL)
    filters = np.ones((box, box // 2 + 1), np.float32)
    images = np.empty((count, box, box), np.float32)
    spherical, constant = 0.5 * np.pi * lam**3 * CS * 1e7 * k**4, float(phase_offset(CONTRAST))
    for i in range(count):
        axx, axy, ayy = defocus_form(*defocus[i])
        form = np.pi * lam * k**2 * np.array([axx, 2 * axy, ayy])
        images[i] = transform.render(rotations[i], box, PIXEL, shifts[i] / PIXEL, filters, (form, spherical, constant))
    sigma = float(images.std() / np.sqrt(SNR))
    images /= sigma
    images += rng.standard_normal(images.shape, dtype=np.float32)
    # A projection is a sum over pixels times their size; the map goes into the images' scale once and for all.
    reference = structure.reference() * np.float32(PIXEL / sigma)
    wrong = rotation_vector_to_matrix(np.deg2rad(rng.normal(0, 2.0, (count, 3))))
    return Problem(images, reference, structure.radius, defocus, rotations, shifts, wrong @ rotations,
                   shifts + rng.normal(0, 2.0, (count, 2)))


class Outcome(NamedTuple):
    rotations: NDArray[np.float64]
    shifts: NDArray[np.float64]
    seconds: float
    cpu: float
    inner: Dict[str, Any]


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def extract(problem: Problem, rows: NDArray, radius: float, threads: int, shifts: Optional[NDArray] = None) -> Tuple[Any, ...]:
    """(band, D, W) of some images; about the box's centre, or about ``shifts``."""
    images = problem.images if len(rows) == len(problem.images) else problem.images[rows]  # all, in order: no copy
    box = images.shape[1]
    band = make_band(box, radius)
    data = crops_to_coefficients(images, band, 1.0, threads)
    shells = int(band.shell.max()) + 1
    residual = np.zeros((len(rows), 2)) if shifts is None else shifts
    # White noise of variance 1 in the images has the power box^2 in every coefficient.
    weight = weigh(data, band, problem.field, residual, defocus_form(*problem.defocus[rows].T),
                   np.full(len(rows), float(phase_offset(CONTRAST))), wavelength(KILOVOLT), CS, np.ones(shells),
                   np.full(shells, float(box * box)), False, threads)
    return band, data, weight


def ours(problem: Problem, limit: float, padding: float, threads: int, rows: NDArray) -> Outcome:
    """Images in memory to refined poses."""
    radius = problem.field / limit
    begin, begin_cpu = time.perf_counter(), cpu_seconds()
    reference = Reference(problem.reference, padding, radius, threads=threads)
    made = time.perf_counter()
    band, data, weight = extract(problem, rows, radius, threads)
    extracted, extracted_cpu = time.perf_counter(), cpu_seconds()
    counts = [band.prefix(problem.field / stage) for stage in STAGES if stage > limit] + [len(band)]
    poses = refine_free(data, weight, band, problem.field, [reference], 0, problem.start_rotations[rows],
                        problem.start_shifts[rows], counts, threads)
    end, end_cpu = time.perf_counter(), cpu_seconds()
    inner = {"reference": made - begin, "extract": extracted - made, "refine": end - extracted,
             "refine_cpu": end_cpu - extracted_cpu, "evaluations": [round(float(n), 2) for n in poses.evaluations.mean(axis=0)]}
    return Outcome(poses.rotations, poses.shifts, end - begin, end_cpu - begin_cpu, inner)


def write_relion(folder: Path, problem: Problem, count: int) -> Path:
    import mrcfile

    stack, path = folder / "images.mrcs", folder / f"start_{count}.star"
    if not stack.exists():
        with mrcfile.new(stack) as mrc:
            mrc.set_data(problem.images[:count])
            mrc.voxel_size = PIXEL
    rot, tilt, psi = matrix_to_euler(problem.start_rotations[:count])
    origin = -problem.start_shifts[:count]
    columns = {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi,
               "rlnOriginXAngst": origin[:, 0], "rlnOriginYAngst": origin[:, 1], "rlnDefocusU": problem.defocus[:count, 0],
               "rlnDefocusV": problem.defocus[:count, 1], "rlnDefocusAngle": problem.defocus[:count, 2]}
    particles = {"rlnImageName": [f"{i + 1:06d}@{stack}" for i in range(count)], "rlnOpticsGroup": ["1"] * count,
                 "rlnMicrographName": ["all.mrc"] * count}
    particles.update({label: [f"{value:.6f}" for value in values] for label, values in columns.items()})
    box = problem.images.shape[1]
    optics = {"rlnOpticsGroup": ["1"], "rlnOpticsGroupName": ["opticsGroup1"], "rlnVoltage": [f"{KILOVOLT}"],
              "rlnSphericalAberration": [f"{CS}"], "rlnAmplitudeContrast": [f"{CONTRAST}"], "rlnImagePixelSize": [f"{PIXEL}"],
              "rlnImageSize": [f"{box}"], "rlnImageDimensionality": ["2"]}
    write_star(path, {"optics": StarBlock("optics", optics), "particles": StarBlock("particles", particles)})
    return path


def relion(problem: Problem, limit: float, healpix: int, count: int, folder: Path) -> Outcome:
    """relion_refine's poses of the first ``count`` projections after one iteration of local search, one thread."""
    program = shutil.which("relion_refine")
    assert program
    star = write_relion(folder, problem, count)
    out = folder / f"relion_{healpix}_{count}"
    command = [program, "--i", str(star), "--o", str(out), "--ref", str(folder / "reference.mrc"), "--iter", "1", "--K", "1",
               "--healpix_order", str(healpix), "--auto_local_healpix_order", str(healpix), "--sigma_ang", "2",
               "--offset_range", "3", "--offset_step", "1", "--oversampling", "1", "--ini_high", str(limit),
               "--strict_highres_exp", str(limit), "--particle_diameter", f"{2 * problem.radius + 10:.0f}", "--zero_mask",
               "--ctf", "--ctf_corrected_ref", "--sym", "C1", "--dont_check_norm",
               "--random_seed", "1", "--j", "1", "--preread_images"]
    begin, begin_cpu = time.perf_counter(), cpu_seconds(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
                          env=dict(os.environ, OMP_NUM_THREADS="1"))
    seconds, cpu = time.perf_counter() - begin, cpu_seconds(resource.RUSAGE_CHILDREN) - begin_cpu
    if done.returncode:
        raise SystemExit(f"relion_refine: {done.stderr[-2000:]}")
    table = read_star(Path(f"{out}_it001_data.star"))["particles"].columns
    order = np.argsort([int(name.split("@")[0]) for name in table["rlnImageName"]])
    numbers = {label: np.array(table[label], float)[order] for label in
               ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")}
    rotations = euler_to_matrix(numbers["rlnAngleRot"], numbers["rlnAngleTilt"], numbers["rlnAnglePsi"])
    shifts = -np.stack([numbers["rlnOriginXAngst"], numbers["rlnOriginYAngst"]], axis=1)
    return Outcome(rotations, shifts, seconds, cpu, {})


def errors(problem: Problem, rows: NDArray, rotations: NDArray, shifts: NDArray) -> Dict[str, float]:
    angle = rotation_angle(rotations, problem.rotations[rows])
    distance = np.linalg.norm(shifts - problem.shifts[rows], axis=1)
    return {"rms_degrees": float(np.sqrt((angle**2).mean())), "rms_angstrom": float(np.sqrt((distance**2).mean())),
            "median_degrees": float(np.median(angle)), "beyond_5_degrees": int((angle > 5.0).sum())}


def bound(problem: Problem, rows: NDArray, limit: float) -> Tuple[float, float]:
    """Cramer-Rao bound of the rms errors, degrees and angstrom: the inverse Fisher matrix at the true poses, padding 2."""
    radius = problem.field / limit
    band, data, weight = extract(problem, rows, radius, 1)
    reference, which = Reference(problem.reference, 2.0, radius), np.zeros(len(rows), int)
    local = local_equations(data, weight, band, problem.field, [reference], which, problem.rotations[rows],
                            problem.shifts[rows])
    variance = np.diagonal(np.linalg.inv(local.matrix), axis1=1, axis2=2).mean(axis=0)
    return float(np.rad2deg(np.sqrt(variance[:3].sum()))), float(np.sqrt(variance[3:].sum()))


def map_quality(problem: Problem, rows: NDArray, rotations: NDArray, shifts: NDArray) -> Dict[str, float]:
    """FSC to the truth, in a soft sphere, of our reconstruction at these poses: mean to 0.9 Nyquist, and where it is 0.5."""
    box = problem.images.shape[1]
    radius = box // 2 - 1
    band, data, weight = extract(problem, rows, float(radius), 1, shifts)
    sums = Accumulator(box, 1.5, radius)
    sums.insert(data, weight, rotations, band)
    sphere = soft_sphere(box, problem.radius / PIXEL, 8.0)
    curve = fsc(solve(sums) * sphere, problem.reference * sphere)
    top = int(0.45 * box)
    below = np.flatnonzero(curve[1:] < 0.5)
    shell = float(below[0] + 1 if len(below) else box // 2)
    return {"fsc_mean": float(curve[1 : top + 1].mean()), "fsc_half_angstrom": problem.field / shell}


def best(problem: Problem, limit: float, padding: float, threads: int, repeats: int) -> Outcome:
    everything = np.arange(len(problem.images))
    runs = [ours(problem, limit, padding, threads, everything) for _ in range(repeats)]
    return min(runs, key=lambda outcome: outcome.seconds)


def compare(problem: Problem, args: argparse.Namespace, folder: Path) -> List[Dict[str, Any]]:
    everything, some = np.arange(len(problem.images)), np.arange(min(args.relion, len(problem.images)))
    results: List[Dict[str, Any]] = []

    def add(name: str, rows: NDArray, outcome: Outcome, rate: float, cpu_rate: float, maps: bool) -> None:
        row = {"program": name, "projections": len(rows), "per_second": rate, "per_cpu_second": cpu_rate, **outcome.inner,
               **errors(problem, rows, outcome.rotations, outcome.shifts)}
        row["over_bound"] = [row["rms_degrees"] / limits[len(rows)][0], row["rms_angstrom"] / limits[len(rows)][1]]
        if maps:
            row.update(map_quality(problem, rows, outcome.rotations, outcome.shifts))
        results.append(row)
        print_row(row)

    limits = {len(rows): bound(problem, rows, args.limit) for rows in (everything, some)}
    for rows in (everything, some):
        print(f"Cramer-Rao bound of {len(rows)} projections: {limits[len(rows)][0]:.3f} degrees, {limits[len(rows)][1]:.3f} A")
    print_head()
    truth = Outcome(problem.rotations, problem.shifts, np.nan, np.nan, {})
    start = Outcome(problem.start_rotations, problem.start_shifts, np.nan, np.nan, {})
    ours(problem, args.limit, args.paddings[0], 1, everything[:10])  # compiles
    for name, outcome in (("truth", truth), ("start", start)):
        add(name, everything, outcome, np.nan, np.nan, True)
    for padding in args.paddings:
        for threads in args.threads:
            outcome = best(problem, args.limit, padding, threads, args.repeats)
            name = f"cspr, padding {padding:g}, {threads} thread{'s' if threads > 1 else ''}"
            add(name, everything, outcome, len(everything) / outcome.seconds, len(everything) / outcome.cpu, threads == 1)
            done = len(everything) / outcome.inner["refine"], len(everything) / outcome.inner["refine_cpu"]
            looked = outcome.inner["evaluations"]
            print(f"{'    without extraction':34} {'':6} {done[0]:9.1f} {done[1]:9.1f}   evaluations {looked}")
    if shutil.which("relion_refine") and len(some):
        write_map(folder / "reference.mrc", problem.reference, PIXEL)
        for name, outcome in (("truth", truth), ("start", start)):
            part = Outcome(outcome.rotations[some], outcome.shifts[some], np.nan, np.nan, {})
            add(name, some, part, np.nan, np.nan, True)
        add("cspr, the same projections", some, ours(problem, args.limit, args.paddings[0], 1, some), np.nan, np.nan, True)
        for healpix in args.healpix:
            whole = relion(problem, args.limit, healpix, len(some), folder)
            half = relion(problem, args.limit, healpix, len(some) // 2, folder)
            more = len(some) - len(some) // 2
            add(f"relion_refine, healpix {healpix}", some, whole, more / (whole.seconds - half.seconds),
                more / (whole.cpu - half.cpu), True)
    return results


def print_head() -> None:
    print(f"{'':34} {'number':>6} {'per s':>9} {'per CPU s':>9} {'deg rms':>8} {'A rms':>7} {'/ bound':>13} {'> 5 deg':>7} "
          f"{'FSC mean':>9} {'0.5 at A':>9}")


def print_row(row: Dict[str, Any]) -> None:
    maps = f"{row['fsc_mean']:9.4f} {row['fsc_half_angstrom']:9.2f}" if "fsc_mean" in row else ""
    rates = f"{row['per_second']:9.1f} {row['per_cpu_second']:9.1f}"
    over = f"{row['over_bound'][0]:6.3f} {row['over_bound'][1]:6.3f}"
    print(f"{row['program']:34} {row['projections']:6d} {rates} {row['rms_degrees']:8.3f} {row['rms_angstrom']:7.3f} {over} "
          f"{row['beyond_5_degrees']:7d} {maps}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projections", type=int, default=4000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--relion", type=int, default=200, metavar="N", help="projections that RELION refines; 0 for none")
    parser.add_argument("--healpix", type=int, nargs="+", default=[5], help="orders of RELION's search")
    parser.add_argument("--limit", type=float, default=6.0, metavar="ANGSTROM")
    parser.add_argument("--paddings", type=float, nargs="+", default=[1.5, 1.0, 2.0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    prepare_process()  # as every process of the engine does
    problem = simulate(args.projections, args.box)
    with tempfile.TemporaryDirectory() as folder:
        results = compare(problem, args, Path(folder))
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
