"""PYP's keys of the command itself and of constrained refinement (csp_), and those of CSP's own ``parameters.config``."""

from __future__ import annotations

from typing import Sequence, Tuple

from .pyp_keys import Key

_DESCENT = "the parameters' least squares are solved with derivatives (Levenberg-Marquardt), not by Powell's search"
_FRAMES = "frames within a tilt are not refined here; each tilt's frames are taken as they were averaged"
_AB_INITIO = "there is no refinement without a starting map here; give one with csp_model"
_STACKS = "projections are cut from the images in memory; no stacks are written"
_DEBUG = "what happened is in the run's journal and report"

COMMAND = (
    Key("csp_refine", str, "", "", "starting alignments: SVA text, .bz2 or folder of .cistem or .parx, or a .parx",
        "project.alignments", old=("refine_parfile", "refine_parfile_tomo", "ParFile")),
    Key("csp_model", str, "", "", "starting map (MRC)", "project.model", old=("refine_model", "class_ref")),
    Key("csp_skip", bool, False, "", "start from csp_refine again instead of the last iteration's alignments", "project.skip",
        by_iteration=False),
    Key("extract_fmt", str, "frealign", "", "form of the particles; frealign_local asks for frames, which are not used here",
        "project.particle_format", old=("particle_fmt",), choices=("frealign", "frealign_local", "relion", "eman"),
        by_iteration=False),
    Key("slurm_bundle_size", int, 1, "series", "tilt series that one task processes", "resources.tasks_per_chunk",
        old=("tasks_per_arr",), least=1, by_iteration=False),
    Key("executor", str, "", "", "what runs the tasks; not given: mpi under mpirun, slurm where a cluster answers, "
        "else local",
        "resources.executor", choices=("local", "slurm", "mpi"), by_iteration=False),
    Key("interactive", bool, False, "", "run one task in the foreground and show what it does", "project.interactive",
        by_iteration=False),
    Key("refine_resume", bool, True, "", "go on after the last iteration that is there; False: as csp_skip", "project.skip",
        by_iteration=False),
    Key("refine_first_iter", int, 2, "", "first iteration where nothing is resumed; the starting map is iteration 1",
        "project.first_iteration", least=2, by_iteration=False),
    Key("refine_iter", int, 2, "", "iteration to do next; the one after the last that is there is done, with a warning "
        "where it is another", "project.next_iteration", old=("iter",), least=2,
        by_iteration=False),
    Key("refine_maxiter", int, 2, "", "last iteration", "project.last_iteration", old=("maxiter",), least=1,
        by_iteration=False),
    Key("NumberOfIterations", int, 1, "", "how many iterations, where refine_maxiter is not given", "project.last_iteration",
        least=0, by_iteration=False),
)

