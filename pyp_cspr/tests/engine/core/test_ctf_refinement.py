"""Equations in pose and CTF against their naive twin, against the cost's differences, and against those of the pose alone."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from pyp_cspr.engine.core.band import Band, make_band
from pyp_cspr.engine.core.ctf import defocus_form, phase_offset, wavelength
from pyp_cspr.engine.core.ctf_refinement import (
    CTF_PARAMETERS,
    components_to_form,
    ctf_equations,
    form_to_components,
    form_to_defocus,
)
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.refinement import LocalEquations, local_equations
from pyp_cspr.engine.core.weighting import ctf_values, weigh
from pyp_cspr.tests.naive import ctf_refinement as naive
from pyp_cspr.tests.naive import projection as naive_projection

WAVELENGTH, CS = wavelength(300.0), 2.7


class Case(NamedTuple):
    """A few projections of two maps in two exposures, away from where their data came from."""

    reference: list
    volumes: list
    band: Band
    field: float
    data: np.ndarray
    amplitude: np.ndarray
    noise: np.ndarray
    exposure: np.ndarray
    which: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray
    forms: np.ndarray
    phases: np.ndarray

    def equations(self, **changes) -> LocalEquations:
        case = self._replace(**{k: v for k, v in changes.items() if k in self._fields})
        rest = {k: v for k, v in changes.items() if k not in self._fields}
        return ctf_equations(case.data, case.band, case.field, case.amplitude, case.noise, case.exposure, case.reference,
                             case.which, case.rotations, case.shifts, case.forms, case.phases, WAVELENGTH, CS, **rest)


@pytest.fixture
def case(random: np.random.Generator) -> Case:
    box, pixel, radius, count = 16, 5.0, 6.0, 4
    field = box * pixel
    band = make_band(box, radius)
    volumes = [random.normal(size=(box,) * 3).astype(np.float32) for _ in range(2)]
    references = [Reference(volume, 1.5, radius, correct=False) for volume in volumes]
    shells = int(band.shell.max()) + 1
    amplitude = random.uniform(0.5, 1.5, (2, shells))
    noise = random.uniform(50.0, 150.0, (2, shells))
    exposure, which = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])
    rotations = rotation_vector_to_matrix(random.normal(size=(count, 3)) * 2)
    shifts = random.normal(size=(count, 2)) * 4
    forms = defocus_form([9000.0, 21000, 15000, 5000], [8200.0, 20000, 15500, 5400], [20.0, -50, 110, 75])
    phases = phase_offset(0.07, np.array([0.0, 90.0, 30.0, 0.0]))
    true = rotation_vector_to_matrix(random.normal(size=(count, 3)) * 0.05) @ rotations
    data = np.stack([references[w].slices(m[None], band)[0] for w, m in zip(which, true)])
    near = forms + random.normal(size=forms.shape) * 500
    data *= ctf_values(band, field, near, phases + 0.1, WAVELENGTH, CS) * amplitude[exposure][:, band.shell]
    frequency = np.stack([band.kx, band.ky]) / field
    data *= np.exp(-2j * np.pi * ((shifts + random.normal(size=(count, 2))) @ frequency))
    data += (random.normal(size=data.shape) + 1j * random.normal(size=data.shape)) * 8
    data = data.astype(np.complex64)
    return Case(references, volumes, band, field, data, amplitude, noise, exposure, which, rotations, shifts, forms, phases)


def assert_matrices_agree(result: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Entries relative to their diagonals: the units of the parameters differ by orders of magnitude."""
    scale = np.sqrt(np.einsum("pii->pi", expected))
    np.testing.assert_allclose(result / scale[:, :, None] / scale[:, None], expected / scale[:, :, None] / scale[:, None],
                               atol=tolerance)


