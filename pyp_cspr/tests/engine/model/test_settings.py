"""Settings refuse what they do not know and what cannot be, in one line."""

import dataclasses

import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.model.settings import ReconstructSettings


def test_a_dictionary_and_back():
    values = {"box": 64, "pixel": 2.5, "symmetry": "d7", "padding": 2.0, "dose_weighting": False, "seed": 9}
    settings = ReconstructSettings.from_dict(values)
    assert settings.box == 64
    assert {name: settings.to_dict()[name] for name in values} == values
    assert ReconstructSettings.from_dict(settings.to_dict()) == settings


def test_the_defaults_are_valid():
    assert ReconstructSettings.from_dict({}) == ReconstructSettings()


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ReconstructSettings().box = 32  # type: ignore[misc]


@pytest.mark.parametrize(("values", "message"), [
    ({"boks": 64}, "unknown setting 'boks'; known: box,"),
    ({"box": 15}, "box 15; it must be even and at least 16"),
    ({"box": 14}, "box 14"),
    ({"box": -32}, "box -32"),
    ({"pixel": -1.0}, "pixel -1 A"),
    ({"padding": 0.5}, "padding 0.5"),
    ({"padding": 5.0}, "padding 5"),
    ({"symmetry": "X3"}, "symmetry 'X3'"),
    ({"symmetry": "C0"}, "symmetry 'C0'"),
    ({"symmetry": ""}, "symmetry ''"),
])
def test_a_wrong_value_is_one_line_with_the_file_and_the_setting(values, message):
    with pytest.raises(InputError) as caught:
        ReconstructSettings.from_dict(values, "run.toml")
    assert str(caught.value).startswith("run.toml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [
    {"box": "64"}, {"box": 64.5}, {"pixel": "2"}, {"padding": None}, {"symmetry": 3}, {"dose_weighting": "yes"}, {"seed": 1.5},
    {"pixel": float("nan")},
])
def test_a_value_of_another_type_is_refused(values):
    name = next(iter(values))
    with pytest.raises(InputError, match=name):
        ReconstructSettings.from_dict(values, "run.toml")


def test_whole_numbers_serve_as_real_ones():
    assert ReconstructSettings.from_dict({"pixel": 2, "padding": 2}).pixel == 2.0
