"""The hexon model, its axis and its potential."""

from __future__ import annotations

import subprocess
import sys

import gemmi
import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix, rotation_z
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.sample import model as atomic


@pytest.fixture(scope="module")
def hexon():
    model = atomic.read_hexon()[0]
    atomic.centre_model(model, 3)
    return model


def test_hexon_is_6qi5():
    model = atomic.read_hexon()[0]
    assert len(model) == 3
    assert model.count_atom_sites() == 21508
    assert np.allclose(np.ptp(atomic.positions(model), axis=0), [131, 100, 118], atol=1)


@pytest.mark.timeout(60)
def test_reading_the_hexon_imports_nothing_of_the_host():
    code = (
        "import sys; from pyp_cspr.engine.sample.model import read_hexon; read_hexon(); "
        "print([m for m in sys.modules if m.split('.')[0] in ('pwem', 'pyworkflow', 'tomo')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.strip() == "[]"


def test_missing_host_is_one_line(monkeypatch):
    monkeypatch.setattr(atomic.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="--structure FILE"):
        atomic.find_hexon()


def test_threefold_axis_is_z_through_the_origin(hexon):
    chains = atomic.equivalent_chains(hexon, 3)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        forth, back = (chains[first] @ rotation_z(angle).T for angle in (120, -120))
        rmsd = min(np.sqrt(np.mean(np.sum((turned - chains[second]) ** 2, axis=1))) for turned in (forth, back))
        assert rmsd < 1e-4  # the deposited chains differ by 0.9 A; the sample repeats the first
    assert np.allclose(np.concatenate(chains).mean(axis=0)[:2], 0, atol=0.05)
    assert abs(atomic.positions(hexon)[:, 2].mean()) < 1e-6
    first = chains[0].mean(axis=0)
    assert abs(first[1]) < 0.5  # the frame is that of the residues which all deposited chains have
    assert first[0] > 10


def test_frame_is_a_rotation_so_the_hand_stays(hexon):
    rotation, _ = atomic.cyclic_frame(atomic.equivalent_chains(atomic.read_hexon()[0], 3))
    assert np.linalg.det(rotation) == pytest.approx(1)


@pytest.mark.parametrize("order", [2, 3, 5, 7])
def test_axis_of_any_order_is_found_in_any_pose(order, random):
    unit = random.normal(0, 10, (40, 3)) + [25, 0, 3]
    chains = [unit @ rotation_z(360 * i / order).T for i in range(order)]
    pose, offset = rotation_vector_to_matrix(random.normal(size=3)), random.normal(0, 50, 3)
    rotation, centre = atomic.cyclic_frame([chain @ pose.T + offset for chain in chains])
    found = [(chain @ pose.T + offset - centre) @ rotation.T for chain in chains]
    turned = found[0] @ rotation_z(360 / order).T
    assert min(np.abs(turned - other).max() for other in found[1:]) < 1e-6
    assert np.allclose(np.concatenate(found).mean(axis=0), 0, atol=1e-6)


def test_chains_without_an_axis_are_refused(random):
    with pytest.raises(InputError, match="not a C3"):
        atomic.cyclic_frame([random.normal(0, 20, (30, 3)) for _ in range(3)])


def test_wrong_number_of_chains_is_refused():
    with pytest.raises(InputError, match="C4 needs 4"):
        atomic.equivalent_chains(atomic.read_hexon()[0], 4)


def _carbons(positions, b_factor=40.0):
    model = gemmi.Model(1) if gemmi.__version__ >= "0.7" else gemmi.Model("1")
    chain, residue = gemmi.Chain("A"), gemmi.Residue()
    residue.name = "GLY"
    for position in positions:
        atom = gemmi.Atom()
        atom.name, atom.element, atom.b_iso = "C", gemmi.Element("C"), b_factor
        atom.pos = gemmi.Position(*position)
        residue.add_atom(atom)
    chain.add_residue(residue)
    model.add_chain(chain)
    return model


def test_potential_has_the_transform_of_its_atoms(random):
    """Grid against the plain sum over atoms of f exp(-B s^2 / 4) exp(-2 pi i k.x)."""
    places = random.normal(0, 8, (20, 3))
    grid, _, spacing = atomic.potential_grid(_carbons(places), 0.9)
    axis = (np.arange(len(grid)) - len(grid) // 2) * spacing
    for length in (0.01, 0.05, 0.1, 0.2):
        k = random.normal(size=3)
        k *= length / np.linalg.norm(k)
        factor = gemmi.Element("C").c4322.calculate_sf(0.25 * length**2) * np.exp(-40.0 * length**2 / 4)
        want = atomic.VOLT_PER_SCATTERING * atomic.HYDROGEN_FACTOR * factor * np.exp(-2j * np.pi * places @ k).sum()
        phases = [np.exp(-2j * np.pi * k[i] * axis) for i in (2, 1, 0)]
        got = np.einsum("zyx,z,y,x", grid, *phases, optimize=True) * spacing**3
        assert abs(got - want) < 2e-3 * 20 * atomic.VOLT_PER_SCATTERING * factor


def test_hydrogens_are_not_counted_twice():
    with_hydrogen = _carbons([[0, 0, 0]])
    with_hydrogen[0][0][0].element = gemmi.Element("H")
    plain = atomic.potential_grid(_carbons([[0, 0, 0]]), 1.0)[0].sum()
    light = atomic.potential_grid(with_hydrogen, 1.0)[0].sum()
    ratio = gemmi.Element("C").c4322.calculate_sf(0) / gemmi.Element("H").c4322.calculate_sf(0)
    assert plain / light == pytest.approx(atomic.HYDROGEN_FACTOR * ratio, rel=1e-2)


def test_displaced_ice_is_that_of_the_mass(hexon):
    _, displaced, spacing = atomic.potential_grid(hexon, 1.5)
    assert displaced.sum() * spacing**3 == pytest.approx(1.21 * 2716 * 111, rel=0.03)  # residues of 111 Da


def test_unreadable_model_is_one_line(tmp_path):
    path = tmp_path / "bad.cif"
    path.write_text("this is not a model\n")
    with pytest.raises(InputError) as info:
        atomic.read_model(path)
    assert "\n" not in str(info.value)
    empty = tmp_path / "empty.pdb"
    empty.write_text("END\n")
    with pytest.raises(InputError, match="no atoms"):
        atomic.read_model(empty)
