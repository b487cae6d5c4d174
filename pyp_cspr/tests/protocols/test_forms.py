"""What the host shows of the protocols: the tree, the forms, their labels, sections and defaults."""

from __future__ import annotations

import configparser
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pyp_cspr
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.model.settings import ReconstructSettings, RefineSettings
from pyp_cspr.protocols import ProtPypCsprReconstruct, ProtPypCsprRefine
from pyp_cspr.protocols import form as rows

pytestmark = pytest.mark.timeout(120)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(host):
    folder, environment = host
    line = [sys.executable, str(HERE / "list_plugin.py")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, env=environment, cwd=folder, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout + done.stderr
    assert "pyp_cspr" not in "".join(line for line in (done.stdout + done.stderr).splitlines() if "import properly" in line)
    return json.loads(lines[0][7:])


def test_the_host_finds_the_protocols(found) -> None:
    labels = {name: one["label"] for name, one in found.items() if not one["base"]}
    assert labels == {"ProtPypCsprSample": "sample data", "ProtPypCsprRefine": "refine tilt series",
                      "ProtPypCsprReconstruct": "reconstruct from tilt series", "ProtPypCsprFilter": "filter particles",
                      "ProtPypCsprPostProcess": "post-process", "ProtPypCsprImport": "import PYP alignments",
                      "ProtPypCsprExport": "export to PYP / RELION"}


def tree(title):
    """(protocol, the sections above it) of the plugin's part of a tree of the host."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(Path(pyp_cspr.__file__).parent / "protocols.conf")
    named = []

    def walk(nodes, above) -> None:
        for node in nodes:
            if node["tag"] == "protocol":
                named.append((node["value"], above))
            walk(node.get("children", ()), (*above, node["text"]))

    walk(json.loads(parser.get("PROTOCOLS", title)), ())
    return dict(named)


def test_every_protocol_is_in_the_tree(found) -> None:
    assert sorted(tree("Tomography")) == sorted(name for name, one in found.items() if not one["base"])
    # Those that need tilt series have no place among single particles.
    assert tree("Protocols SPA") == {"ProtPypCsprPostProcess": ("3D", "Postprocess")}


@pytest.mark.parametrize("title, package", [("Tomography", "tomo"), ("Protocols SPA", "pwem")])
def test_sections_are_those_of_the_host(title, package) -> None:
    """A section of another name would be a new one."""
    parser = configparser.ConfigParser(comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(Path(importlib.util.find_spec(package).origin).parent / "protocols.conf")
    known = set()

    def walk(nodes, above) -> None:
        for node in nodes:
            known.add((*above, node["text"]))
            walk(node.get("children", ()), (*above, node["text"]))

    walk(json.loads(parser.get("PROTOCOLS", title)), ())
    assert set(tree(title).values()) <= known


def test_forms_have_labels_with_units_and_help(found) -> None:
    sections = [one["section"] for one in found["ProtPypCsprRefine"]["parameters"].values()]
    order = list(dict.fromkeys(sections))
    for name in ("Input", "What to refine", "Resolution and iterations", "Reconstruction", "Selection", "Resources"):
        assert name in order
    for protocol in found.values():
        for name, one in protocol["parameters"].items():
            if one["section"] in ("General", "Parallelization"):
                continue
            assert one["label"], name
            assert one["help"], name


def test_every_setting_of_the_engine_is_in_the_form() -> None:
    """But box and pixel, which come from the reference or their own parameters."""
    names = [row.setting for row in rows.ROWS]
    assert len(set(names)) == len(names)
    assert set(names) == set(RefineSettings().to_dict()) - {"box", "pixel"}
    for row in rows.ROWS:
        length = any(part in row.setting for part in ("position", "shift", "defocus", "astigmatism", "resolution", "radius"))
        angle = any(part in row.setting for part in ("rotation", "angle", "cone", "step", "tilt_m", "theta"))
        if length and row.setting not in ("search_resolution", "defocus_grid"):  # the latter is a count
            assert "(A)" in row.label, row
        if angle:
            assert "(degrees)" in row.label, row


def test_reconstruct_has_every_setting_that_it_can_use() -> None:
    assert ProtPypCsprReconstruct()._values() == ReconstructSettings().to_dict()


def test_the_forms_defaults_are_the_engines() -> None:
    protocol = ProtPypCsprRefine()
    values = protocol._values()
    default = RefineSettings().to_dict()
    assert values == {name: default[name] for name in values}


@pytest.mark.parametrize("text, wanted", [("12", 12.0), ("12 8", [12.0, 8.0]), ("10x2 5", [10.0, 10.0, 5.0])])
def test_values_by_iteration(text, wanted) -> None:
    protocol = ProtPypCsprRefine()
    protocol.resolution.set(text)
    assert protocol._values()["resolution"] == wanted


@pytest.mark.parametrize("text", ["", "12 fine"])
def test_what_is_no_list_of_numbers_is_refused(text) -> None:
    protocol = ProtPypCsprRefine()
    protocol.resolution.set(text)
    with pytest.raises(InputError, match="Finest detail used"):
        protocol._values()
