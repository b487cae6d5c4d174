"""Which particles stay, and that what stays is as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.model.tables import Dataset
from pyp_cspr.engine.pipeline.filter import apart, automatic_threshold, choose, filter_data, fit_mixture
from pyp_cspr.engine.sample.acquisition import acquire
from pyp_cspr.engine.sample.settings import SampleSettings


@pytest.fixture
def data(random) -> Dataset:
    """Two series of 30 particles with distinct scores and half-sets."""
    found = acquire(SampleSettings(series=2, particles=30, tilts=5, box=32, pixel=8.0), 77.0, lambda name: "")
    found.particles["score"] = random.permutation(60) + 20.0
    found.assign_halves()
    return found


@pytest.fixture
def scored(small_sample, tmp_path, random):
    """The small sample in a folder of its own, with scores, half-sets, weights and a column that we do not know."""
    dataset = read_dataset(small_sample)
    dataset.assign_halves()
    dataset.particles["score"] = random.permutation(36) + 1.0
    dataset.particles["weight"] = random.uniform(0.5, 1.0, 36)
    dataset.extra["fooNote"] = [f"note {name}" for name in dataset.particles["name"]]
    write_dataset(dataset, tmp_path / "scored")
    return tmp_path / "scored"


# --- the mixture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [200, 3000, 50_000])
def test_a_mixture_of_two_is_found_again(random, size):
    bad = random.random(size) < 0.3
    scores = np.where(bad, random.normal(12, 2, size), random.normal(30, 4, size))
    mixture = fit_mixture(scores)
    assert mixture.weights[0] == pytest.approx(0.3, abs=0.06)
    np.testing.assert_allclose(mixture.means, (12, 30), atol=4.0 / np.sqrt(size) * 5)
    np.testing.assert_allclose(mixture.sigmas, (2, 4), rtol=0.25 if size < 1000 else 0.08)
    threshold, _, reason = automatic_threshold(scores)
    assert "two groups" in reason
    assert np.mean((scores < threshold) != bad) < 0.02


def test_at_the_threshold_both_components_are_as_likely(random):
    mixture = fit_mixture(np.concatenate([random.normal(10, 1, 500), random.normal(20, 3, 1500)]))
    threshold = mixture.crossing()
    w, m, s = (np.array(part) for part in (mixture.weights, mixture.means, mixture.sigmas))
    density = w / s * np.exp(-0.5 * ((threshold - m) / s) ** 2)
    assert density[0] == pytest.approx(density[1], rel=1e-6)
    assert m[0] < threshold < m[1]


def test_equal_widths_cross_in_the_middle():
    spread = np.linspace(-3, 3, 2000)
    normal = np.repeat(spread, np.maximum(1, (200 * np.exp(-(spread**2) / 2)).astype(int)))
    threshold, _, _ = automatic_threshold(np.concatenate([normal + 10, normal + 20]))
    assert threshold == pytest.approx(15.0, abs=1e-3)


@pytest.mark.parametrize("size", [30, 300, 5000])
@pytest.mark.parametrize("kind", ["normal", "skewed", "skewed down", "few high ones"])
def test_one_group_is_left_whole(random, size, kind):
    """Scores of one group are often skewed: two normal distributions then fit better, but they are not two groups."""
    scores = {
        "normal": lambda: random.normal(30, 4, size),
        "skewed": lambda: random.gamma(4, 4, size),
        "skewed down": lambda: 60 - random.gamma(4, 4, size),
        "few high ones": lambda: np.concatenate([random.normal(20, 2, size), np.full(size // 30, 60.0)]),
    }[kind]()
    threshold, _, reason = automatic_threshold(scores)
    assert threshold is None, reason
    assert "nothing is removed" in reason


def test_order_and_scale_of_the_scores_change_nothing(random):
    scores = np.concatenate([random.normal(10, 2, 100), random.normal(25, 3, 300)])
    threshold, _, _ = automatic_threshold(scores)
    assert automatic_threshold(random.permutation(scores))[0] == threshold
    assert automatic_threshold(2 * scores + 5)[0] == pytest.approx(2 * threshold + 5, rel=1e-5)


@pytest.mark.parametrize("scores", [np.arange(5.0), np.full(100, 7.0), np.empty(0)])
def test_too_little_to_tell(scores):
    threshold, mixture, reason = automatic_threshold(scores)
    assert threshold is None
    assert mixture is None
    assert "nothing is removed" in reason


# --- the rules ------------------------------------------------------------------------------------------------------


def test_distance_is_kept_best_first(random):
    """Against the plain definition: go down the scores, keep what is not too near to one already kept."""
    positions, scores = random.uniform(0, 100, (300, 3)), random.permutation(300).astype(float)
    names = np.array([f"p{i:03d}" for i in range(300)])
    kept: list = []
    for row in np.argsort(-scores):
        if all(np.linalg.norm(positions[row] - positions[other]) >= 15 for other in kept):
            kept.append(row)
    np.testing.assert_array_equal(np.flatnonzero(apart(positions, scores, names, 15.0)), np.sort(kept))
    assert 10 < len(kept) < 200


def test_distance_exactly_and_scores_that_tie_or_are_missing():
    positions = np.array([[0.0, 0, 0], [10, 0, 0], [19, 0, 0]])
    names = np.array(["c", "b", "a"])
    np.testing.assert_array_equal(apart(positions, np.ones(3), names, 10.0), [True, False, True])  # a, then c at 19
    np.testing.assert_array_equal(apart(positions, np.array([np.nan, 5, np.nan]), names, 10.0), [True, True, False])
    twins = np.zeros((3, 3))
    np.testing.assert_array_equal(apart(twins, np.array([np.nan, 1.0, np.nan]), names, 1.0), [False, True, False])


def test_other_series_are_far_away(data):
    data.particles["position"][:] = 0.0
    data.particles["half"] = 1  # one particle of each series is left, of one half-set
    keep, result = choose(data, distance=5.0)
    assert result["n_particles"] == 2
    best = [data.particles_of(row)[np.argmax(data.particles["score"][data.particles_of(row)])] for row in (0, 1)]
    np.testing.assert_array_equal(np.flatnonzero(keep), best)


def test_given_threshold_is_inclusive_and_no_score_goes(data):
    data.particles["score"][5] = np.nan
    keep, result = choose(data, score=40.0)
    np.testing.assert_array_equal(keep, data.particles["score"] >= 40.0)
    assert result["removed"]["no_score"] == 1
    assert result["removed"]["score"] + 1 + result["n_particles"] == 60
    assert choose(data, min_projections=1)[0].all()


def test_projections_that_count(data):
    """Visible, enabled, and inside the image."""
    data.visible[3, :2] = False
    data.exposures["enabled"][data.exposures_of(0)[2]] = False
    data.particles["position"][40] = [5e4, 0, 0]  # far outside, save where it is seen edge-on, which is nowhere
    keep, result = choose(data, min_projections=4)
    np.testing.assert_array_equal(np.flatnonzero(~keep), [3, 40])
    assert result["removed"]["projections"] == 2
    assert not choose(data, min_projections=5)[0][data.particles_of(0)].any()


def test_bad_ones_do_not_keep_good_ones_away(data):
    """The score rule comes first: a false particle beside a true one does not matter, even without projections."""
    rows = data.particles_of(0)
    data.particles["position"][rows] = np.arange(len(rows))[:, None] * [1000.0, 0, 0]
    data.particles["position"][rows[1]] = data.particles["position"][rows[0]] + 1
    data.particles["score"][rows[0]], data.particles["score"][rows[1]] = 50.0, 90.0
    data.visible[rows[1]] = False
    data.visible[rows[1], 0] = True
    assert choose(data, distance=50.0)[0][rows[:2]].tolist() == [False, True]
    data.series["image_size"] = 0  # not known: all are inside
    assert choose(data, distance=50.0, min_projections=2)[0][rows[:2]].tolist() == [True, False]


def test_automatic_threshold_leaves_out_what_other_rules_removed(data, random):
    scores = np.concatenate([random.normal(10, 1, 30), random.normal(30, 2, 30)])
    data.particles["score"] = scores
    keep, result = choose(data, score="auto")
    np.testing.assert_array_equal(keep, scores > 20)
    assert 10 < result["threshold"] < 30
    data.visible[:30] = False
    data.series["image_size"] = 0
    keep, result = choose(data, score="auto", min_projections=1)
    assert result["threshold"] is None
    assert keep[30:].all()


@pytest.mark.parametrize("rules,message", [
    ({}, "nothing to filter by"),
    ({"score": 1000.0}, "remove all particles"),
    ({"score": "best"}, "a number or auto"),
    ({"score": float("nan")}, "a number or auto"),
    ({"distance": -1.0}, "0 or above"),
    ({"distance": float("nan")}, "0 or above"),
    ({"min_projections": 99}, "remove all particles"),
])
def test_rules_that_cannot_be(data, rules, message):
    with pytest.raises(InputError, match=message):
        choose(data, **rules)


def test_an_empty_half_set_is_refused(data):
    data.particles["score"] = np.where(data.particles["half"] == 1, 10.0, 50.0)
    with pytest.raises(InputError, match="half-set 1"):
        choose(data, score=20.0)


def test_no_scores_at_all(data):
    data.particles["score"] = np.nan
    with pytest.raises(InputError, match="no scores"):
        choose(data, score="auto")
    assert choose(data, distance=1.0)[0].all()


# --- files ----------------------------------------------------------------------------------------------------------


def test_what_stays_is_as_it_was(scored, small_sample, tmp_path):
    record = filter_data(str(scored), str(tmp_path / "out"), score=10.0)
    before, after = read_dataset(scored), read_dataset(tmp_path / "out")
    keep = before.particles["score"] >= 10.0
    assert len(after.particles) == keep.sum() == record["n_particles"] == 27
    for name in ("name", "half", "score", "weight"):
        np.testing.assert_array_equal(after.particles[name], before.particles[name][keep])
    for name in ("rotation", "position"):
        np.testing.assert_allclose(after.particles[name], before.particles[name][keep], atol=1e-6)
    assert after.extra["fooNote"] == [note for note, good in zip(before.extra["fooNote"], keep) if good]
    np.testing.assert_allclose(after.exposures["rotation"], before.exposures["rotation"], atol=1e-9)
    assert after.series["images"].tolist() == before.series["images"].tolist()
    assert after.series["images"][0].startswith(str(small_sample))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".mrc", ".mrcs")]
    assert json.loads((tmp_path / "out" / "filter.json").read_text()) == record
    assert sum(record["histogram"]["counts"]) == 36
    assert sum(record["half_sets"]) == 27


def test_filtering_again_changes_nothing(scored, tmp_path):
    filter_data(str(scored), str(tmp_path / "one"), score=10.0, distance=200.0, min_projections=5)
    filter_data(str(tmp_path / "one"), str(tmp_path / "two"), score=10.0, distance=200.0, min_projections=5)
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "particles.star").read_text() == (two / "particles.star").read_text()


def test_the_command_says_what_each_rule_removed(scored, tmp_path, capsys):
    assert main(["filter", str(scored), "--out", str(tmp_path / "a"), "--score", "10", "--min-projections", "9"]) == 0
    text = capsys.readouterr().out
    assert "score threshold 10.000: as given" in text
    assert "kept         27 of 36 particles" in text
    assert "9 below the score" in text
    assert main(["filter", str(scored), "--out", str(tmp_path / "b"), "--score", "auto", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["automatic"] is True
    assert values["threshold"] is None
    assert values["n_particles"] == 36
    assert main(["filter", str(scored), "--out", str(tmp_path / "c"), "--score", "auto"]) == 0
    assert "nothing is removed by score" in capsys.readouterr().out


def test_folders_that_cannot_be(scored, tmp_path, capsys):
    def refused(*words: str) -> str:
        assert main(["filter", str(scored), *words]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        return lines[0]

    out = str(tmp_path / "out")
    assert "is the data set itself" in refused("--out", str(scored), "--score", "3")
    assert "is the data set itself" in refused("--out", str(scored), "--score", "3", "--overwrite")
    assert "remove all particles" in refused("--out", out, "--score", "99")
    assert not (tmp_path / "out").exists()
    assert main(["filter", str(scored), "--out", out, "--score", "3"]) == 0
    capsys.readouterr()
    assert "holds a data set" in refused("--out", out, "--score", "4")
    assert main(["filter", str(scored), "--out", out, "--score", "4", "--overwrite"]) == 0
    capsys.readouterr()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert "holds a reconstruction" in refused("--out", str(tmp_path / "run"), "--score", "4", "--overwrite")
    (tmp_path / "file").write_text("")
    assert "cannot be made" in refused("--out", str(tmp_path / "file" / "out"), "--score", "4")
    assert main(["filter", str(tmp_path / "nothing"), "--out", out, "--score", "4"]) == 2
