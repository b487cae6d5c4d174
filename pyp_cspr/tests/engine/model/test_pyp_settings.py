"""What every key of PYP does: the setting it changes, or the warning that it has no effect."""

from __future__ import annotations

from typing import Any, Dict, Sequence

import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.pyp_config import read_configuration
from pyp_cspr.engine.model.pyp_configuration import PypConfiguration
from pyp_cspr.engine.model.pyp_keys import all_keys, key_groups, old_names
from pyp_cspr.engine.model.pyp_settings import (
    PypSettings,
    help_text,
    settings_by_iteration,
    settings_of,
    warnings_of,
)
from pyp_cspr.engine.model.settings import RefineSettings

KEYS = all_keys()
IGNORED = sorted(name for name, key in KEYS.items() if key.ignored)


def configured(*pairs: str, origin: str = "command line") -> PypConfiguration:
    configuration = PypConfiguration()
    for pair in pairs:
        name, _, value = pair.partition(" ")
        configuration.give(name, value, origin)
    return configuration


def target(settings: PypSettings, name: str) -> Any:
    part, _, field = name.rpartition(".")
    return getattr(getattr(settings, part or "refine"), field)


# Key -> [(what is given, "key value; key value", what it must set)]. Every target that a key names in ``sets`` is here.
PARTICLES, SEARCH = "csp_refine_particles True", "csp_NumberOfRandomIterations 5"
EFFECTS: Dict[str, Sequence[Any]] = {
    "csp_refine": [("csp_refine a.txt", {"project.alignments": "a.txt"}),
                   ("refine_parfile_tomo b", {"project.alignments": "b"})],
    "csp_model": [("csp_model m.mrc", {"project.model": "m.mrc"}), ("class_ref n.mrc", {"project.model": "n.mrc"})],
    "csp_skip": [("csp_skip True", {"project.skip": True})],
    "extract_fmt": [("particle_fmt relion", {"project.particle_format": "relion"})],
    "slurm_bundle_size": [("tasks_per_arr 2", {"resources.tasks_per_chunk": 2})],
    "executor": [("executor mpi", {"resources.executor": "mpi"})],
    "interactive": [("interactive True", {"project.interactive": True})],
    "refine_resume": [("refine_resume False", {"project.skip": True})],
    "refine_first_iter": [("refine_first_iter 5", {"project.first_iteration": 5})],
    "refine_iter": [("refine_iter 4", {"project.next_iteration": 4})],
    "refine_maxiter": [("refine_maxiter 7", {"project.last_iteration": 7})],
    "NumberOfIterations": [("NumberOfIterations 3", {"project.last_iteration": 4}),
                           ("NumberOfIterations 3;refine_maxiter 9", {"project.last_iteration": 9})],
    "csp_refine_particles": [("csp_refine_particles F", {"prior_rotation": 0.0, "prior_position": 0.0, "prior_shift": 0.0}),
                             (PARTICLES, {"prior_rotation": 30.0, "prior_position": 20.0, "prior_shift": 0.0})],
    "csp_ToleranceParticlesPhi": [("csp_ToleranceParticlesPhi 45", {"prior_rotation": 45.0}),
                                  ("csp_ToleranceParticlesPhi 5", {"prior_rotation": 30.0})],
    "csp_ToleranceParticlesPsi": [("csp_ToleranceParticlesPsi 45", {"prior_rotation": 45.0})],
    "csp_ToleranceParticlesTheta": [("csp_ToleranceParticlesTheta 45", {"prior_rotation": 45.0})],
    "csp_ToleranceParticlesShifts": [
        (f"csp_ToleranceParticlesShifts 7;{SEARCH}", {"prior_position": 7.0, "search_shift": 7.0})],
    "csp_refine_micrographs": [
        ("csp_refine_micrographs False",
         {"prior_tilt_angle": 0.0, "prior_axis_angle": 0.0, "prior_shift": 0.0, "prior_rotation": 0.0}),
        ("csp_refine_micrographs True", {"prior_tilt_angle": 1.5, "prior_axis_angle": 1.0, "prior_shift": 100.0,
                                         "prior_rotation": 0.0})],
    "csp_ToleranceMicrographTiltAngles": [("csp_ToleranceMicrographTiltAngles 3", {"prior_tilt_angle": 3.0})],
    "csp_ToleranceMicrographTiltAxisAngles": [("csp_ToleranceMicrographTiltAxisAngles 0", {"prior_axis_angle": 0.0})],
    "csp_ToleranceMicrographShifts": [("csp_ToleranceMicrographShifts 50", {"prior_shift": 50.0})],
    "csp_Grid": [("csp_Grid 3,2,1", {"prior_deformation": 20.0, "deformation_grid": 3}),
                 ("csp_Grid 8,8,2", {"deformation_grid": 4}), ("csp_Grid 1,1,4", {"prior_deformation": 0.0}),
                 (f"csp_Grid 3,2,1;{PARTICLES}", {"prior_deformation": 0.0})],
    "csp_refine_ctf": [("csp_refine_ctf True", {"prior_defocus": 750.0, "prior_astigmatism": 300.0, "prior_rotation": 0.0})],
    "csp_ToleranceMicrographDefocus1": [("csp_refine_ctf True;ToleranceMicrographDefocus1 900", {"prior_defocus": 900.0}),
                                        ("ToleranceMicrographDefocus1 900", {"prior_defocus": 0.0})],
    "csp_ToleranceMicrographDefocus2": [("csp_refine_ctf True;ToleranceMicrographDefocus2 900", {"prior_defocus": 900.0})],
    "csp_ToleranceMicrographAstigmatism": [
        ("csp_refine_ctf True;csp_ToleranceMicrographAstigmatism 0", {"prior_astigmatism": 0.0})],
    "csp_UseImagesForRefinementMin": [("csp_UseImagesForRefinementMin 3", {"refinement_first": 3})],
    "csp_UseImagesForRefinementMax": [("metric_UseImagesForRefinementMax 9", {"refinement_last": 9})],
    "csp_RefineProjectionCutoff": [("csp_RefineProjectionCutoff 8", {"refinement_projections": 8})],
    "csp_NumberOfRandomIterations": [(SEARCH, {"search_cone": 30.0, "search_shift": 20.0, "search_step": 0.0}),
                                     (f"{SEARCH};csp_ToleranceParticlesPhi 360", {"search_cone": 180.0})],
    "csp_GridSearch": [("csp_GridSearch True", {"search_cone": 30.0, "search_shift": 20.0, "search_step": 20.0})],
    "csp_AngleStep": [("csp_GridSearch True;csp_AngleStep 8", {"search_step": 8.0}), ("csp_AngleStep 8", {"search_step": 0.0})],
    "csp_ctf_handedness": [("csp_ctf_handedness True", {"project.hand": 1.0}),
                           ("extract_ctf_handedness False", {"project.hand": -1.0})],
    "csp_automask": [("refine_srad 50;csp_automask True", {"project.mask": "auto"})],
    "RefineMicrographTiltAngles": [("RefineMicrographTiltAngles 0", {"prior_tilt_angle": 0.0, "prior_axis_angle": 1.0})],
    "RefineMicrographTiltAxisAngles": [
        ("RefineMicrographTiltAxisAngles 0", {"prior_tilt_angle": 1.5, "prior_axis_angle": 0.0})],
    "refine_rhref": [("rhref 8", {"resolution": 8.0}),
                     ("refine_rhref -8", {"resolution": 8.0}), ("metric_rhref 0", {"resolution": 0.0})],
    "refine_rlref": [("refine_rlref 80", {"low_resolution": 80.0})],
    "refine_srad": [("refine_srad 70", {"project.mask": "sphere:70"})],
    "refine_maskth": [("maskth m.mrc", {"project.mask": "m.mrc"}),
                      ("maskth m.mrc;metric_masking_method auto", {"project.mask": "auto"}),
                      ("maskth -1", {"project.mask": "auto"}), ("maskth -1;srad 70", {"project.mask": "sphere:70"})],
    "metric_masking_method": [("metric_masking_method spherical;particle_rad 60", {"project.mask": "sphere:90"}),
                              ("metric_masking_method spherical", {"project.mask": "auto"})],
    "refine_same_ref": [("refine_same_ref True", {"same_reference": True})],
    "refine_refine_angle_phi": [("refine_angle_phi F;refine_angle_theta F;refine_angle_psi F", {"prior_rotation": 0.0}),
                                ("refine_angle_theta F;refine_angle_psi F", {"prior_rotation": 30.0})],
    "refine_refine_angle_theta": [("RefineParticlesTheta 0;RefineParticlesPsi 0;RefineParticlesPhi 0", {"prior_rotation": 0.0}),
                                  ("RefineParticlesPsi 0;RefineParticlesPhi 0", {"prior_rotation": 30.0})],
    "refine_refine_angle_psi": [("refine_angle_phi F;refine_angle_theta F", {"prior_rotation": 30.0, "prior_position": 20.0})],
    "refine_refine_shiftx": [("refine_shiftx F;refine_shifty F", {"prior_position": 0.0}),
                             ("refine_shifty F", {"prior_position": 20.0})],
    "refine_refine_shifty": [("refine_shiftx F", {"prior_position": 20.0})],
    "refine_mask": [("refine_mask 0,0,0,1,1", {"prior_rotation": 0.0, "prior_position": 20.0}),
                    ("refine_mask 1,1,1,0,0", {"prior_rotation": 30.0, "prior_position": 0.0})],
    "refine_searchx": [("searchx 30", {"search_shift": 30.0})],
    "refine_searchy": [("searchx 30;searchy 40", {"search_shift": 40.0})],
    "refine_score_weighting": [("refine_score_weighting True", {"score_b_factor": 2.0})],
    "refine_bsc": [("refine_score_weighting True;bsc 5", {"score_b_factor": 5.0}), ("bsc 5", {"score_b_factor": 0.0})],
    "refine_iblow": [("refine_iblow 2", {"padding": 2.0}), ("refine_iblow 1", {"padding": 1.5}), ("iblow 8", {"padding": 4.0})],
    "reconstruct_cutoff": [("cutoff 0.8", {"map_particles": 0.8})],
    "reconstruct_minscore": [("reconstruct_minscore 0.2", {"map_score_min": 0.2})],
    "reconstruct_maxscore": [("reconstruct_maxscore 0.9", {"map_score_max": 0.9})],
    "reconstruct_mintilt": [("reconstruct_mintilt -40", {"map_tilt_min": -40.0})],
    "reconstruct_maxtilt": [("maxtilt 40", {"map_tilt_max": 40.0})],
    "reconstruct_firstframe": [("reconstruct_firstframe 2", {"map_first": 2})],
    "reconstruct_lastframe": [("UseImagesForReconstructionMax 20", {"map_last": 20})],
    "reconstruct_mindef": [("reconstruct_mindef 10000", {"map_defocus_min": 1e4})],
    "reconstruct_maxdef": [("reconstruct_maxdef 40000", {"map_defocus_max": 4e4})],
    "reconstruct_minazh": [("reconstruct_minazh 10", {"map_theta_min": 10.0})],
    "reconstruct_maxazh": [("reconstruct_maxazh 170", {"map_theta_max": 170.0})],
    "reconstruct_min_occ": [("reconstruct_min_occ 50", {"map_weight_min": 0.5}), ("rlref 9", {"map_weight_min": 0.0})],
    "reconstruct_apply_symmetry": [("symmetry C3;reconstruct_apply_symmetry F", {"symmetry": "C1"})],
    "reconstruct_rrec": [("rrec 12", {"map_resolution": 12.0})],
    "reconstruct_radrec": [("radrec 80", {"mask_diameter": 160.0})],
    "reconstruct_dose_weighting_enable": [("dose_weighting T", {"exposure_weighting": "score"}),
                                          ("dose_weighting F", {"exposure_weighting": "measured"})],
    "reconstruct_dose_weighting_fraction": [("dose_weighting_fraction 8", {"score_fraction": 8.0})],
    "reconstruct_dose_weighting_transition": [("dose_weighting_transition 0.5", {"score_transition": 0.5})],
    "particle_sym": [("particle_sym D7", {"symmetry": "D7"})],
    "particle_rad": [
        ("particle_rad 60;metric_masking_method spherical", {"particle_radius": 60.0, "project.mask": "sphere:90"})],
    "extract_box": [("extract_box 64", {"box": 64})],
    "extract_bin": [("scope_pixel 2;extract_bin 4", {"pixel": 8.0, "project.binning": 4})],
    "scope_pixel": [("scope_pixel 1.35", {"pixel": 1.35, "project.pixel": 1.35}),
                    ("rlref 9", {"pixel": 0.0, "project.pixel": None})],
    "data_bin": [("scope_pixel 2;data_bin 2;extract_bin 2", {"pixel": 8.0, "project.image_binning": 2})],
    "scope_voltage": [("scope_voltage 200", {"project.voltage": 200.0})],
    "scope_cs": [("scope_cs 0.01", {"project.cs": 0.01})],
    "scope_wgh": [("scope_wgh 0.1", {"project.amplitude_contrast": 0.1})],
    "scope_dose_rate": [("scope_dose_rate 3.1", {"project.dose": 3.1})],
    "scope_init_dose": [("scope_init_dose 2", {"project.dose_before": 2.0})],
    "data_mode": [("data_mode spr", {"project.mode": "spr"})],
    "data_set": [("dataset hiv", {"project.dataset": "hiv"})],
    "tomo_rec_binning": [("tomo_rec_binning 4", {"project.tomogram_binning": 4.0}),
                         ("rlref 9", {"project.tomogram_binning": None})],
    "tomo_ext_binn": [("tomo_ext_binn 2", {"project.volumes_binning": 2.0})],
    "data_invert": [("data_invert True", {"project.white_particles": True})],
    "slurm_tasks": [("slurm_tasks 8", {"resources.threads": 8, "resources.memory": 32.0})],
    "slurm_memory_per_task": [("slurm_memory_per_task 2.5;slurm_tasks 4", {"resources.memory": 10.0})],
    "slurm_memory": [("slurm_memory 20", {"resources.memory": 20.0})],
    "slurm_max_cpus": [("slurm_max_cpus 25;slurm_tasks 8", {"resources.most_tasks": 3}),
                       ("slurm_max_cpus 4;slurm_tasks 8", {"resources.most_tasks": 1})],
    "slurm_max_memory": [("slurm_max_memory 10;slurm_max_cpus 9", {"resources.most_tasks": 2})],
    "slurm_walltime": [("slurm_walltime 0-02:00:00", {"resources.walltime": "0-02:00:00"})],
    "slurm_queue": [("slurm_queue fast", {"resources.queue": "fast"})],
    "slurm_account": [("slurm_account lab", {"resources.account": "lab"})],
    "slurm_gres": [("slurm_gres shrd=64", {"resources.gres": "shrd=64"})],
    "slurm_merge_tasks": [("slurm_merge_tasks 3", {"resources.merge_threads": 3})],
    "slurm_merge_retries": [("slurm_merge_retries 3", {"resources.retries": 3})],
}
CASES = [(name, given, expected) for name, cases in EFFECTS.items() for given, expected in cases]


