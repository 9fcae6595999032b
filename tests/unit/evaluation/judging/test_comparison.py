"""The paired bootstrap test: silent where nothing differs, and seldom wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.metrics import resample
from tests.unit.evaluation.judging.classified import figures


def accuracies(draws: np.ndarray, *right: np.ndarray) -> list[np.ndarray]:
    """The accuracy, on each draw, of systems that are right on the rows given."""
    return [figures(np.ones(len(draws), int), system.astype(int), 2, draws)["accuracy"] for system in right]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(2, 80), seed=st.integers(0, 10_000))
def test_identical_systems_never_differ(rows: int, seed: int) -> None:
    draws = resample(rows, 100, seed)
    right = np.random.default_rng(seed).random(rows) < 0.6
    [ours] = accuracies(draws, right)
    found = compare_paired("accuracy", ours, ours, 0.95)
    assert found == {"metric": "accuracy", "difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    # As a share of `rows` rows it may be something else on other rows: in none of n differ up to 3.84 / (n + 3.84).
    found = compare_paired("accuracy", ours, ours, 0.95, rows=rows)
    reach = 1.96**2 / (rows + 1.96**2)
    assert (found["difference"], found["p"]) == (0, 1)
    assert (-found["low"], found["high"]) == (pytest.approx(reach, abs=1e-4), pytest.approx(reach, abs=1e-4))


def test_a_difference_that_is_there_is_found_with_an_interval_around_it() -> None:
    generator = np.random.default_rng(0)
    theirs = generator.random(400) < 0.5
    ours = theirs | (generator.random(400) < 0.4)
    found = compare_paired("accuracy", *accuracies(resample(400, 999, seed=1), ours, theirs), 0.95)  # type: ignore[call-arg]
    assert found["difference"] == pytest.approx(ours.mean() - theirs.mean())
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["p"] == pytest.approx(1 / 1000)


def test_the_worse_system_is_not_called_better() -> None:
    generator = np.random.default_rng(0)
    theirs = generator.random(400) < 0.8
    ours = theirs & (generator.random(400) < 0.7)
    found = compare_paired("accuracy", *accuracies(resample(400, 999, seed=1), ours, theirs), 0.95)  # type: ignore[call-arg]
    assert found["high"] < 0
    assert found["p"] == 1.0


def test_pairing_finds_what_two_separate_intervals_would_not() -> None:
    generator = np.random.default_rng(3)
    theirs = generator.random(300) < 0.6
    ours = theirs.copy()
    ours[np.flatnonzero(~theirs)[:9]] = True  # 3 points better, on the same rows right
    draws = resample(300, 999, seed=2)
    paired = compare_paired("accuracy", *accuracies(draws, ours, theirs), 0.95)  # type: ignore[call-arg]
    [ours_alone], [theirs_alone] = accuracies(draws, ours), accuracies(resample(300, 999, seed=99), theirs)
    unpaired = compare_paired("accuracy", ours_alone, theirs_alone, 0.95)
    assert paired["p"] < 0.01
    assert unpaired["p"] > 0.1


def test_systems_of_equal_skill_are_told_apart_no_oftener_than_the_level_says() -> None:
    generator = np.random.default_rng(17)
    found = []
    for trial in range(300):
        ours, theirs = generator.random((2, 120)) < 0.65
        found.append(compare_paired("accuracy", *accuracies(resample(120, 199, trial), ours, theirs), 0.95)["p"] < 0.05)  # type: ignore[call-arg]
    assert 5 <= sum(found) <= 27  # 15 expected; its standard deviation is 3.8


def test_where_less_is_better_a_lower_figure_is_ahead() -> None:
    theirs = np.random.default_rng(0).normal(5, 0.1, 101)
    found = compare_paired("perplexity", theirs - 1, theirs, 0.95, lower=True)
    assert found["difference"] == pytest.approx(1)
    assert found["p"] == pytest.approx(1 / 101)


def test_figures_on_different_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="100 and 50 resamples"):
        compare_paired("accuracy", np.zeros(101), np.zeros(51), 0.95)
