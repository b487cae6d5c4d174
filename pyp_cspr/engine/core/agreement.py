"""How well projections agree with a reference: sums over shells from which amplitude and noise are estimated."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band
from .projection import Reference
from .weighting import chi_in_turns, frequencies

SLICES = 64  # of each thread in memory at a time: about a megabyte, which stays in a core's own cache


def agreement(
    data: NDArray[np.complex64],
    band: Band,
    field: float,
    references: Sequence[Reference],
    which: ArrayLike,
    rotations: ArrayLike,
    shifts: ArrayLike,
    defocus_form: ArrayLike,
    phase: ArrayLike,
    wavelength: float,
    cs: float,
    scale: ArrayLike = 1.0,
    premultiplied: bool = False,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Sums over each shell of every projection against Y = C V e, ``(Q, shells, 3)``: Re X Y*, |Y|^2, |X|^2.

    ``data`` (Q, at least len(band)) X; ``references`` V of which ``which`` (Q,) says each projection's; ``rotations`` (Q, 3, 3)
    M and ``shifts`` (Q, 2) in angstrom as in ``refinement.local_equations``; ``defocus_form`` (Q, 3), ``phase`` (Q,),
    ``wavelength`` and ``cs`` as in ``weighting.ctf_values``. Where ``premultiplied``, X holds C X and the sums are
    ``(Q, shells, 6)``: Re X (V e)*, |C V|^2, |X|^2, Re X (C^2 V e)*, |C^2 V|^2, C^2. Raises ValueError for samples beyond a
    reference.
    """
    from . import agreement_kernels as kernels

    turns, moved = np.asarray(rotations, dtype=np.float64), np.ascontiguousarray(shifts, dtype=np.float64)
    scales = np.broadcast_to(np.asarray(scale, dtype=np.float64), (len(data),))
    choice = np.broadcast_to(np.asarray(which), (len(data),))
    form, constant, quartic = chi_in_turns(defocus_form, phase, wavelength, cs)
    kx, ky = frequencies(band, field)
    shells = int(band.shell[-1]) + 1
    first = np.searchsorted(band.shell, np.arange(shells + 1)).astype(np.int64)
    out = np.empty((len(data), shells, kernels.SUMS if premultiplied else 3))
    flat = np.ascontiguousarray(data).view(np.float32)
    blocks = []
    for number, reference in enumerate(references):
        mine = np.flatnonzero(choice == number)
        blocks += [(reference, mine[low : low + SLICES]) for low in range(0, len(mine), SLICES)]

    def work(start: int, stop: int) -> None:
        scratch = np.empty((kernels.SUMS, len(band)), np.float32)
        for reference, rows in blocks[start:stop]:
            model = reference.slices(turns[rows], band, scales[rows]).view(np.float32)
            part = np.empty((len(rows), *out.shape[1:]))
            kernels.compare(flat, rows, model, kx, ky, first, form[rows], constant[rows], quartic, moved[rows], premultiplied,
                            scratch, part, 0, len(rows))
            out[rows] = part

    run_ranges(work, len(blocks), threads, pieces_per_thread=4)
    return out