@pytest.mark.parametrize(("name", "given", "expected"), CASES, ids=[f"{name}-{given}" for name, given, _ in CASES])
def test_the_effect_of_a_key(name, given, expected) -> None:
    settings = settings_of(configured(*given.split(";")))
    assert {what: target(settings, what) for what in expected} == expected
    assert settings.reconstruct == settings.refine.reconstruction()


def test_every_key_with_an_effect_is_tested_on_all_it_sets() -> None:
    assert set(EFFECTS) == {name for name, key in KEYS.items() if key.sets}
    for name, cases in EFFECTS.items():
        used = {old_names().get(pair.split()[0], pair.split()[0]) for given, _ in cases for pair in given.split(";")}
        if name not in ("refine_refine_angle_psi", "refine_refine_shifty"):  # the effect of one that is not given
            assert name in used, name
        assert set(KEYS[name].sets.split()) <= {what for _, expected in cases for what in expected} | {"prior_position"}, name


@pytest.mark.parametrize("name", IGNORED)
def test_a_key_without_effect_changes_nothing_and_is_named_with_the_reason(name) -> None:
    key = KEYS[name]
    if key.choices:
        text = next(choice for choice in key.choices if choice != key.default)
    elif key.count != 1:
        text = ",".join(["3"] * key.count)
    else:
        text = "x" if key.kind is str else str(not key.default) if key.kind is bool else str(key.kind(key.default + 1))
    configuration = configured(f"{name} {text}", origin="pyp.config:3")
    assert settings_of(configuration) == settings_of(PypConfiguration())
    assert warnings_of(configuration) == [f"pyp.config:3: {name} is known, but has no effect here: {key.ignored}"]


