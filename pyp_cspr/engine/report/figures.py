"""Plots: a table or an array in, a matplotlib ``Figure`` out. Report, viewers and commands share them."""

from __future__ import annotations

from .figures_exposures import (
    defocus_by_tilt,
    defocus_change,
    exposure_tilts,
    exposure_weights,
    factors_by_dose,
    geometry_change,
    noise_by_exposure,
    scores_by_tilt,
    shift_vectors,
    tilt_scheme,
)
from .figures_map import fsc_curves, map_views, maps_compared
from .figures_particles import (
    angular_distribution,
    bin_image,
    displacements,
    moves,
    particles_in_image,
    particles_per_series,
    score_histogram,
    smooth,
    uncertainties,
)
from .figures_refinement import fsc_by_iteration, progress, time_by_iteration, timings
from .style import DENSITY, FAINT, INK, PALETTE, STYLE, WIDE, WIDTH, contrast_limits, round_down

__all__ = [
    "DENSITY", "FAINT", "INK", "PALETTE", "STYLE", "WIDE", "WIDTH", "angular_distribution", "bin_image", "contrast_limits",
    "defocus_by_tilt", "defocus_change", "displacements", "exposure_tilts", "exposure_weights", "factors_by_dose",
    "fsc_by_iteration", "fsc_curves", "geometry_change", "map_views", "maps_compared", "moves", "noise_by_exposure",
    "particles_in_image", "particles_per_series", "progress", "round_down", "score_histogram", "scores_by_tilt",
    "shift_vectors", "smooth", "tilt_scheme", "time_by_iteration", "timings", "uncertainties",
]
