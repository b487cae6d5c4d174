"""From PYP's keys to this program's settings, iteration by iteration."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..errors import InputError
from .pyp_configuration import FIRST_ITERATION, PypConfiguration
from .pyp_keys import Key, all_keys, key_groups, numbers_of, other_step
from .settings import ReconstructSettings, RefineSettings

WHERE = "PYP's configuration"
DEFORMATION = 20.0  # angstrom, prior of the control values that csp_Grid asks for
ASTIGMATISM = 0.4  # prior of astigmatism over that of defocus: 300 A for PYP's 750 A
REFINES = ("csp_refine_particles", "csp_refine_micrographs", "csp_refine_ctf")
SEARCHES = ("csp_NumberOfRandomIterations", "csp_GridSearch", "refine_searchx", "refine_searchy")
NO_MASK = "-1"  # FREALIGN's maskth

# Keys whose value is a setting as it is.
SAME: Dict[str, str] = {
    "reconstruct_cutoff": "map_particles", "reconstruct_minscore": "map_score_min", "reconstruct_maxscore": "map_score_max",
    "reconstruct_mintilt": "map_tilt_min", "reconstruct_maxtilt": "map_tilt_max", "reconstruct_firstframe": "map_first",
    "reconstruct_lastframe": "map_last", "reconstruct_mindef": "map_defocus_min", "reconstruct_maxdef": "map_defocus_max",
    "reconstruct_minazh": "map_theta_min", "reconstruct_maxazh": "map_theta_max", "reconstruct_rrec": "map_resolution",
    "reconstruct_dose_weighting_fraction": "score_fraction", "reconstruct_dose_weighting_transition": "score_transition",
    "refine_rlref": "low_resolution", "refine_same_ref": "same_reference", "extract_box": "box", "particle_sym": "symmetry",
    "particle_rad": "particle_radius", "csp_UseImagesForRefinementMin": "refinement_first",
    "csp_UseImagesForRefinementMax": "refinement_last", "csp_RefineProjectionCutoff": "refinement_projections",
    "csp_ToleranceParticlesShifts": "prior_position", "csp_ToleranceMicrographTiltAngles": "prior_tilt_angle",
    "csp_ToleranceMicrographTiltAxisAngles": "prior_axis_angle", "csp_ToleranceMicrographShifts": "prior_shift",
}


@dataclass(frozen=True)
class PypResources:
    """What runs the tasks, and on what."""

    executor: str = ""  # local, slurm or mpi; empty: choose
    tasks_per_chunk: int = 1  # series in a task
    threads: int = 1  # of a task
    memory: float = 4.0  # GB of a task
    most_tasks: int = 0  # at a time; 0: no limit
    walltime: str = "1-00:00:00"
    queue: str = ""
    account: str = ""
    gres: str = ""
    merge_threads: int = 6  # of the command itself
    retries: int = 1


@dataclass(frozen=True)
class PypProject:
    """What to read of the project folder, and how. None: the project's own metadata say it."""

    alignments: str = ""
    model: str = ""
    mask: str = "auto"  # auto, none, sphere:RADIUS in angstrom, or a map
    skip: bool = False  # start from the given alignments, whatever iterations there are
    first_iteration: int = FIRST_ITERATION
    next_iteration: Optional[int] = None
    last_iteration: int = FIRST_ITERATION
    particle_format: str = "frealign"
    interactive: bool = False
    dataset: str = ""
    mode: str = "tomo"
    pixel: Optional[float] = None  # angstrom, of the images as recorded
    image_binning: int = 1
    binning: int = 1
    voltage: Optional[float] = None  # kV
    cs: Optional[float] = None  # mm
    amplitude_contrast: Optional[float] = None
    dose: Optional[float] = None  # e/A^2 of each exposure
    dose_before: float = 0.0  # e/A^2
    hand: float = -1.0  # sign of depth in the defocus
    white_particles: bool = False
    tomogram_binning: Optional[float] = None
    volumes_binning: float = 1.0  # of the sub-volumes whose alignments csp_refine names


class PypSettings(NamedTuple):
    """All that a configuration means for one iteration."""

    refine: RefineSettings
    reconstruct: ReconstructSettings
    resources: PypResources
    project: PypProject


def settings_of(configuration: PypConfiguration, iteration: int = FIRST_ITERATION) -> PypSettings:
    """Settings of an iteration, numbered from 2 as PYP does. Raises InputError for values that cannot be."""
    if iteration < FIRST_ITERATION:
        raise InputError(f"iteration {iteration}; PYP's are numbered from {FIRST_ITERATION}, 1 is the starting map")
    refine = RefineSettings.from_dict(refine_values(configuration, iteration), _where(configuration))
    return PypSettings(refine, refine.reconstruction(), resources_of(configuration), project_of(configuration))


