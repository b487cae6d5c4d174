"""PYP's keys: each is declared once, and values are read as PYP writes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.model.pyp_configuration import PypConfiguration
from pyp_cspr.engine.model.pyp_keys import all_keys, find_key, key_groups, old_names, other_step
from pyp_cspr.engine.model.pyp_settings import setting_names

KEYS = all_keys()
# Section by section what the convention document lists; the count guards against one that is lost.
DOCUMENTED = """csp_UseImagesForRefinementMin csp_Grid csp_Grid_spr csp_RefineProjectionCutoff csp_NumberOfRandomIterations
csp_GridSearch csp_AngleStep csp_ShiftStep csp_OptimizerMaxIter csp_refine_micrographs csp_ToleranceMicrographTiltAngles
csp_refine_particles csp_frame_refinement csp_transreg csp_rotreg_method csp_refine_ctf csp_ctf_handedness csp_abinitio
csp_automask csp_thresh csp_no_stacks refine_model refine_parfile_tomo refine_parfile refine_parfile_compress refine_rlref
refine_rhref refine_fboost refine_fboostlim refine_resume refine_first_iter refine_iter refine_maxiter refine_skip refine_fssnr
refine_global_stat refine_mode refine_itmax refine_dang refine_priors refine_angle_phi refine_angle_theta refine_angle_psi
refine_shiftx refine_shifty refine_searchx refine_searchy refine_score_weighting refine_beamtilt refine_bsc refine_srad
refine_maskth refine_same_ref refine_iblow refine_mask refine_metric reconstruct_cutoff reconstruct_apply_symmetry
reconstruct_dose_weighting_enable reconstruct_dose_weighting_weights reconstruct_min_occ reconstruct_ffilt reconstruct_rrec
reconstruct_radrec reconstruct_norm reconstruct_mintilt reconstruct_maxtilt reconstruct_firstframe reconstruct_lastframe
reconstruct_mindef reconstruct_maxdef reconstruct_minazh reconstruct_maxazh reconstruct_minscore reconstruct_maxscore
reconstruct_agroups reconstruct_num_frames reconstruct_per_particle_splitting reconstruct_lblur reconstruct_iewald
reconstruct_shapr reconstruct_export_enable reconstruct_denoise_enable class_num class_rhcls class_focusmask
class_refineeulers class_refineshifts class_force_init class_bin particle_mw particle_rad particle_sym extract_box extract_bin
extract_fmt extract_gold extract_ctf_handedness extract_use_clean extract_cls extract_stacks extract_method metric_rlref
metric_rhref metric_fboost metric_fssnr metric_priors metric_score_weighting metric_UseImagesForRefinementMax
metric_RefineProjectionCutoff metric_maskth metric_srad metric_masking_method clean_threshold clean_dist clean_discard
mask_model mask_threshold mask_outside_weight scope_pixel scope_voltage scope_cs scope_wgh scope_dose_rate scope_tilt_axis
scope_mag scope_beam_tilt data_bin data_mode slurm_tasks slurm_memory_per_task slurm_bundle_size slurm_max_cpus
slurm_max_memory slurm_gres slurm_account slurm_walltime slurm_queue slurm_queue_gpu slurm_zombie slurm_merge_tasks
slurm_merge_memory_per_task slurm_merge_walltime slurm_merge_queue slurm_merge_gres slurm_merge_only slurm_merge_retries
csp_refine csp_model csp_skip particle_fmt tasks_per_arr symmetry rhref rlref dang itmax mode threc target iblow mask cutoff
ParFile WorkingFolder NumberOfIterations RefineMicrographTiltAngles RefineParticlesTheta ToleranceMicrographShifts DebugNone
OptimizerValueTolerance UseImagesForRefinementMax UseImagesForReconstructionMin NumberOfThreads SaveMatchesMRC""".split()


def parse(name: str, text: str):
    configuration = PypConfiguration()
    configuration.give(name, text, "file:7")
    return configuration.values[old_names().get(name, name)]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_names_are_known(name) -> None:
    assert find_key(name, "here") is not None


def test_every_key_is_declared_once_and_says_what_it_does() -> None:
    assert sum(len(keys) for keys in key_groups().values()) == len(KEYS) > 240
    names = list(KEYS) + [old for key in KEYS.values() for old in key.old]
    assert len(names) == len(set(names))
    targets = set(setting_names())
    for key in KEYS.values():
        assert bool(key.sets) != bool(key.ignored), key.name
        assert key.meaning, key.name
        assert set(key.sets.split()) <= targets, key.name
        assert key.default == "" or parse(key.name, key.write(key.default)) == key.default, key.name
        # One of another step is passed over if it is ever removed from here: these two are known to be used.
        assert not other_step(key.name) or key.name in ("tomo_rec_binning", "tomo_ext_binn"), key.name


@pytest.mark.parametrize(("text", "value"), [
    ("True", True), ("t", True), ("TRUE", True), ("1", True), ("yes", True), ("False", False), ("f", False), ("0", False),
    ("True:False", [True, False]),
])
def test_true_and_false(text, value) -> None:
    assert parse("csp_refine_ctf", text) == value


@pytest.mark.parametrize(("name", "text", "value"), [
    ("refine_rhref", "16:12:8:4", [16.0, 12.0, 8.0, 4.0]), ("refine_rhref", " 8.0 ", 8.0), ("refine_rhref", "1e1", 10.0),
    ("csp_UseImagesForRefinementMax", "-1", -1), ("slurm_tasks", "4.0", 4), ("csp_Grid", "1,1,1:8, 8,2", ["1,1,1", "8,8,2"]),
    ("refine_model", "a:b.mrc", "a:b.mrc"), ("slurm_walltime", "1-00:00:00", "1-00:00:00"), ("reconstruct_iewald", "-1", "-1"),
    ("class_focusmask", "0,0,0,120.5", "0,0,0,120.5"), ("particle_sym", "C3", "C3"),
])
def test_values(name, text, value) -> None:
    assert parse(name, text) == value


@pytest.mark.parametrize(("name", "text", "message"), [
    ("refine_rhref", "16:x", "refine_rhref is '16:x'; it must be a number, or a list a:b:c of them"),
    ("refine_rhref", "", "must be a number"), ("refine_rhref", "nan", "must be a number"), ("refine_rhref", "1e999", "number"),
    ("refine_rhref", "1:", "must be a number"), ("refine_rhref", "\u0663", "must be a number"),
    ("csp_refine_ctf", "maybe", "must be True or False"),
    ("slurm_tasks", "1.5", "slurm_tasks is '1.5'; it must be a whole number"),
    ("slurm_tasks", "1:2", "it must be a whole number"), ("slurm_tasks", "0", "must be 1 or above"),
    ("tasks_per_arr", "0", "slurm_bundle_size is '0'; it must be 1 or above"),
    ("csp_ToleranceParticlesShifts", "-3", "must be 0 or above"),
    ("csp_UseImagesForRefinementMax", "-2", "must be -1 or above"),
    ("csp_Grid", "1,1", "3 whole numbers with commas"), ("csp_Grid", "1,1,0", "1 or above"), ("csp_Grid", "1,1,x", "3 whole"),
    ("executor", "cloud", "it must be local or slurm or mpi"), ("refine_rhref", "9" * 400, "must be a number"),
])
def test_wrong_values_name_the_file_the_line_and_the_key(name, text, message) -> None:
    with pytest.raises(InputError) as caught:
        parse(name, text)
    assert str(caught.value).startswith("file:7: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("name", "known"), [
    ("csp_refine_particle", "csp_refine_particles"), ("csp_toleranceparticlesshift", "csp_ToleranceParticlesShifts"),
    ("refine_rhreff", "refine_rhref"), ("task_per_arr", "tasks_per_arr"), ("slurm_wall_time", "slurm_walltime"),
    ("csp_mode", "csp_model"),
])
def test_an_unknown_key_is_refused_with_the_nearest_name(name, known) -> None:
    with pytest.raises(InputError, match=f"file:7: unknown key '{name}'; did you mean {known}\\?"):
        find_key(name, "file:7")


@pytest.mark.parametrize("name", ["movie_bin", "tomo_rec_erase", "ctf_min_res", "csp_tomo_coarse_iter", "sharpen_x"])
def test_keys_of_other_steps_of_pyp_are_kept_apart(name) -> None:
    configuration = PypConfiguration()
    configuration.give(name, "anything", "file:7")
    assert (configuration.values, configuration.others) == ({}, {name: "file:7"})


def test_lists_are_taken_from_iteration_2_on_and_the_last_repeats() -> None:
    configuration = PypConfiguration()
    configuration.give("rhref", "16:12:8", "file:7")
    assert [configuration.value("refine_rhref", iteration) for iteration in (2, 3, 4, 5, 99)] == [16.0, 12.0, 8.0, 8.0, 8.0]
    assert configuration.value("refine_rhref") == 16.0
    assert configuration.value("refine_rlref", 7) == 100.0  # PYP's default
    assert configuration.origin("rhref") == "file:7"
    assert configuration.origin("refine_rlref") == "default"
    assert configuration.given("rhref")
    assert not configuration.given("refine_rlref")
    with pytest.raises(KeyError):
        configuration.value("nothing")


def _values(key):
    if key.choices:
        return st.sampled_from(key.choices)
    if key.count != 1:
        least = int(key.least if key.least is not None else -99)
        number = st.integers(least, 99)
        return st.lists(number, min_size=key.count or 1, max_size=key.count or 5).map(lambda row: ",".join(map(str, row)))
    least = key.least
    if key.kind is bool:
        return st.booleans()
    if key.kind is int:
        return st.integers(int(least) if least is not None else -(10**9), 10**9)
    if key.kind is float:
        return st.floats(least, 1e30, allow_nan=False) if least is not None else st.floats(-1e30, 1e30, allow_nan=False)
    return st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20).map(str.strip)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back(data) -> None:
    key = KEYS[data.draw(st.sampled_from(sorted(KEYS)))]
    value = data.draw(_values(key))
    if key.by_iteration and not (key.kind is str and not key.choices):
        count = data.draw(st.integers(1, 4))
        value = value if count == 1 else [value] + [data.draw(_values(key)) for _ in range(count - 1)]
    again = key.parse(key.write(value), "here")
    assert again == value
    assert type(again) is type(value)
