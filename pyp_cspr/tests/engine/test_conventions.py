"""One test, or more, for every numbered sentence of ``engine/conventions.py``.

A test compares the engine with something that knows nothing of it (a definition written out, SciPy, Xmipp, RELION's and
Warp's own files, real particles), and shows that the wrong sign, order or centre would have been found: wherever a sentence
can be misread, the misreadings are listed beside it and must fail. RELION's programs are asked in test_relion_peer.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pyp_cspr.engine import conventions
from pyp_cspr.engine.core import geometry as g
from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.ctf import ctf, defocus_form, wavelength
from pyp_cspr.engine.model.tables import EXPOSURES, PARTICLES, SERIES, Dataset
from pyp_cspr.tests.blobs import Blobs, asymmetric_blobs, correlation

BOX, PIXEL = 48, 2.0
TRIPLES = [(33.0, 51.0, -107.0), (-160.0, 118.0, 40.0), (75.0, 12.0, 171.0)]


def rx(a):
    return Rotation.from_euler("x", a, degrees=True).as_matrix()


def ry(a):
    return Rotation.from_euler("y", a, degrees=True).as_matrix()


def rz(a):
    return Rotation.from_euler("z", a, degrees=True).as_matrix()


def test_every_sentence_has_a_test():
    numbers = [int(n) for n in re.findall(r"^ ?(\d+)\. ", conventions.__doc__, flags=re.M)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 18
    for number in numbers:
        assert any(name.startswith(f"test_sentence_{number:02d}_") for name in globals()), f"sentence {number}"


# ------------------------------------------------------------------------------------------------------------------ units


def test_sentence_01_lengths_are_angstrom_and_angles_degrees():
    units = {column.name: column.unit for schema in (SERIES, EXPOSURES, PARTICLES) for column in schema}
    assert [units[name] for name in ("position", "shift", "pixel", "stack_pixel")] == ["A"] * 4
    assert [units[name] for name in ("defocus", "phase_shift")] == ["A, A, deg", "deg"]
    assert_allclose(g.euler_to_matrix(90.0, 0.0, 0.0) @ [0, 1, 0], [1, 0, 0], atol=1e-15)  # a quarter turn, not 90 radians
    assert wavelength(300.0) == pytest.approx(0.0197, abs=1e-4)
    # 2 micrometres of underfocus: the first zero at 1/20 per angstrom, whatever else the formula has in it.
    k = np.linspace(0.01, 0.1, 2000)
    first = k[np.flatnonzero(np.diff(np.sign(ctf(k, 0.0, (2e4, 2e4, 0), 300.0, 0.0, 0.0))))[0]]
    assert 1 / first == pytest.approx(np.sqrt(0.0197 * 2e4), rel=1e-2)


# ----------------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("box", [32, 34])  # box / 2 even and odd
def test_sentence_02_arrays_are_zyx_with_the_centre_at_n_over_2(box):
    from pyp_cspr.engine.core.projection import Reference

    volume = np.zeros((box, box, box), np.float32)
    dz, dy, dx = 3, -2, 5
    volume[box // 2 + dz, box // 2 + dy, box // 2 + dx] = 1.0
    band = make_band(box, box // 2 - 2)
    values = Reference(volume, padding=3.0).slices(np.eye(3)[None], band)[0]
    k = np.stack([band.kx, band.ky], -1) / box
    assert correlation(values, np.exp(-2j * np.pi * (k @ [dx, dy]))) > 0.99
    wrong = {"x and y": (dy, dx), "x and z": (dz, dy), "centre (N-1)/2": (dx + 0.5, dy + 0.5), "centre N/2-1": (dx + 1, dy + 1)}
    for name, (x, y) in wrong.items():
        assert correlation(values, np.exp(-2j * np.pi * (k @ [x, y]))) < 0.9, name


@pytest.mark.parametrize("box", [32, 34])
def test_sentence_02_and_03_of_images(box):
    from pyp_cspr.engine.core.fourier import crops_to_coefficients

    image = np.zeros((1, box, box), np.float32)
    dy, dx = -4, 7
    image[0, box // 2 + dy, box // 2 + dx] = 1.0
    band = make_band(box, box // 2 - 1)
    values = crops_to_coefficients(image, band, 1.0)[0]
    assert_allclose(values, np.exp(-2j * np.pi * (band.kx * dx + band.ky * dy) / box), atol=1e-5)
    image = np.zeros((1, box, box), np.float32)
    image[0, box // 2, box // 2] = 1.0
    assert_allclose(crops_to_coefficients(image, band, 2.5)[0], 2.5, atol=1e-5)


def test_sentence_03_a_displaced_particle_carries_the_phase_of_its_displacement():
    from pyp_cspr.engine.core.fourier import crops_to_coefficients

    blobs = asymmetric_blobs(PIXEL, 25.0)
    rotation = g.euler_to_matrix(*TRIPLES[0])
    u = np.array([3.3, -5.1])
    images = np.stack([blobs.image(rotation, BOX, PIXEL), blobs.image(rotation, BOX, PIXEL, u)]).astype(np.float32)
    band = make_band(BOX, 20)
    still, moved = crops_to_coefficients(images, band, 1.0)
    phase = np.exp(-2j * np.pi * (np.stack([band.kx, band.ky], -1) / (BOX * PIXEL)) @ u)
    assert_allclose(moved, still * phase, atol=1e-4 * np.abs(still).max())
    assert correlation(moved, still * phase.conj()) < 0.9


# -------------------------------------------------------------------------------------------------------------- rotations


def test_sentence_04_rotations_are_right_handed_and_active():
    x, y, z = np.eye(3)
    assert_allclose(g.rotation_z(90) @ x, y, atol=1e-15)
    assert_allclose(g.rotation_x(90) @ y, z, atol=1e-15)
    assert_allclose(g.rotation_y(90) @ z, x, atol=1e-15)
    for angle in (-100.0, 17.0, 63.0):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        assert_allclose(g.rotation_z(angle), [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-15)
        assert_allclose(g.rotation_y(angle), [[c, 0, s], [0, 1, 0], [-s, 0, c]], atol=1e-15)
        assert_allclose(g.rotation_x(angle), [[1, 0, 0], [0, c, -s], [0, s, c]], atol=1e-15)
        for ours, scipys in ((g.rotation_x, rx), (g.rotation_y, ry), (g.rotation_z, rz)):
            assert_allclose(ours(angle), scipys(angle), atol=1e-15)


@pytest.mark.parametrize("triple", TRIPLES)
def test_sentence_05_euler_angles_are_relions_and_xmipps(triple):
    rot, tilt, psi = triple
    matrix = g.euler_to_matrix(rot, tilt, psi)
    assert_allclose(matrix, rz(-psi) @ ry(-tilt) @ rz(-rot), atol=1e-14)
    frealign = g.euler_to_matrix(rot, tilt, psi).T
    assert_allclose(frealign, rz(rot) @ ry(tilt) @ rz(psi), atol=1e-14)
    # FREALIGN's matrix, element by element as its source gives them.
    phi, theta, psi_ = np.deg2rad(triple)
    assert_allclose(frealign[:, 2], [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], atol=1e-14)
    assert_allclose(frealign[2, :2], [-np.sin(theta) * np.cos(psi_), np.sin(theta) * np.sin(psi_)], atol=1e-14)


@pytest.mark.parametrize("triple", TRIPLES)
def test_sentence_05_against_xmipp_itself(triple):
    xmipp = pytest.importorskip("xmippLib", reason="Xmipp's library does not load here")
    theirs = np.array(xmipp.Euler_angles2matrix(*triple))
    assert_allclose(g.euler_to_matrix(*triple), theirs, atol=1e-6)
    rot, tilt, psi = triple
    for name, wrong in (
        ("transposed", g.euler_to_matrix(rot, tilt, psi).T),
        ("rot and psi swapped", g.euler_to_matrix(psi, tilt, rot)),
        ("active", rz(psi) @ ry(tilt) @ rz(rot)),
    ):
        assert np.abs(wrong - theirs).max() > 0.05, name


@pytest.mark.parametrize("triple", TRIPLES)
def test_sentence_05_an_atom_is_seen_where_the_matrix_puts_it(triple):
    """The volume turned by SciPy, and summed along z, against atoms placed by the matrix."""
    from scipy.ndimage import affine_transform

    blobs = asymmetric_blobs(PIXEL, 25.0)
    volume = blobs.volume(BOX, PIXEL).astype(float)
    matrix = g.euler_to_matrix(*triple)
    centre = np.full(3, BOX // 2)
    # Voxel x of the turned volume comes from A^T x of the first one; arrays are [z, y, x], so the matrix is reversed.
    back = matrix.T[::-1, ::-1]
    turned = affine_transform(volume, back, offset=centre - back @ centre, order=3).sum(axis=0)
    rot, tilt, psi = triple
    assert correlation(turned, blobs.image(matrix, BOX, PIXEL)) > 0.995
    wrong = {"transposed": matrix.T, "-psi": g.euler_to_matrix(rot, tilt, -psi), "order": g.euler_to_matrix(psi, tilt, rot)}
    for name, other in wrong.items():
        assert correlation(turned, blobs.image(other, BOX, PIXEL)) < 0.9, name


# ------------------------------------------------------------------------------------------- the specimen and the particle

PROJECT = {
    "optimisation_set.star": """
