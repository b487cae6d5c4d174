"""Scipion wizards: values of the forms chosen on a picture."""

from .map_wizards import (
    PypCsprBoxWizard,
    PypCsprDistanceWizard,
    PypCsprMaskDiameterWizard,
    PypCsprMaskWizard,
    PypCsprRadiusWizard,
    PypCsprResolutionWizard,
    PypCsprSymmetryWizard,
)
from .set_wizards import PypCsprProjectionsWizard, PypCsprScoreWizard, PypCsprTiltRangeWizard, PypCsprWeightingWizard

__all__ = [
    "PypCsprBoxWizard", "PypCsprDistanceWizard", "PypCsprMaskDiameterWizard", "PypCsprMaskWizard", "PypCsprProjectionsWizard",
    "PypCsprRadiusWizard", "PypCsprResolutionWizard", "PypCsprScoreWizard", "PypCsprSymmetryWizard", "PypCsprTiltRangeWizard",
    "PypCsprWeightingWizard",
]