def settings_by_iteration(configuration: PypConfiguration, first: int, last: int) -> Dict[str, Any]:
    """Values for ``pipeline.iterate.refine``, whose first iteration is PYP's ``first``: lists where they differ."""
    each = [settings_of(configuration, number).refine.to_dict() for number in range(first, max(first, last) + 1)]
    values = {name: [one[name] for one in each] for name in each[0]}
    return {name: column if len(set(column)) > 1 else column[0] for name, column in values.items()}


def refine_values(configuration: PypConfiguration, iteration: int) -> Dict[str, Any]:
    """RefineSettings by name, only those that some key says."""
    get = _Getter(configuration, iteration)
    values = {setting: get(name) for name, setting in SAME.items() if get.given(name)}
    values.update(_particles(get))
    values.update(_exposures(get))
    values.update(_defocus(get))
    values.update(_search(get, values))
    values.update(_map(get))
    return values


class _Getter:
    """Values of one iteration."""

    def __init__(self, configuration: PypConfiguration, iteration: int) -> None:
        self.configuration, self.iteration = configuration, iteration

    def __call__(self, name: str) -> Any:
        return self.configuration.value(name, self.iteration)

    def given(self, *names: str) -> bool:
        return any(self.configuration.given(name) for name in names)

    def refines(self, name: str, default: bool) -> bool:
        """Once one of PYP's csp_refine_ keys is given, those that are not are as in PYP: False."""
        return bool(self(name)) if self.given(*REFINES) else default


def _particles(get: _Getter) -> Dict[str, Any]:
    values: Dict[str, Any] = {}
    angles = [f"csp_ToleranceParticles{angle}" for angle in ("Phi", "Psi", "Theta")]
    if get.given(*angles):
        values["prior_rotation"] = max(get(name) for name in angles)
    free = numbers_of(get("refine_mask"))
    rotates = [get(f"refine_refine_angle_{name}") and flag > 0 for name, flag in zip(("phi", "theta", "psi"), free)]
    moves = [get(f"refine_refine_shift{name}") and flag > 0 for name, flag in zip("xy", free[3:])]
    refined = get.refines("csp_refine_particles", True)
    if not (refined and any(rotates)):
        values["prior_rotation"] = 0.0
    if not (refined and any(moves)):
        values["prior_position"] = 0.0
    return values


def _exposures(get: _Getter) -> Dict[str, Any]:
    values: Dict[str, Any] = {}
    if not get.refines("csp_refine_micrographs", True):
        return {"prior_tilt_angle": 0.0, "prior_axis_angle": 0.0, "prior_shift": 0.0}
    if not get("RefineMicrographTiltAngles"):
        values["prior_tilt_angle"] = 0.0
    if not get("RefineMicrographTiltAxisAngles"):
        values["prior_axis_angle"] = 0.0
    across = max(numbers_of(get("csp_Grid"))[:2])
    if across > 1:
        values.update(prior_deformation=DEFORMATION, deformation_grid=int(min(max(across, 2), 4)))
    return values


def _defocus(get: _Getter) -> Dict[str, Any]:
    if not get.refines("csp_refine_ctf", False):
        return {}
    prior = max(get("csp_ToleranceMicrographDefocus1"), get("csp_ToleranceMicrographDefocus2"))
    free = get("csp_ToleranceMicrographAstigmatism") > 0
    return {"prior_defocus": prior, "prior_astigmatism": ASTIGMATISM * prior if free else 0.0}


def _search(get: _Getter, values: Dict[str, Any]) -> Dict[str, Any]:
    """Only what is refined is searched: ``values`` have the priors, and one of 0 keeps its group."""
    rotates, moves = (values.get(name, getattr(RefineSettings, name)) > 0 for name in ("prior_rotation", "prior_position"))
    reach = max(get("refine_searchx"), get("refine_searchy"))
    found: Dict[str, Any] = {}
    if get("csp_NumberOfRandomIterations") > 0 or get("csp_GridSearch"):
        reach = max(get("csp_ToleranceParticlesShifts"), reach)
        if rotates:
            found["search_cone"] = min(max(get(f"csp_ToleranceParticles{angle}") for angle in ("Phi", "Psi", "Theta")), 180.0)
            if get("csp_GridSearch"):
                found["search_step"] = get("csp_AngleStep")
    if moves and reach > 0:
        found["search_shift"] = reach
    return found


