"""Point groups as rotation matrices, in the orientations of RELION and Xmipp (Heymann, Chagoyen and Belnap 2005).

====== ===== ==========================================================================================
name   order axes
====== ===== ==========================================================================================
Cn     n     n-fold on z
Dn     2 n   n-fold on z, 2-fold on x
T      12    3-fold on z, 2-fold on (0, sqrt(2/3), sqrt(1/3))
O      24    4-folds on x, y, z, 3-fold on (1, 1, 1)
I, I2  60    2-folds on x, y, z, 5-fold on (1, 0, g), 3-fold on (0, 1, g^2); g = (1 + sqrt(5)) / 2
I1     60    2-folds on x, y, z, 5-fold on (g, 0, -1): I2 turned by 90 degrees about z (and, the same, about y)
I3     60    5-fold on z, 2-fold on (-1, 0, g)
I4     60    5-fold on z, 2-fold on (1, 0, g): I3 turned by 180 degrees about z
====== ===== ==========================================================================================
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .geometry import rotation_vector_to_matrix

_GOLDEN = (1.0 + np.sqrt(5.0)) / 2.0
_LARGEST_FOLD = 99  # as in RELION

Axis = Tuple[int, Sequence[float]]  # (fold, direction)

_POLYHEDRAL = {
    "T": ((3, (0.0, 0.0, 1.0)), (2, (0.0, np.sqrt(2.0), 1.0))),
    "O": ((4, (0.0, 0.0, 1.0)), (3, (1.0, 1.0, 1.0))),
    "I1": ((2, (0.0, 0.0, 1.0)), (5, (_GOLDEN, 0.0, -1.0))),
    "I2": ((2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, _GOLDEN))),
    "I3": ((5, (0.0, 0.0, 1.0)), (2, (-1.0, 0.0, _GOLDEN))),
    "I4": ((5, (0.0, 0.0, 1.0)), (2, (1.0, 0.0, _GOLDEN))),
}


def group_matrices(name: str) -> NDArray[np.float64]:
    """All rotations of a point group, ``(order, 3, 3)``; the identity comes first.

    ``name`` is one of C1, C2, .., D1, D2, .., T, O, I (= I2), I1, I2, I3, I4, in any case. Raises ValueError for others.
    """
    return _matrices(str(name).strip().upper()).copy()


@lru_cache(maxsize=None)
def _matrices(name: str) -> NDArray[np.float64]:
    return _closure([rotation_vector_to_matrix(_vector(axis)) for axis in _generators(name)])


def _generators(name: str) -> Sequence[Axis]:
    name = "I2" if name == "I" else name
    if name in _POLYHEDRAL:
        return _POLYHEDRAL[name]
    match = re.fullmatch(r"([CD])([0-9]+)", name)
    if match is None or not 1 <= int(match.group(2)) <= _LARGEST_FOLD:
        known = f"C1 to C{_LARGEST_FOLD}, D1 to D{_LARGEST_FOLD}, T, O, I, I1, I2, I3, I4"
        raise ValueError(f"unknown point group {name!r}; known: {known}")
    main: Axis = (int(match.group(2)), (0.0, 0.0, 1.0))
    return (main,) if match.group(1) == "C" else (main, (2, (1.0, 0.0, 0.0)))


def _vector(axis: Axis) -> NDArray[np.float64]:
    fold, direction = axis
    unit = np.asarray(direction, dtype=np.float64)
    return 2.0 * np.pi / fold * unit / np.linalg.norm(unit)


def _closure(generators: List[NDArray[np.float64]]) -> NDArray[np.float64]:
    """All products of the generators, breadth first; entries that are whole numbers are made exactly so."""
    found = [np.eye(3)]
    for member in found:  # grows while it is walked
        for generator in generators:
            product = generator @ member
            if min(float(np.abs(product - other).max()) for other in found) > 1e-6:
                found.append(product)
    group = np.stack(found)
    whole = np.rint(group)
    group[np.abs(group - whole) < 1e-9] = whole[np.abs(group - whole) < 1e-9]
    return group + 0.0  # no negative zeros
