"""PYP's keys of scoring (refine_, metric_), reconstruction (reconstruct_) and classes (class_)."""

from __future__ import annotations

from typing import Sequence, Tuple

from .pyp_keys import Key

_REFINE3D = "it belongs to refine3d, the refinement of single images without constraints"
_LEGACY = "an option of FREALIGN that constrained refinement does not use, in PYP either"
_SIGNED = "the likelihood has the sign of the correlation at all resolutions"
_MEASURED = "signal and noise are measured for each exposure in every iteration"
_CLASSES = "there is one map here, without classes"
_BLURRING = "each projection is inserted at its one refined orientation"
_DENOISE = "the map is written as it is reconstructed; denoise it afterwards"

REFINE = (
    Key("refine_rhref", float, 10.0, "A", "finest detail used; 0: as far as the last FSC goes, which holds where it is not "
        "given; below 0: its amount, without PYP's random part", "resolution", old=("metric_rhref", "rhref")),
    Key("refine_rlref", float, 100.0, "A", "coarsest detail used; 0: no limit, which holds where it is not given",
        "low_resolution", old=("metric_rlref", "rlref"), least=0),
    Key("refine_srad", float, 0.0, "A", "radius of a spherical mask of the reference; 0: as metric_masking_method says",
        "project.mask", old=("metric_srad", "srad"), least=0, by_iteration=False),
    Key("refine_maskth", str, "", "", "mask of the reference (MRC); -1: none is given", "project.mask",
        old=("metric_maskth", "maskth")),
    Key("metric_masking_method", str, "spherical", "", "mask of the reference: a sphere of refine_srad or 1.5 particle_rad, a "
        "file (refine_maskth), or by its density, which holds where it is not given", "project.mask",
        choices=("spherical", "file", "auto"), by_iteration=False),
    Key("refine_same_ref", bool, False, "", "refine against the starting map in every iteration", "same_reference"),
    Key("refine_refine_angle_phi", bool, True, "", "False for phi, theta and psi: rotations stay; one alone cannot be kept",
        "prior_rotation", old=("refine_angle_phi", "RefineParticlesPhi")),
    Key("refine_refine_angle_theta", bool, True, "", "likewise", "prior_rotation",
        old=("refine_angle_theta", "RefineParticlesTheta")),
    Key("refine_refine_angle_psi", bool, True, "", "likewise", "prior_rotation",
        old=("refine_angle_psi", "RefineParticlesPsi")),
    Key("refine_refine_shiftx", bool, True, "", "False for x and y: positions stay; one alone cannot be kept",
        "prior_position", old=("refine_shiftx",)),
    Key("refine_refine_shifty", bool, True, "", "likewise", "prior_position", old=("refine_shifty",)),
    Key("refine_mask", int, "1,1,1,1,1", "", "0 or 1 for phi, theta, psi, x, y, as the five keys above", "prior_rotation "
        "prior_position", old=("mask",), count=5, least=0),
    Key("refine_searchx", float, 0.0, "A", "above 0: search translations as far first", "search_shift", old=("searchx",),
        least=0),
    Key("refine_searchy", float, 0.0, "A", "likewise; the larger of the two holds", "search_shift", old=("searchy",), least=0),
    Key("refine_score_weighting", bool, False, "", "particles weigh in the map by their score: exp(refine_bsc / 4 "
        "(score - mean) k^2)", "score_b_factor", old=("metric_score_weighting", "score_weighting")),
    Key("refine_bsc", float, 2.0, "A^2", "B-factor for each unit of score, where refine_score_weighting is True",
        "score_b_factor", old=("bsc",), least=0),
    Key("refine_iblow", int, 1, "", "above 1: padding of the map's transform, at most 4", "padding", old=("iblow",), least=1),
    Key("refine_fboost", bool, False, "", "signed correlation", ignored=_SIGNED, old=("metric_fboost", "fboost")),
    Key("refine_fboostlim", float, 0.0, "A", "its limit", ignored=_SIGNED, old=("metric_fboostlim", "fboostlim")),
    Key("refine_fssnr", bool, True, "", "weigh by the SSNR table", ignored=_MEASURED, old=("metric_fssnr", "fssnr")),
    Key("refine_global_stat", bool, False, "", "statistics of all series", ignored=_MEASURED, old=("metric_global_stat",)),
    Key("refine_priors", bool, False, "", "priors on shifts", ignored="every parameter has a prior, of the csp_Tolerance keys' "
        "width", old=("metric_priors",)),
    Key("refine_beamtilt", bool, False, "", "refine the beam tilt", ignored="the beam tilt is not refined here"),
    Key("refine_skip", bool, True, "", "skip refine3d", ignored=_REFINE3D),
    Key("refine_mode", int, 0, "", "0 global, 1 local", ignored=_REFINE3D + "; to search, give csp_NumberOfRandomIterations",
        old=("mode",)),
    Key("refine_itmax", int, 50, "cycles", "of its random search", ignored=_REFINE3D, old=("itmax",)),
    Key("refine_dang", float, 20.0, "deg", "its step", ignored=_REFINE3D, old=("dang",)),
    Key("refine_metric", str, "frealignx", "", "FREALIGN's version", ignored=_LEGACY, old=("metric",)),
    Key("refine_parfile_compress", bool, True, "", "compress alignments", ignored="alignments are always compressed"),
    *(Key(f"refine_{name}", str, "", "", meaning, ignored=_LEGACY, old=(name,)) for name, meaning in (
        ("adjust", "of FREALIGN"), ("boff", "mean phase residual"), ("crop", "cropping"), ("daemon", "when to refine again"),
        ("dfsig", "defocus uncertainty"), ("fastig", "refine astigmatism"), ("fdef", "refine defocus"),
        ("fmag", "refine magnification"), ("fmatch", "write matching projections"), ("fpart", "defocus by particle"),
        ("pbc", "phase residual weighting"), ("xstd", "mask by density"), ("rbfact", "B-factor of images"),
        ("ref_par", "reference parameters"), ("target", "phase residual to reach"), ("imem", "memory use"),
        ("interp", "interpolation"), ("invert", "invert contrast"), ("ipmax", "candidates of a search"),
        ("merge_normalize", "divide by the frames"), ("debug", "print more"))),
)

