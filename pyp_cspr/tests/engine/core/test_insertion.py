"""Insertion against its naive twin, as the transpose of projection, and the maps that come back."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import pytest
from scipy import ndimage

from pyp_cspr.engine.core import insertion
from pyp_cspr.engine.core.band import Band, make_band
from pyp_cspr.engine.core.fourier import correct_gridding
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.insertion import Accumulator
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.symmetry import group_matrices
from pyp_cspr.tests.blobs import Blobs, asymmetric_blobs
from pyp_cspr.tests.engine.core.test_projection import random_rotations
from pyp_cspr.tests.naive import insertion as naive

Particle = Tuple[Blobs, np.ndarray]


def _slices(count: int, band: Band, random: np.random.Generator) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (count, len(band))
    data = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
    return data, random.uniform(0.1, 2.0, shape).astype(np.float32), random_rotations(count, random)


def _whole_to_half(whole: np.ndarray, extent: int) -> np.ndarray:
    index = (np.arange(-extent, extent + 1) + len(whole) // 2) % len(whole)
    return whole[np.ix_(index, index, index[extent:])]


def _solve(accumulator: Accumulator) -> np.ndarray:
    numerator, denominator = accumulator.completed()
    used = denominator > 1e-3 * denominator[denominator > 0].mean()
    ratio = np.where(used, numerator / np.where(used, denominator, 1.0), 0.0)
    return correct_gridding(_half_to_volume(ratio, accumulator.padded, accumulator.box), accumulator.padded)


def _half_to_volume(half: np.ndarray, padded: int, box: int) -> np.ndarray:
    """Map (box, box, box) of a whole half cube on a grid of ``padded``, without Nyquist."""
    extent = half.shape[2] - 1
    reach = min(extent, padded // 2 - 1)
    index, inside = np.arange(-reach, reach + 1) % padded, slice(extent - reach, extent + reach + 1)
    space = np.zeros((padded, padded, padded // 2 + 1), complex)
    space[np.ix_(index, index, np.arange(reach + 1))] = half[inside, inside, : reach + 1]
    first = padded // 2 - box // 2
    return np.fft.fftshift(np.fft.irfftn(space, s=(padded,) * 3))[(slice(first, first + box),) * 3]


@pytest.mark.kernel
@pytest.mark.parametrize("box, padding, scale", [(12, 1.25, 1.0), (12, 2.0, 1.0), (14, 1.5, 0.87)])
def test_insertion_agrees_with_its_naive_twin(box: int, padding: float, scale: float, random: np.random.Generator) -> None:
    band = make_band(box, box // 2 - 2)
    data, weight, rotations = _slices(3, band, random)
    rotations[2] = np.eye(3)  # samples on the plane x = 0 itself, and on grid points
    accumulator = Accumulator(box, padding, box // 2 - 2)
    accumulator.insert(data, weight, rotations, band, scale)
    padded = accumulator.padded
    whole = naive.insert(data, weight, rotations, band.kx, band.ky, padded, scale * padded / box)
    for mine, theirs in zip(accumulator.completed(), whole):
        expected = _whole_to_half(theirs, accumulator.extent)
        np.testing.assert_allclose(mine, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("padding, scale", [(1.0, 1.0), (1.5, 1.0), (2.0, 0.93)])
def test_insertion_is_the_transpose_of_projection(padding: float, scale: float, random: np.random.Generator) -> None:
    """<insert(D), V> = <D, slices(V)>, over the whole transform (each half-plane sample stands for itself and its mate)."""
    box = 24
    band = make_band(box, box // 2 - 1)
    data, weight, rotations = _slices(5, band, random)
    volume = random.normal(size=(box,) * 3).astype(np.float32)
    reference = Reference(volume, padding, correct=False)
    accumulator = Accumulator(box, padding, box // 2 - 1)
    accumulator.insert(data, weight, rotations, band, scale)
    inserted, _ = accumulator.completed()
    count = np.full(inserted.shape, 2.0)
    count[:, :, 0] = 1.0
    left = np.sum(count * np.conj(inserted) * reference.cube).real
    right = 2.0 * np.vdot(data, reference.slices(rotations, band, scale)).real
    scale_of_sums = 2.0 * np.linalg.norm(data) * np.linalg.norm(reference.slices(rotations, band, scale))
    assert abs(left - right) < 1e-5 * min(abs(right), scale_of_sums)


@pytest.fixture(scope="module")
def particle() -> Particle:
    """Blobs of half the box (40 pixels of 3 A), and the map."""
    blobs = asymmetric_blobs(3.0, 0.25 * 120.0, count=40)
    blobs = Blobs(blobs.positions, blobs.weights, 2.2)  # narrow: power up to Nyquist
    return blobs, blobs.volume(40, 3.0)


@pytest.mark.parametrize("exact", [False, True])
def test_projected_and_inserted_map_comes_back(exact: bool, particle: Particle, random: np.random.Generator) -> None:
    """FSC above 0.99 up to 0.9 Nyquist at padding 1.5; no shift of half a pixel, no change of scale."""
    blobs, volume = particle
    box, pixel = 40, 3.0
    band = make_band(box, box // 2 - 1)
    rotations = random_rotations(1500, random)
    if exact:
        k = (band.kx[:, None] * rotations[:, None, 0] + band.ky[:, None] * rotations[:, None, 1]) / (box * pixel)
        data = blobs.transform(k, pixel).astype(np.complex64)
        volume = _band_limited(blobs, box, pixel)
    else:
        data = Reference(volume, 1.5).slices(rotations, band)
    accumulator = Accumulator(box, 1.5, box // 2 - 1)
    accumulator.insert(data, np.ones(data.shape, np.float32), rotations, band)
    result = _solve(accumulator)
    curve = fsc(result, volume)
    assert curve[1 : int(0.9 * box / 2) + 1].min() > 0.99, curve
    assert np.vdot(result, volume) / np.vdot(volume, volume) == pytest.approx(1.0, abs=0.03)
    assert np.abs(_displacement(result, volume)).max() < 0.005
    moved = ndimage.shift(volume, (0, 0.1, 0), order=5)
    assert _displacement(moved, volume) == pytest.approx([0, 0.1, 0], abs=0.01)  # the measure works


def _band_limited(blobs: Blobs, box: int, pixel: float) -> np.ndarray:
    """The map whose transform is that of the blobs themselves, without what sampling folds back."""
    axis = np.arange(box) - box // 2
    k = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)[..., ::-1] / (box * pixel)
    transform = np.stack([blobs.transform(part, pixel) for part in k])
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(transform))).real.astype(np.float32)


def _displacement(moved: np.ndarray, still: np.ndarray) -> np.ndarray:
    """(z, y, x) pixels, where small, from the slope of the phases between the two transforms."""
    k = np.meshgrid(*(3 * (np.fft.fftfreq(len(still)),)), indexing="ij")
    cross = np.fft.fftn(moved) * np.conj(np.fft.fftn(still))
    return np.array([-(f * cross.imag).sum() / (2 * np.pi * (f * f * cross.real).sum()) for f in k])


def test_images_of_another_pixel_size_give_the_same_map(particle: Particle, random: np.random.Generator) -> None:
    """scale != 1: crops of 40 pixels of 3.2 A into a map of 40 pixels of 3 A."""
    blobs, _ = particle
    box, pixel, other = 40, 3.0, 3.2
    band = make_band(box, 18)
    rotations = random_rotations(1500, random)
    k = (band.kx[:, None] * rotations[:, None, 0] + band.ky[:, None] * rotations[:, None, 1]) / (box * other)
    data = blobs.transform(k, pixel).astype(np.complex64)
    accumulator = Accumulator(box, 1.5, 18)
    accumulator.insert(data, np.ones(data.shape, np.float32), rotations, band, scale=(box * pixel) / (box * other))
    curve = fsc(_solve(accumulator), _band_limited(blobs, box, pixel))
    assert curve[1:16].min() > 0.99, curve


def test_order_calls_and_threads_change_nothing(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    box = 20
    band = make_band(box, 9)
    data, weight, rotations = _slices(60, band, random)

    def run(order: np.ndarray, threads: int, parts: int) -> Accumulator:
        accumulator = Accumulator(box, 1.5, 9)
        for part in np.array_split(order, parts):
            accumulator.insert(data[part], weight[part], rotations[part], band, threads=threads)
        return accumulator

    straight = np.arange(60)
    one = run(straight, 1, 1)
    for other in (run(straight, 3, 1), run(straight, 2, 7)):
        np.testing.assert_array_equal(one.numerator, other.numerator)
        np.testing.assert_array_equal(one.denominator, other.denominator)
    mixed = run(random.permutation(60), 2, 3)
    _assert_same_sums(one, mixed)
    # Several batches instead of one.
    for name in ("_LEAST_ROOM", "_MOST_ROOM"):
        monkeypatch.setattr(insertion, name, 7 * insertion._RECORD * len(band))
    _assert_same_sums(one, run(straight, 2, 5))


def _assert_same_sums(one: Accumulator, other: Accumulator) -> None:
    for a, b in ((one.numerator, other.numerator), (one.denominator, other.denominator)):
        assert np.abs(a - b).max() < 1e-12 * np.abs(a).max()
        assert np.linalg.norm(a - b) < 1e-14 * np.linalg.norm(a)


def test_slice_and_its_mate_are_the_same_slice(random: np.random.Generator) -> None:
    """Turned by 180 degrees in the plane, k becomes -k, so the conjugate data give the same sums."""
    band = make_band(16, 7)
    data, weight, rotations = _slices(4, band, random)
    half_turn = np.diag([-1.0, -1.0, 1.0])
    first, second = Accumulator(16, 1.5, 7), Accumulator(16, 1.5, 7)
    first.insert(data, weight, rotations, band)
    second.insert(np.conj(data), weight, half_turn @ rotations, band)
    for a, b in zip(first.completed(), second.completed()):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(a).max())


def test_bands_may_change_between_calls(random: np.random.Generator) -> None:
    first, second = make_band(16, 7), make_band(16, 4)
    a, b = _slices(3, first, random), _slices(2, second, random)
    both = Accumulator(16, 1.5, 7)
    both.insert(a[0], a[1], a[2], first)
    both.insert(b[0], b[1], b[2], second)
    alone = Accumulator(16, 1.5, 7)
    alone.insert(a[0], a[1], a[2], first)
    other = Accumulator(16, 1.5, 7)
    other.insert(b[0], b[1], b[2], second)
    alone.add(other)
    _assert_same_sums(both, alone)


def test_array_and_back(random: np.random.Generator) -> None:
    band = make_band(16, 7)
    accumulator = Accumulator(16, 1.5, 7)
    accumulator.insert(*_slices(5, band, random), band)
    stored = accumulator.sums.copy()
    assert len(stored) < 0.7 * accumulator.denominator.size
    back = Accumulator(16, 1.5, 7, stored)
    np.testing.assert_array_equal(back.numerator, accumulator.numerator)
    np.testing.assert_array_equal(back.denominator, accumulator.denominator)
    inside = np.arange(back.extent + 1) < back.width[..., None]  # the naive twin of unpacking
    np.testing.assert_array_equal(stored[:, 0] + 1j * stored[:, 1], back.numerator[inside])
    np.testing.assert_array_equal(stored[:, 2], back.denominator[inside])
    assert not back.denominator[~inside].any()
    z, y = 3, 9  # a row in the sphere, by its documented place
    row = slice(back.begin[z, y], back.begin[z, y] + back.width[z, y])
    np.testing.assert_array_equal(stored[row, 2], back.denominator[z, y, : back.width[z, y]])
    with pytest.raises(ValueError, match="shape"):
        Accumulator(16, 1.25, 7, stored)


def test_slices_may_be_chosen(random: np.random.Generator) -> None:
    band = make_band(16, 7)
    data, weight, rotations = _slices(6, band, random)
    chosen = np.array([4, 0, 3])
    some, alone = Accumulator(16, 1.5, 7), Accumulator(16, 1.5, 7)
    some.insert(data, weight, rotations, band, which=chosen)
    alone.insert(data[chosen], weight[chosen], rotations[chosen], band)
    np.testing.assert_array_equal(some.sums, alone.sums)
    assert some.denominator.any()


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["C3", "D2", "D3", "T"])
def test_folding_agrees_with_its_naive_twin(name: str, random: np.random.Generator) -> None:
    band = make_band(8, 3)
    data, weight, rotations = _slices(2, band, random)
    accumulator = Accumulator(8, 1.5, 3)
    accumulator.insert(data, weight, rotations, band)
    whole = naive.insert(data, weight, rotations, band.kx, band.ky, 16, accumulator.padded / 8)  # 16: room for every corner
    expected = naive.symmetrise(whole[0], whole[1], group_matrices(name), accumulator.extent)
    accumulator.symmetrise(group_matrices(name))
    for mine, theirs in zip(accumulator.completed(), expected):
        part = _whole_to_half(theirs, accumulator.extent)
        np.testing.assert_allclose(mine, part, atol=2e-5 * np.abs(part).max())


@pytest.mark.parametrize("name, cosets, exact", [("C3", 3, 1), ("D7", 7, 2), ("T", 12, 1), ("O", 1, 24), ("I1", 5, 12)])
def test_group_is_split_into_cosets_and_exact_turns(name: str, cosets: int, exact: int) -> None:
    group = group_matrices(name)
    first, second = insertion.split_group(group)
    assert (len(first), len(second)) == (cosets, exact)
    products = np.einsum("aij,bjk->abik", first, second).reshape(-1, 1, 3, 3)
    assert sorted(np.abs(products - group).max(axis=(2, 3)).argmin(axis=1)) == list(range(len(group)))


@pytest.mark.parametrize("name", ["C2", "D2", "O"])
def test_folding_is_exact_where_axes_lie_on_the_grid(name: str, random: np.random.Generator) -> None:
    """All matrices of these groups permute grid points: folding equals inserting every copy."""
    group = group_matrices(name)
    band = make_band(16, 6)
    data, weight, rotations = _slices(3, band, random)
    folded, inserted = Accumulator(16, 1.5, 6), Accumulator(16, 1.5, 6)
    folded.insert(data, weight, rotations, band)
    folded.symmetrise(group, threads=2)
    for g in group:
        inserted.insert(data, weight, rotations @ g, band)
    axis = np.arange(-folded.extent, folded.extent + 1)
    sphere = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis[folded.extent :] ** 2 <= (6 * 1.5) ** 2
    for a, b in zip(folded.completed(), inserted.completed()):
        np.testing.assert_allclose(a[sphere], b[sphere], atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("name, count", [("C3", 500), ("D7", 120), ("I", 60)])
def test_folded_map_is_as_good_as_one_with_every_copy_inserted(name: str, count: int, random: np.random.Generator) -> None:
    box, pixel = 40, 3.0
    group = group_matrices(name)
    blobs = asymmetric_blobs(pixel, 0.25 * box * pixel, count=6)
    places = np.concatenate([blobs.positions @ g.T for g in group])
    blobs = Blobs(places, np.tile(blobs.weights, len(group)), 2.2)
    band = make_band(box, box // 2 - 1)
    rotations = random_rotations(count, random)
    k = (band.kx[:, None] * rotations[:, None, 0] + band.ky[:, None] * rotations[:, None, 1]) / (box * pixel)
    data = blobs.transform(k, pixel).astype(np.complex64)
    ones = np.ones(data.shape, np.float32)
    folded = Accumulator(box, 1.5, box // 2 - 1)
    folded.insert(data, ones, rotations, band)
    folded.symmetrise(group)
    inserted = Accumulator(box, 1.5, box // 2 - 1)
    for g in group:
        inserted.insert(data, ones, rotations @ g, band)
    truth = _band_limited(blobs, box, pixel)
    used = slice(1, int(0.9 * box / 2) + 1)
    ours, theirs = fsc(_solve(folded), truth)[used], fsc(_solve(inserted), truth)[used]
    assert ours.mean() > theirs.mean() - 0.002
    assert (ours > np.minimum(theirs, 0.995) - 0.01).all()
    assert ours[: int(0.8 * len(ours))].min() > 0.985
    assert ours.mean() > 0.99, ours


def test_wrong_input_is_refused(random: np.random.Generator) -> None:
    band = make_band(16, 7)
    data, weight, rotations = _slices(2, band, random)
    accumulator = Accumulator(16, 1.5, 5)
    with pytest.raises(ValueError, match="reach"):
        accumulator.insert(data, weight, rotations, band)
    accumulator = Accumulator(16, 1.5, 7)
    with pytest.raises(ValueError, match="want"):
        accumulator.insert(data[:1], weight, rotations, band)
    with pytest.raises(ValueError, match="matrix 1 is not a rotation"):
        accumulator.insert(data, weight, np.stack([np.eye(3), 2 * np.eye(3)]), band)
    with pytest.raises(ValueError, match="do not fit"):
        accumulator.add(Accumulator(16, 1.25, 7))
    for wrong in ((15, 1.5, 6), (16, 0.9, 6), (16, 1.5, 8)):
        with pytest.raises(ValueError, match="want an even box"):
            Accumulator(*wrong)
    assert not accumulator.denominator.any()