@pytest.mark.kernel
def test_equations_agree_with_finite_differences_of_the_naive_model(case: Case) -> None:
    magnification = np.array([1.0, 0.97, 0.9, 0.99])
    result = case.equations(scale=magnification, magnified=True)
    costs, gradients, matrices = [], [], []
    for p, exposure in enumerate(case.exposure):
        reference, volume = case.reference[case.which[p]], case.volumes[case.which[p]]
        shell = case.band.shell
        fixed = naive.Projection(
            naive_projection.centred_transform(volume, reference.padded),
            magnification[p] * reference.padded / reference.box, case.band.kx, case.band.ky, case.field,
            case.amplitude[exposure, shell], case.noise[exposure, shell], WAVELENGTH, CS,
        )
        cost, gradient, matrix = naive.equations(
            fixed, case.data[p].astype(complex), case.rotations[p], case.shifts[p], case.forms[p], case.phases[p]
        )
        costs.append(cost)
        gradients.append(gradient)
        matrices.append(matrix)
    expected = np.array(matrices)
    scale = np.sqrt(np.einsum("pii->pi", expected))
    np.testing.assert_allclose(result.cost, costs, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(result.gradient / scale, np.array(gradients) / scale, atol=1e-4)
    assert_matrices_agree(result.matrix, expected, 1e-5)


@pytest.mark.kernel
@pytest.mark.parametrize("name, parameter, step", [
    ("defocus", 6, 20.0), ("astigmatism 1", 7, 20.0), ("astigmatism 2", 8, 20.0), ("phase", 9, 2e-3), ("shift x", 3, 0.02),
    ("amplitude", 5, 2e-3), ("magnification", 10, 1e-4),
])
def test_gradient_is_the_difference_of_the_engines_own_cost(case: Case, name: str, parameter: int, step: float) -> None:
    costs = []
    for sign in (1, -1):
        change = np.zeros((len(case.data), CTF_PARAMETERS))
        change[:, parameter] = sign * step
        moved = case.equations(
            forms=case.forms + components_to_form(change[:, 6:9]), phases=case.phases + change[:, 9],
            shifts=case.shifts + change[:, 3:5], amplitude=case.amplitude * np.exp(change[0, 5]),
            scale=0.95 * np.exp(change[:, 10]),
        )
        costs.append(moved.cost)
    here = case.equations(scale=0.95, magnified=True)
    scale = np.sqrt(here.matrix[:, parameter, parameter])
    np.testing.assert_allclose((costs[0] - costs[1]) / (2 * step) / scale, here.gradient[:, parameter] / scale, atol=1e-2)


def test_pose_part_is_that_of_weighted_data(case: Case) -> None:
    """D and W made beforehand with the same CTF: two kernels, one result."""
    weighted = case.data.copy()
    weight = weigh(weighted, case.band, case.field, np.zeros((4, 2)), case.forms, case.phases, WAVELENGTH, CS,
                   case.amplitude[case.exposure], case.noise[case.exposure])
    expected = local_equations(weighted, weight, case.band, case.field, case.reference, case.which, case.rotations, case.shifts)
    result = case.equations()
    np.testing.assert_allclose(result.match, expected.match, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(result.power, expected.power, rtol=1e-5)
    scale = np.sqrt(np.einsum("pii->pi", expected.matrix))
    np.testing.assert_allclose(result.gradient[:, :5] / scale, expected.gradient / scale, atol=1e-4)
    assert_matrices_agree(result.matrix[:, :5, :5], expected.matrix, 1e-5)


def test_rows_prefix_and_threads(case: Case) -> None:
    every = case.equations()
    picked = np.array([2, 0])
    some = case.equations(
        exposure=case.exposure[picked], which=case.which[picked], rotations=case.rotations[picked], shifts=case.shifts[picked],
        forms=case.forms[picked], phases=case.phases[picked], rows=picked, threads=2,
    )
    np.testing.assert_array_equal(some.matrix, every.matrix[picked])
    np.testing.assert_array_equal(some.gradient, every.gradient[picked])
    count = case.band.prefix(4)
    less = case.equations(count=count)
    short = replace(case.band, **{name: getattr(case.band, name)[:count] for name in ("kx", "ky", "shell", "offset", "sign")})
    same = case.equations(band=short, data=np.ascontiguousarray(case.data[:, :count]))
    np.testing.assert_array_equal(less.cost, same.cost)
    np.testing.assert_array_equal(less.matrix, same.matrix)
    assert (less.power < every.power).all()


def test_noise_free_data_have_no_gradient(case: Case) -> None:
    exact = np.stack([case.reference[w].slices(m[None], case.band)[0] for w, m in zip(case.which, case.rotations)])
    exact *= ctf_values(case.band, case.field, case.forms, case.phases, WAVELENGTH, CS)
    exact *= case.amplitude[case.exposure][:, case.band.shell]
    exact *= np.exp(-2j * np.pi * (case.shifts @ (np.stack([case.band.kx, case.band.ky]) / case.field)))
    result = case.equations(data=exact.astype(np.complex64), magnified=True)
    np.testing.assert_allclose(result.match, result.power, rtol=1e-5)
    scale = np.sqrt(np.einsum("pii->pi", result.matrix) * result.power[:, None])
    np.testing.assert_allclose(result.gradient / scale, 0, atol=1e-5)


def test_what_is_not_asked_for_costs_nothing_and_is_zero(case: Case) -> None:
    every, fewer = case.equations(magnified=True), case.equations()
    np.testing.assert_array_equal(fewer.matrix[:, :10, :10], every.matrix[:, :10, :10])
    np.testing.assert_array_equal(fewer.gradient[:, :10], every.gradient[:, :10])
    assert every.gradient[:, 10].all()
    for part in (fewer.gradient[:, 10], fewer.matrix[:, 10], fewer.matrix[:, :, 10]):
        assert not part.any()


def test_a_gain_is_an_amplitude(case: Case) -> None:
    gain = np.array([1.3, 0.8, 0.8, 1.3])  # of exposures 0, 1, 1, 0
    result = case.equations(gain=gain, magnified=True)
    expected = case.equations(amplitude=case.amplitude * [[1.3], [0.8]], magnified=True)
    for found, wanted in zip(result, expected):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_pose_and_amplitude_of_weighted_data(case: Case) -> None:
    """The sixth parameter of D and W, with a gain, is that of the kernel which makes them itself."""
    weighted, gain = case.data.copy(), np.array([1.3, 0.8, 0.9, 1.0])
    weight = weigh(weighted, case.band, case.field, np.zeros((4, 2)), case.forms, case.phases, WAVELENGTH, CS,
                   case.amplitude[case.exposure], case.noise[case.exposure])
    result = local_equations(weighted, weight, case.band, case.field, case.reference, case.which, case.rotations, case.shifts,
                             gain=gain)
    expected = case.equations(gain=gain)
    assert result.gradient.shape == (4, 6)
    scale = np.sqrt(np.einsum("pii->pi", expected.matrix[:, :6, :6]))
    np.testing.assert_allclose(result.cost, expected.cost, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(result.gradient / scale, expected.gradient[:, :6] / scale, atol=1e-4)
    assert_matrices_agree(result.matrix, expected.matrix[:, :6, :6], 1e-5)


def test_premultiplied_data_have_everything_but_their_ctf(case: Case) -> None:
    """C X in place of X: the same equations, without those of the CTF."""
    known = case.data * ctf_values(case.band, case.field, case.forms, case.phases, WAVELENGTH, CS)
    result = case.equations(data=known.astype(np.complex64), premultiplied=True, magnified=True)
    expected = case.equations(magnified=True)
    kept = np.r_[0:6, 10]
    scale = np.sqrt(np.einsum("pii->pi", expected.matrix))
    np.testing.assert_allclose(result.cost, expected.cost, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose((result.gradient / scale)[:, kept], (expected.gradient / scale)[:, kept], atol=1e-4)
    np.testing.assert_array_equal(result.matrix[:, kept][:, :, kept], expected.matrix[:, kept][:, :, kept])
    for part in (result.gradient[:, 6:10], result.matrix[:, 6:10], result.matrix[:, :, 6:10]):
        assert not part.any()


def test_what_cannot_be_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="scale"):
        case.equations(scale=np.ones(2))
    with pytest.raises(ValueError, match="samples reach"):
        case.equations(scale=np.array([1.0, 1.0, 1.01, 1.0]))
    with pytest.raises(ValueError, match="forms"):
        case.equations(forms=case.forms[:2])
    with pytest.raises(ValueError, match="amplitude"):
        case.equations(amplitude=case.amplitude[:, :3])
    with pytest.raises(ValueError, match="samples reach"):
        case.equations(scale=1.5)


def test_forms_and_their_components() -> None:
    defocus = np.array([[21000.0, 19000.0, 30.0], [18000.0, 18000.0 - 1e-3, -70.0]])
    form = defocus_form(*defocus.T)
    components = form_to_components(form)
    np.testing.assert_allclose(components[0], [20000, 500, 1000 * np.sin(np.deg2rad(60))])
    np.testing.assert_allclose(components_to_form(components), form)
    np.testing.assert_allclose(form_to_defocus(form), defocus, atol=1e-6)
