"""Atomic models: the shipped hexon trimer, the axis of a cyclic assembly, the electrostatic potential on a fine grid."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

HEXON = "hexon"  # name of the shipped structure, PDB 6QI5: adenovirus hexon trimer
HEXON_FILE = ("tests", "data", "hexonAtomStruct.py")  # in the folder of pwem (scipion-em)

# A scattering factor f in angstrom is a potential of (h^2 / (2 pi m e)) f = 47.878 V A^2 x f (Kirkland 2010, eq. C.13).
VOLT_PER_SCATTERING = 47.878
# 0.93 g/cm^3 of vitreous ice are 0.0311 molecules/A^3 of f(O) + 2 f(H) = 1.98 + 2 x 0.53 A: 4.5 V, for isolated atoms.
ICE_POTENTIAL = 4.5
# An amino acid has on average 7.9 heavy atoms (17.4 A in all) and 8.0 hydrogens (4.2 A); a model without hydrogens gets
# their part in proportion to the heavy atoms, since at the resolutions of interest they are not seen apart.
HYDROGEN_FACTOR = 1.24
SOLVENT_B = 60.0  # A^2; softens the boundary between protein and ice
DISPLACED = 1.21  # A^3 of ice displaced by a dalton of protein: 0.73 cm^3/g
HYDROGEN_MASS = 1.075  # a protein's mass over that of its heavy atoms


def find_hexon() -> Path:
    """Path of the file of scipion-em that holds PDB 6QI5. pwem is found, not imported. Raises InputError without it."""
    spec = importlib.util.find_spec("pwem")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder).joinpath(*HEXON_FILE)
        if path.is_file():
            return path
    raise InputError("hexon structure: scipion-em (pwem) is not installed here; install it or give --structure FILE")


def read_hexon() -> Any:
    """The hexon trimer (chains A, B, C; 21,508 atoms) as a gemmi Structure, from the text of a Python file that is not run."""
    import gemmi

    path = find_hexon()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
            continue
        if [getattr(target, "id", "") for target in node.targets] == ["h1"]:
            return gemmi.make_structure_from_block(gemmi.cif.read_string(node.value.value).sole_block())
    raise InputError(f"{path}: holds no model named h1; install another version of scipion-em or give --structure FILE")


def read_model(path: Path) -> Any:
    """A gemmi Structure of a PDB or mmCIF file, gzipped or not. Raises InputError where it cannot be read or is empty."""
    import gemmi

    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError, IndexError) as error:  # by format
        raise InputError(f"{path}: not a readable atomic model ({' '.join(str(error).split())}); give a .pdb or .cif") from None
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path}: holds no atoms; give a .pdb or .cif with coordinates")
    return structure


def positions(model: Any) -> NDArray[np.float64]:
    """Atom positions of a gemmi Model, angstrom, ``(n, 3)``."""
    return np.array([site.atom.pos.tolist() for site in model.all()])


def transform(model: Any, rotation: NDArray, centre: NDArray) -> None:
    """Replace every position x of a gemmi Model by rotation (x - centre)."""
    import gemmi

    shift = -rotation @ centre
    model.transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(rotation.tolist()), gemmi.Vec3(*shift.tolist())))


def superpose(moving: NDArray, fixed: NDArray) -> Tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(R, t, rmsd) of the least-squares fixed = R moving + t of ``(n, 3)`` points (Kabsch 1976)."""
    centre_m, centre_f = moving.mean(axis=0), fixed.mean(axis=0)
    u, _, vt = np.linalg.svd((fixed - centre_f).T @ (moving - centre_m))
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    shift = centre_f - rotation @ centre_m
    rmsd = float(np.sqrt(np.mean(np.sum((moving @ rotation.T + shift - fixed) ** 2, axis=1))))
    return rotation, shift, rmsd


