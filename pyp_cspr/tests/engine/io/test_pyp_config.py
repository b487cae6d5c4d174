"""The files of a PYP project's configuration: merged in order, and refused with the file and line."""

from __future__ import annotations

import random as python_random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.pyp_config import (
    FILES,
    known_name,
    parse_arguments,
    read_configuration,
    read_configuration_text,
    read_configuration_toml,
    write_configuration,
)
from pyp_cspr.engine.model.pyp_configuration import PypConfiguration
from pyp_cspr.engine.model.pyp_keys import all_keys, old_names
from pyp_cspr.engine.model.pyp_settings import settings_of, warnings_of

DOCUMENTED = ["-csp_refine", "path_to_sva_alignments.txt", "-csp_model", "path_to_sva_map.mrc", "-particle_fmt", "frealign",
              "-tasks_per_arr", "2"]


def test_the_documented_command(tmp_path) -> None:
    configuration = read_configuration(tmp_path, DOCUMENTED)
    assert configuration.values == {"csp_refine": "path_to_sva_alignments.txt", "csp_model": "path_to_sva_map.mrc",
                                    "extract_fmt": "frealign", "slurm_bundle_size": 2}
    assert set(configuration.origins.values()) == {"command line"}


def test_each_file_stands_above_those_before_it_and_the_command_line_above_all(tmp_path) -> None:
    lines = {".pyp_config": "refine_rhref = {}\n", ".pyp_config.toml": "refine_rhref = {}\n", "frealign.config": "rhref {}\n",
             "parameters.config": "# CSP\nrefine_rhref   {}\n"}
    assert tuple(lines) == FILES
    for number, (name, line) in enumerate(lines.items(), start=1):
        (tmp_path / name).write_text(line.format(number))
        configuration = read_configuration(tmp_path)
        assert configuration.values == {"refine_rhref": float(number)}
        place = 2 if name == "parameters.config" else 1
        assert configuration.origin("refine_rhref") == f"{tmp_path / name}:{place}"
    configuration = read_configuration(tmp_path, ["-rhref", "9:8"])
    assert configuration.values == {"refine_rhref": [9.0, 8.0]}
    assert configuration.origin("rhref") == "command line"


def test_what_only_one_file_says_is_kept(tmp_path) -> None:
    (tmp_path / ".pyp_config").write_text("scope_pixel = 1.35\nmovie_bin = 2\n")
    (tmp_path / "parameters.config").write_text("ToleranceMicrographShifts\t50\n")
    configuration = read_configuration(tmp_path, ["-csp_skip"])
    assert configuration.values == {"scope_pixel": 1.35, "csp_ToleranceMicrographShifts": 50.0, "csp_skip": True}
    assert configuration.others == {"movie_bin": f"{tmp_path / '.pyp_config'}:2"}


def test_a_folder_without_files_gives_nothing(tmp_path) -> None:
    assert read_configuration(tmp_path) == PypConfiguration()


@pytest.mark.parametrize(("line", "name", "value"), [
    ("refine_rhref = 8", "refine_rhref", 8.0), ("refine_rhref=8", "refine_rhref", 8.0), ("rhref 8 # best", "refine_rhref", 8.0),
    ("  rhref\t\t8:6  ", "refine_rhref", [8.0, 6.0]), ("rhref = '8:6'", "refine_rhref", [8.0, 6.0]),
    ('csp_Grid = "4, 4, 1"  # regions', "csp_Grid", "4,4,1"), ("csp_model = maps/a#1.mrc", "csp_model", "maps/a#1.mrc"),
    ("csp_model = 'my map.mrc' # here", "csp_model", "my map.mrc"), ("csp_model = my map.mrc", "csp_model", "my map.mrc"),
    ("csp_refine_ctf = t", "csp_refine_ctf", True), ("slurm_queue =", "slurm_queue", ""), ("slurm_queue", "slurm_queue", ""),
    ("slurm_gres = a=1", "slurm_gres", "a=1"), ("RefineParticlesTheta 0\r", "refine_refine_angle_theta", False),
])
def test_lines_of_text_files(tmp_path, line, name, value) -> None:
    path = tmp_path / "frealign.config"
    path.write_bytes(f"# comment\n\n{line}\n".encode())
    configuration = read_configuration_text(path)
    assert configuration.values == {name: value}
    assert configuration.origin(name) == f"{path}:3"


