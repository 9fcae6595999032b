"""A classifier's figures of given predictions, by the way that evaluation computes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hone.evaluation.judging import metrics
from hone.objectives.base import Outcome
from hone.objectives.text_classification import TextClassification

OBJECTIVE = TextClassification()
Figures = dict[str, np.ndarray]


def targets(classes: int) -> dict[str, list[str]]:
    return {"labels": [f"label {i}" for i in range(classes)]}


def outcome(references: np.ndarray, predictions: np.ndarray, classes: int) -> Outcome:
    scores = np.eye(classes, dtype=np.float32)[predictions] * 0.7 + 0.1
    return OBJECTIVE.compute_outcome(pa.table({"label": references}), {"scores": scores}, targets(classes))


def figures(references: np.ndarray, predictions: np.ndarray, classes: int, draws: np.ndarray) -> Figures:
    """`accuracy` and `macro_f1` on each draw."""
    sums = metrics.totals(outcome(references, predictions, classes).statistics, draws)
    return OBJECTIVE.compute_metrics(sums, targets(classes))


def groups(references: np.ndarray, predictions: np.ndarray, classes: int, draws: np.ndarray) -> dict[str, Figures]:
    """The figures of each class on each draw."""
    sums = metrics.totals(outcome(references, predictions, classes).statistics, draws)
    return OBJECTIVE.compute_group_metrics(sums, targets(classes))
