"""RELION's own programs against ours: projections with angles and offsets, and the contrast transfer function.

Each image that relion_project makes is compared with the engine's (correlation above 0.99) and with what a wrong sign, order
or centre would have given, which must be clearly worse. The particle is a sum of Gaussians, so that it can also be
compared with the exact projection, which uses neither program.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Sequence

import mrcfile
import numpy as np
import pytest

from pyp_cspr.engine.core import geometry as g
from pyp_cspr.engine.core.band import Band, make_band
from pyp_cspr.engine.core.ctf import ctf, defocus_form, phase_offset, wavelength
from pyp_cspr.engine.core.fourier import crops_to_coefficients
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.weighting import ctf_values
from pyp_cspr.tests.blobs import Blobs, asymmetric_blobs, correlation

pytestmark = [pytest.mark.needs_relion, pytest.mark.timeout(120)]

PIXEL = 2.0
VOLTAGE, CS, AMPLITUDE = 300.0, 2.7, 0.1

STAR = """
# version 30001
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
1 optics1 {voltage} {cs} {amplitude} {pixel} {box} 2

# version 30001
data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnAngleRot #3
_rlnAngleTilt #4
_rlnAnglePsi #5
_rlnOriginXAngst #6
_rlnOriginYAngst #7
_rlnDefocusU #8
_rlnDefocusV #9
_rlnDefocusAngle #10
_rlnPhaseShift #11
"""


class Peer:
    """A particle in a box, projected by RELION and by us."""

    def __init__(self, program: str, folder: Path, box: int) -> None:
        self.program, self.folder, self.box = program, folder, box
        self.blobs: Blobs = asymmetric_blobs(PIXEL, 0.3 * box * PIXEL)
        self.band: Band = make_band(box, box // 2 - 2)
        volume = self.blobs.volume(box, PIXEL)
        with mrcfile.new(folder / "map.mrc", overwrite=True) as file:
            file.set_data(volume)
            file.voxel_size = PIXEL
        self.reference = Reference(volume, padding=2.0)
        self.k = np.stack([self.band.kx, self.band.ky], -1) / (box * PIXEL)

    def relion(self, rows: Sequence[Sequence[float]], *options: str) -> np.ndarray:
        """relion_project's images; a row is rot, tilt, psi, origin x, y (A), defocus u, v, angle, phase shift."""
        text = STAR.format(voltage=VOLTAGE, cs=CS, amplitude=AMPLITUDE, pixel=PIXEL, box=self.box)
        for number, row in enumerate(rows, 1):
            text += f"{number:06d}@images.mrcs 1 " + " ".join(f"{value:.6f}" for value in row) + "\n"
        (self.folder / "angles.star").write_text(text)
        command = [self.program, "--i", "map.mrc", "--o", "projected", "--ang", "angles.star", "--angpix", str(PIXEL), *options]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        with mrcfile.open(self.folder / "projected.mrcs") as file:
            return np.array(file.data, np.float32).reshape(-1, self.box, self.box)

    def ours(self, rotation: np.ndarray, shift: Sequence[float] = (0.0, 0.0)) -> np.ndarray:
        """Our slice with the phase of a particle that is seen at ``shift``."""
        values = self.reference.slices(np.ascontiguousarray(rotation)[None], self.band)[0]
        return values * np.exp(-2j * np.pi * (self.k @ np.asarray(shift)))

    def coefficients(self, images: np.ndarray) -> np.ndarray:
        return crops_to_coefficients(np.ascontiguousarray(images, np.float32), self.band, 1.0)


@pytest.fixture(scope="module", params=[48, 50], ids=["box 48", "box 50"])  # half the box even and odd
def peer(request, relion, tmp_path_factory) -> Peer:
    return Peer(relion, tmp_path_factory.mktemp("relion"), request.param)


def no_ctf(rot, tilt, psi, x=0.0, y=0.0):
    return (rot, tilt, psi, x, y, 1e4, 1e4, 0.0, 0.0)


def test_projections_agree_at_random_angles_and_offsets(peer, random):
    rot, psi = random.uniform(-180, 180, (2, 6))
    triples = np.stack([rot, np.rad2deg(np.arccos(random.uniform(-1, 1, 6))), psi], -1)
    origins = random.uniform(-9, 9, (6, 2))
    images = peer.relion([no_ctf(*triple, *origin) for triple, origin in zip(triples, origins)])
    theirs = peer.coefficients(images)
    for i, (triple, origin) in enumerate(zip(triples, origins)):
        rot, tilt, psi = triple
        matrix = g.euler_to_matrix(rot, tilt, psi)
        shift = -origin  # rlnOrigin is minus where the particle is
        assert correlation(peer.ours(matrix, shift), theirs[i]) > 0.99
        assert correlation(peer.blobs.image(matrix, peer.box, PIXEL, shift), images[i]) > 0.99
        wrong = {
            "transposed": peer.ours(matrix.T, shift),
            "-psi": peer.ours(g.euler_to_matrix(rot, tilt, -psi), shift),
            "rot and psi swapped": peer.ours(g.euler_to_matrix(psi, tilt, rot), shift),
            "mirrored": peer.ours(np.diag([1.0, 1.0, -1.0]) @ matrix @ np.diag([1.0, 1.0, -1.0]), shift),
            "other hand": peer.ours(-matrix, shift),
            "half a pixel": peer.ours(matrix, shift + PIXEL / 2),
            "half a pixel back": peer.ours(matrix, shift - PIXEL / 2),
            "-shift": peer.ours(matrix, -shift),
            "x and y of the shift swapped": peer.ours(matrix, shift[::-1]),
        }
        for name, values in wrong.items():
            assert correlation(values, theirs[i]) < 0.97, (name, triple, origin)