data_
_rlnTomoParticlesFile particles.star
_rlnTomoTomogramsFile tomograms.star
""",
    "tomograms.star": """
data_global
loop_
_rlnTomoName #1
_rlnTomoTiltSeriesStarFile #2
_rlnTomoSizeX #3
_rlnTomoSizeY #4
_rlnTomoSizeZ #5
_rlnTomoHand #6
_rlnTomoTiltSeriesPixelSize #7
_rlnVoltage #8
_rlnSphericalAberration #9
_rlnAmplitudeContrast #10
TS_1 TS_1.star 400 300 200 {hand} 2.0 300 2.7 0.1
""",
    "TS_1.star": """
data_TS_1
loop_
_rlnTomoXTilt #1
_rlnTomoYTilt #2
_rlnTomoZRot #3
_rlnTomoXShiftAngst #4
_rlnTomoYShiftAngst #5
_rlnDefocusU #6
_rlnDefocusV #7
_rlnDefocusAngle #8
_rlnMicrographPreExposure #9
2.0 -40.0 85.0 11.0 -7.0 21000 19000 30 6.0
0.0   0.0 85.0  0.0  0.0 20000 20000  0 0.0
-1.5 50.0 86.0 -4.0 13.0 22000 20500 40 3.0
""",
    "particles.star": """
data_optics
loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnSphericalAberration #3
_rlnVoltage #4
_rlnAmplitudeContrast #5
_rlnTomoTiltSeriesPixelSize #6
1 optics1 2.7 300 0.1 2.0

