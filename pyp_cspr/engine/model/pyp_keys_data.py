"""PYP's keys of particles, microscope and data, of cleaning and masks, and of the cluster (slurm_)."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

from .pyp_keys import Key

_CUT = "projections are cut in memory, from all images that are at least three quarters inside"
_CLEAN = "cleaning is a step of its own: `cspr filter`"
_MASK = "the mask is made from the map's density; give another with refine_maskth"
_FOLDER = "the project folder says it"
_MERGE = "the command itself merges, in its own process: no job is submitted for it"


def _slurm(name: str, kind: type, default: Any, unit: str, meaning: str, sets: str, **more: Any) -> Key:
    return Key(f"slurm_{name}", kind, default, unit, meaning, sets, by_iteration=False, **more)


PARTICLE = (
    Key("particle_sym", str, "C1", "", "point group: C1, C3, D7, T, O, I1, I2 ...", "symmetry", old=("symmetry",)),
    Key("particle_rad", float, 0.0, "A", "radius of the particle: the step of a search, and the spherical mask",
        "particle_radius project.mask", least=0, by_iteration=False),
    Key("particle_mw", float, 0.0, "kDa", "mass", ignored="signal and noise are measured, not expected from the mass"),
    Key("extract_box", int, 0, "pixel", "box of the map; 0: as the data say", "box", least=0, by_iteration=False),
    Key("extract_bin", int, 1, "", "binning: the map's pixel is scope_pixel x data_bin x extract_bin", "pixel project.binning",
        least=1, by_iteration=False),
    Key("extract_gold", bool, True, "", "leave out projections near gold", ignored=_CUT),
    Key("extract_use_clean", bool, False, "", "cleaned particles", ignored=_CLEAN),
    Key("extract_cls", int, 0, "", "class", ignored="there is one map here, without classes"),
    Key("extract_stacks", bool, False, "", "write stacks", ignored=_CUT),
    Key("extract_method", str, "imod", "", "program that cuts", ignored=_CUT),
)

SCOPE = (
    Key("scope_pixel", float, 0.0, "A", "pixel of the images as recorded", "pixel project.pixel", least=0, by_iteration=False),
    Key("scope_voltage", float, 300.0, "kV", "acceleration voltage", "project.voltage", least=0, by_iteration=False),
    Key("scope_cs", float, 2.7, "mm", "spherical aberration", "project.cs", least=0, by_iteration=False),
    Key("scope_wgh", float, 0.07, "", "amplitude contrast, 0 to 1", "project.amplitude_contrast", least=0, by_iteration=False),
    Key("scope_dose_rate", float, 1.0, "e/A^2", "dose of each exposure", "project.dose", least=0, by_iteration=False),
    Key("scope_init_dose", float, 0.0, "e/A^2", "dose before the first exposure", "project.dose_before", least=0,
        by_iteration=False),
    Key("scope_tilt_axis", float, 0.0, "deg", "tilt axis, from x counterclockwise", by_iteration=False,
        ignored="each tilt's alignment (.xf) says where its axis is"),
    Key("scope_mag", float, 10000.0, "", "magnification", ignored="the pixel size says it"),
    *(Key(f"scope_{name}", float, default, unit, meaning, ignored="images are taken as they are, without such a correction")
      for name, default, unit, meaning in (
          ("mag_major", 1.0, "", "magnification along the major axis"), ("mag_minor", 1.0, "", "along the minor axis"),
          ("distort_ang", 0.0, "deg", "of the major axis"), ("beam_tilt_x", 0.0, "mrad", "beam tilt in x"),
          ("beam_tilt_y", 0.0, "mrad", "beam tilt in y"), ("image_shift_x", 0.0, "mrad", "image shift in x"),
          ("image_shift_y", 0.0, "mrad", "image shift in y"))),
    Key("scope_beam_tilt", float, 0.0, "mrad", "beam tilt", ignored="images are taken as they are, without such a correction"),
    Key("data_bin", int, 1, "", "binning of super-resolution images", "pixel project.image_binning", least=1,
        by_iteration=False),
    Key("data_mode", str, "tomo", "", "tilt series; single-particle projects are not read here", "project.mode",
        choices=("tomo", "spr"), by_iteration=False),
    Key("data_set", str, "", "", "name of the project: of its files", "project.dataset", old=("dataset",)),
    Key("tomo_rec_binning", float, 8.0, "", "binning of the tomograms that particles were picked in",
        "project.tomogram_binning", least=0, by_iteration=False),
    Key("tomo_ext_binn", float, 1.0, "", "binning of the sub-volumes whose alignments csp_refine names",
        "project.volumes_binning", least=0, by_iteration=False),
    Key("data_invert", bool, False, "", "images have white particles", "project.white_particles", by_iteration=False),
    *(Key(f"data_{name}", str, "", "", meaning, ignored=_FOLDER) for name, meaning in (
        ("path", "raw data"), ("path_mdoc", "raw metadata"), ("parent", "another project"), ("import", "import of a session"),
        ("retrieve", "metadata of a session"), ("auto", "streaming"))),
)

CLEANING = (
    Key("clean_parfile", str, "", "", "alignments to clean", ignored=_CLEAN),
    Key("clean_threshold", float, 0.0, "", "least score", ignored=_CLEAN + " --score"),
    Key("clean_dist", float, 0.0, "pixel", "least distance", ignored=_CLEAN + " --distance"),
    Key("clean_mintilt", float, -90.0, "deg", "least tilt angle of scores", ignored=_CLEAN),
    Key("clean_maxtilt", float, 90.0, "deg", "largest tilt angle of scores", ignored=_CLEAN),
    Key("clean_min_num_projections", int, 1, "projections", "least number", ignored=_CLEAN + " --min-projections"),
    Key("clean_class_selection", str, "", "", "classes to keep", ignored=_CLEAN),
    Key("clean_min_occ", float, 50.0, "%", "least occupancy in these", ignored=_CLEAN),
    Key("clean_class_merge_alignment", bool, False, "", "merge classes", ignored=_CLEAN),
    Key("clean_spr_auto", bool, False, "", "automatic threshold", ignored=_CLEAN + " --score auto"),
    Key("clean_check_reconstruction", bool, False, "", "reconstruct as well", ignored=_CLEAN),
    Key("clean_discard", bool, False, "", "forget what is removed", ignored=_CLEAN),
    Key("clean_export_clean", bool, False, "", "write stars", ignored=_CLEAN),
)

MASKS = (
    Key("mask_model", str, "", "", "map to make a mask of", ignored=_MASK),
    Key("mask_threshold", float, 0.0, "", "density", ignored=_MASK),
    Key("mask_normalized", bool, True, "", "density from 0 to 1", ignored=_MASK),
    Key("mask_lowpass", float, 10.0, "A", "filter before", ignored=_MASK),
    Key("mask_edge_width", float, 4.0, "pixel", "soft edge", ignored=_MASK),
    Key("mask_outside_weight", float, 0.0, "", "value outside", ignored=_MASK),
)

SLURM = (
    _slurm("tasks", int, 1, "threads", "of each task", "resources.threads", old=("NumberOfThreads",), least=1),
    _slurm("memory_per_task", float, 4.0, "GB", "memory of each thread", "resources.memory", least=0),
    _slurm("memory", float, 0.0, "GB", "memory of each task, instead", "resources.memory", least=0),
    _slurm("max_cpus", int, 0, "threads", "of all tasks at a time; 0: no limit", "resources.most_tasks", least=0),
    _slurm("max_memory", float, 0.0, "GB", "of all tasks at a time; 0: no limit", "resources.most_tasks", least=0),
    _slurm("walltime", str, "1-00:00:00", "d-hh:mm:ss", "limit of a task", "resources.walltime"),
    _slurm("queue", str, "", "", "partition", "resources.queue"),
    _slurm("account", str, "", "", "account", "resources.account"),
    _slurm("gres", str, "", "", "generic resources", "resources.gres"),
    _slurm("merge_tasks", int, 6, "threads", "of the merge", "resources.merge_threads", least=1),
    *(_slurm(f"merge_{name}", float if unit == "GB" else str, default, unit, meaning, "", ignored=_MERGE)
      for name, default, unit, meaning in (
          ("memory_per_task", 4.0, "GB", "memory of each thread of the merge"), ("memory", 0.0, "GB", "memory of the merge"),
          ("walltime", "1-00:00:00", "d-hh:mm:ss", "limit of the merge"), ("queue", "", "", "partition of the merge"),
          ("account", "", "", "account of the merge"), ("gres", "", "", "generic resources of the merge"))),
    _slurm("merge_only", bool, False, "", "only merge what is there", "",
           ignored="finished tasks are always kept, and what is missing is run before the merge"),
    _slurm("merge_retries", int, 1, "", "how often missing tasks are submitted again", "resources.retries", least=0),
    _slurm("queue_gpu", str, "", "", "partition with GPUs", "", ignored="the engine runs on CPUs"),
    _slurm("zombie", float, 600.0, "min", "age of scratch folders that are removed", "", ignored="nothing is left in scratch"),
    _slurm("profile", bool, False, "", "profile PYP", "", ignored="the report shows where time went"),
)

GROUPS: Tuple[Tuple[str, Sequence[Key]], ...] = (
    ("Particles (particle_, extract_)", PARTICLE), ("Microscope and data (scope_, data_)", SCOPE),
    ("Cluster (slurm_)", SLURM), ("Cleaning (clean_)", CLEANING), ("Masks (mask_)", MASKS),
)