def _map(get: _Getter) -> Dict[str, Any]:
    values: Dict[str, Any] = {}
    if get.given("refine_rhref"):
        values["resolution"] = abs(get("refine_rhref"))
    if get.given("scope_pixel") and get("scope_pixel") > 0:
        values["pixel"] = get("scope_pixel") * get("data_bin") * get("extract_bin")
    if get("refine_iblow") > 1:
        values["padding"] = float(min(get("refine_iblow"), 4))
    if get("refine_score_weighting"):
        values["score_b_factor"] = get("refine_bsc")
    if get("reconstruct_dose_weighting_enable"):
        values["exposure_weighting"] = "score"
    if get("reconstruct_radrec") > 0:
        values["mask_diameter"] = 2.0 * get("reconstruct_radrec")
    if get.given("reconstruct_min_occ"):
        values["map_weight_min"] = get("reconstruct_min_occ") / 100.0
    if not get("reconstruct_apply_symmetry"):
        values["symmetry"] = "C1"
    return values


def resources_of(configuration: PypConfiguration) -> PypResources:
    """What the slurm_ keys and -executor ask for."""
    get = configuration.value
    threads = get("slurm_tasks")
    memory = get("slurm_memory") or threads * get("slurm_memory_per_task")
    limits = []
    if get("slurm_max_cpus"):
        limits.append(get("slurm_max_cpus") // threads)
    if get("slurm_max_memory") and memory:
        limits.append(int(get("slurm_max_memory") // memory))
    most = max(1, min(limits)) if limits else 0
    same = {name: get(f"slurm_{name}") for name in ("walltime", "queue", "account", "gres")}
    return PypResources(
        executor=get("executor"), tasks_per_chunk=get("slurm_bundle_size"), threads=threads, memory=memory, most_tasks=most,
        merge_threads=get("slurm_merge_tasks"), retries=get("slurm_merge_retries"), **same)


def project_of(configuration: PypConfiguration) -> PypProject:
    """What the keys say of the project folder and its data. Raises InputError for a mask that cannot be made."""
    get, given = configuration.value, configuration.given

    def if_given(name: str) -> Any:
        return get(name) if given(name) and get(name) != 0 else None

    first = get("refine_first_iter")
    last = get("refine_maxiter")
    if given("NumberOfIterations") and not given("refine_maxiter"):
        last = first - 1 + get("NumberOfIterations")
    return PypProject(
        alignments=get("csp_refine"), model=get("csp_model"), mask=_mask(configuration),
        skip=get("csp_skip") or not get("refine_resume"), first_iteration=first, last_iteration=last,
        next_iteration=get("refine_iter") if given("refine_iter") else None, particle_format=get("extract_fmt"),
        interactive=get("interactive"), dataset=get("data_set"), mode=get("data_mode"), pixel=if_given("scope_pixel"),
        image_binning=get("data_bin"), binning=get("extract_bin"), voltage=if_given("scope_voltage"),
        cs=get("scope_cs") if given("scope_cs") else None,
        amplitude_contrast=get("scope_wgh") if given("scope_wgh") else None,
        dose=get("scope_dose_rate") if given("scope_dose_rate") else None, dose_before=get("scope_init_dose"),
        hand=1.0 if get("csp_ctf_handedness") else -1.0, white_particles=get("data_invert"),
        tomogram_binning=if_given("tomo_rec_binning"), volumes_binning=get("tomo_ext_binn"),
    )


def _mask(configuration: PypConfiguration) -> str:
    get = configuration.value
    method = get("metric_masking_method") if configuration.given("metric_masking_method") else ""
    file, radius = get("refine_maskth"), get("refine_srad") or 1.5 * get("particle_rad")
    if file == NO_MASK:
        file = ""
    if method == "file" and not file:
        raise InputError(f"{configuration.origin('metric_masking_method')}: metric_masking_method is file; give refine_maskth")
    if file and method in ("", "file"):
        return str(file)
    if radius and not get("csp_automask") and (method == "spherical" or (not method and configuration.given("refine_srad"))):
        return f"sphere:{radius:g}"
    return "auto"


def _where(configuration: PypConfiguration) -> str:
    """The files that values came from, for a message about what they make together."""
    sources = dict.fromkeys(os.path.basename(origin.partition(":")[0]) for origin in configuration.origins.values())
    return f"{WHERE} ({', '.join(sources)})" if sources else WHERE


def warnings_of(configuration: PypConfiguration) -> List[str]:
    """A line for each given key that has no effect here, or less than in PYP; one for each other step of PYP.

    A key that has PYP's default and comes from a file is passed over: nobody asked for it.
    """
    lines = []
    for name in configuration.names():
        key, value, origin = all_keys()[name], configuration.values[name], configuration.origins[name]
        if value == key.default and origin != "command line":
            continue
        reason = key.ignored or _partly(configuration, name, value)
        if reason:
            lines.append(f"{origin}: {name} is known, {'but' if key.sets else 'but has no effect here:'} {reason}")
    lines += _idle(configuration)
    steps: Dict[str, List[str]] = {}
    for other in configuration.others:
        steps.setdefault(other_step(other), []).append(other)
    for step, names in steps.items():
        count = f"{names[0]} is" if len(names) == 1 else f"{step}*: {len(names)} keys are"
        lines.append(f"{configuration.others[names[0]]}: {count} of another step of PYP, without effect here")
    return lines


def listed_iterations(configuration: PypConfiguration) -> range:
    """The iterations that lists have values for, at least the first; what comes later is as the last of them."""
    lengths = [len(value) for value in configuration.values.values() if isinstance(value, list)]
    return range(FIRST_ITERATION, FIRST_ITERATION + max([1, *lengths]))


def _idle(configuration: PypConfiguration) -> List[str]:
    """Warnings where nothing is refined although something is said of it, and where a search has nothing to search."""
    lines, iterations = [], listed_iterations(configuration)
    getters = [_Getter(configuration, number) for number in iterations]
    given = [name for name in REFINES if configuration.given(name)]
    still = [get.iteration for get in getters if given and not any(get(name) for name in REFINES)]
    if still:
        lines.append(f"{configuration.origin(given[0])}: nothing is refined, only reconstructed{_when(still, iterations)}, as "
                     f"none of {', '.join(REFINES)} is True")
    asked = [name for name in SEARCHES if any(get.given(name) and get(name) for get in getters)]
    kept = [get.iteration for get in getters if any(get(name) for name in asked)
            and not any(name.startswith("search_") for name in refine_values(configuration, get.iteration))]
    if kept:
        lines.append(f"{configuration.origin(asked[0])}: {' and '.join(asked)}: nothing is searched{_when(kept, iterations)}, "
                     "as what it would search is kept")
    return lines


def _when(some: List[int], iterations: range) -> str:
    """Words for some of the iterations; none for all of them."""
    if len(some) == len(iterations):
        return ""
    later = " and later" if some[-1] == iterations[-1] else ""
    return f" in iteration {', '.join(map(str, some))}{later}"


def _partly(configuration: PypConfiguration, name: str, value: Any) -> str:
    """Why a key has less effect than in PYP."""
    each = value if isinstance(value, list) else [value]
    if name == "csp_Grid":
        rows = [numbers_of(one) for one in each]
        if any(row[2] > 1 for row in rows):
            return "regions in z have no effect here: the field of shifts lies over each image"
        if any(max(row[:2]) > 4 for row in rows):
            return "a field of shifts has at most 4 values to a side here"
    if name == "refine_rhref" and any(one < 0 for one in each):
        return "its random part has no effect here"
    groups: Tuple[Tuple[str, ...], ...] = (
        ("refine_refine_angle_phi", "refine_refine_angle_theta", "refine_refine_angle_psi"),
        ("refine_refine_shiftx", "refine_refine_shifty"))
    for group in groups:
        if name in group and len({str(configuration.value(one)) for one in group}) > 1:
            return f"has no effect alone: give all of {', '.join(group)}"
    if name == "refine_mask" and any(len({f > 0 for f in part}) > 1
                                     for one in each for part in (numbers_of(one)[:3], numbers_of(one)[3:])):
        return "has no effect on one of three angles or of two shifts alone"
    if name == "extract_fmt" and value == "frealign_local":
        return "frames within a tilt are not used here"
    if name == "data_mode" and value == "spr":
        return "single-particle projects are not read here"
    return ""


def effect_of(key: Key) -> str:
    """What a key does here, in words for the help page and the documentation."""
    return f"no effect: {key.ignored}" if key.ignored else key.meaning


def help_text() -> str:
    """The help page of ``csp``: every key with its unit, PYP's default and what it does here."""
    lines = [
        "Refines a PYP project: csp -csp_refine alignments.txt -csp_model map.mrc -particle_fmt frealign -tasks_per_arr 2",
        "",
        "Options are PYP's keys: -key value, or -key and -no-key alone for True and False. They stand above those of",
        ".pyp_config, .pyp_config.toml, frealign.config and parameters.config, each above the one before it. A list a:b:c has",
        "a value for each iteration, from iteration 2 on; the last repeats. (PYP's default in brackets, other names after it.)",
    ]
    for title, keys in key_groups().items():
        lines += ["", f"{title}:"]
        for key in keys:
            default = f" ({key.write(key.default)})" if key.default != "" else ""
            unit = f" {key.unit}" if key.unit else ""
            old = f"; also {', '.join(key.old)}" if key.old else ""
            lines += _wrapped(f"  -{key.name}{unit}{default}{old}", f"{effect_of(key)}")
    return "\n".join(lines) + "\n"


def _wrapped(head: str, text: str, width: int = 118) -> List[str]:
    import textwrap

    return [head, *textwrap.wrap(text, width, initial_indent=" " * 8, subsequent_indent=" " * 8)]


def setting_names() -> List[str]:
    """Every target that a key may name in ``sets``."""
    return ([field.name for field in fields(RefineSettings)] + [f"resources.{field.name}" for field in fields(PypResources)]
            + [f"project.{field.name}" for field in fields(PypProject)])