data_particles
loop_
_rlnTomoName #1
_rlnTomoParticleName #2
{coordinates}
_rlnTomoSubtomogramRot #6
_rlnTomoSubtomogramTilt #7
_rlnTomoSubtomogramPsi #8
_rlnAngleRot #9
_rlnAngleTilt #10
_rlnAnglePsi #11
_rlnOriginXAngst #12
_rlnOriginYAngst #13
_rlnOriginZAngst #14
_rlnOpticsGroup #15
TS_1 TS_1/1 {first}  0 0 0 0 0 0 0 0 0 1
TS_1 TS_1/2 {second} 25 70 -130 10 40 95 8.0 -5.0 3.0 1
""",
}
CORNER = "_rlnCoordinateX #3\n_rlnCoordinateY #4\n_rlnCoordinateZ #5"
CENTRED = "_rlnCenteredCoordinateXAngst #3\n_rlnCenteredCoordinateYAngst #4\n_rlnCenteredCoordinateZAngst #5"


def read_project(folder: Path, centred: bool = False, hand: float = -1.0) -> Dataset:
    """A RELION 5 project of one tomogram with a particle at its centre and one 120, -50, 30 A away from it."""
    from pyp_cspr.engine.io.relion import read_dataset

    places = ("0 0 0", "120 -50 30") if centred else ("200 150 100", "260 125 115")
    words = {"coordinates": CENTRED if centred else CORNER, "first": places[0], "second": places[1], "hand": hand}
    for name, text in PROJECT.items():
        (folder / name).write_text(text.format(**words) if "{" in text else text)
    return read_dataset(folder, need_images=False)


@pytest.mark.parametrize("centred", [False, True])
def test_sentence_06_the_specimen_frame_starts_at_half_the_tomograms_size(tmp_path, centred):
    data = read_project(tmp_path, centred)
    assert_allclose(data.particles["position"][0], 0.0, atol=1e-12)
    outer = rz(130) @ ry(-70) @ rz(-25)
    assert_allclose(data.particles["position"][1] + outer @ [8.0, -5.0, 3.0], [120.0, -50.0, 30.0], atol=1e-10)


def test_sentence_06_the_centre_stays_at_the_centre_at_every_angle(tmp_path):
    data = read_project(tmp_path)
    seen, depth = data.project(0)
    assert_allclose(seen[0], data.exposures["shift"], atol=1e-10)
    assert_allclose(depth[0], 0.0, atol=1e-10)


def test_sentence_07_pose_of_a_particle_from_relions_columns(tmp_path):
    data = read_project(tmp_path)
    outer, inner = rz(130) @ ry(-70) @ rz(-25), rz(-95) @ ry(-40) @ rz(-10)
    coordinate, origin = np.array([120.0, -50.0, 30.0]), np.array([8.0, -5.0, 3.0])
    rotation, position = data.particles["rotation"][1], data.particles["position"][1]
    assert_allclose(rotation, outer @ inner, atol=1e-10)
    assert_allclose(position, coordinate - outer @ origin, atol=1e-10)
    for name, wrong in (("order", inner @ outer), ("transposed", (outer @ inner).T), ("no outer", inner)):
        assert g.rotation_angle(rotation, wrong) > 5, name
    for name, moved in (("sign", -outer @ origin), ("not turned", origin), ("turned back", outer.T @ origin)):
        assert np.linalg.norm(position - (coordinate - moved)) > 1, name


# ------------------------------------------------------------------------------------------------------------ the exposure


def test_sentence_08_orientation_of_an_exposure(tmp_path):
    data = read_project(tmp_path)
    assert_allclose(data.exposures["rotation"][2], rz(86.0) @ ry(50.0) @ rx(-1.5), atol=1e-10)
    assert_allclose(g.pyp_tilt_matrix(30.0, -85.3), rz(85.3) @ ry(30.0), atol=1e-14)
    assert g.rotation_angle(g.pyp_tilt_matrix(30.0, -85.3), rz(-85.3) @ ry(30.0)) > 5


def relion5_tilts(shared_data: Path, name: str):
    folder = shared_data / "metadata" / "relion5_tomo_project" / "tilt_series_metadata"
    from pyp_cspr.engine.io.star import read_star

    return next(iter(read_star(folder / "tilt_series" / f"{name}.star").values()))


@pytest.mark.parametrize("name", ["220728_TS_01", "220728_TS_43", "220728_TS_54"])
def test_sentence_08_and_09_are_relions_projection_matrices(shared_data, name):
    """RELION 5 writes both the angles and shifts and the matrices it uses; they agree only in this way."""
    tilts = relion5_tilts(shared_data, name)
    centre, pixel = np.array([2000.0, 2000.0, 1500.0]), 1.35
    matrix = np.stack([tilts.vectors(f"rlnTomoProj{axis}", 4) for axis in "XYZ"], axis=1)
    xtilt, ytilt, zrot = (tilts.floats(f"rlnTomo{label}") for label in ("XTilt", "YTilt", "ZRot"))
    shift = np.stack([tilts.floats("rlnTomoXShiftAngst"), tilts.floats("rlnTomoYShiftAngst")], axis=-1)
    assert len(tilts) > 20
    assert_allclose(matrix[:, :, :3], g.tilt_to_matrix(xtilt, ytilt, zrot), atol=1e-6)
    # A point off the centre: theirs in pixels from the corner, ours in angstrom from the centre.
    point = np.array([700.0, -420.0, 310.0])
    theirs = (matrix @ np.append(point / pixel + centre, 1.0))[:, :2]
    ours, _ = g.project(g.tilt_to_matrix(xtilt, ytilt, zrot), shift, point)
    middle = theirs - ours / pixel
    assert np.ptp(middle, axis=0).max() < 1e-3  # the image's centre, the same in every tilt
    assert_allclose(middle[0], [3710 / 2, 3838 / 2], atol=1e-3)
    wrong = {
        "-tilt": g.tilt_to_matrix(xtilt, -ytilt, zrot),
        "-axis": g.tilt_to_matrix(xtilt, ytilt, -zrot),
        "transposed": np.swapaxes(g.tilt_to_matrix(xtilt, ytilt, zrot), 1, 2),
    }
    for label, rotation in wrong.items():
        assert np.ptp(theirs - g.project(rotation, shift, point)[0] / pixel, axis=0).max() > 10, label
    rotation = g.tilt_to_matrix(xtilt, ytilt, zrot)
    assert np.ptp(theirs - g.project(rotation, -shift, point)[0] / pixel, axis=0).max() > 10, "-shift"


@pytest.mark.filterwarnings("ignore")  # of the host's packages, while they load
def test_sentence_09_the_hosts_own_projection(random):
    """Scipion's tomo projects coordinates with its tilt angle and the inverse of its alignment matrix."""
    pytest.importorskip("tomo", reason="the host's tomography plugin is not installed")
    from pwem.objects import Transform
    from tomo.objects import TiltImage
    from tomo.protocols.protocol_project_coordinates import ProtProjectCoordinates

    pixel = 1.7
    for tilt in (-42.0, 0.0, 27.0):
        aligned = np.eye(3)  # raw -> aligned, pixels, about the image's centre
        aligned[:2, :2] = rz(-84.0)[:2, :2]
        aligned[:2, 2] = [12.0, -31.0]
        image = TiltImage()
        image.setTiltAngle(tilt)
        image.setTransform(Transform(matrix=aligned))
        position = random.normal(scale=300, size=3)
        protocol = ProtProjectCoordinates.__new__(ProtProjectCoordinates)
        theirs = protocol._projectCoordinate(image, np.append(position / pixel, 1.0))[:2] * pixel
        rotation, shift = g.imod_to_exposure(aligned[:2, :2], aligned[:2, 2], tilt, 0.0, pixel)
        assert_allclose(g.project(rotation, shift, position)[0], theirs, atol=1e-9)


