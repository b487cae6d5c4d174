"""Bytes of cisTEM tables, laid down by hand from the description of the format; no writer of ours is used.

int32 columns, int32 rows; for each column its id (int64) and type (int8: 2 int32, 3 float32, 9 uint32); then the rows, packed.
An extended file: block id 15 (int64) and the table of particles, block id 35 and the table of tilts.
"""

from __future__ import annotations

import struct

# Ids, types and two rows, one line for each column, in PYP's order.
COLUMNS = [
    ("POSITION_IN_STACK", 1, 9, 1, 4000000000),
    ("PSI", 4, 3, 89.5, -0.0),
    ("THETA", 4194304, 3, 117.0625, 180.0),
    ("PHI", 8388608, 3, 213.375, 359.9921875),
    ("X_SHIFT", 8, 3, 16.625, -3.5),
    ("Y_SHIFT", 16, 3, -39.5, 1e-38),
    ("DEFOCUS_1", 32, 3, 43534.0, 23000.5),
    ("DEFOCUS_2", 64, 3, 43067.0, 22000.25),
    ("DEFOCUS_ANGLE", 128, 3, 4.25, -18.5),
    ("PHASE_SHIFT", 256, 3, 0.0, 1.5),
    ("IMAGE_IS_ACTIVE", 2, 2, 0, -1),
    ("OCCUPANCY", 512, 3, 100.0, 33.25),
    ("LOGP", 1024, 3, -500.0, -123456.0),
    ("SIGMA", 2048, 3, 1.0, 10.5),
    ("SCORE", 4096, 3, 7.75, 0.01),
    ("PIXEL_SIZE", 16384, 3, 8.5, 8.5),
    ("MICROSCOPE_VOLTAGE", 32768, 3, 300.0, 200.0),
    ("MICROSCOPE_CS", 65536, 3, 2.7, 2.7),
    ("AMPLITUDE_CONTRAST", 131072, 3, 0.07, 0.1),
    ("BEAM_TILT_X", 262144, 3, 0.5, -0.5),
    ("BEAM_TILT_Y", 524288, 3, 0.25, -0.25),
    ("IMAGE_SHIFT_X", 1048576, 3, 0.0, 1.0),
    ("IMAGE_SHIFT_Y", 2097152, 3, 0.0, 2.0),
    ("ORIGINAL_X_POSITION", 8589934592, 3, 3817.0, 12.0),
    ("ORIGINAL_Y_POSITION", 17179869184, 3, 260.0, 4095.0),
    ("IMIND", 20, 2, 4, 40),
    ("PIND", 15, 2, 0, 7),
    ("TIND", 35, 2, 4, 39),
    ("RIND", 70, 2, 0, 3),
    ("FIND", 55, 2, 0, 5),
    ("FSHIFT_X", 11, 3, 0.0, 0.125),
    ("FSHIFT_Y", 121, 3, 0.0, -0.125),
]
NAMES = [column[0] for column in COLUMNS]
VALUES = {column[0]: list(column[3:]) for column in COLUMNS}

_LETTERS = "<" + "".join({2: "i", 3: "f", 9: "I"}[column[2]] for column in COLUMNS)

PROJECTIONS = (
    struct.pack("<ii", 32, 2)
    + b"".join(struct.pack("<qb", column[1], column[2]) for column in COLUMNS)
    + struct.pack(_LETTERS, *(column[3] for column in COLUMNS))
    + struct.pack(_LETTERS, *(column[4] for column in COLUMNS))
)
assert len(PROJECTIONS) == 8 + 32 * 9 + 2 * 32 * 4

EXTENDED = (
    struct.pack("<q", 15)
    + struct.pack("<ii", 12, 2)
    + struct.pack("<qb", 15, 2)  # PIND
    + struct.pack("<qb", 3, 3)  # PSHIFT_X
    + struct.pack("<qb", 9, 3)
    + struct.pack("<qb", 27, 3)
    + struct.pack("<qb", 81, 3)  # PPSI
    + struct.pack("<qb", 273, 3)  # PTHETA
    + struct.pack("<qb", 819, 3)  # PPHI
    + struct.pack("<qb", 2457, 3)  # ORIGINAL_X_POSITION_3D
    + struct.pack("<qb", 7371, 3)
    + struct.pack("<qb", 22113, 3)
    + struct.pack("<qb", 66339, 3)  # PSCORE
    + struct.pack("<qb", 199017, 3)  # POCC
    + struct.pack("<i11f", 0, -0.1765, -2.1926, -5.75, -160.0, -40.0, -90.0, 1000.5, 2000.25, 128.0, 12.5, 100.0)
    + struct.pack("<i11f", 7, 1.0, 2.0, 0.5, 10.0, 11.0, 12.5, 3.0, 4.0, 64.0, 0.01, 0.0)
    + struct.pack("<q", 35)
    + struct.pack("<ii", 6, 3)
    + struct.pack("<qb", 35, 2)  # TIND
    + struct.pack("<qb", 70, 2)  # RIND
    + struct.pack("<qb", 7, 3)  # TSHIFT_X
    + struct.pack("<qb", 49, 3)
    + struct.pack("<qb", 343, 3)  # TILTANG
    + struct.pack("<qb", 2401, 3)  # TILTAXIS
    + struct.pack("<ii4f", 0, 0, 1.5, -2.5, -42.0, -85.5)
    + struct.pack("<ii4f", 0, 1, 1.25, -2.25, -42.125, -85.25)
    + struct.pack("<ii4f", 1, 0, 0.0, 0.0, 3.0, -85.5)
)
