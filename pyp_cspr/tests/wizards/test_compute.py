"""What the wizards compute."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pwem.objects import Volume
from pyworkflow.object import Float
from tomo.objects import SetOfSubTomograms

from pyp_cspr.engine.core.filters import low_pass, soft_sphere
from pyp_cspr.engine.core.fsc import resolution_at
from pyp_cspr.engine.core.geometry import rotation_z
from pyp_cspr.engine.core.symmetry import group_matrices
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import write_map
from pyp_cspr.engine.model.tables import Dataset
from pyp_cspr.protocols import ProtPypCsprFilter, ProtPypCsprPostProcess, ProtPypCsprReconstruct, ProtPypCsprRefine
from pyp_cspr.protocols.protocol_filter import _score_errors
from pyp_cspr.tests.protocols.sets import make_sets
from pyp_cspr.wizards import compute


def blobs(box: int, places: np.ndarray, width: float = 1.6) -> np.ndarray:
    """Balls at ``places`` (n, 3), x y z in voxels from the centre."""
    z, y, x = np.mgrid[:box, :box, :box] - box // 2
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * width**2)) for a, b, c in places).astype(np.float32)


def symmetric(group: str, box: int = 32) -> np.ndarray:
    """A map of a point group, and of no larger one: two balls and their mates."""
    seeds = np.array([[7.0, 2.5, 4.0], [3.0, -4.5, 8.0]])
    return blobs(box, np.concatenate([seeds[:1] @ matrix.T for matrix in group_matrices(group)]
                                     + [seeds[1:] @ matrix.T for matrix in group_matrices(group)]))


@pytest.mark.parametrize("group", ["C1", "C3", "C4", "D3", "T", "O", "I1", "I4"])
def test_the_symmetry_of_a_map_is_found(group) -> None:
    scores = compute.symmetry_scores(symmetric(group), 3.0)
    assert scores[group] > 0.9
    assert compute.best_group(scores) == group
    others = [name for name in compute.GROUPS if len(group_matrices(name)) > len(group_matrices(group))]
    assert all(scores[name] < 0.9 for name in others)


def test_orientations_of_the_icosahedron_are_told_apart() -> None:
    """I1 and I2 differ by 90 degrees about z."""
    volume = symmetric("I1")
    scores = compute.symmetry_scores(volume, 3.0, ("I1", "I2"))
    assert scores["I1"] > 0.9 > scores["I2"]
    turned = np.ascontiguousarray(np.rot90(volume[1:, 1:, 1:], axes=(1, 2)))
    scores = compute.symmetry_scores(np.pad(turned, ((1, 0),) * 3), 3.0, ("I1", "I2"))
    assert scores["I2"] > 0.9 > scores["I1"]


def test_symmetrised_maps_have_the_symmetry() -> None:
    volume = blobs(32, np.array([[7.0, 2.5, 4.0], [-3.0, 4.5, -8.0]]))
    made = compute.symmetrised(volume, "C3")
    assert compute.symmetry_scores(made, 3.0, ("C3", "C2"))["C3"] > 0.97
    wanted = sum(blobs(32, np.array([[7.0, 2.5, 4.0], [-3.0, 4.5, -8.0]]) @ np.asarray(rotation_z(angle)).T)
                 for angle in (0, 120, 240)) / 3
    assert np.corrcoef(made.ravel(), wanted.ravel())[0, 1] > 0.98
    np.testing.assert_allclose(compute.symmetrised(volume, "C1"), volume, atol=1e-6)


def test_groups_are_described() -> None:
    assert compute.describe_group("C1") == "no symmetry"
    assert compute.describe_group("C3") == "3-fold on z, 3 positions"
    assert compute.describe_group("D7") == "7-fold on z and 2-folds across, 14 positions"
    assert compute.describe_group("I4").startswith("icosahedral, 60 positions, 5-fold on z")
    assert all(compute.describe_group(name) for name in compute.GROUPS)


def test_the_diameter_that_holds_a_mask() -> None:
    mask = soft_sphere(40, 9.0, 1e-3)
    assert compute.enclosing_diameter(mask, 2.0) == pytest.approx(2 * 2 * 9.5, abs=0.1)
    moved = np.roll(mask, 6, axis=2)  # off the centre it needs a larger ball about the centre
    assert compute.enclosing_diameter(moved, 2.0) == pytest.approx(2 * 2 * 15.5, abs=0.1)
    assert compute.enclosing_diameter(np.zeros((8, 8, 8)), 2.0) == 0.0


def test_balls_have_the_radius_asked_for() -> None:
    ball = compute.ball(48, 15.0)
    assert ball.sum() == pytest.approx(4 / 3 * np.pi * 15.0**3, rel=0.02)


@pytest.mark.parametrize("least, box", [(1, 4), (31, 32), (32, 32), (33, 36), (98, 100), (99.5, 100), (130, 144), (262, 270)])
def test_boxes_are_even_and_fast(least, box) -> None:
    assert compute.good_box(least) == box


def test_a_box_has_room_for_the_particle() -> None:
    assert compute.suggest_box(180.0, 5.0) == 54
    assert compute.suggest_box(180.0, 2.0) * 2.0 >= 1.5 * 180.0


def test_previews_keep_the_extent() -> None:
    volume = blobs(96, np.array([[20.0, -10.0, 4.0]]), 6.0)
    small, pixel = compute.preview(volume, 1.5, 48)
    assert small.shape == (48, 48, 48)
    assert pixel == 3.0
    assert np.array(np.unravel_index(small.argmax(), small.shape)).tolist() == [24 + 2, 24 - 5, 24 + 10]
    assert compute.preview(small, pixel, 48) == (small, pixel)


def volume_with_halves(folder, limit: float):
    """A volume whose half maps agree to ``limit`` angstrom; pixel 4 A."""
    rng = np.random.default_rng(4)
    sphere = soft_sphere(48, 14.0, 4.0)
    signal = low_pass(rng.normal(size=(48,) * 3).astype(np.float32), 4.0, limit) * sphere
    for number in (1, 2):
        noise = 2.0 * signal.std() * rng.normal(size=signal.shape)
        write_map(folder / f"half{number}.mrc", (signal + noise).astype(np.float32), 4.0)
    write_map(folder / "map.mrc", signal, 4.0)
    volume = Volume()
    volume.setFileName(str(folder / "map.mrc"))
    volume.setSamplingRate(4.0)
    return volume


def test_the_limit_comes_from_the_half_maps(tmp_path) -> None:
    volume = volume_with_halves(tmp_path, 16.0)
    with pytest.raises(InputError, match="has no half maps"):
        compute.compare_reference(volume)
    volume.setHalfMaps([str(tmp_path / "half1.mrc"), str(tmp_path / "half2.mrc")])
    comparison, box, pixel = compute.compare_reference(volume)
    assert (box, pixel) == (48, 4.0)
    assert compute.suggest_limit(comparison, box, pixel) == pytest.approx(15.0, abs=1.5)


def test_halves_that_do_not_agree_give_a_coarse_limit() -> None:
    comparison = SimpleNamespace(resolution_05=float("inf"))
    assert compute.suggest_limit(comparison, 48, 4.0) == 60.0
    assert compute.suggest_limit(comparison, 24, 4.0) == 32.0


class Reused(list):
    """As the host's sets: one object is filled anew for each item."""

    def iterItems(self):
        item = SimpleNamespace(_csprScore=Float())
        for value in self:
            item._csprScore.set(value)
            yield item


