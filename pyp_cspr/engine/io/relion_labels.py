"""Labels of RELION's and of our own columns that several modules need."""

from __future__ import annotations

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
SUBTOMOGRAM_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
CENTRED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
CORNER = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
PROJECTION = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
SIZES = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
EXTRACTED = ("csprExtractXTilt", "csprExtractYTilt", "csprExtractZRot", "csprExtractXShiftAngst", "csprExtractYShiftAngst")
