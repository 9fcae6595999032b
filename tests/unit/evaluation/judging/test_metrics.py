"""Figures and intervals against scikit-learn, against sums done by hand, and against truths that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from hone.evaluation.judging import metrics
from tests.unit.evaluation.judging.classified import figures, groups


def outcomes(rows: int, classes: int, seed: int, skill: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """References and predictions that agree on about `skill` of the rows."""
    generator = np.random.default_rng(seed)
    references = generator.integers(classes, size=rows)
    guessed = generator.integers(classes, size=rows)
    return references, np.where(generator.random(rows) < skill, references, guessed)


def redrawn(draws: np.ndarray, column: int) -> np.ndarray:
    """The row indices of one resample, as a plain loop would have them."""
    return np.repeat(np.arange(len(draws)), draws[:, column])


def test_every_resample_draws_as_many_rows_as_there_are_and_the_first_column_is_the_rows_themselves() -> None:
    draws = metrics.resample(200, 50, seed=1)
    assert (draws[:, 0] == 1).all()
    assert (draws.sum(0) == 200).all()
    assert len({draws[:, column].tobytes() for column in range(51)}) == 51


def test_the_same_seed_draws_the_same_rows_and_another_seed_others() -> None:
    assert np.array_equal(metrics.resample(90, 30, seed=4), metrics.resample(90, 30, seed=4))
    assert not np.array_equal(metrics.resample(90, 30, seed=4), metrics.resample(90, 30, seed=5))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), classes=st.integers(2, 7), seed=st.integers(0, 10_000))
def test_figures_on_every_resample_are_scikit_learns(rows: int, classes: int, seed: int) -> None:
    references, predictions = outcomes(rows, classes, seed)
    draws = metrics.resample(rows, 6, seed)
    of_all, of_each = figures(references, predictions, classes, draws), groups(references, predictions, classes, draws)
    for column in range(7):
        at = redrawn(draws, column)
        true, predicted = references[at], predictions[at]
        assert of_all["accuracy"][column] == pytest.approx((true == predicted).mean())
        assert of_all["macro_f1"][column] == pytest.approx(f1_score(true, predicted, average="macro"))
        precision, recall, f1, support = precision_recall_fscore_support(
            true, predicted, labels=range(classes), zero_division=0
        )
        for name, values in {"precision": precision, "recall": recall, "f1": f1, "support": support}.items():
            ours = [group[name][column] for group in of_each.values()]
            assert np.nan_to_num(ours) == pytest.approx(values)


def test_totals_are_the_sums_over_the_rows_drawn_however_many_blocks_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statistics, draws = np.random.default_rng(1).random((300, 4)), metrics.resample(300, 40, seed=2)
    whole = metrics.totals(statistics, draws)
    assert whole[:, 0] == pytest.approx(statistics.sum(0))
    assert whole[:, 7] == pytest.approx(statistics[redrawn(draws, 7)].sum(0))
    monkeypatch.setattr(metrics, "_BLOCK", 300 * 7)
    assert np.array_equal(metrics.totals(statistics, draws), whole)


def test_tallies_done_in_many_blocks_are_those_done_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, values = np.random.default_rng(0).integers(5, size=300), np.random.default_rng(1).random(300)
    draws = metrics.resample(300, 40, seed=2)
    whole = metrics.tally(groups, 6, draws, values)
    monkeypatch.setattr(metrics, "_BLOCK", 300 * 7)
    assert np.array_equal(metrics.tally(groups, 6, draws, values), whole)
    assert whole[:, 3] == pytest.approx(np.bincount(groups, values * draws[:, 3], minlength=6))


def test_a_class_without_rows_or_predictions_is_unknown_and_every_number_finite() -> None:
    references, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    by_label = groups(references, predictions, 3, metrics.resample(4, 200, seed=0))
    absent = metrics.by_group(by_label, 0.95)["label 2"]
    assert absent["support"] == 0
    for name in ("precision", "recall", "f1"):
        assert absent[name] == {"value": 0.0, "low": 0.0, "high": 1.0}


def test_confusion_is_scikit_learns_and_its_bounds_hold_the_counts() -> None:
    references, predictions = outcomes(400, 4, seed=8)
    found = metrics.confusion(references, predictions, list("abcd"), 0.95)
    counts, low, high = (np.array(found[name]) for name in ("counts", "low", "high"))
    assert np.array_equal(counts, confusion_matrix(references, predictions))
    assert (low <= counts).all() and (counts <= high).all()
    assert (low < high)[counts > 0].all()
    spread = np.sqrt(counts * (1 - counts / 400))
    assert (high - low) == pytest.approx(2 * 1.96 * spread, abs=3)


def test_cells_of_the_confusion_that_hold_no_row_are_bounded_by_nothing() -> None:
    found = metrics.confusion(np.array([0, 1]), np.array([0, 1]), ["a", "b"], 0.95)
    assert found["counts"] == [[1, 0], [0, 1]]
    assert found["high"][0][1] == found["low"][0][1] == 0


def test_the_calibration_error_of_four_rows_done_by_hand() -> None:
    # 0.95 and 0.97 share the bin up to 1: 0.96 sure, half right, gap 0.46. 0.60 is the upper edge of the bin from
    # 0.5333: right, gap 0.40. 0.62 lies in the next: wrong, gap 0.62. (2 x 0.46 + 0.40 + 0.62) / 4 = 0.485.
    confidences, correct = np.array([0.95, 0.97, 0.60, 0.62]), np.array([True, False, True, False])
    found = metrics.calibration(confidences, correct)
    assert found["ece"] == pytest.approx(0.485)
    filled = [entry for entry in found["bins"] if entry["rows"]]
    assert [(round(entry["high"], 4), entry["rows"]) for entry in filled] == [(0.6, 1), (0.6667, 1), (1.0, 2)]
    assert filled[2]["confidence"] == pytest.approx(0.96)
    assert filled[2]["accuracy"] == pytest.approx(0.5)
    assert len(found["bins"]) == 15


def test_the_calibration_error_with_an_interval_has_the_value_of_the_one_without() -> None:
    generator = np.random.default_rng(2)
    confidences = generator.uniform(0.3, 1, 500)
    correct = generator.random(500) < confidences**2
    found = metrics.ece_interval(confidences, correct, metrics.resample(500, 300, seed=0), 0.95, seed=0)
    assert found["value"] == pytest.approx(metrics.calibration(confidences, correct)["ece"])
    assert 0 < found["low"] < found["value"] < found["high"]


def test_the_interval_of_a_calibrated_models_error_reaches_down_to_zero() -> None:
    reached = 0
    for trial in range(40):
        generator = np.random.default_rng(trial)
        confidences = generator.uniform(0.3, 1, 250)
        correct = generator.random(250) < confidences
        found = metrics.ece_interval(confidences, correct, metrics.resample(250, 200, seed=trial), 0.95, trial)
        reached += found["low"] == 0
    assert reached >= 35  # 38 expected; its standard deviation is 1.4


def test_the_interval_of_a_miscalibrated_models_error_covers_the_true_one() -> None:
    # Sure by 0.9 and right in 0.7 of the cases: the true error is 0.2 wherever the confidences lie in a bin.
    covered = 0
    for trial in range(60):
        correct = np.random.default_rng(trial).random(300) < 0.7
        draws = metrics.resample(300, 200, seed=trial)
        found = metrics.ece_interval(np.full(300, 0.9), correct, draws, 0.95, trial)
        covered += found["low"] <= 0.2 <= found["high"]
    assert covered >= 52  # 57 expected; its standard deviation is 1.7


def test_the_excess_of_a_calibration_error_on_few_rows_is_taken_off_its_interval() -> None:
    # Confidences from 0.5 to 1, right in three of four cases whatever they are: the true error is 0.124. On 100 rows
    # the resamples lie so far above it that their percentiles cover it in two of three cases.
    covered = 0
    for trial in range(100):
        generator = np.random.default_rng(trial)
        confidences, correct = generator.uniform(0.5, 1, 100), generator.random(100) < 0.75
        found = metrics.ece_interval(confidences, correct, metrics.resample(100, 200, trial), 0.95, trial)
        covered += found["low"] <= 0.124 <= found["high"]
    assert covered >= 78