RECONSTRUCT = (
    Key("reconstruct_cutoff", float, 1.0, "", "particles by their score of the last iteration: 0 automatic, below 1 the best "
        "fraction, 1 all, above 1 how many", "map_particles", old=("cutoff",), least=0),
    Key("reconstruct_minscore", float, 0.0, "", "least score; up to 1: of the range of all scores", "map_score_min",
        old=("minscore",), least=0),
    Key("reconstruct_maxscore", float, 1.0, "", "largest score; up to 1: of the range of all scores", "map_score_max",
        old=("maxscore",), least=0),
    Key("reconstruct_mintilt", float, -90.0, "deg", "least tilt angle", "map_tilt_min", old=("mintilt",)),
    Key("reconstruct_maxtilt", float, 90.0, "deg", "largest tilt angle", "map_tilt_max", old=("maxtilt",)),
    Key("reconstruct_firstframe", int, 0, "exposure", "first exposure, in the order of acquisition from 0", "map_first",
        old=("firstframe", "UseImagesForReconstructionMin"), least=0),
    Key("reconstruct_lastframe", int, -1, "exposure", "last exposure; -1: all", "map_last",
        old=("lastframe", "UseImagesForReconstructionMax"), least=-1),
    Key("reconstruct_mindef", float, 0.0, "A", "least defocus of a projection", "map_defocus_min", old=("mindef",)),
    Key("reconstruct_maxdef", float, 100000.0, "A", "largest defocus of a projection", "map_defocus_max", old=("maxdef",)),
    Key("reconstruct_minazh", float, 0.0, "deg", "least theta of a projection", "map_theta_min", old=("minazh",), least=0),
    Key("reconstruct_maxazh", float, 180.0, "deg", "largest theta of a projection", "map_theta_max", old=("maxazh",), least=0),
    Key("reconstruct_min_occ", float, 50.0, "%", "least occupancy of a particle; 0 where it is not given", "map_weight_min",
        least=0),
    Key("reconstruct_apply_symmetry", bool, True, "", "False: C1 instead of particle_sym", "symmetry"),
    Key("reconstruct_rrec", float, 0.0, "A", "finest detail of the map; 0: all", "map_resolution", old=("rrec",), least=0),
    Key("reconstruct_radrec", float, 0.0, "A", "radius of a soft circle on the projections; 0: none", "mask_diameter",
        old=("radrec",), least=0),
    Key("reconstruct_dose_weighting_enable", bool, False, "", "True: exposures weigh by their mean scores, PYP's way; else by "
        "their measured signal and noise", "exposure_weighting", old=("dose_weighting_enable", "dose_weighting")),
    Key("reconstruct_dose_weighting_fraction", float, 4.0, "", "exponent of these weights", "score_fraction",
        old=("dose_weighting_fraction",), least=0),
    Key("reconstruct_dose_weighting_transition", float, 0.75, "", "factor in their exponent", "score_transition",
        old=("dose_weighting_transition",), least=0),
    Key("reconstruct_dose_weighting_global", bool, False, "", "scores of the whole data set", old=("dose_weighting_global",),
        ignored="they always are, so that a map does not depend on slurm_bundle_size"),
    Key("reconstruct_dose_weighting_multiply", bool, True, "", "multiply weights by the number of frames",
        ignored="a common factor does not change the map", old=("dose_weighting_multiply",)),
    Key("reconstruct_dose_weighting_weights", str, "", "", "file of weights", ignored="weights come from the data set's scores",
        old=("dose_weighting_weights",)),
    Key("reconstruct_per_particle_splitting", bool, True, "", "a particle's projections go into one half map",
        ignored="they always do, in all iterations into the same", old=("per_particle_splitting",)),
    Key("reconstruct_ffilt", bool, True, "", "Wiener filter", ignored="the map always has it, the half maps never"),
    Key("reconstruct_norm", bool, False, "", "normalise images", ignored="images weigh by their measured noise", old=("norm",)),
    Key("reconstruct_fbfact", bool, False, "", "sharpen the map", ignored="map_sharpened.mrc always is"),
    Key("reconstruct_agroups", int, 1, "", "groups of angles for scores", old=("agroups",),
        ignored="particles are sorted by their mean score over all tilts"),
    Key("reconstruct_dgroups", int, 1, "", "groups of defocus for scores", old=("dgroups",),
        ignored="particles are sorted by their mean score over all tilts"),
    Key("reconstruct_num_frames", int, 1, "frames", "of each tilt", old=("num_frames",),
        ignored="frames within a tilt are not used here"),
    Key("reconstruct_iewald", str, "0", "", "Ewald sphere", ignored="slices are flat", old=("iewald",),
        choices=("0", "1", "2", "-1", "-2")),
    Key("reconstruct_lblur", bool, False, "", "likelihood blurring", ignored=_BLURRING, old=("lblur",)),
    Key("reconstruct_lblur_nrot", int, 21, "", "rotations of it", ignored=_BLURRING, old=("lblur_nrot",)),
    Key("reconstruct_lblur_range", int, 20, "", "LogP range of it", ignored=_BLURRING, old=("lblur_range",)),
    Key("reconstruct_lblur_start", int, -10, "deg", "first angle of it", ignored=_BLURRING, old=("lblur_start",)),
    Key("reconstruct_lblur_step", int, 1, "deg", "step of it", ignored=_BLURRING, old=("lblur_step",)),
    Key("reconstruct_shapr", str, "none", "", "shape scores", ignored="scores are used as they are",
        choices=("none", "-reverse", "-consistency")),
    Key("reconstruct_threc", float, 0.0, "deg", "phase residual threshold", ignored=_LEGACY, old=("threc",)),
    Key("reconstruct_weights", bool, False, "", "several weights", ignored=_LEGACY),
    Key("reconstruct_optimal_cutoff", float, 0.0, "", "the automatic threshold found before",
        ignored="it is found anew in every iteration"),
    Key("reconstruct_saveplots", bool, False, "", "plots of angles", ignored="the report has them"),
    Key("reconstruct_scratch_copy_stack", bool, False, "", "copy stacks to scratch", ignored="there are no stacks"),
    Key("reconstruct_export_enable", bool, False, "", "write stars as well", ignored="they are always written"),
    Key("reconstruct_denoise_enable", bool, False, "", "denoise the map", ignored=_DENOISE),
    Key("reconstruct_denoise_method", str, "bm4d", "", "how", ignored=_DENOISE, choices=("bm4d", "nad", "noise2map")),
    Key("reconstruct_denoise_sigma", float, 0.25, "", "noise", ignored=_DENOISE),
    Key("reconstruct_denoise_iters", int, 1, "", "iterations", ignored=_DENOISE),
    *(Key(f"reconstruct_denoise_{name}", str, "", "", "of the denoising program", ignored=_DENOISE) for name in (
        "nsearch", "patch_size", "separately", "mini_model", "start_model", "old_model", "learningrate_start",
        "learningrate_finish", "window", "dont_augment", "lowpass", "iterations", "batchsize", "flatten_spectrum",
        "overflatten_factor")),
)

CLASSES = (
    Key("class_num", int, 1, "classes", "how many", ignored=_CLASSES, old=("classes",)),
    Key("class_rhcls", float, 8.0, "A", "finest detail of likelihoods", ignored=_CLASSES, old=("rhcls",)),
    Key("class_focusmask", float, "0,0,0,0", "A", "x, y, z, radius", ignored=_CLASSES, old=("focusmask",), count=4),
    Key("class_refineeulers", int, 3, "iterations", "between refinements of angles", ignored=_CLASSES, old=("refineeulers",)),
    Key("class_refineshifts", int, 2, "iterations", "between refinements of shifts", ignored=_CLASSES, old=("refineshifts",)),
    Key("class_force_init", bool, False, "", "start classes again", ignored=_CLASSES),
    Key("class_bin", int, 2, "", "binning of class averages", ignored=_CLASSES),
)

GROUPS: Tuple[Tuple[str, Sequence[Key]], ...] = (
    ("Scoring (refine_, metric_)", REFINE), ("Reconstruction (reconstruct_)", RECONSTRUCT), ("Classes (class_)", CLASSES),
)
