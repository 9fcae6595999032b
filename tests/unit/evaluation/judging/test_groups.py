"""What the evaluation reports of groups: which are judged, who is worst, and what fine-tuning did to the gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from fairlearn.metrics import MetricFrame, demographic_parity_difference, equalized_odds_difference
from sklearn.metrics import accuracy_score

from hone.errors import ConfigError
from hone.evaluation.judging.evaluate import Trial
from hone.evaluation.judging.groups import LabelledRows, check_groups, judge_groups, split_groups
from hone.evaluation.judging.metrics import resample
from hone.objectives.base import Metric
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.regression import Regression
from tests.unit.evaluation.judging.classified import OBJECTIVE, outcome, targets


def classified(systems: dict[str, tuple[np.ndarray, np.ndarray]], column: list[Any], classes: int = 2) -> Trial:
    """A trial of systems with the right and the predicted classes of each."""
    rows = pa.table({"id": [str(n) for n in range(len(column))], "team": column})
    outcomes = {name: outcome(right, predicted, classes) for name, (right, predicted) in systems.items()}
    return Trial(rows, OBJECTIVE, targets(classes), outcomes, 0.95)


def judge(trial: Trial, training: LabelledRows | None = None) -> dict[str, Any]:
    return judge_groups(trial, resample(len(trial.rows), 300, 0), ["team"], training)["team"]


def test_rows_without_a_value_are_a_group_and_few_rows_are_none() -> None:
    groups = split_groups(["a"] * 30 + [None] * 25 + [""] * 5 + ["b"] * 20 + ["c"] * 19 + [7] * 2)
    assert list(groups.names) == ["(empty)", "a", "b"]
    assert groups.left_out == {"c": 19, "7": 2}
    assert groups.rows_of(0).tolist() == list(range(30, 60))
    assert len(split_groups([f"g{n:02}" for n in range(60) for _ in range(20)]).names) == 50


def test_an_unknown_group_and_a_column_of_the_objective_are_refused_with_those_there_are() -> None:
    columns = ["id", "source", "text", "label", "region"]
    check_groups(["region", "source"], columns, OBJECTIVE.columns)
    for name in ("regoin", "label", "text", "length"):
        with pytest.raises(ConfigError, match=f"no such column as {name}; there are source, region") as caught:
            check_groups([name], columns, OBJECTIVE.columns)
        assert caught.value.where == "evaluation.groups"


def test_the_figures_are_fairlearns_and_the_worst_group_is_named() -> None:
    generator = np.random.default_rng(1)
    column = [("a", "b", "c")[n] for n in generator.integers(3, size=400)]
    right = generator.integers(2, size=400)
    wrong = generator.random(400) < np.where(np.array(column) == "c", 0.5, 0.1)
    predicted = np.where(wrong, 1 - right, right)
    report = judge(classified({"model": (right, predicted)}, column))
    frame = MetricFrame(metrics=accuracy_score, y_true=right, y_pred=predicted, sensitive_features=column)
    gaps = report["gaps"]["model"]
    assert gaps["metric"]["value"] == pytest.approx(frame.difference(), abs=1e-12)
    assert {row["name"]: row["model"]["accuracy"]["value"] for row in report["judged"]} == pytest.approx(
        frame.by_group.to_dict(), abs=1e-12
    )
    assert (report["worst"], report["best"]) == ("c", frame.by_group.idxmax())
    arguments = {"y_true": right, "y_pred": predicted, "sensitive_features": column}
    assert gaps["demographic_parity"]["value"] == pytest.approx(demographic_parity_difference(**arguments), abs=1e-12)
    assert gaps["equalized_odds"]["value"] == pytest.approx(equalized_odds_difference(**arguments), abs=1e-12)
    assert gaps["metric"]["low"] > 0.15 and gaps["metric"]["high"] < 0.6


def test_what_fine_tuning_did_is_told_from_chance() -> None:
    generator = np.random.default_rng(2)
    column = ["a"] * 300 + ["b"] * 300
    right = generator.integers(2, size=600)

    def guess(share_a: float, share_b: float) -> tuple[np.ndarray, np.ndarray]:
        hit = generator.random(600) < np.repeat([share_a, share_b], 300)
        return right, np.where(hit, right, 1 - right)

    widened = judge(classified({"model": guess(0.95, 0.6), "neighbours": guess(0.7, 0.7)}, column))
    assert widened["base"] == "neighbours" and widened["changes"]["metric"]["low"] > 0.1
    narrowed = judge(classified({"model": guess(0.9, 0.9), "neighbours": guess(0.9, 0.5)}, column))
    assert narrowed["changes"]["metric"]["high"] < -0.1
    chance = judge(classified({"model": guess(0.9, 0.9), "neighbours": guess(0.7, 0.7)}, column))
    assert chance["changes"]["metric"]["low"] < 0 < chance["changes"]["metric"]["high"]
    # The untuned base model stands for what was before where there is one.
    both = judge(
        classified({"model": guess(0.9, 0.9), "neighbours": guess(0.7, 0.7), "untuned": guess(0.6, 0.6)}, column)
    )
    assert both["base"] == "untuned"


def test_the_gap_of_the_training_labels_beside_that_of_the_answers() -> None:
    column = ["a"] * 50 + ["b"] * 50
    right = np.tile([0, 1], 50)
    predicted = np.repeat([0, 1], 50)  # all of one class in each group
    training = LabelledRows({"team": ["a"] * 10 + ["b"] * 10 + ["z"] * 5}, np.array([0] * 8 + [1] * 12 + [0] * 5))
    labels = judge(classified({"model": (right, predicted)}, column), training)["labels"]
    assert labels["value"] == pytest.approx(0.8) and labels["answers"] == 1.0
    assert (labels["class"], labels["rows"]) == ("label 0", 20)
    assert (labels["highest"], labels["lowest"]) == ("a", "b")
    one_group = LabelledRows({"team": ["a"] * 10}, np.zeros(10, np.int64))
    assert judge(classified({"model": (right, predicted)}, column), one_group)["labels"] is None


def test_fewer_than_two_groups_have_no_gap() -> None:
    right = np.tile([0, 1], 20)
    report = judge(classified({"model": (right, right)}, ["a"] * 21 + ["b"] * 19))
    assert report["gaps"] == {} and [row["name"] for row in report["judged"]] == ["a"]
    assert report["left_out"] == [{"name": "b", "rows": 19}]


def test_a_metric_without_classes_has_its_gap_alone_and_lower_may_be_better() -> None:
    class Lower(Regression):
        metrics: ClassVar[Mapping[str, Metric]] = dict(reversed(Regression.metrics.items()))  # errors come first

    objective, numbers = Lower(), np.arange(80, dtype=float)
    rows = pa.table({"id": [str(n) for n in range(80)], "team": ["a", "b"] * 40, "text": ["x"] * 80})
    shift = np.where(np.arange(80) % 2 == 0, 1.0, 5.0)
    tokens = pa.table({"label": numbers, "standard": numbers})
    means = {"mean": 0.0, "deviation": 1.0}
    result = objective.compute_outcome(tokens, {"scores": numbers + shift}, means, rows)
    trial = Trial(rows, objective, means, {"model": result}, 0.95)
    report = judge(trial)
    assert set(report["gaps"]["model"]) == {"metric"} and report["labels"] is None
    assert objective.metrics[objective.main_metric].lower
    assert report["worst"] == "b" and report["best"] == "a"
    assert report["gaps"]["model"]["metric"]["value"] == pytest.approx(4.0)


def test_several_labels_are_each_against_the_rest() -> None:
    generator = np.random.default_rng(4)
    objective = MultiLabelClassification(thresholds="fixed")
    has, scores = generator.integers(2, size=(200, 3)), generator.random((200, 3)).astype(np.float32)
    column = [("a", "b")[n] for n in generator.integers(2, size=200)]
    rows = pa.table({"id": [str(n) for n in range(200)], "team": column})
    tokens = pa.table({"labels": has.tolist(), "unseen": [False] * 200})
    labels = {"labels": ["x", "y", "z"]}
    result = objective.compute_outcome(tokens, {"scores": scores}, labels)
    report = judge(Trial(rows, objective, labels, {"model": result}, 0.95))
    each = [
        equalized_odds_difference(has[:, n], (scores[:, n] >= 0.5).astype(int), sensitive_features=column)
        for n in range(3)
    ]
    odds = report["gaps"]["model"]["equalized_odds"]
    assert odds["value"] == pytest.approx(max(each), abs=1e-12)
    assert odds["class"] == "xyz"[int(np.argmax(each))]