def test_pyps_own_default_in_a_file_is_no_news() -> None:
    given = [f"{name} {key.write(key.default)}" for name, key in KEYS.items() if key.default != ""]
    lines = warnings_of(configured(*given, origin="p:1"))
    assert len(lines) == 1
    assert "nothing is refined, only reconstructed" in lines[0]  # by PYP's defaults
    assert warnings_of(configured(*given, "csp_refine_ctf True", origin="p:1")) == []
    assert len(warnings_of(configured("refine_fssnr True"))) == 1  # typed by somebody who expects something


def test_a_whole_dump_of_pyps_defaults_is_accepted() -> None:
    given = [f"{name} {key.write(key.default)}" for name, key in KEYS.items() if key.default != ""]
    refine = settings_of(configured(*given, origin="p:1")).refine
    assert (refine.prior_rotation, refine.prior_shift, refine.prior_defocus) == (0.0, 0.0, 0.0)  # PYP's default: nothing
    assert (refine.resolution, refine.low_resolution, refine.refinement_last) == (10.0, 100.0, 20)


def test_nothing_given_means_this_programs_own_defaults() -> None:
    settings = settings_of(PypConfiguration())
    assert settings.refine == RefineSettings()
    assert settings.project.mask == "auto"
    assert warnings_of(PypConfiguration()) == []