def test_scores_are_those_of_each_particle() -> None:
    np.testing.assert_array_equal(compute.scores_of(Reused([3.0, 5.5, None])), [3.0, 5.5, np.nan])


@pytest.mark.parametrize("scores, limits", [
    ([-0.4, 10.2, 20.6], (0.0, 21.0)), ([3.5, 8.0], (3.0, 8.0)), ([-3.0, -2.5], (0.0, 0.0))])
def test_the_lowest_score_to_choose_is_one_that_the_form_takes(scores, limits) -> None:
    assert compute.score_limits(np.array(scores)) == limits
    assert limits[1] == 0 or _score_errors(np.array(scores), limits[0]) == []


@pytest.fixture
def protocol(tmp_path):
    """A filter on sets of two series with 4 particles each."""
    made = make_sets(tmp_path / "sets", pixel=5.0, magnified=False)
    protocol = ProtPypCsprFilter()
    protocol.inputParticles.set(made.particles)
    protocol.inputTiltSeries.set(made.tilt_series)
    protocol.inputCTFs.set(made.ctfs)
    return protocol


def test_the_input_is_read(protocol) -> None:
    dataset = compute.read_input(protocol)
    assert isinstance(dataset, Dataset)
    assert len(dataset.particles) == 8
    low, high, images = compute.tilt_range(dataset)
    assert images == 8  # 2 x 5 images, one of each excluded: number 3, at +30 degrees
    assert low == pytest.approx(-60, abs=4)
    assert high == pytest.approx(60, abs=4)
    with pytest.raises(InputError, match="choose the sub-tomograms"):
        compute.read_input(ProtPypCsprFilter())


