"""Intervals against scipy's, and against truths that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from hone.evaluation.judging.intervals import metric_intervals, percentile_interval, share_interval
from hone.evaluation.judging.metrics import resample
from hone.evaluation.judging.wilson import wilson
from hone.objectives.base import Metric
from tests.unit.evaluation.judging.classified import figures


@given(rows=st.integers(1, 2000), share=st.integers(0, 100))
def test_wilsons_interval_is_scipys(rows: int, share: int) -> None:
    right = round(share * rows / 100)
    ours, theirs = wilson(right / rows, rows, 1.959964), binomtest(right, rows).proportion_ci(method="wilson")
    assert ours == pytest.approx(theirs, abs=1e-6)


def draw_share(right: int, rows: int, resamples: int, seed: int) -> np.ndarray:
    """A share of right rows and its resamples, drawn at once."""
    drawn = np.random.default_rng(seed).binomial(rows, right / rows, resamples)
    return np.concatenate([[right], drawn]) / rows


@pytest.mark.parametrize(("rows", "truth"), [(50, 0.97), (100, 0.99), (20, 0.9), (10, 0.8), (300, 0.7)])
def test_a_95_percent_interval_covers_a_known_share_about_that_often(rows: int, truth: float) -> None:
    generator, covered = np.random.default_rng(11), 0
    for trial in range(400):
        figure = draw_share(int(generator.binomial(rows, truth)), rows, 300, trial)
        found = share_interval(figure, 0.95, rows)
        covered += found["low"] <= truth <= found["high"]
    assert covered >= 0.93 * 400


@pytest.mark.parametrize(("right", "rows"), [(0, 8), (8, 8), (1, 1), (300, 300)])
def test_rows_that_are_all_alike_have_wilsons_interval(right: int, rows: int) -> None:
    found = share_interval(draw_share(right, rows, 100, 0), 0.95, rows)
    assert (found["low"], found["high"]) == pytest.approx(binomtest(right, rows).proportion_ci(method="wilson"))


def test_a_share_of_many_rows_has_nearly_wilsons_interval() -> None:
    found = share_interval(draw_share(1720, 2000, 4000, 3), 0.95, 2000)
    assert (found["low"], found["high"]) == pytest.approx(
        binomtest(1720, 2000).proportion_ci(method="wilson"), abs=1e-3
    )


def test_macro_f1_of_many_classes_is_covered_though_resampling_biases_it() -> None:
    classes, rows, trials = 77, 300, 60
    generator, covered, by_percentiles = np.random.default_rng(5), 0, 0
    for trial in range(trials):  # right in 80 of 100 rows, else a class at random: F1 is 0.8 for each
        references = generator.integers(classes, size=rows)
        others = (references + generator.integers(1, classes, size=rows)) % classes
        predictions = np.where(generator.random(rows) < 0.8, references, others)
        figure = figures(references, predictions, classes, resample(rows, 200, trial))["macro_f1"]
        found, plain = share_interval(figure, 0.95, rows), percentile_interval(figure, 0.95)
        covered += found["low"] <= 0.8 <= found["high"]
        by_percentiles += plain["low"] <= 0.8 <= plain["high"]
    assert covered >= 0.93 * trials
    assert by_percentiles < 0.8 * trials


def test_a_wider_confidence_gives_a_wider_interval_around_the_value() -> None:
    generator = np.random.default_rng(5)
    references = generator.integers(3, size=200)
    predictions = np.where(generator.random(200) < 0.6, references, generator.integers(3, size=200))
    figure = figures(references, predictions, 3, resample(200, 1000, seed=0))["macro_f1"]
    narrow, wide = share_interval(figure, 0.8, 200), share_interval(figure, 0.99, 200)
    assert wide["low"] < narrow["low"] < narrow["value"] == wide["value"] < narrow["high"] < wide["high"]


def test_a_metric_of_some_rows_counts_those_and_one_that_is_no_share_has_percentiles() -> None:
    perfect, losses = np.ones(101), np.linspace(2, 3, 101)
    measures = {"all": Metric("All"), "some": Metric("Some"), "loss": Metric("Loss", lower=True, share=False)}
    found = metric_intervals({"all": perfect, "some": perfect, "loss": losses}, measures, 0.95, 200, {"some": 4})
    assert found["all"]["low"] > 0.98
    assert found["some"]["low"] == pytest.approx(4 / (4 + 1.96**2), abs=1e-4)
    assert found["loss"] == percentile_interval(losses, 0.95)