CSP = (
    Key("csp_refine_particles", bool, False, "", "refine the particles' rotations and positions; True where no "
        "csp_refine_ key is given", "prior_rotation prior_position"),
    Key("csp_ToleranceParticlesPhi", float, 30.0, "deg", "how far rotations may go: the standard deviation of their prior is "
        "the largest of the three", "prior_rotation", old=("ToleranceParticlesPhi",), least=0),
    Key("csp_ToleranceParticlesPsi", float, 30.0, "deg", "likewise", "prior_rotation", old=("ToleranceParticlesPsi",), least=0),
    Key("csp_ToleranceParticlesTheta", float, 30.0, "deg", "likewise", "prior_rotation", old=("ToleranceParticlesTheta",),
        least=0),
    Key("csp_ToleranceParticlesShifts", float, 20.0, "A", "how far positions may go: the prior's standard deviation; the reach "
        "of a search", "prior_position search_shift", old=("ToleranceParticlesShifts",), least=0),
    Key("csp_refine_micrographs", bool, False, "", "refine each tilt's angle, axis and shift; True where no csp_refine_ "
        "key is given", "prior_tilt_angle prior_axis_angle prior_shift"),
    Key("csp_ToleranceMicrographTiltAngles", float, 1.5, "deg", "prior of the tilt angle; 0: not refined", "prior_tilt_angle",
        old=("ToleranceMicrographTiltAngles",), least=0),
    Key("csp_ToleranceMicrographTiltAxisAngles", float, 1.0, "deg", "prior of the axis; 0: not refined", "prior_axis_angle",
        old=("ToleranceMicrographTiltAxisAngles",), least=0),
    Key("csp_ToleranceMicrographShifts", float, 100.0, "A", "prior of the tilt's shift; 0: not refined", "prior_shift",
        old=("ToleranceMicrographShifts",), least=0),
    Key("csp_Grid", int, "1,1,1", "regions", "regions in x, y, z with a geometry of their own: here a smooth field of shifts "
        "over each image, with as many control values to a side, 2 to 4; z has no effect", "prior_deformation deformation_grid",
        count=3, least=1),
    Key("csp_Grid_spr", int, "1,1", "regions", "regions in x, y of single-particle images",
        ignored="tilt series have csp_Grid", count=2, least=1),
    Key("csp_refine_ctf", bool, False, "", "refine each tilt's defocus and astigmatism", "prior_defocus prior_astigmatism"),
    Key("csp_ToleranceMicrographDefocus1", float, 750.0, "A", "prior of the defocus: the larger of the two", "prior_defocus",
        old=("ToleranceMicrographDefocus1",), least=0),
    Key("csp_ToleranceMicrographDefocus2", float, 750.0, "A", "likewise", "prior_defocus",
        old=("ToleranceMicrographDefocus2",), least=0),
    Key("csp_ToleranceMicrographAstigmatism", float, 90.0, "deg", "0: astigmatism is not refined; else its prior is 0.4 of the "
        "defocus's, whatever the angle", "prior_astigmatism", old=("ToleranceMicrographAstigmatism",), least=0),
    Key("csp_UseImagesForRefinementMin", int, 0, "exposure", "first exposure, in the order of acquisition from 0, by which "
        "particles are refined; the other tilts are fitted to the particles afterwards", "refinement_first",
        old=("metric_UseImagesForRefinementMin", "UseImagesForRefinementMin"), least=0),
    Key("csp_UseImagesForRefinementMax", int, 20, "exposure", "last such exposure; -1: all, which holds where it is not given",
        "refinement_last", old=("metric_UseImagesForRefinementMax", "UseImagesForRefinementMax"), least=-1),
    Key("csp_RefineProjectionCutoff", int, 0, "projections", "particles with fewer usable projections are not refined",
        "refinement_projections", old=("metric_RefineProjectionCutoff", "RefineProjectionCutoff"), least=0),
    Key("csp_NumberOfRandomIterations", int, 0, "draws", "above 0: search rotations within the tolerances "
        "(csp_ToleranceParticles) and translations first, of what is refined; how many draws makes no difference, the search "
        "is a grid", "search_cone search_shift",
        old=("NumberOfRandomIterations",), least=0),
    Key("csp_GridSearch", bool, False, "", "search as csp_NumberOfRandomIterations does, with the step csp_AngleStep",
        "search_cone search_shift search_step"),
    Key("csp_AngleStep", float, 20.0, "deg", "step of csp_GridSearch; 0: from the search's resolution", "search_step", least=0),
    Key("csp_ShiftStep", float, 6.0, "A", "step of translations", least=0,
        ignored="translations are searched by correlation on the images' own grid"),
    Key("csp_ctf_handedness", bool, False, "", "the sign of depth in the defocus: +1 instead of -1", "project.hand",
        old=("extract_ctf_handedness",), by_iteration=False),
    Key("csp_ctf_handedness_force", bool, False, "", "compute the CTF's hand again",
        ignored="the defocus of every projection is computed anew in each iteration"),
    Key("csp_automask", bool, False, "", "mask the reference by its own density", "project.mask", by_iteration=False),
    Key("csp_OptimizerMaxIter", int, 5, "", "iterations of Powell's search", ignored=_DESCENT, old=("OptimizerMaxIter",)),
    Key("csp_OptimizerStepLength", float, 20.0, "A, deg", "first step of Powell's search", ignored=_DESCENT,
        old=("OptimizerStepLength",)),
    Key("csp_OptimizerStepTolerance", float, 0.01, "A, deg", "smallest step", ignored=_DESCENT,
        old=("OptimizerStepTolerance",)),
    Key("csp_OptimizerValueTolerance", float, 1e-4, "", "smallest gain", ignored=_DESCENT, old=("OptimizerValueTolerance",)),
    Key("csp_frame_refinement", bool, False, "", "refine frames within each tilt", ignored=_FRAMES),
    Key("csp_transreg", bool, False, "", "smooth the frames' translations", ignored=_FRAMES, old=("transreg",)),
    Key("csp_transreg_method", str, "spline", "", "how", ignored=_FRAMES, old=("transreg_method",),
        choices=("spline", "AB", "XD")),
    Key("csp_spatial_sigma", float, 500.0, "pixel", "over this distance", ignored=_FRAMES, old=("spatial_sigma",)),
    Key("csp_time_sigma", float, 21.0, "frames", "over this time", ignored=_FRAMES, old=("time_sigma",)),
    Key("csp_rotreg", bool, False, "", "smooth the frames' rotations", ignored=_FRAMES, old=("rotreg",)),
    Key("csp_rotreg_method", str, "AB2", "", "how", ignored=_FRAMES, old=("rotreg_method",), choices=("AB1", "AB2", "XD")),
    Key("csp_produce_running_average", bool, False, "", "running averages of frames", ignored=_FRAMES),
    Key("csp_abinitio", bool, False, "", "start without a map", ignored=_AB_INITIO),
    Key("csp_InitialResolution", float, 60.0, "A", "first resolution of it", ignored=_AB_INITIO),
    Key("csp_ResolutionLimit", float, 16.0, "A", "last resolution of it", ignored=_AB_INITIO),
    Key("csp_RandomParticles", int, 10, "particles", "in each of its batches", ignored=_AB_INITIO),
    Key("csp_RandomSkipRatio", float, 0.0, "", "particles left out", ignored=_AB_INITIO),
    Key("csp_InitialSkip", bool, False, "", "skip its initialisation", ignored=_AB_INITIO),
    Key("csp_thresh", float, 0.0, "", "threshold of CSP's first version", ignored="CSP does not use it either"),
    Key("csp_stacks", bool, False, "", "write stacks", ignored=_STACKS),
    Key("csp_no_stacks", bool, False, "", "work without stacks", ignored=_STACKS),
    Key("csp_parx_only", bool, False, "", "write only .parx", ignored="alignments are written as .cistem archives"),
    Key("csp_DebugBasic", bool, True, "", "print more", ignored=_DEBUG, old=("DebugBasic",)),
    Key("csp_DebugData", bool, False, "", "print data", ignored=_DEBUG, old=("DebugData",)),
    Key("csp_DebugFull", bool, False, "", "print everything", ignored=_DEBUG, old=("DebugFull",)),
    Key("csp_DebugInfo", bool, False, "", "print information", ignored=_DEBUG, old=("DebugInfo",)),
    Key("csp_DebugNone", bool, False, "", "print nothing", ignored=_DEBUG, old=("DebugNone",)),
)

PARAMETERS = (
    Key("RefineMicrographTiltAngles", bool, True, "", "0: the tilt angles stay", "prior_tilt_angle"),
    Key("RefineMicrographTiltAxisAngles", bool, True, "", "0: the tilt axes stay", "prior_axis_angle"),
    Key("WorkingFolder", str, "", "", "where CSP works", ignored="the project folder is the one the command runs in"),
    Key("SaveMatchesMRC", bool, False, "", "write matching projections", ignored="csp -interactive writes them"),
)

GROUPS: Tuple[Tuple[str, Sequence[Key]], ...] = (
    ("Command", COMMAND), ("Constrained refinement (csp_)", CSP), ("CSP's parameters.config", PARAMETERS),
)