@pytest.mark.parametrize(("given", "message"), [
    ("csp_Grid 8,8,2", "csp_Grid is known, but regions in z have no effect"),
    ("csp_Grid 1,1,1:8,8,1", "at most 4 values to a side"),
    ("refine_rhref -8", "its random part has no effect"), ("refine_angle_phi False", "give all of refine_refine_angle_phi"),
    ("refine_shiftx False", "give all of refine_refine_shiftx, refine_refine_shifty"),
    ("refine_mask 1,0,1,1,1", "one of three angles"), ("refine_mask 1,1,1,1,0", "two shifts alone"),
    ("particle_fmt frealign_local", "frames within a tilt"), ("data_mode spr", "single-particle projects"),
])
def test_keys_with_less_effect_than_in_pyp_say_so(given, message) -> None:
    lines = warnings_of(configured(given))
    assert len(lines) == 1
    assert message in lines[0]
    assert "\n" not in lines[0]


@pytest.mark.parametrize("given", [
    "csp_Grid 4,4,1", "refine_rhref 8", "refine_mask 0,0,0,1,1", "refine_angle_phi F;refine_angle_theta F;refine_angle_psi F",
    "particle_fmt frealign",
])
def test_keys_with_their_whole_effect_do_not_warn(given) -> None:
    assert warnings_of(configured(*given.split(";"))) == []