def exposure_defocus(data: Dataset, exposure: int) -> np.ndarray:
    """Mean defocus in angstrom with which the pipeline weighs all particles of the first series."""
    from pyp_cspr.engine.model.settings import ReconstructSettings
    from pyp_cspr.engine.model.task import ChunkJournal, MapGrid
    from pyp_cspr.engine.pipeline.extract import CropGrid, ExposureView

    grid = CropGrid(2.0, MapGrid(32, 2.0, 48, 15))
    view = ExposureView(data, 0, exposure, None, grid, ReconstructSettings(), ChunkJournal(), 1)  # type: ignore[arg-type]
    form = view._defocus(data.defocus_changes(0)[:, exposure])
    return 0.5 * (form[:, 0] + form[:, 2])


@pytest.mark.parametrize("hand", [-1.0, 1.0])
def test_sentence_10_defocus_follows_depth_with_the_hand(tmp_path, hand):
    data = read_project(tmp_path, hand=hand)
    _, depth = data.project(0)
    position = data.particles["position"][1]
    for exposure in range(3):
        expected = (rz(0) @ data.exposures["rotation"][exposure] @ position)[2]
        assert depth[1, exposure] == pytest.approx(expected)
        mean = data.exposures["defocus"][exposure, :2].mean()
        assert_allclose(exposure_defocus(data, exposure), mean + hand * depth[:, exposure], atol=1e-6)
    assert np.abs(depth[1]).min() > 10  # else nothing was tested


def test_sentence_10_is_pyps_formula():
    """PYP (default hand): dDF = -[(Z - c) cos a - (X - c) sin a], in angstrom, of the specimen's coordinates; our hand -1."""
    x, z = 340.0, -150.0
    for tilt in (-50.0, 0.0, 35.0):
        a = np.deg2rad(tilt)
        depth = g.project(g.pyp_tilt_matrix(tilt, -85.0), 0.0, [x, 77.0, z])[1]
        assert -1 * depth == pytest.approx(-(z * np.cos(a) - x * np.sin(a)))


def test_sentence_09_and_11_a_magnified_image_is_the_slice_at_m_k(tmp_path):
    """An image of blobs, each farther out and wider by m: larger for m above 1, never smaller."""
    from pyp_cspr.engine.core.fourier import crops_to_coefficients
    from pyp_cspr.engine.core.projection import Reference

    blobs, m = asymmetric_blobs(PIXEL, 25.0), 1.05
    matrix, band = g.tilt_to_matrix(3.0, 40.0, 85.0), make_band(BOX, 19)
    large = Blobs(m * blobs.positions, blobs.weights, m * blobs.sigma).image(matrix, BOX, PIXEL)[None].astype(np.float32)
    seen = crops_to_coefficients(large, band, 1.0)[0]
    reference = Reference(blobs.volume(BOX, PIXEL), padding=2.0, radius=20)
    assert correlation(reference.slices(matrix[None], band, m)[0], seen) > 0.999
    for wrong in (1.0, 1.0 / m):
        assert correlation(reference.slices(matrix[None], band, wrong)[0], seen) < 0.99
    data = read_project(tmp_path)
    plain, _ = data.project(0)
    data.exposures["magnification"] = m
    np.testing.assert_allclose(data.project(0)[0] - data.exposures["shift"], m * (plain - data.exposures["shift"]), atol=1e-9)


