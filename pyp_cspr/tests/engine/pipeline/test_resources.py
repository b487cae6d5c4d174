"""How much memory a process may take."""

from __future__ import annotations

import os

import pytest

from pyp_cspr.engine.pipeline.resources import GIB, available_memory, share_out

NAMES = ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """64 GiB free, and no SLURM."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    sizes = {"SC_AVPHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


@pytest.mark.parametrize("values, gib", [
    (("", "", ""), 64),
    (("8192", "", "4"), 8),
    (("0", "", "4"), 64),  # all of the node
    (("", "2048", "4"), 8),
    (("", "2048", ""), 64),
    (("1048576", "", ""), 64),  # more than there is
])
def test_a_job_takes_no_more_than_it_asked_for(monkeypatch, values, gib) -> None:
    for name, value in zip(NAMES, values):
        if value:
            monkeypatch.setenv(name, value)
    assert available_memory() == gib * GIB
    assert share_out(2, 1, 0.0, 4) == (2, 1, gib * GIB // 4)
    assert share_out(2, 1, 3.0, 4) == (2, 1, 3 * GIB // 2)