def test_each_other_step_of_pyp_is_one_line() -> None:
    lines = warnings_of(configured("movie_bin 2", "movie_iters 3", "tomo_rec_erase True", origin="p:3"))
    assert lines == ["p:3: movie_*: 2 keys are of another step of PYP, without effect here",
                     "p:3: tomo_rec_erase is of another step of PYP, without effect here"]


def test_iterations_have_their_own_values() -> None:
    configuration = configured("rhref 16:12", "csp_refine_ctf False:True", "csp_Grid 1,1,1:1,1,1:4,4,1", "cutoff 1:0.5")
    second, third, fourth = (settings_of(configuration, number).refine for number in (2, 3, 4))
    assert (second.resolution, third.resolution, fourth.resolution) == (16.0, 12.0, 12.0)
    assert (second.prior_defocus, third.prior_defocus) == (0.0, 750.0)
    assert (second.map_particles, fourth.map_particles) == (1.0, 0.5)
    values = settings_by_iteration(configured("rhref 16:12:8", "symmetry C3"), 3, 5)
    assert (values["resolution"], values["symmetry"]) == ([12.0, 8.0, 8.0], "C3")
    with pytest.raises(InputError, match="numbered from 2"):
        settings_of(configuration, 1)


@pytest.mark.parametrize(("given", "message"), [
    ("symmetry X9", "symmetry 'X9'"), ("extract_box 15", "box 15; it must be even"),
    ("reconstruct_mintilt 50;reconstruct_maxtilt 40", "map_tilt_min 50 is above"),
    ("reconstruct_firstframe 9;reconstruct_lastframe 3", "map_first 9 and map_last 3"),
    ("csp_UseImagesForRefinementMin 9;csp_UseImagesForRefinementMax 3", "refinement_first 9"),
    ("metric_masking_method file", "give refine_maskth"), ("metric_masking_method file;maskth -1", "give refine_maskth"),
])
def test_values_that_cannot_be_together_name_the_files(given, message) -> None:
    with pytest.raises(InputError) as caught:
        settings_of(configured(*given.split(";"), origin="/home/x/.pyp_config:3"))
    assert message in str(caught.value)
    assert ".pyp_config" in str(caught.value)
    assert "\n" not in str(caught.value)