def test_projections_have_the_same_scale(peer):
    """RELION divides its transforms by the number of pixels and multiplies by it again; a projection is a plain sum."""
    matrix = g.euler_to_matrix(20.0, 70.0, -35.0)
    image = peer.relion([no_ctf(20.0, 70.0, -35.0)])[0]
    theirs, ours = peer.coefficients(image[None])[0], peer.ours(matrix)
    low = peer.band.shell < 8
    scale = np.vdot(theirs[low], ours[low]).real / np.vdot(theirs[low], theirs[low]).real
    exact = peer.blobs.image(matrix, peer.box, PIXEL)
    relions = np.vdot(image, exact - exact.mean()) / np.vdot(image, image - image.mean())
    assert scale == pytest.approx(relions, rel=0.03)


CTFS = [
    # defocus u, v, angle, phase shift
    (12000.0, 12000.0, 0.0, 0.0),
    (14000.0, 9000.0, 25.0, 0.0),
    (14000.0, 9000.0, -60.0, 0.0),
    (14000.0, 9000.0, 15.0, 50.0),
    (9000.0, 9000.0, 0.0, -40.0),
]


@pytest.mark.parametrize("values", CTFS)
def test_transfer_functions_agree(peer, values):
    u, v, angle, phase = values
    row = (33.0, 51.0, -107.0, 0.0, 0.0, u, v, angle, phase)
    theirs = peer.coefficients(peer.relion([row], "--ctf"))[0]
    plain = peer.ours(g.euler_to_matrix(33.0, 51.0, -107.0))
    kx, ky = peer.k.T

    def image(df, phase_shift=phase, sign=1.0, cs=CS, amplitude=AMPLITUDE):
        return plain * sign * ctf(kx, ky, df, VOLTAGE, cs, amplitude, phase_shift)

    assert correlation(image((u, v, angle)), theirs) > 0.99
    form = defocus_form(u, v, angle)[None]
    constant = np.atleast_1d(phase_offset(AMPLITUDE, phase))
    compiled = ctf_values(peer.band, peer.box * PIXEL, form, constant, wavelength(VOLTAGE), CS)[0]
    assert correlation(plain * compiled, theirs) > 0.99
    wrong = {"-sin": image((u, v, angle), sign=-1.0), "overfocus": image((-u, -v, angle)), "no CTF": plain}
    if u != v:
        wrong["-astigmatism angle"] = image((u, v, -angle))
        wrong["astigmatism angle from y"] = image((u, v, 90.0 - angle))
        wrong["u and v swapped"] = image((v, u, angle))
    if phase:
        wrong["-phase"] = image((u, v, angle), phase_shift=-phase)
        wrong["phase left out"] = image((u, v, angle), phase_shift=0.0)
    for name, other in wrong.items():
        assert correlation(other, theirs) < 0.97, name


def test_contrast_at_low_resolution_is_white(peer):
    """RELION's projections with a CTF are positive inside the first zero where the map is: white particles."""
    row = (0.0, 0.0, 0.0, 0.0, 0.0, 9000.0, 9000.0, 0.0, 0.0)
    theirs = peer.coefficients(peer.relion([row], "--ctf"))[0]
    plain = peer.ours(np.eye(3))
    low = peer.band.shell <= 3
    assert np.vdot(plain[low], theirs[low]).real > 0


def test_magnified_sampling_of_the_slice_is_exact(peer):
    """A crop whose field of view is not the map's: the factor ``scale`` puts its coefficients at their own frequencies."""
    scale = 0.8  # the map's field of view over the crop's
    band = make_band(peer.box, 14)
    matrix = g.euler_to_matrix(33.0, 51.0, -107.0)
    found = peer.reference.slices(matrix[None], band, scale=scale)[0]
    k = scale * np.stack([band.kx, band.ky, np.zeros(len(band))], -1) / (peer.box * PIXEL)
    exact = peer.blobs.transform(k @ matrix, PIXEL)
    assert correlation(found, exact) > 0.999
    assert correlation(peer.reference.slices(matrix[None], band)[0], exact) < 0.9
