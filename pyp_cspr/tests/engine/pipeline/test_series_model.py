"""The coefficients of one series in memory: cut in parts, taken from a finer model, handed to searches and to the solver."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import numpy as np
import pytest

from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.model.settings import RefineSettings
from pyp_cspr.engine.model.task import ChunkJournal
from pyp_cspr.engine.pipeline import refine_series, selection
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.pipeline.series_model import EXTRACT_SHARE, SeriesModel, geometry_of
from pyp_cspr.engine.sample.make import make_sample
from pyp_cspr.engine.sample.settings import SampleSettings


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("series_model") / "sample"
    make_sample(folder, SampleSettings(series=1, particles=20, tilts=9, box=32, pixel=8.0, dose=20.0, seed=5), threads=2)
    return folder


def model_of(sample: Path, resolution: float = 20.0, **options: Any) -> SeriesModel:
    data = read_dataset(sample)
    data.assign_halves()
    settings = RefineSettings()
    grid = refine_series.refinement_grid(map_grid(data, settings), resolution)
    reference = Reference(read_map(str(sample / "reference.mrc"))[0], 1.5, grid.radius)
    return SeriesModel(data, 0, [reference], grid, settings, ChunkJournal(), **options)


def test_a_coarse_model_takes_the_coefficients_of_a_fine_one(sample) -> None:
    fine = model_of(sample)
    cut = refine_series.coarse_model(fine, 30.0, fine.memory)  # there is nothing to take yet
    geometry = geometry_of(fine.dataset, 0)
    fine.measure(geometry)
    taken = refine_series.coarse_model(fine, 30.0, fine.memory)
    taken.images = None  # nothing is read
    assert len(taken.band) < len(fine.band)
    rows = np.arange(len(fine))
    np.testing.assert_array_equal(taken.coefficients(rows), cut.coefficients(rows))
    np.testing.assert_array_equal(taken.measure(geometry).noise, cut.measure(geometry).noise)


@pytest.mark.parametrize("threads", [1, 4])
def test_crops_of_all_threads_stay_within_their_share_of_memory(sample, threads, monkeypatch) -> None:
    memory = 24 * 32 * 32 * 4 * 2 / EXTRACT_SHARE  # for 24 crops
    model = model_of(sample, threads=threads, memory=int(memory))
    expected = model_of(sample)._extract(np.arange(len(model)))
    counts: List[int] = []
    crops = model.images.crops

    def counted(exposure, particles, *rest):
        counts.append(len(particles))
        return crops(exposure, particles, *rest)

    monkeypatch.setattr(model.images, "crops", counted)
    found = model._extract(np.arange(len(model)))
    assert max(counts) == max(8, min(20, 24 // threads))
    np.testing.assert_array_equal(found, expected)


def test_a_search_of_all_exposures_copies_nothing(sample) -> None:
    model = model_of(sample)
    model.measure(geometry_of(model.dataset, 0))
    whole = next(iter(model.search_data()))
    assert np.shares_memory(whole.weighted, next(iter(model._loaded())).weighted)
    some = next(iter(model.search_data(np.array([2, 3]))))
    assert set(some.exposure) == {2, 3}
    np.testing.assert_array_equal(some.weighted, whole.weighted[np.isin(whole.exposure, [2, 3])])


@pytest.mark.parametrize("values", [{}, {"refinement_last": 4}])
def test_the_solver_of_a_series_works_on_its_threads(sample, values, monkeypatch) -> None:
    model = model_of(sample, threads=3)
    model.settings = RefineSettings(**values)
    start, given = geometry_of(model.dataset, 0), []
    solve = selection.solve_series

    def spied(*args: Any) -> Any:
        given.append(args[6])
        return solve(*args)

    monkeypatch.setattr(selection, "solve_series", spied)
    model.measure(start)
    selection.solve_informed(model, start, start, len(model.band), False, refine_series.solve_options(model.settings))
    assert given == [3] * (2 if values else 1)


@pytest.mark.parametrize("values", [
    {"search_shift": 20.0}, {"search_shift": 20.0, "search_cone": 10.0, "search_step": 5.0, "symmetry": "C3"}])
def test_a_search_leaves_positions_that_are_fixed(sample, values) -> None:
    model = model_of(sample)
    model.dataset.particles["position"] += 9.0
    start = geometry_of(model.dataset, 0)
    settings = RefineSettings(prior_position=0.0, **values)
    found = refine_series.search(model, start, settings, refine_series.solve_options(settings))
    np.testing.assert_array_equal(found.positions, start.positions)
    assert np.abs(found.shifts - start.shifts).max() + np.abs(found.poses - start.poses).max() > 0.01
    free = RefineSettings(**values)
    found = refine_series.search(model, start, free, refine_series.solve_options(free))
    assert np.abs(found.positions - start.positions).max() > 1.0


@pytest.mark.parametrize(("values", "match"), [
    ({"search_cone": 20.0, "prior_rotation": 0.0}, "search_cone 20 with prior_rotation 0"),
    ({"search_shift": 10.0, "prior_position": 0.0, "prior_shift": 0.0}, "search_shift 10 with prior_position 0 and prior"),
])
def test_a_search_of_what_is_fixed_is_refused(values, match) -> None:
    with pytest.raises(InputError, match=match):
        RefineSettings(**values).check()
