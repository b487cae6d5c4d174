"""Point groups: sizes, axes, closure, and RELION's own list where the program is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import rotation_x, rotation_z
from pyp_cspr.engine.core.symmetry import group_matrices

ORDERS = {"C1": 1, "C2": 2, "C3": 3, "C7": 7, "C12": 12, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24}
ORDERS.update(dict.fromkeys(("I", "I1", "I2", "I3", "I4"), 60))


def _holds(group: np.ndarray, axis: object, fold: int) -> bool:
    """Whether the group has a rotation by 360 / fold about the axis."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = 2 * np.pi / fold
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return bool((np.abs(group - turn).max(axis=(1, 2)) < 1e-9).any())


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_group_is_a_group_of_rotations(name: str) -> None:
    group = group_matrices(name)
    assert group.shape == (ORDERS[name], 3, 3)
    assert group.dtype == np.float64
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(group @ np.swapaxes(group, 1, 2), np.broadcast_to(np.eye(3), group.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(group), 1.0, atol=1e-12)
    distance = np.abs(group[:, None] - group).max(axis=(2, 3)) + 9 * np.eye(len(group))
    assert distance.min() > 1e-3  # no member twice
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 1, 3, 3)
    assert np.abs(products - group).max(axis=(2, 3)).min(axis=1).max() < 1e-10


@pytest.mark.parametrize(
    "name, axis, fold",
    [
        ("C3", (0, 0, 1), 3),
        ("C7", (0, 0, 1), 7),
        ("D7", (0, 0, 1), 7),
        ("D7", (1, 0, 0), 2),
        ("D2", (0, 1, 0), 2),
        ("T", (0, 0, 1), 3),
        ("T", (0, np.sqrt(2), 1), 2),
        ("O", (0, 0, 1), 4),
        ("O", (1, 0, 0), 4),
        ("O", (1, 1, 1), 3),
        ("I1", (1, 0, 0), 2),
        ("I1", (0.85065080835, 0, -0.52573111212), 5),
        ("I1", (0.93417235896, 0.35682208977, 0), 3),
        ("I2", (0, 0, 1), 2),
        ("I2", (0.52573111212, 0, 0.85065080835), 5),
        ("I2", (0, 0.35682208977, 0.93417235896), 3),
        ("I3", (0, 0, 1), 5),
        ("I3", (-0.52573111212, 0, 0.85065080835), 2),
        ("I4", (0, 0, 1), 5),
        ("I4", (0.52573111212, 0, 0.85065080835), 2),
    ],
)
def test_axes_lie_where_relion_has_them(name: str, axis: object, fold: int) -> None:
    assert _holds(group_matrices(name), axis, fold)


def test_settings_of_the_icosahedron_differ_as_documented() -> None:
    quarter, half = rotation_z(90.0), rotation_z(180.0)
    second = group_matrices("I2")
    turned = quarter @ second @ quarter.T
    assert _same(turned, group_matrices("I1"))
    assert _same(half @ group_matrices("I3") @ half.T, group_matrices("I4"))
    assert not _same(second, group_matrices("I1"))
    assert not _same(group_matrices("I3"), group_matrices("I4"))
    assert _same(second, group_matrices("I"))
    assert not _holds(second, (0.85065080835, 0, -0.52573111212), 5)  # I1's axis


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first[:, None] - second).max(axis=(2, 3)).min(axis=1).max() < 1e-9)


def test_dihedral_two_fold_is_exact() -> None:
    assert (np.abs(group_matrices("D7") - rotation_x(180.0)).max(axis=(1, 2)) < 1e-15).any()


def test_names_in_any_case_and_copies() -> None:
    first = group_matrices(" d2 ")
    first[:] = 0
    assert group_matrices("D2")[0, 0, 0] == 1


@pytest.mark.parametrize("name", ["", "C", "C0", "D0", "X3", "I5", "C-2", "C100", "T2", "helical", "C3v"])
def test_unknown_names_are_refused_plainly(name: str) -> None:
    with pytest.raises(ValueError, match="unknown point group"):
        group_matrices(name)


@pytest.mark.needs_relion
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(set(ORDERS) - {"C12", "O"}) + ["O"])
def test_matrices_are_those_relion_prints(name: str, relion: str) -> None:
    program = Path(relion).with_name("relion_refine")
    if not program.exists():
        pytest.skip("RELION is not installed (no relion_refine beside relion_project)")
    printed = subprocess.run(
        [str(program), "--sym", name, "--print_symmetry_ops"], stdout=subprocess.PIPE, check=False, timeout=60
    ).stdout.decode()
    number = r"\s*(-?[\d.]+(?:e-?\d+)?)"
    found = re.findall(r"R\(\d+\)=\s*" + number * 9, printed)
    theirs = np.array(found, dtype=float).reshape(-1, 3, 3)
    ours = group_matrices(name)
    assert len(theirs) == len(ours)
    assert np.abs(theirs[:, None] - ours).max(axis=(2, 3)).min(axis=1).max() < 1e-5