# What is given, and then of the iterations 2, 3, 4: (prior_rotation, prior_position, prior_shift, prior_defocus).
NOTHING, PARTICLE, TILT, CTF, BOTH = ((0, 0, 0, 0), (30, 20, 0, 0), (0, 0, 100, 0), (0, 0, 0, 750), (30, 20, 100, 0))
REFINED = [
    ("rhref 9", [BOTH] * 3), ("csp_refine_particles F", [NOTHING] * 3), ("csp_refine_ctf F", [NOTHING] * 3),
    ("csp_refine_micrographs T", [TILT] * 3), ("csp_refine_particles T;csp_refine_micrographs T", [BOTH] * 3),
    ("csp_refine_particles T;csp_refine_micrographs F", [PARTICLE] * 3),
    ("csp_refine_ctf F:T", [NOTHING, CTF, CTF]),
    ("csp_refine_particles T:F;csp_refine_micrographs F:T", [PARTICLE, TILT, TILT]),
    ("csp_refine_ctf F:T:F;csp_refine_particles T:F", [PARTICLE, CTF, NOTHING]),
]


@pytest.mark.parametrize(("given", "expected"), REFINED, ids=[given for given, _ in REFINED])
def test_what_is_refined_in_which_iteration(given, expected) -> None:
    """Once a csp_refine_ key is given, those that are not are False, in every iteration; and the warning says the same."""
    configuration = configured(*given.split(";"))
    names = ("prior_rotation", "prior_position", "prior_shift", "prior_defocus")
    each = [settings_of(configuration, number).refine for number in (2, 3, 4)]
    assert [tuple(getattr(one, name) for name in names) for one in each] == expected
    said = any("nothing is refined" in line for line in warnings_of(configuration))
    assert said == (NOTHING in expected)


@pytest.mark.parametrize(("given", "when"), [
    ("csp_refine_ctf F", "only reconstructed, as none"), ("csp_refine_ctf F:T", "reconstructed in iteration 2, as none"),
    ("csp_refine_ctf F:T:F", "reconstructed in iteration 2, 4 and later, as none"),
])
def test_the_iterations_that_refine_nothing_are_named(given, when) -> None:
    lines = warnings_of(configured(given))
    assert len(lines) == 1
    assert when in lines[0]


RANDOM, GRID, FIXED = "csp_NumberOfRandomIterations 100", "csp_GridSearch T;csp_AngleStep 8", "csp_refine_micrographs T"
SEARCHED = [  # what is given, (search_cone, search_shift, search_step), whether a warning says that nothing is searched
    (RANDOM, (30.0, 20.0, 0.0), False), (f"{RANDOM};{FIXED}", (0.0, 0.0, 0.0), True),
    (f"{RANDOM};{FIXED};csp_refine_particles F", (0.0, 0.0, 0.0), True), (f"{RANDOM};{PARTICLES}", (30.0, 20.0, 0.0), False),
    (f"searchx 30;{FIXED}", (0.0, 0.0, 0.0), True), (f"searchy 30;{PARTICLES}", (0.0, 30.0, 0.0), False),
    ("searchx 30;refine_mask 1,1,1,0,0", (0.0, 0.0, 0.0), True), (f"{GRID};{FIXED}", (0.0, 0.0, 0.0), True),
    (f"{GRID};refine_mask 0,0,0,1,1", (0.0, 20.0, 0.0), False), (f"{GRID};refine_mask 1,1,1,0,0", (30.0, 0.0, 8.0), False),
    (f"{RANDOM};refine_shiftx F;refine_shifty F;searchx 30", (30.0, 0.0, 0.0), False),
    (f"{RANDOM};csp_ToleranceParticlesShifts 0", (30.0, 0.0, 0.0), False),
    (f"csp_refine_ctf T;searchx 30;{RANDOM}", (0.0, 0.0, 0.0), True),
]


@pytest.mark.parametrize(("given", "expected", "warned"), SEARCHED, ids=[given for given, _, _ in SEARCHED])
def test_only_what_is_refined_is_searched(given, expected, warned) -> None:
    configuration = configured(*given.split(";"))
    refine = settings_of(configuration).refine
    assert (refine.search_cone, refine.search_shift, refine.search_step) == expected
    lines = [line for line in warnings_of(configuration) if "nothing is searched" in line]
    assert len(lines) == warned


