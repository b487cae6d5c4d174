"""Sums of data against model over shells: against their naive twin; two references, fewer coefficients, threads."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.agreement import agreement
from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.ctf import defocus_form
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.tests.naive import agreement as naive

FIELD, LAMBDA, CS = 37.0, 0.0197, 2.7
DEFOCUS = np.array([[20000.0, 18000.0, 30.0], [25000.0, 25000.0, 0.0], [31000.0, 29000.0, -70.0], [9000.0, 8000.0, 10.0]])
PHASE = np.array([0.07, 0.3, 0.07, 1.2])
WHICH = np.array([0, 1, 1, 0])


@pytest.fixture
def problem(random):
    band = make_band(12, 4.5)
    references = [Reference(random.normal(size=(12, 12, 12)).astype(np.float32), 1.5, correct=False) for _ in range(2)]
    rotations = rotation_vector_to_matrix(random.normal(0, 2, (4, 3)))
    shape = (4, len(band))
    data = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
    return band, references, rotations, random.normal(0, 5, (4, 2)), data


@pytest.mark.kernel
@pytest.mark.parametrize("premultiplied, scale", [(False, 1.0), (True, 1.0), (False, 0.93), (False, [0.93, 1.0, 0.9, 1.05])])
def test_sums_agree_with_their_naive_twin(problem, premultiplied: bool, scale) -> None:
    band, references, rotations, shifts, data = problem
    scales = np.broadcast_to(scale, 4)
    slices = np.stack([references[which].slices(rotations[q][None], band, scales[q])[0] for q, which in enumerate(WHICH)])
    form = defocus_form(*DEFOCUS.T)
    found = agreement(data, band, FIELD, references, WHICH, rotations, shifts, form, PHASE, LAMBDA, CS, scale, premultiplied)
    expected = naive.agreement(
        data, slices, band.kx, band.ky, band.shell, FIELD, shifts, DEFOCUS, PHASE, LAMBDA, CS, premultiplied
    )
    assert found.shape == (4, band.shell.max() + 1, 6 if premultiplied else 3)
    np.testing.assert_allclose(found, expected[..., : found.shape[2]], rtol=1e-4, atol=1e-3)
    wrong = agreement(data, band, FIELD, references, WHICH, rotations, -shifts, form, PHASE, LAMBDA, CS, scale, premultiplied)
    assert not np.allclose(wrong[..., 0], expected[..., 0], rtol=0.1)  # a sign is seen


def test_threads_and_fewer_coefficients_change_nothing(problem) -> None:
    band, references, rotations, shifts, data = problem
    rest = (references, WHICH, rotations, shifts, defocus_form(*DEFOCUS.T), PHASE, LAMBDA, CS)
    whole = agreement(data, band, FIELD, *rest)
    np.testing.assert_array_equal(agreement(data, band, FIELD, *rest, threads=2), whole)
    lower = band.up_to(band.prefix(3))
    assert len(lower) < len(band)
    assert lower.shell.max() == 3
    np.testing.assert_array_equal(agreement(data, lower, FIELD, *rest), whole[:, :4])