@pytest.mark.parametrize("triple", TRIPLES)
def test_sentence_11_a_projection_is_the_slice_at_the_transposed_matrix(triple):
    from pyp_cspr.engine.core.fourier import crops_to_coefficients
    from pyp_cspr.engine.core.projection import Reference

    blobs = asymmetric_blobs(PIXEL, 25.0)
    matrix = g.tilt_to_matrix(3.0, 40.0, 85.0) @ g.euler_to_matrix(*triple)
    band = make_band(BOX, 20)
    reference = Reference(blobs.volume(BOX, PIXEL), padding=2.0)
    found = reference.slices(matrix[None], band)[0]
    k = np.stack([band.kx, band.ky, np.zeros(len(band))], -1) / (BOX * PIXEL)
    exact = blobs.transform(k @ matrix, PIXEL)  # M^T k, of every k
    assert correlation(found, exact) > 0.999
    assert np.abs(found).sum() == pytest.approx(np.abs(exact).sum(), rel=0.02)  # and the same scale
    image = blobs.image(matrix, BOX, PIXEL)[None].astype(np.float32)
    assert correlation(found, crops_to_coefficients(image, band, 1.0)[0]) > 0.999
    rot, tilt, psi = triple
    half = np.exp(-2j * np.pi * (k[:, :2] @ [PIXEL / 2, PIXEL / 2]))
    wrong = {
        "M k": reference.slices(matrix.T[None].copy(), band)[0],
        "R_p T_e": reference.slices((g.euler_to_matrix(*triple) @ g.tilt_to_matrix(3.0, 40.0, 85.0))[None], band)[0],
        "-psi": reference.slices((g.tilt_to_matrix(3.0, 40.0, 85.0) @ g.euler_to_matrix(rot, tilt, -psi))[None], band)[0],
        "half a pixel": found * half,
        "mirrored": found.conj(),
    }
    for name, values in wrong.items():
        assert correlation(values, exact) < 0.96, name


def test_sentences_07_to_11_of_real_particles(shared_data):
    """Ribosomes in cells (EMPIAR-10499, 2 x 10 particles x 37 tilts) look like slices of their average only in this way."""
    import mrcfile

    from pyp_cspr.engine.core.fourier import crops_to_coefficients
    from pyp_cspr.engine.core.projection import Reference
    from pyp_cspr.engine.core.weighting import ctf_values
    from pyp_cspr.engine.io.relion import read_dataset

    folder = shared_data / "real" / "empiar10499"
    data = read_dataset(folder)
    with mrcfile.open(folder / "average.mrc", permissive=True) as file:
        average = np.array(file.data, np.float32)
    # Its hand is mirrored in z against the particles' angles, about the centre: index N // 2 stays.
    mirrored = np.roll(average[::-1], 1, axis=0).copy()
    box, pixel = 32, 12.0
    band = make_band(box, 14)

    def score(change) -> np.ndarray:
        """Correlation of each projection, with ``change(T, R, depth)`` giving the matrices and the depths to use."""
        values = []
        for series in range(len(data.series)):
            rows, particles = data.exposures_of(series), data.particles_of(series)
            _, depths = data.project(series)
            for p, particle in enumerate(particles):
                with mrcfile.open(data.particles["stack"][particle], permissive=True) as file:
                    seen = np.flatnonzero(data.visible[particle, : len(rows)])
                    images = np.array(file.data, np.float32)[seen]  # all tilts, those not visible blanked
                tilts, pose = data.exposures["rotation"][rows[seen]], data.particles["rotation"][particle]
                matrices, depth = change(tilts, pose, depths[p, seen])
                defocus = data.exposures["defocus"][rows[seen]]
                form = defocus_form(defocus[:, 0] + depth, defocus[:, 1] + depth, defocus[:, 2])
                phase = np.full(len(seen), np.arctan2(0.07, np.sqrt(1 - 0.07**2)))
                c = ctf_values(band, box * pixel, form, phase, wavelength(300.0), 2.7)
                model = reference.slices(np.ascontiguousarray(matrices), band) * c * c
                observed = crops_to_coefficients(images, band, 1.0)
                values.extend(correlation(a, b) for a, b in zip(observed, model))
        return np.array(values)

    def negated(tilts: np.ndarray) -> np.ndarray:
        return np.stack([rz(z) @ ry(-y) @ rx(-x) for x, y, z in zip(*g.matrix_to_tilt(tilts))])

    reference = Reference(mirrored, padding=2.0)
    hand = data.series["hand"][0]
    right = score(lambda t, r, d: (t @ r, hand * d))
    wrong = {
        "particle transposed": score(lambda t, r, d: (t @ r.T, hand * d)),
        "exposure transposed": score(lambda t, r, d: (np.swapaxes(t, 1, 2) @ r, hand * d)),
        "slice at M k": score(lambda t, r, d: (np.swapaxes(t @ r, 1, 2), hand * d)),
        "tilts negated": score(lambda t, r, d: (negated(t) @ r, hand * d)),
    }
    reference = Reference(average, padding=2.0)
    wrong["reference not mirrored"] = score(lambda t, r, d: (t @ r, hand * d))
    assert len(right) == 720
    for name, values in wrong.items():
        difference = right - values  # of the same projections
        sigmas = difference.mean() / (difference.std() / np.sqrt(len(difference)))
        assert sigmas > 5, f"{name}: {values.mean():.4f} against {right.mean():.4f}, {sigmas:.1f} sigma"


