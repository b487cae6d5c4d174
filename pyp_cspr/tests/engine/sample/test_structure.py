"""Particles from models and maps."""

from __future__ import annotations

import gzip

import gemmi
import numpy as np
import pytest

from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import rotation_z
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import write_map
from pyp_cspr.engine.sample.model import read_hexon
from pyp_cspr.engine.sample.structure import load_structure
from pyp_cspr.tests.blobs import asymmetric_blobs, correlation


@pytest.fixture(scope="module")
def hexon():
    return load_structure("hexon", 32, 6.0)


def test_hexon_reference_is_threefold_about_z_and_centred(hexon):
    from scipy.ndimage import rotate

    reference = hexon.reference()
    axis = np.arange(32) - 16
    inside = np.clip(reference, 0, None)
    centre = [(inside.sum(axis=other) @ axis) / inside.sum() for other in ((1, 2), (0, 2), (0, 1))]
    assert np.abs(centre[1:]).max() < 0.05  # pixels; on the threefold axis
    assert abs(centre[0]) < 0.2  # along it, the mean of the atoms and of the density differ a little
    # an odd cube centred on pixel 16: scipy turns about the middle of the array
    cube = reference[1:, 1:, 1:]
    turned = rotate(cube, 120, axes=(1, 2), reshape=False, order=3)
    other = rotate(cube, 90, axes=(1, 2), reshape=False, order=3)
    assert correlation(turned, cube) > 0.9
    assert correlation(other, cube) < 0.85


def test_potential_is_physical(hexon):
    """Protein of 1.35 g/cm^3 in ice: about 3.8 V more than ice in the mean, over 369,000 A^3."""
    assert hexon.reference().sum() * 6.0**3 == pytest.approx(3.7 * 369e3, rel=0.05)
    assert 0 < hexon.reference().max() < 20


def test_reference_does_not_depend_on_the_field(hexon):
    wider = load_structure("hexon", 40, 6.0)
    assert np.abs(wider.reference()[4:-4, 4:-4, 4:-4] - hexon.reference()).max() < 0.1


def test_fine_map_and_reference_are_one(hexon):
    fine = hexon.fine()
    assert len(fine) > 32
    assert fine.sum() / len(fine) ** 3 == pytest.approx(hexon.reference().sum() / 32**3, rel=1e-4)


def test_model_files_give_the_hexon(tmp_path, hexon):
    """PDB, mmCIF and a gzipped one; a model in any pose is brought to its axis."""
    structure = read_hexon()
    structure.setup_entities()
    turn = rotation_z(77) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
    transform = gemmi.Transform(gemmi.Mat33(turn.tolist()), gemmi.Vec3(10, 20, 30))
    structure[0].transform_pos_and_adp(transform)
    path = tmp_path / "hexon.cif"
    structure.make_mmcif_document().write_file(str(path))
    packed = tmp_path / "hexon.cif.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    got = load_structure(str(path), 32, 6.0, "C3").reference()
    assert correlation(got, hexon.reference()) > 0.999
    assert np.allclose(load_structure(str(packed), 32, 6.0, "C3").reference(), got)
    unturned = load_structure(str(path), 32, 6.0).reference()
    assert correlation(unturned, hexon.reference()) < 0.9


@pytest.mark.parametrize("box,pixel", [(48, 4.0), (40, 5.0), (30, 6.4)])
def test_map_is_taken_as_it_is_on_any_pixel(tmp_path, box, pixel):
    blobs = asymmetric_blobs(8.0, 45.0)
    path = tmp_path / "blobs.mrc"
    write_map(path, 17.0 * blobs.volume(64, 3.0) + 5.0, 3.0)  # any scale, any background
    structure = load_structure(str(path), box, pixel)
    want = blobs.volume(box, pixel)
    assert correlation(structure.reference(), want) > 0.9995
    assert np.nanmin(fsc(structure.reference(), want)[: box // 4]) > 0.995
    assert 40 < structure.radius < 90


def test_map_does_not_fit_a_small_box_but_is_cut_softly(tmp_path):
    path = tmp_path / "blobs.mrc"
    write_map(path, asymmetric_blobs(6.0, 90.0).volume(64, 4.0), 4.0)
    structure = load_structure(str(path), 32, 4.0)
    assert np.isfinite(structure.reference()).all()


@pytest.mark.filterwarnings("ignore:Data array contains NaN values:RuntimeWarning")  # mrcfile, of the test's own file
@pytest.mark.parametrize("name,values,match", [
    ("flat.mrc", np.ones((16, 16, 16), np.float32), "empty"),
    ("nan.mrc", np.full((16, 16, 16), np.nan, np.float32), "not numbers"),
    ("slab.mrc", np.zeros((8, 16, 16), np.float32), "cube"),
])
def test_bad_maps_are_one_line(tmp_path, name, values, match):
    write_map(tmp_path / name, values, 4.0)
    with pytest.raises(InputError, match=match):
        load_structure(str(tmp_path / name), 32, 4.0)


def test_inverted_map_is_refused(tmp_path):
    write_map(tmp_path / "dark.mrc", -asymmetric_blobs(6.0, 30.0).volume(32, 4.0), 4.0)
    with pytest.raises(InputError, match="invert"):
        load_structure(str(tmp_path / "dark.mrc"), 32, 4.0)


def test_map_without_pixel_is_refused(tmp_path):
    write_map(tmp_path / "map.mrc", asymmetric_blobs(6.0, 30.0).volume(32, 4.0), 0.0)
    with pytest.raises(InputError, match="pixel size 0"):
        load_structure(str(tmp_path / "map.mrc"), 32, 4.0)


def test_box_too_small_names_the_box_needed():
    with pytest.raises(InputError, match="--box 42"):
        load_structure("hexon", 32, 4.0)


def test_unknown_structures(tmp_path):
    with pytest.raises(InputError, match="no such structure"):
        load_structure("nothing.pdb", 32, 4.0)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match="neither a model"):
        load_structure(str(tmp_path / "x.txt"), 32, 4.0)
