from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.config import read_json, read_settings, read_toml, write_json, write_settings, write_toml
from pyp_cspr.engine.model.settings import ReconstructSettings


@pytest.mark.parametrize("table", ["", "reconstruct"])
def test_settings_round_trip(tmp_path, table):
    settings = ReconstructSettings(box=64, pixel=2.5, symmetry="D7", dose_weighting=False, seed=4)
    write_settings(tmp_path / "s.toml", settings, table)
    assert read_settings(tmp_path / "s.toml", ReconstructSettings, table) == settings
    (tmp_path / "s.toml").write_text("")
    assert read_settings(tmp_path / "s.toml", ReconstructSettings, table) == ReconstructSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bxo = 3", "s.toml: unknown setting 'bxo'"),
        ("box = ", "s.toml: cannot be read as TOML"),
        ("box = 15", "s.toml: box 15; it must be even"),
        ("box = 16\nbox = 16", "cannot be read as TOML"),
    ],
)
def test_wrong_settings(tmp_path, text, message):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_settings(tmp_path / "s.toml", ReconstructSettings)
    assert "\n" not in str(caught.value)


def test_wrong_toml_files(tmp_path):
    (tmp_path / "s.toml").write_text("reconstruct = 3")
    with pytest.raises(InputError, match="want a table"):
        read_settings(tmp_path / "s.toml", ReconstructSettings, "reconstruct")
    (tmp_path / "s.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        read_toml(tmp_path / "s.toml")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        read_toml(tmp_path / "missing.toml")
    with pytest.raises(InputError, match="cannot be written"):
        write_toml(tmp_path / "s.toml" / "x.toml", {})


def test_json_round_trip(tmp_path):
    value = {"a": np.float32(0.5), "b": np.arange(3), "c": [np.int64(3), float("nan"), True, None], 4: ("x", np.bool_(True))}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == {"a": 0.5, "b": [0, 1, 2], "c": [3, None, True, None], "4": ["x", True]}


def test_wrong_json(tmp_path):
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_json(tmp_path / "v.json")
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "v.json").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as JSON"):
            read_json(tmp_path / "v.json")
    with pytest.raises(TypeError):
        write_json(tmp_path / "w.json", object())
    assert not (tmp_path / "w.json").exists()