# ------------------------------------------------------------------------------------------- the contrast transfer function


def test_sentence_12_the_transfer_function():
    k = np.linspace(0.001, 0.3, 500)
    lam = 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    df, cs, ac, phase = 2.1e4, 2.7e7, 0.1, 35.0
    chi = np.pi * lam * k**2 * (df - lam**2 * k**2 * cs / 2) + np.deg2rad(phase) + np.arctan(ac / np.sqrt(1 - ac**2))
    assert_allclose(ctf(k, 0.0, (df, df, 0.0), 300.0, 2.7, ac, phase), np.sin(chi), atol=1e-9)
    values = ctf(k, 0.0, (df, df, 0.0), 300.0, 2.7, ac, phase)
    wrong = {
        "overfocus": ctf(k, 0.0, (-df, -df, 0.0), 300.0, 2.7, ac, phase),
        "-phase": ctf(k, 0.0, (df, df, 0.0), 300.0, 2.7, ac, -phase),
        "-Cs": ctf(k, 0.0, (df, df, 0.0), 300.0, -2.7, ac, phase),
        "-amplitude": ctf(k, 0.0, (df, df, 0.0), 300.0, 2.7, -ac, phase),
        "-sin": -values,
    }
    for name, other in wrong.items():
        assert np.abs(other - np.sin(chi)).max() > 0.1, name
    # White particles with underfocus: positive before the first zero.
    assert (ctf(np.linspace(0.005, 0.04, 20), 0.0, (df, df, 0.0), 300.0, 2.7, ac) > 0).all()


@pytest.mark.parametrize("angle", [0.0, 30.0, -70.0])
def test_sentence_13_astigmatism_is_measured_from_x_towards_y(angle):
    df_u, df_v = 2.4e4, 1.8e4
    axx, axy, ayy = defocus_form(df_u, df_v, angle)

    def defocus(azimuth):
        x, y = np.cos(np.deg2rad(azimuth)), np.sin(np.deg2rad(azimuth))
        return axx * x * x + 2 * axy * x * y + ayy * y * y

    assert defocus(angle) == pytest.approx(df_u)
    assert defocus(angle + 90) == pytest.approx(df_v)
    assert defocus(angle + 180) == pytest.approx(df_u)
    if angle:
        assert abs(defocus(-angle) - df_u) > 500


def test_sentence_13_of_the_compiled_transfer_function():
    from pyp_cspr.engine.core.weighting import ctf_values

    band, field = make_band(64, 31), 64 * 2.0
    defocus = (2.4e4, 1.8e4, 30.0)
    form = defocus_form(*defocus)[None]
    found = ctf_values(band, field, form, np.array([np.arcsin(0.1) + np.deg2rad(20.0)]), wavelength(300.0), 2.7)[0]
    kx, ky = band.kx / field, band.ky / field
    assert_allclose(found, ctf(kx, ky, defocus, 300.0, 2.7, 0.1, 20.0), atol=2e-4)
    for name, other in {
        "-angle": ctf(kx, ky, (2.4e4, 1.8e4, -30.0), 300.0, 2.7, 0.1, 20.0),
        "u and v swapped": ctf(kx, ky, (1.8e4, 2.4e4, 30.0), 300.0, 2.7, 0.1, 20.0),
        "-phase": ctf(kx, ky, defocus, 300.0, 2.7, 0.1, -20.0),
    }.items():
        assert correlation(found, other) < 0.9, name


def test_sentence_14_raw_images_are_negated(tmp_path):
    import mrcfile

    from pyp_cspr.engine.io.images import open_images
    from pyp_cspr.engine.io.relion import read_dataset

    assert (conventions.WHITE_PARTICLES, conventions.DARK_PARTICLES) == (1.0, -1.0)
    noise = np.random.default_rng(5)
    # Raw: a dark disc at the centre of each tilt image must come out white.
    y, x = np.mgrid[:96, :96] - 48
    tilts = noise.normal(100.0, 5.0, (3, 96, 96)) - 40.0 * (np.hypot(x, y) < 5)
    with mrcfile.new(tmp_path / "TS_1.mrc") as file:
        file.set_data(tilts.astype(np.float32))
        file.voxel_size = 2.0
    read_project(tmp_path)
    star = tmp_path / "TS_1.star"
    lines = star.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("2.0 -40.0"))
    lines[first:first + 3] = [f"0 0 0 0 0 20000 20000 0 {i} {i + 1}@TS_1.mrc" for i in range(3)]
    lines.insert(first, "_rlnMicrographName #10")
    star.write_text("\n".join(lines) + "\n")
    data = read_dataset(tmp_path)
    crops, centre, _ = open_images(data, 0).crops(0, [0], np.zeros((1, 2)), 32)
    assert data.series["contrast"][0] == conventions.DARK_PARTICLES
    assert_allclose(centre, 0.0, atol=1e-9)
    assert crops[0, 14:19, 14:19].mean() > crops[0].mean() + 1.0