def test_particles_too_near_are_counted(protocol) -> None:
    dataset = compute.read_input(protocol)
    assert compute.removed_by_distance(dataset, 1e-6) == 0
    assert compute.removed_by_distance(dataset, 1e6) == 6  # one is left in each series
    position = dataset.particles["position"]
    nearest = min(
        np.linalg.norm(position[rows][:, None] - position[rows], axis=2)[np.triu_indices(4, 1)].min()
        for rows in (dataset.particles_of(0), dataset.particles_of(1))
    )
    assert compute.removed_by_distance(dataset, 0.999 * nearest) == 0
    assert compute.removed_by_distance(dataset, 1.001 * nearest) == 1


def test_the_reference_is_the_given_one(tmp_path) -> None:
    volume = volume_with_halves(tmp_path, 16.0)
    refine = ProtPypCsprRefine()
    with pytest.raises(InputError, match=r"^choose the reference volume first$"):
        compute.find_reference(refine)
    refine.inputReference.set(volume)
    assert compute.find_reference(refine) is volume
    values, pixel = compute.read_cube(volume)
    assert values.shape == (48, 48, 48)
    assert pixel == 4.0
    with pytest.raises(InputError, match=r"^choose the average first$"):
        compute.find_reference(ProtPypCsprPostProcess())


def finished(kind, source=None, **outputs):
    """A protocol that has outputs, of the particles of another one."""
    protocol = kind()
    protocol._useOutputList.set(True)  # as the host does when outputs are defined
    for name, output in outputs.items():
        setattr(protocol, name, output)
        protocol._outputs.append(name)
    if source is not None:
        protocol.inputParticles.set(source)
        protocol.inputParticles.setExtended("particles")
    return protocol


def test_the_reference_is_that_of_the_particles_however_often_they_were_filtered(tmp_path) -> None:
    """refine -> filter -> filter -> reconstruct, whose form has no reference; and particles that no map was made with."""
    volume, particles = volume_with_halves(tmp_path, 16.0), SetOfSubTomograms(filename=":memory:")
    refine = finished(ProtPypCsprRefine, particles=particles, average=volume)
    once = finished(ProtPypCsprFilter, refine, particles=particles)
    twice = finished(ProtPypCsprFilter, once, particles=particles)
    for maker in (refine, once, twice):
        assert compute.find_reference(finished(ProtPypCsprReconstruct, maker)) is volume
    again = finished(ProtPypCsprRefine, twice)
    assert compute.find_reference(again) is volume
    with pytest.raises(InputError, match=r"^choose the sub-tomograms first$"):
        compute.find_reference(ProtPypCsprReconstruct())
    alone = finished(ProtPypCsprFilter, finished(ProtPypCsprFilter, particles=particles))
    with pytest.raises(InputError, match=r"none of the protocols .* made one; type the value"):
        compute.find_reference(alone)


def test_the_agreement_at_a_limit_is_interpolated() -> None:
    """Where a curve is told to fall to one half, it is one half."""
    curve = np.array([1.0, 0.9, 0.8, 0.6, 0.3, 0.1, 0.0])
    comparison = SimpleNamespace(curves={"corrected": curve})
    limit = resolution_at(curve, 0.5, 12, 4.0)
    assert limit == pytest.approx(48.0 / (3 + 1 / 3))
    assert compute.agreement_at(comparison, 12, 4.0, limit) == pytest.approx(0.5)
    assert compute.agreement_at(comparison, 12, 4.0, 48.0 / 4) == pytest.approx(0.3)


def test_images_and_dose_of_a_tilt_range(protocol) -> None:
    dataset = compute.read_input(protocol)
    assert compute.share_between(dataset, -90.0, 90.0) == (8, pytest.approx(1.0))
    assert compute.share_between(dataset, -40.0, 10.0) == (4, pytest.approx(0.5))  # -30 and 0 degrees of two series
    assert compute.share_between(dataset, 20.0, 40.0) == (0, 0.0)  # excluded
    dataset.exposures["dose"][:] = 0.0
    assert compute.share_between(dataset, -40.0, 10.0) == (4, pytest.approx(0.5))
