"""Scipion wizards: values of the forms chosen on a picture."""

from .map_wizards import (
    PypCsprBoxWizard,
    PypCsprDistanceWizard,
    PypCsprMaskDiameterWizard,
    PypCsprMaskWizard,
    PypCsprResolutionWizard,
    PypCsprSymmetryWizard,
)
from .set_wizards import PypCsprProjectionsWizard, PypCsprScoreWizard, PypCsprWeightingWizard

__all__ = [
    "PypCsprBoxWizard", "PypCsprDistanceWizard", "PypCsprMaskDiameterWizard", "PypCsprMaskWizard", "PypCsprProjectionsWizard",
    "PypCsprResolutionWizard", "PypCsprScoreWizard", "PypCsprSymmetryWizard", "PypCsprWeightingWizard",
]
