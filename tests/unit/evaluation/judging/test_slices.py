"""Every test row is in one part of every slice, under a name a person understands."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from hone.errors import ConfigError
from hone.evaluation.judging.intervals import Interval, metric_intervals
from hone.evaluation.judging.metrics import resample
from hone.evaluation.judging.slices import check_slices, slice_figures, slice_parts
from tests.unit.evaluation.judging.classified import OBJECTIVE, figures, outcome, targets


def table(**columns: list[object]) -> pa.Table:
    return pa.table(columns)


def test_length_slices_are_quartiles_of_the_number_of_words() -> None:
    texts = ["w " * n for n in range(1, 101)]
    found = slice_parts("length", table(text=texts), texts)
    assert {name: len(at) for name, at in found.items()} == {
        "1-25 words": 25,
        "26-50 words": 25,
        "51-75 words": 25,
        "76-100 words": 25,
    }
    assert found["26-50 words"].tolist() == list(range(25, 50))


def test_texts_of_like_length_make_fewer_slices_and_none_that_is_empty() -> None:
    texts = ["one two"] * 9 + ["one two three"]
    assert {name: len(at) for name, at in slice_parts("length", table(text=texts), texts).items()} == {
        "2 words": 9,
        "3 words": 1,
    }
    assert list(slice_parts("length", table(text=["", ""]), ["", ""])) == ["0 words"]


def test_column_slices_are_its_values_largest_first_and_the_rest_is_other() -> None:
    values = [f"v{n:02}" for n in range(15) for _ in range(20 - n)]
    found = slice_parts("source", table(source=values), [])
    assert list(found) == [*(f"v{n:02}" for n in range(12)), "other"]
    assert len(found["other"]) == 8 + 7 + 6
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(values)))


def test_rows_without_a_value_have_a_part_of_their_own_and_a_value_called_other_joins_the_rest() -> None:
    found = slice_parts("source", table(source=["a", "a", "", None, "other"]), [])
    assert {name: at.tolist() for name, at in found.items()} == {"(empty)": [2, 3], "a": [0, 1], "other": [4]}


def test_no_row_is_lost_where_a_frequent_value_is_called_other() -> None:
    values = ["other"] * 30 + [f"v{n:02}" for n in range(14) for _ in range(14 - n)]
    found = slice_parts("source", table(source=values), [])
    assert list(found) == [*(f"v{n:02}" for n in range(11)), "other"]
    assert len(found["other"]) == 30 + 3 + 2 + 1


def test_an_unknown_column_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no such column as topik; there are length, source, label") as caught:
        check_slices(["length", "topik"], ["id", "source", "text", "label"], ["text"])
    assert caught.value.where == "evaluation.slices"
    check_slices(["length", "label"], ["id", "source", "text", "label"], ["text"])


def intervals(sums: np.ndarray, rows: int) -> dict[str, Interval]:
    measured = OBJECTIVE.compute_metrics(sums, targets(len(sums) // 3 - 1))
    return metric_intervals(measured, OBJECTIVE.metrics, 0.95, rows, {})


def test_a_slice_that_is_all_rows_has_the_intervals_of_all_rows() -> None:
    generator = np.random.default_rng(1)
    references, predicted = generator.integers(3, size=(2, 150))
    draws = resample(150, 300, seed=2)
    where = {"all": generator.permutation(150)}
    statistics = {"model": outcome(references, predicted, 3).statistics}
    [found] = slice_figures(where, statistics, intervals, draws)
    whole = figures(references, predicted, 3, draws)
    assert found["model"] == metric_intervals(whole, OBJECTIVE.metrics, 0.95, 150, {})


def test_a_parts_figures_are_those_of_its_rows_alone() -> None:
    references = np.array([0, 1, 0, 1, 0, 1])
    predictions = {"model": np.array([0, 1, 0, 0, 1, 0]), "neighbours": np.array([1, 1, 1, 1, 0, 1])}
    where = {"first": np.array([0, 1, 2]), "second": np.array([3, 4, 5])}
    statistics = {name: outcome(references, said, 2).statistics for name, said in predictions.items()}
    draws = resample(6, 200, seed=0)
    first, second = slice_figures(where, statistics, intervals, draws)
    assert (first["name"], first["rows"], second["rows"]) == ("first", 3, 3)
    assert first["model"]["accuracy"]["value"] == 1.0
    assert second["model"]["accuracy"]["value"] == 0.0
    assert first["neighbours"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert second["neighbours"]["macro_f1"]["value"] == 1.0
    # Three rows that are all right say little: 3 / (3 + 1.96²) is the least share that they are likely for.
    assert first["model"]["accuracy"]["low"] == pytest.approx(0.438, abs=1e-3)
