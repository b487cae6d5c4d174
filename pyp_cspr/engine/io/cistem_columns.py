"""The columns of cisTEM's binary tables by PYP's names: ids, number types, and PYP's order.

Source: cisTEM's cistem_parameters and PYP's cistem_star_file.py, restated in our own words.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

TEXT, INTEGER, FLOAT, BOOL, LONG, DOUBLE, CHAR, VARIABLE, UNSIGNED = range(1, 10)
DTYPES = {INTEGER: "<i4", FLOAT: "<f4", BOOL: "u1", LONG: "<i8", DOUBLE: "<f8", CHAR: "i1", UNSIGNED: "<u4"}

# PYP's 32 columns of projections, in its order: name, id, type.
PROJECTION_COLUMNS: List[Tuple[str, int, int]] = [
    ("POSITION_IN_STACK", 1, UNSIGNED),
    ("PSI", 1 << 2, FLOAT),
    ("THETA", 1 << 22, FLOAT),
    ("PHI", 1 << 23, FLOAT),
    ("X_SHIFT", 1 << 3, FLOAT),
    ("Y_SHIFT", 1 << 4, FLOAT),
    ("DEFOCUS_1", 1 << 5, FLOAT),
    ("DEFOCUS_2", 1 << 6, FLOAT),
    ("DEFOCUS_ANGLE", 1 << 7, FLOAT),
    ("PHASE_SHIFT", 1 << 8, FLOAT),
    ("IMAGE_IS_ACTIVE", 1 << 1, INTEGER),
    ("OCCUPANCY", 1 << 9, FLOAT),
    ("LOGP", 1 << 10, FLOAT),
    ("SIGMA", 1 << 11, FLOAT),
    ("SCORE", 1 << 12, FLOAT),
    ("PIXEL_SIZE", 1 << 14, FLOAT),
    ("MICROSCOPE_VOLTAGE", 1 << 15, FLOAT),
    ("MICROSCOPE_CS", 1 << 16, FLOAT),
    ("AMPLITUDE_CONTRAST", 1 << 17, FLOAT),
    ("BEAM_TILT_X", 1 << 18, FLOAT),
    ("BEAM_TILT_Y", 1 << 19, FLOAT),
    ("IMAGE_SHIFT_X", 1 << 20, FLOAT),
    ("IMAGE_SHIFT_Y", 1 << 21, FLOAT),
    ("ORIGINAL_X_POSITION", 1 << 33, FLOAT),
    ("ORIGINAL_Y_POSITION", 1 << 34, FLOAT),
    ("IMIND", 20, INTEGER),
    ("PIND", 15, INTEGER),
    ("TIND", 35, INTEGER),
    ("RIND", 70, INTEGER),
    ("FIND", 55, INTEGER),
    ("FSHIFT_X", 11, FLOAT),
    ("FSHIFT_Y", 121, FLOAT),
]
PARTICLE_COLUMNS: List[Tuple[str, int, int]] = [
    ("PIND", 15, INTEGER),
    ("PSHIFT_X", 3, FLOAT),
    ("PSHIFT_Y", 9, FLOAT),
    ("PSHIFT_Z", 27, FLOAT),
    ("PPSI", 81, FLOAT),
    ("PTHETA", 273, FLOAT),
    ("PPHI", 819, FLOAT),
    ("ORIGINAL_X_POSITION_3D", 2457, FLOAT),
    ("ORIGINAL_Y_POSITION_3D", 7371, FLOAT),
    ("ORIGINAL_Z_POSITION_3D", 22113, FLOAT),
    ("PSCORE", 66339, FLOAT),
    ("POCC", 199017, FLOAT),
]
TILT_COLUMNS: List[Tuple[str, int, int]] = [
    ("TIND", 35, INTEGER),
    ("RIND", 70, INTEGER),
    ("TSHIFT_X", 7, FLOAT),
    ("TSHIFT_Y", 49, FLOAT),
    ("TILTANG", 343, FLOAT),
    ("TILTAXIS", 2401, FLOAT),
]
# Columns of cisTEM that PYP's reader knows and PYP does not write.
OTHER_COLUMNS: List[Tuple[str, int, int]] = [
    ("SCORE_CHANGE", 1 << 13, FLOAT),
    ("STACK_FILENAME", 1 << 24, VARIABLE),
    ("ORIGINAL_IMAGE_FILENAME", 1 << 25, VARIABLE),
    ("REFERENCE_3D_FILENAME", 1 << 26, VARIABLE),
    ("BEST_2D_CLASS", 1 << 27, INTEGER),
    ("BEAM_TILT_GROUP", 1 << 28, INTEGER),
    ("PARTICLE_GROUP", 1 << 29, INTEGER),
    ("PRE_EXPOSURE", 1 << 30, FLOAT),
    ("TOTAL_EXPOSURE", 1 << 31, FLOAT),
    ("ASSIGNED_SUBSET", 1 << 32, INTEGER),
]
_ALL = [*PROJECTION_COLUMNS, *OTHER_COLUMNS, *PARTICLE_COLUMNS, *TILT_COLUMNS]
IDS: Dict[str, int] = {name: identity for name, identity, _ in _ALL}
NAMES: Dict[int, str] = {identity: name for name, identity, _ in _ALL}
TYPES: Dict[str, int] = {name: kind for name, _, kind in _ALL}