@pytest.mark.parametrize(("text", "values"), [
    ("csp_refine_ctf = true\nrefine_rhref = '16:8'\n", {"csp_refine_ctf": True, "refine_rhref": [16.0, 8.0]}),
    ("refine_rhref = [16, 8.5]\n", {"refine_rhref": [16.0, 8.5]}), ("slurm_tasks = 4\n", {"slurm_tasks": 4}),
    ("'scope_pixel' = 1.35\n", {"scope_pixel": 1.35}), ("csp_refine_ctf = [false, true]\n", {"csp_refine_ctf": [False, True]}),
])
def test_toml(tmp_path, text, values) -> None:
    path = tmp_path / ".pyp_config.toml"
    path.write_text("# PYP\n" + text)
    configuration = read_configuration_toml(path)
    assert configuration.values == values
    assert configuration.origin(next(iter(values))) == f"{path}:2"


@pytest.mark.parametrize(("name", "content", "message"), [
    ("frealign.config", b"\nrhref 8\nrhreff 8\n", "frealign.config:3: unknown key 'rhreff'; did you mean rhref?"),
    ("frealign.config", b"rhref eight\n", "frealign.config:1: refine_rhref is 'eight'; it must be a number"),
    ("frealign.config", b"rhref 8\n???\n", "frealign.config:2: '???' is not a key and its value"),
    ("frealign.config", b"rhref 8\n\xff\n", "frealign.config:2: is not text (UTF-8)"),
    (".pyp_config", b"rhref = \n", ".pyp_config:1: refine_rhref is ''; it must be a number"),
    (".pyp_config.toml", b"a = 1\nrefine_rhref = 2\n", ".pyp_config.toml:1: unknown key 'a'"),
    (".pyp_config.toml", b"refine_rhref = 2\n\n  slurm_task = 2\n",
     ".pyp_config.toml:3: unknown key 'slurm_task'; did you mean slurm_tasks?"),
    (".pyp_config.toml", b"refine_rhref =\n", "cannot be read as TOML"),
    (".pyp_config.toml", b"\n[csp]\nrefine_ctf = true\n", ".pyp_config.toml:2: 'csp' is a table; PYP's keys are flat"),
    (".pyp_config.toml", b"refine_rhref = []\n", ".pyp_config.toml:1: 'refine_rhref' is not a value"),
    (".pyp_config.toml", b"refine_rhref = 2020-01-01\n", "refine_rhref is '2020-01-01'"),
    (".pyp_config.toml", b"a = " + b"[" * 5000, "PYP_OR_TOML"),
])
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, name, content, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_configuration(tmp_path)
    assert message in str(caught.value) or message == "PYP_OR_TOML"
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / ".pyp_config").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_configuration(tmp_path)
    (tmp_path / ".pyp_config").rmdir()
    (tmp_path / ".pyp_config").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read"):
        read_configuration(tmp_path)
    (tmp_path / ".pyp_config").unlink()
    with open(tmp_path / ".pyp_config", "wb") as file:
        file.truncate(5_000_000)
    with pytest.raises(InputError, match="is larger than"):
        read_configuration(tmp_path)


@pytest.mark.parametrize(("arguments", "values"), [
    (["-csp_skip", "True"], {"csp_skip": True}), (["-csp_skip", "-csp_refine_ctf"], {"csp_skip": True, "csp_refine_ctf": True}),
    (["-no-csp_refine_ctf"], {"csp_refine_ctf": False}), (["-rhref=8:6"], {"refine_rhref": [8.0, 6.0]}),
    (["--slurm_tasks", "4"], {"slurm_tasks": 4}), (["-lastframe", "-1"], {"reconstruct_lastframe": -1}),
    (["-mintilt", "-40.5:-30"], {"reconstruct_mintilt": [-40.5, -30.0]}),
    (["-csp_skip", "False", "-csp_skip"], {"csp_skip": True}),
    (["-slurm_queue", ""], {"slurm_queue": ""}), (["-metric_rhref", "5", "-refine_rhref", "9"], {"refine_rhref": 5.0}),
])
def test_the_command_line(arguments, values) -> None:
    assert parse_arguments(arguments).values == values


