"""A ``csp`` run in a PYP project: iterations from PYP's alignments and map to the next ones, by the engine's own refinement.

PROJECT/frealign/scratch/NAME_r01_fromII/
  input/        the data set that iteration II starts with
  run/          the refinement (iterate.py): its iteration i is PYP's II + i - 1, and its iteration 0 the start
  csp.json      what was asked for and started from, and the last iteration that was written to the project
A call with the same settings and optics extends the run; with others it starts a new one from the last iteration's alignments
and map. Before the first iteration is there, so does one whose start holds other data than it did.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ..errors import InputError
from ..io.mrc import open_stack, read_map
from ..io.pyp_config import COMMAND_LINE
from ..io.pyp_dataset import PypOptics
from ..io.relion import write_dataset
from ..model.pyp_configuration import PypConfiguration
from ..model.pyp_settings import PypProject as Asked
from ..model.pyp_settings import (
    PypResources,
    listed_iterations,
    project_of,
    resources_of,
    settings_by_iteration,
    warnings_of,
)
from ..model.tables import Dataset
from .executors import Executor, Resources, SlurmSettings, make_executor
from .iterate import Bar, Refinement, refine
from .mpi import mpi_size
from .pyp_metadata import SeriesFiles
from .pyp_project import CLASS, Binnings, PypProject
from .pyp_results import Results
from .resources import share_out
from .slurm import cluster_answers
from .store import RunStore, hash_array, hash_rows, read_json, write_json

Say = Callable[[str], None]
QUEUE_KEYS = ("slurm_queue", "slurm_account")


class _Leg(NamedTuple):
    """A run folder and PYP's number of its first iteration."""

    folder: Path
    first: int
    request: Dict[str, Any]


def run_csp(folder: str, configuration: PypConfiguration, say: Say = print, bar: Optional[Bar] = None) -> Dict[str, Any]:
    """Do what a project's configuration asks for; returns the iterations that were done and why it ended.

    ``say`` gets a line for each thing that a user should know. Raises InputError for all that cannot be.
    """
    asked, resources = project_of(configuration), resources_of(configuration)
    _refuse_what_is_not_here(asked)
    name, why = choose_executor("local" if asked.interactive else resources.executor, any(map(configuration.given, QUEUE_KEYS)))
    with _executor(name, resources, configuration) as executor:  # first of all: under MPI one process goes on, the others serve
        if why:
            say(f"note: {why}")
        return _run(folder, configuration, asked, resources, executor, say, bar)


def _run(
    folder: str, configuration: PypConfiguration, asked: Asked, resources: PypResources, executor: Executor, say: Say,
    bar: Optional[Bar],
) -> Dict[str, Any]:
    for line in warnings_of(configuration):
        say(f"warning: {line}")
    project = open_project(folder, asked, int(configuration.value("extract_box")))
    results = Results(project)
    done = project.iterations()
    if asked.skip and done:
        start = _start_of(asked, project)  # before anything is moved
        given = (start, project.folder / asked.model)
        for path in given:
            if results.is_result(path):
                raise InputError(f"{path}: is among the results that a fresh start moves away; copy it elsewhere and give that")
        say(f"starting fresh; what was there is now in {results.set_aside(given)}")
        done = []
    else:
        start = _start_of(asked, project) if not done else Path()
    last = done[-1] if done else asked.first_iteration - 1
    if done:
        say(f"going on after iteration {last}")
        _say_unread(project, configuration, asked, last, say)
    if asked.next_iteration not in (None, last + 1):
        say(f"warning: refine_iter is {asked.next_iteration}, but the next iteration is {last + 1}: the last one that is there "
            "counts; to go back, move what is later out of frealign/maps and ali")
    target = max(asked.last_iteration, last + 1)
    leg = _leg(project, configuration, asked, resources, last, start, say)
    for note in project.notes:
        say(f"note: {note}")
    if asked.interactive:
        return _look(leg, last + 1 - leg.first + 1, say)
    return _iterate(project, results, leg, executor, range(last + 1, target + 1), say, bar)


def _iterate(
    project: PypProject, results: Results, leg: _Leg, executor: Executor, numbers: range, say: Say, bar: Optional[Bar]
) -> Dict[str, Any]:
    written: List[Dict[str, Any]] = []
    reason = "all iterations done"
    for number in numbers:
        count = number - leg.first + 1
        own = leg.request.get("writing") == number  # killed while it was written
        if not own:
            results.must_be_free(number)
        summary = refine(
            str(leg.folder / "input"), leg.request["reference"], str(leg.folder / "run"), leg.request["values"], count,
            leg.request["mask"], leg.request["tasks_per_chunk"], report=True, bar=bar, executor=executor)
        if len(summary["iterations"]) <= count:
            reason = summary["reason"]
            break
        store = Refinement(str(leg.folder / "run"), leg.request["values"], count).store(count)
        if not own:
            results.must_be_free(number)  # still: what is there from here on is ours
            leg.request["writing"] = number
            write_json(leg.folder / "csp.json", leg.request)
        for warning in results.write(number, store):
            say(f"warning: {warning}")
        leg.request["published"] = number
        write_json(leg.folder / "csp.json", leg.request)
        entry = dict(summary["iterations"][-1], iteration=number)
        written.append(entry)
        say(f"iteration {number}: {_figures(entry)}; {results.path(f'{number:02d}.mrc')}")
    if not written:
        say(f"nothing was left to do: {reason}")
    report = str(leg.folder / "run" / "report.html")
    return {"project": str(project.folder), "iterations": written, "reason": reason, "report": report}