def cyclic_frame(chains: List[NDArray], tolerance: float = 5.0) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rotation, centre) that bring a cyclic assembly's axis onto z through the origin: x -> rotation (x - centre).

    ``chains`` are n lists of the same atoms, each ``(m, 3)``. The axis is that of the rotation which superposes all chains at
    once on each other in turn; the first chain's centre of mass goes to +x. Raises InputError where the chains are
    not related by a rotation of 360/n degrees within ``tolerance`` (degrees, and angstrom rmsd).
    """
    order = len(chains)
    everything = np.concatenate(chains)
    for step in range(1, order):  # the chains may be listed in any turn round the axis
        following = np.concatenate([chains[(i + step) % order] for i in range(order)])
        rotation, shift, rmsd = superpose(everything, following)
        angle = np.rad2deg(np.arccos(np.clip(0.5 * (np.trace(rotation) - 1.0), -1.0, 1.0)))
        if rmsd <= tolerance and abs(angle - 360.0 / order) <= tolerance:
            break
    else:
        raise InputError(f"structure: its {order} chains are not a C{order} assembly; give --symmetry C1")
    if order == 2:  # a half turn has no antisymmetric part
        axis = np.linalg.eigh(0.5 * (rotation + rotation.T))[1][:, -1]
    else:
        axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
        axis /= np.linalg.norm(axis)
    middle = everything.mean(axis=0)
    # The point of the axis at the height of the centre of mass: (1 - R) c = t across the axis.
    across = np.linalg.pinv(np.eye(3) - rotation, rcond=1e-3) @ (shift - axis * (axis @ shift))
    centre = across + axis * (axis @ (middle - across))
    x = chains[0].mean(axis=0) - centre
    x -= axis * (axis @ x)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(axis, x), axis]), centre


def equivalent_chains(model: Any, order: int) -> List[NDArray]:
    """C-alpha (or P) positions of ``order`` chains, the residues that all of them have. Raises InputError without them."""
    tables = []
    for chain in model:
        found: Dict[Tuple[str, str, str], List[float]] = {}
        for residue in chain:
            for name in ("CA", "P"):
                atom = residue.find_atom(name, "*")
                if atom is not None:
                    found[(str(residue.seqid), residue.name, name)] = atom.pos.tolist()
        if len(found) >= 10:
            tables.append(found)
    if len(tables) != order:
        raise InputError(f"structure: {len(tables)} chains, but C{order} needs {order}; give --symmetry C1")
    common = set(tables[0]).intersection(*tables[1:])
    if len(common) < 10:
        raise InputError(f"structure: its {order} chains have no residues in common; give --symmetry C1")
    keys = sorted(common)
    return [np.array([table[key] for key in keys]) for table in tables]


def centre_model(model: Any, order: int = 1) -> None:
    """Put the mean of all atoms at the origin; for ``order`` > 1 the n-fold axis on z first. Raises InputError without one.

    The chains of a deposited model differ a little. A truth with an exact symmetry is worth more here, so for ``order`` > 1
    the first chain is repeated and the others are left out.
    """
    if order == 1:
        transform(model, np.eye(3), positions(model).mean(axis=0))
        return
    transform(model, *cyclic_frame(equivalent_chains(model, order)))
    _repeat_first_chain(model, order)
    transform(model, np.eye(3), np.array([0.0, 0.0, positions(model)[:, 2].mean()]))


def _repeat_first_chain(model: Any, order: int) -> None:
    import gemmi

    most = max(chain.count_atom_sites() for chain in model)
    first = next(chain for chain in model if chain.count_atom_sites() > 0.9 * most).name  # not a ligand or water
    for name in [chain.name for chain in model if chain.name != first]:
        model.remove_chain(name)
    for turn in range(1, order):
        copy = model[0].clone()
        copy.name = f"{first}{turn}"
        angle = 2.0 * np.pi * turn / order
        matrix = [[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]]
        copy.whole().transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(matrix), gemmi.Vec3(0.0, 0.0, 0.0)))
        model.add_chain(copy)


def potential_grid(model: Any, spacing: float) -> Tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """(potential of the atoms in volt, ice displaced by the molecule 0..1, grid spacing in angstrom); ``(n, n, n)`` [z, y, x].

    The origin of the model is at index n // 2 of each axis. Electron scattering factors of International Tables C 4.3.2.2
    and the model's B factors (gemmi's DensityCalculatorE). The mask of van der Waals radii and a probe holds more than the
    molecule; it is thinned until it displaces as much ice as the mass does.
    """
    import gemmi

    reach = float(np.abs(positions(model)).max()) + 12.0  # B = 100 A^2 has faded away at 12 A
    n = int(np.ceil(2 * reach / spacing / 8.0)) * 8
    edge = n * spacing
    calculator = gemmi.DensityCalculatorE()
    calculator.grid.set_unit_cell(gemmi.UnitCell(edge, edge, edge, 90, 90, 90))
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.grid.set_size(n, n, n)
    calculator.d_min = 2.5 * spacing
    copy = model.clone()
    transform(copy, np.eye(3), np.full(3, -0.5 * edge))
    calculator.add_model_density_to_grid(copy)
    atoms = np.array(calculator.grid, copy=True)
    mask = gemmi.FloatGrid(n, n, n)
    mask.set_unit_cell(calculator.grid.unit_cell)
    mask.spacegroup = calculator.grid.spacegroup
    gemmi.SolventMasker(gemmi.AtomicRadiiSet.Cctbx).put_mask_on_float_grid(mask, copy)
    molecule = 1.0 - np.array(mask, copy=True)
    elements = [(site.atom.element, site.atom.occ) for site in model.all()]
    has_hydrogens = any(element.atomic_number == 1 for element, _ in elements)
    factor = VOLT_PER_SCATTERING * (1.0 if has_hydrogens else HYDROGEN_FACTOR)
    mass = sum(element.weight * occupancy for element, occupancy in elements) * (1.0 if has_hydrogens else HYDROGEN_MASS)
    molecule *= min(1.0, DISPLACED * mass / max(float(molecule.sum()) * spacing**3, 1e-9))
    # gemmi indexes [u, v, w] = [x, y, z]
    return (
        np.ascontiguousarray(atoms.transpose(2, 1, 0) * np.float32(factor)),
        np.ascontiguousarray(molecule.transpose(2, 1, 0), dtype=np.float32),
        spacing,
    )