@pytest.mark.parametrize(("arguments", "message"), [
    (["map.mrc"], "'map.mrc' is no key; write -key value"), (["-csp_model"], "-csp_model needs a value: starting map"),
    (["-csp_model", "-csp_skip"], "-csp_model needs a value"), (["-no-csp_model"], "-no-csp_model needs a value"),
    (["-"], "is no key"), (["-csp_modl", "x"], "unknown key 'csp_modl'; did you mean csp_model?"), (["-nokey"], "unknown key"),
    (["-csp_skip", "perhaps"], "csp_skip is 'perhaps'; it must be True or False"),
])
def test_a_wrong_command_line(arguments, message) -> None:
    with pytest.raises(InputError) as caught:
        parse_arguments(arguments)
    assert str(caught.value).startswith("command line: ")
    assert message in str(caught.value)


def test_known_name() -> None:
    assert known_name("tasks_per_arr") == "slurm_bundle_size"
    assert known_name("csp_refine") == "csp_refine"
    with pytest.raises(InputError, match="did you mean"):
        known_name("tasks_per_array")


NUMBERS = st.sampled_from(["8", "16:12:8", "1.5", "-1", "0", "4"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(all_keys())), NUMBERS, max_size=12),
       st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=15))
def test_a_configuration_is_written_and_read_back(tmp_path_factory, pairs, text) -> None:
    configuration = PypConfiguration()
    for name, value in pairs.items():
        try:
            configuration.give(name, value, "here")
        except InputError:
            continue
    if not ("'" in text and '"' in text):
        configuration.give("csp_model", text, "here")
    path = tmp_path_factory.getbasetemp() / "round_trip.config"
    path.write_text(write_configuration(configuration), encoding="utf-8")
    assert read_configuration_text(path).values == configuration.values


# --- fuzz: whatever the bytes, an InputError of one line or a configuration ----------------------------------------------

PIECES = [b"refine_rhref", b"csp_Grid", b"=", b" ", b"\n", b"\t", b"#", b"'", b'"', b"[", b"]", b"{", b"8", b":", b",", b"-1",
          b"1e999", b"true", b"True", b"\xff", b"\x00", b"\xe2\x80\xa8", b"nan", b"inf", b"csp_refine_ctf", b"movie_x", b".",
          b"\\", b"9" * 50, b"\xc2\xb2", b"mask", b"\r\n", b"0x10", b"1_000", b"particle_sym", b"T", b"__class__",
          b"2020-01-01"]
GOOD = (b"# PYP\nrefine_rhref = '16:12:8'\ncsp_Grid = \"4,4,1\"\ncsp_refine_ctf = true\nscope_pixel = 1.35\nslurm_tasks = 4\n"
        b"csp_model = 'maps/start.mrc'\nreconstruct_lastframe = -1\n")


def fuzz(folder: Path, cases: int, seed: int) -> int:
    """Reads that went through. Anything but an InputError of one line is an error of the program."""
    random, read = python_random.Random(seed), 0
    names = [*all_keys(), *old_names()]
    for case in range(cases):
        if case % 3 == 0:
            content = b"".join(random.choices(PIECES, k=random.randrange(30)))
        elif case % 3 == 1:
            flipped = bytearray(GOOD)
            for _ in range(random.choice((1, 1, 2, 5))):
                flipped[random.randrange(len(flipped))] = random.randrange(256)
            content = bytes(flipped[: random.randrange(len(flipped) + 1)]) if random.random() < 0.3 else bytes(flipped)
        else:
            values = [*(piece.decode("latin-1") for piece in PIECES), "1", "2", "0", "True", "1,1,1", "8:4"]
            lines = [f"{random.choice(names)} = {random.choice(values)}" for _ in range(random.randrange(3))]
            content = "\n".join(lines).encode()
        path = folder / random.choice(FILES)
        path.write_bytes(content)
        arguments = ["".join(random.choice(part) for part in (["-", "--", "", "-no-"], [*names, "x", "8", ""], ["", "=", "=8"]))
                     for _ in range(random.choice((0, 0, 0, 0, 1, 2)))]
        lines = []
        try:
            configuration = read_configuration(folder, arguments)
            settings_of(configuration, random.randrange(2, 6))
            lines = warnings_of(configuration)
            read += 1
        except InputError as error:
            lines.append(str(error))
        assert all("\n" not in line and len(line) < 1000 for line in lines)
        path.unlink()
    return read


def test_fuzz(tmp_path) -> None:
    assert 30 < fuzz(tmp_path, 400, 1) < 370


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fuzz_20_000_cases(tmp_path) -> None:
    assert fuzz(tmp_path, 20_000, 2) > 2000