def _look(leg: _Leg, count: int, say: Say) -> Dict[str, Any]:
    """Run the first chunk that is not done in the foreground, and show some of its projections (PYP's interactive mode)."""
    from .debug import debug_chunk

    run = str(leg.folder / "run")
    planned = refine(str(leg.folder / "input"), leg.request["reference"], run, leg.request["values"], count,
                     leg.request["mask"], leg.request["tasks_per_chunk"], chunks_elsewhere=True)
    if "tasks" not in planned:
        raise InputError(f"{run}: all chunks of this iteration are done; start csp without -interactive to go on")
    task, folder = Path(planned["tasks"][0]), leg.folder / "debug"
    _, threads, memory = share_out(1, 0, 0.0, 1)
    reference = leg.request["reference"] if planned["iteration"] == 0 else ""
    files = debug_chunk(task, folder, ["3"], reference, threads, memory, say)
    for path in files:
        say(str(path))
    return {"task": str(task), "files": files}


def _figures(entry: Dict[str, Any]) -> str:
    names = (("limit", "limit", " A"), ("resolution", "resolution_0143", " A"), ("score", "score", ""))
    return ", ".join(f"{name} {entry[key]:.2f}{unit}" for name, key, unit in names if entry.get(key) is not None)


def _refuse_what_is_not_here(asked: Asked) -> None:
    if asked.mode != "tomo":
        raise InputError(f"data_mode {asked.mode}: csp refines tilt series; for single particles see `cspr convert`")
    if asked.particle_format not in ("frealign", "frealign_local"):
        raise InputError(f"particle_fmt {asked.particle_format}: csp reads frealign; other forms go through `cspr convert`")


def open_project(folder: str, asked: Asked, box: int = 0) -> PypProject:
    """The project with the optics that were asked for; ``box`` in pixels of the map, 0: that of csp_model, if it is there.

    The pixel is that of the images where it was not given. Raises InputError where it is not known at all.
    """
    known = {name: getattr(asked, name) for name in ("voltage", "cs", "amplitude_contrast", "dose")
             if getattr(asked, name) is not None}
    pixel = (asked.pixel or 0.0) * asked.image_binning
    model = Path(folder, asked.model)
    if not box and asked.model and os.path.isfile(model):
        box = open_stack(model).nx
    known.update(box=box, hand=asked.hand, bin=float(asked.binning), dose_before=asked.dose_before,
                 contrast=1.0 if asked.white_particles else -1.0)
    binnings = Binnings(asked.tomogram_binning or 0.0, asked.volumes_binning)
    project = PypProject(folder, PypOptics(pixel or 1.0, **known), binnings, asked.dataset)
    if not pixel:
        pixel = SeriesFiles(project.folder, project.names[0], 1.0, 0.0).images().pixel
        if pixel in (0.0, 1.0):
            raise InputError(f"{project.folder}: the pixel size is not known; give scope_pixel (in .pyp_config)")
        project = PypProject(folder, PypOptics(pixel, **known), binnings, asked.dataset)
    return project


def _start_of(asked: Asked, project: PypProject) -> Path:
    """The alignments that were given, and a check of the map. Raises InputError."""
    for name, value in (("csp_refine", asked.alignments), ("csp_model", asked.model)):
        if not value:
            raise InputError(f"{project.folder}: no iteration to go on from; give -{name}")
        if not os.path.exists(Path(project.folder, value)):
            raise InputError(f"-{name} {value}: no such file; mend the path")
    return Path(project.folder, asked.alignments)


def _runs(project: PypProject) -> List[Path]:
    """The run folders of the project, the last first."""
    scratch = project.folder / "frealign" / "scratch"
    found = sorted(scratch.glob(f"{project.dataset}_{CLASS}_from*"), reverse=True)
    return [folder for folder in found if (folder / "csp.json").exists()]