def test_sentence_14_extracted_stacks_are_not_negated(tmp_path, random):
    """A white disc in each image of a particle's stack stays white."""
    import mrcfile

    from pyp_cspr.engine.io.images import open_images
    from pyp_cspr.engine.io.relion import read_dataset

    read_project(tmp_path)
    y, x = np.mgrid[:32, :32] - 16
    for name in ("1.mrcs", "2.mrcs"):
        with mrcfile.new(tmp_path / name) as file:
            file.set_data((random.normal(0.0, 0.2, (3, 32, 32)) + 4.0 * (np.hypot(x, y) < 5)).astype(np.float32))
            file.set_image_stack()
            file.voxel_size = 4.0
    star = tmp_path / "particles.star"
    text = star.read_text()
    for old, new in (
        ("PixelSize #6\n1 optics1 2.7 300 0.1 2.0", "PixelSize #6\n_rlnImageSize #7\n_rlnImagePixelSize #8\n"
         "_rlnImageDimensionality #9\n1 optics1 2.7 300 0.1 2.0 32 4.0 2"),
        ("_rlnOpticsGroup #15\n", "_rlnOpticsGroup #15\n_rlnImageName #16\n"),
        ("0 0 0 0 0 0 0 0 0 1\n", "0 0 0 0 0 0 0 0 0 1 1.mrcs\n"), ("-5.0 3.0 1\n", "-5.0 3.0 1 2.mrcs\n"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    star.write_text(text)
    data = read_dataset(tmp_path)
    assert data.series["contrast"][0] == conventions.WHITE_PARTICLES
    for particle in (0, 1):
        crops, _, _ = open_images(data, 0).crops(1, [particle], np.zeros((1, 2)), 32)
        assert crops[0, 14:19, 14:19].mean() > crops[0].mean() + 1.0


# ------------------------------------------------------------------------------------------------------------------- IMOD


def test_sentence_15_a_line_of_xf_and_where_it_sends_a_point(random):
    pixel, tilt, xtilt = 2.0, 35.0, 1.5
    linear, offset = rz(-84.7)[:2, :2], np.array([13.0, -27.0])
    rotation, shift = g.imod_to_exposure(linear, offset, tilt, xtilt, pixel)
    for _ in range(5):
        position = random.normal(scale=200, size=3)
        raw = g.project(rotation, shift, position)[0] / pixel
        aligned = (ry(tilt) @ rx(xtilt) @ position)[:2] / pixel
        assert_allclose(linear @ raw + offset, aligned, atol=1e-10)
        assert np.linalg.norm(linear.T @ (raw - offset) - aligned) > 5  # the inverse transform
    assert g.matrix_to_tilt(rotation)[2] == pytest.approx(84.7)
    assert_allclose(shift, -linear.T @ offset * pixel, atol=1e-10)


def test_sentence_15_is_how_warp_reads_imods_files(shared_data):
    """The same series as IMOD's .xf and .tlt and as Warp's XML after its own import (10 A/px)."""
    import xml.etree.ElementTree as ElementTree

    folder = shared_data / "metadata" / "warp_xf_import"
    xf = np.loadtxt(folder / "00254.xf")
    tilts = np.loadtxt(folder / "00254.tlt")
    root = ElementTree.parse(folder / "00254.xml").getroot()
    names = ("Angles", "AxisAngle", "AxisOffsetX", "AxisOffsetY")
    warp = {name: np.array(root.findtext(name).split(), float) for name in names}
    rotation, shift = g.imod_to_exposure(xf[:, :4].reshape(-1, 2, 2), xf[:, 4:], tilts, 0.0, 10.0)
    _, ytilt, zrot = g.matrix_to_tilt(rotation)
    assert_allclose(ytilt, warp["Angles"], atol=0.02)
    assert_allclose(zrot, warp["AxisAngle"], atol=1e-3)
    offset = np.stack([warp["AxisOffsetX"], warp["AxisOffsetY"]], -1)
    assert_allclose(shift, offset, atol=0.02)
    assert np.abs(-shift - offset).max() > 100
    assert np.abs(-xf[:, 4:] * 10.0 - offset).max() > 5  # d not turned back by F


# -------------------------------------------------------------------------------------------------------------------- PYP

# (tilt, axis, NORM, R, t, FREALIGN psi, theta, phi, shift, particle P, particle s), from PYP's own geometry code.
PYP_VECTORS = [
    (30.0, 0.0, (0, 0, 0), np.eye(3), (0, 0, 0), (180, 30, 180), (0, 0), None, None),
    (30.0, -85.3, (0, 0, 0), np.eye(3), (0, 0, 0), (94.7, 30, 180), (0, 0), None, None),
    (-42.0, 85.3, (40, 0, 110), np.eye(3), (2, -3, 5), (159.1394, 13.2318, 180.9981), (1.8803, 3.8892),
     (-160, -40, -90), (-0.1765, -2.1926, -5.7586)),
    (17.0, 12.0, (63, 0, -140), rz(25) @ rx(50) @ rz(-70), (1.5, -2.25, 0.75), (7.2182, 7.4548, 88.9173), (-0.4485, -1.1670),
     (-358.5019, -24.4365, -85.5397), (0.9220, 1.2348, -2.3453)),
]


def modulo(difference):
    return (np.asarray(difference, float) + 180.0) % 360.0 - 180.0


@pytest.mark.parametrize("vector", PYP_VECTORS)
def test_sentence_16_pyps_angles(vector):
    tilt, axis, norm, matrix, t, frealign, _, stored, _ = vector
    rotation, _ = g.sva_to_particle(norm, np.column_stack([matrix, t]))
    found = g.projection_to_frealign(rotation, g.pyp_tilt_matrix(tilt, axis))
    assert_allclose(modulo(np.subtract(found, frealign)), 0.0, atol=2e-4)
    assert all(0 <= angle < 360 for angle in found)
    assert_allclose(g.pyp_tilt_matrix(tilt, axis), rz(-axis) @ ry(tilt), atol=1e-14)
    if stored is not None:
        assert_allclose(modulo(np.subtract(g.particle_to_pyp(rotation), stored)), 0.0, atol=2e-4)
        ppsi, ptheta, pphi = stored  # E_p = Rz(-Pphi) Ry(-Ptheta) Rz(-Ppsi) = R_p^T
        assert_allclose((rz(-pphi) @ ry(-ptheta) @ rz(-ppsi)).T, rotation, atol=1e-5)
        assert_allclose(g.pyp_to_particle(*stored), rotation, atol=1e-5)
        assert g.rotation_angle(g.pyp_to_particle(ppsi, ptheta, pphi), g.pyp_to_particle(-ppsi, -ptheta, -pphi)) > 5
    for other in (g.pyp_tilt_matrix(-tilt, axis), g.pyp_tilt_matrix(tilt, -axis) if axis else g.pyp_tilt_matrix(tilt, 90.0)):
        wrong = g.projection_to_frealign(rotation, other)
        assert np.abs(modulo(np.subtract(wrong, frealign))).max() > 1


@pytest.mark.parametrize("vector", PYP_VECTORS[2:])
def test_sentence_17_pyps_shifts(vector):
    tilt, axis, norm, matrix, t, _, expected, _, _ = vector
    _, s = g.sva_to_particle(norm, np.column_stack([matrix, t]))
    found = g.projection_shift(g.pyp_tilt_matrix(tilt, axis), s, np.zeros(2))
    assert_allclose(found, expected, atol=2e-4)
    assert np.abs(-found - expected).max() > 0.1
    # Where the true position, stored - s, is seen from where the stored one is: the same thing.
    stored = np.array([100.0, -40.0, 7.0])
    at_true, at_stored = (g.project(g.pyp_tilt_matrix(tilt, axis), 0.0, x)[0] for x in (stored - s, stored))
    assert_allclose(at_true - at_stored, expected, atol=2e-4)
    assert_allclose(g.projection_shift(g.pyp_tilt_matrix(tilt, axis), s, np.array([3.0, -2.0])) - found, [3.0, -2.0])


@pytest.mark.parametrize("vector", PYP_VECTORS[2:])
def test_sentence_17_relions_origin_is_minus_pyps_shift(vector, tmp_path):
    """In a single-particle star, of a particle beside the whole pixel that its box is cut at."""
    from pyp_cspr.engine.io.relion_spa import write_spa
    from pyp_cspr.engine.io.star import read_star

    tilt, axis, norm, matrix, t, _, expected, _, _ = vector
    _, s = g.sva_to_particle(norm, np.column_stack([matrix, t]))
    turned = g.pyp_tilt_matrix(tilt, axis)
    data = read_project(tmp_path)
    data.box, data.box_pixel = 32, 2.0
    data.exposures["rotation"][:], data.exposures["shift"][:] = turned, 0.0
    stored = turned.T @ [24.0, -14.0, 9.0]  # seen at pixel 12, -7
    data.particles["position"][:] = stored - 0.2 * s  # the shift of the vector is of some pixels: a fifth is within one
    block = read_star(write_spa(data, tmp_path / "spa"))["particles"]
    origin = np.stack([block.floats("rlnOriginXAngst"), block.floats("rlnOriginYAngst")], axis=-1)
    assert len(origin) == 6
    assert_allclose(origin, np.broadcast_to(-0.2 * np.array(expected), origin.shape), atol=1e-4)
    assert np.abs(origin - 0.2 * np.array(expected)).max() > 0.1  # the other sign


@pytest.mark.parametrize("vector", PYP_VECTORS[2:])
def test_sentence_18_pyps_normals_and_matrices(vector):
    _, _, norm, matrix, t, _, _, stored, expected = vector
    rotation, s = g.sva_to_particle(norm, np.column_stack([matrix, t]))
    assert_allclose(s, expected, atol=2e-4)
    assert_allclose(modulo(np.subtract(g.particle_to_pyp(rotation), stored)), 0.0, atol=2e-4)
    mirror = np.diag([1.0, -1.0, 1.0])
    outer = rz(norm[2]) @ rx(norm[0]) @ rz(norm[1])
    assert_allclose(rotation, outer @ mirror @ matrix @ mirror, atol=1e-12)
    swapped = rz(norm[1]) @ rx(norm[0]) @ rz(norm[2])
    wrong = {"no mirror": -outer @ t, "sign": outer @ mirror @ t, "norms swapped": -swapped @ mirror @ t}
    for name, other in wrong.items():
        assert np.abs(other - expected).max() > 0.1, name


def test_sentence_18_in_many_particles_at_once(random):
    norm = random.uniform(-180, 180, (6, 3))
    matrix = np.concatenate([Rotation.from_quat(random.normal(size=(6, 4))).as_matrix(), random.normal(size=(6, 3, 1))], axis=2)
    rotation, s = g.sva_to_particle(norm, matrix)
    for i in range(6):
        one, shift = g.sva_to_particle(norm[i], matrix[i])
        assert_allclose(rotation[i], one, atol=1e-12)
        assert_allclose(s[i], shift, atol=1e-12)