def test_the_iterations_that_search_nothing_are_named_with_the_keys() -> None:
    lines = warnings_of(configured("csp_refine_particles T:F", "csp_refine_micrographs T", RANDOM, "searchx 30:0"))
    assert lines == ["command line: csp_NumberOfRandomIterations and refine_searchx: nothing is searched in iteration 3 and "
                     "later, as what it would search is kept"]


# Document 02, section 1.8: every key of FREALIGN's file with its default there.
LEGACY = """symmetry C1
mode 4:4:4:4:1
dang 200
itmax 50
ipmax 10
rlref 100
rhref 16:12:8:4
rhcls 8
target 90
threc 0
rrec 0
radrec 0
pbc 100
boff 0
iewald 0
fboost F
fboostlim 0
fssnr T
lblur F
lblur_nrot 21
lblur_range 20
lblur_start -10
lblur_step 1
iblow 1
mask 1,1,1,1,1
cutoff 0
iter 2
maxiter 8
maskth -1
agroups 1
dgroups 1
mindef 0
maxdef 100000
mintilt -90
maxtilt 90
minazh 0
maxazh 180
minscore 0
maxscore 1
firstframe 0
lastframe -1
classes 1
refineshifts 2
refineeulers 3
metric cclin:cc3m
bsc 2
norm T
crop F
adjust T
invert F
srad 0
searchx 0
searchy 0
focusmask 0,0,0,0
score_weighting F
dose_weighting F
dose_weighting_multiply T
dose_weighting_fraction 8
dose_weighting_transition .75
per_particle_splitting T
num_frames 1
rotreg F
transreg F
spatial_sigma 500
time_sigma 21
rotreg_method AB2
transreg_method spline
"""
OF_CSP = """ParFile run_01.par
NumberOfIterations 2
RefineMicrographTiltAngles 1
RefineMicrographTiltAxisAngles 1
RefineParticlesTheta 1
RefineParticlesPsi 1
RefineParticlesPhi 1
ToleranceMicrographTiltAngles 3
ToleranceMicrographTiltAxisAngles 3
ToleranceMicrographShifts 3
ToleranceParticlesTheta 3
ToleranceParticlesPsi 3
ToleranceParticlesPhi 3
ToleranceParticlesShifts 3
OptimizerMaxIter 1
OptimizerValueTolerance -1
OptimizerStepTolerance -1
OptimizerStepLength -1
NumberOfRandomIterations 0
UseImagesForRefinementMin 0
UseImagesForRefinementMax 20
UseImagesForReconstructionMin 0
UseImagesForReconstructionMax -1
NumberOfThreads 4
SaveMatchesMRC 0
DebugBasic 1
DebugInfo 0
"""


def test_frealigns_file_with_its_defaults_asks_for_what_it_says(tmp_path) -> None:
    (tmp_path / "frealign.config").write_text(LEGACY)
    configuration = read_configuration(tmp_path)
    expected = dict(RefineSettings().to_dict(), resolution=[16.0, 12.0, 8.0, 4.0], low_resolution=100.0, map_particles=0.0,
                    score_fraction=8.0)
    assert settings_by_iteration(configuration, 2, 5) == expected
    project = settings_of(configuration).project
    assert (project.mask, project.next_iteration, project.last_iteration) == ("auto", 2, 8)
    for line in warnings_of(configuration):
        assert "has no effect here" in line


def test_csps_own_file_asks_for_what_it_says(tmp_path) -> None:
    (tmp_path / "parameters.config").write_text(OF_CSP)
    configuration = read_configuration(tmp_path)
    expected = dict(RefineSettings().to_dict(), refinement_last=20, **{
        f"prior_{name}": 3.0 for name in ("rotation", "position", "tilt_angle", "axis_angle", "shift")})
    assert settings_by_iteration(configuration, 2, 2) == expected
    settings = settings_of(configuration)
    assert (settings.project.alignments, settings.project.last_iteration) == ("run_01.par", 3)
    assert settings.resources.threads == 4


def test_help_names_every_key_with_its_unit_and_default() -> None:
    text = help_text()
    for name, key in KEYS.items():
        line = next(line for line in text.splitlines() if line.split(";")[0].split(" ")[2:3] == [f"-{name}"])
        assert key.unit in line
        assert key.default == "" or f"({key.write(key.default)})" in line, name
        for old in key.old:
            assert old in line
    for title in key_groups():
        assert f"\n{title}:\n" in text
    assert max(map(len, text.splitlines())) <= 160