def _say_unread(project: PypProject, configuration: PypConfiguration, asked: Asked, last: int, say: Say) -> None:
    """A note where other alignments or another map are typed than those that the project was started from."""
    requests = [read_json(folder / "csp.json") for folder in _runs(project)]
    started = [one for one in requests if one.get("start") and max(one["published"], one.get("writing", 0)) >= one["first"]]
    unread = []
    for key, value, name in (("csp_refine", asked.alignments, "start"), ("csp_model", asked.model, "reference")):
        own = [one[name] for one in started]
        if configuration.origin(key) == COMMAND_LINE and str(Path(project.folder, value)) not in own:
            unread.append(f"-{key} {value}")
    if unread:
        say(f"note: not read: {', '.join(unread)}; the run goes on from iteration {last}, -csp_skip True starts it anew")


def _leg(
    project: PypProject, configuration: PypConfiguration, asked: Asked, resources: PypResources, last: int, start: Path,
    say: Say,
) -> _Leg:
    """The run that the next iteration belongs to, made where it is new."""
    given: Dict[str, Any] = {}
    if start != Path():
        source, reference = start, Path(project.folder, asked.model)
        dataset = _read_start(project, source)
        given = {"start": str(source), "start_hash": hash_rows(dataset), "reference": str(reference),
                 "reference_hash": hash_array(read_map(reference)[0])}
    for folder in _runs(project):
        before = read_json(folder / "csp.json")
        wanted = _request(project, configuration, asked, resources, before["first"], Path(before["reference"]))
        wanted.update(given)
        same = all(before.get(name) == wanted[name] for name in wanted)  # an older version wrote no optics: it is another run
        if same and before["published"] == last:
            return _Leg(folder, before["first"], before)
        if same and before.get("writing") == last:
            before["published"] = last  # killed while it was written, but the archive comes last
            return _Leg(folder, before["first"], before)
    first = last + 1
    results = Results(project)
    if given:
        results.write_start(reference)
    else:
        source, reference = project.alignments_of(last), results.path(f"{last:02d}.mrc")
        dataset = _read_start(project, source)
    request = dict(_request(project, configuration, asked, resources, first, reference), first=first, published=last, **given)
    number, base = 1, project.folder / "frealign" / "scratch" / f"{project.dataset}_{CLASS}_from{first:02d}"
    folder = base
    while folder.exists() and (folder / "csp.json").exists():
        number += 1
        folder = base.with_name(f"{base.name}_{number}")
    RunStore(folder / "run").create()
    write_dataset(dataset, folder / "input")
    write_json(folder / "csp.json", request)
    say(f"{len(dataset.particles)} particles of {len(dataset.series)} series, alignments of {source}")
    return _Leg(folder, first, request)


def _read_start(project: PypProject, path: Path) -> Dataset:
    dataset = project.read_alignments(path)
    dataset.assign_halves()
    return dataset


def _request(
    project: PypProject, configuration: PypConfiguration, asked: Asked, resources: PypResources, first: int, reference: Path
) -> Dict[str, Any]:
    last = max(first, listed_iterations(configuration)[-1])  # what comes later repeats
    mask = asked.mask
    if mask not in ("auto", "none") and not mask.startswith("sphere:"):
        mask = str(Path(project.folder, mask))
    optics = asdict(project.optics)
    del optics["box"]  # of the starting map, which need not be named any more; one that is asked for is among the values
    return {"reference": str(reference), "values": settings_by_iteration(configuration, first, last), "mask": mask,
            "tasks_per_chunk": resources.tasks_per_chunk, "optics": optics, "binnings": project.binnings._asdict()}


def choose_executor(asked: str, queue: bool) -> Tuple[str, str]:
    """Who runs the tasks, and a remark on it or nothing: ``asked`` if that is given, MPI under mpirun, SLURM where it answers.

    ``queue``: keys are given that only mean something to SLURM, so it is waited for. Raises InputError where mpirun has started
    several processes and one of them was asked to do it alone.
    """
    if mpi_size() > 1:
        if asked not in ("", "mpi"):
            raise InputError(f"-executor {asked}: mpirun has started {mpi_size()} of this command; give -executor mpi")
        return "mpi", ""
    if asked:
        return asked, ""
    if shutil.which("sbatch") is None:
        return "local", ""
    if queue or cluster_answers():
        return "slurm", "tasks run as SLURM job arrays; -executor local runs them on this machine"
    return "local", "sbatch is here, but no SLURM answers: tasks run on this machine; -executor slurm waits for it"


def _executor(name: str, resources: PypResources, configuration: PypConfiguration) -> Executor:
    threads = resources.threads if configuration.given("slurm_tasks") else 0
    merging = resources.merge_threads if configuration.given("slurm_merge_tasks") else 0
    slurm = SlurmSettings(
        queue=resources.queue, account=resources.account, walltime=resources.walltime, tasks=resources.threads,
        memory_per_task=resources.memory / resources.threads, gres=resources.gres,
        max_cpus=resources.most_tasks * resources.threads, retries=resources.retries)
    slurm.check(configuration.origin("slurm_walltime"))  # of its values only this one has not been checked yet
    return make_executor(name, Resources(0, threads, 0.0, slurm, merging))
