"""Two versions on the same rows, with outcomes that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from hone.evaluation.judging import metrics
from hone.objectives.base import Objective
from hone.objectives.regression import Regression
from hone.objectives.text_classification import TextClassification
from hone.promotion.contender import Contender
from hone.promotion.match import Match
from hone.promotion.rows import Rows
from hone.tracking.aliases import CANDIDATE, CHAMPION
from hone.tracking.reader import Version

LABELS = ["a", "b"]


def contender(number: str, labels: list[str], objective: Objective | None = None) -> Contender:
    version = Version("tiny", number, "run", "", {})
    return Contender(version, objective or TextClassification(), {"labels": labels}, 8, None, None)  # type: ignore[arg-type]


def match(ours: np.ndarray, theirs: np.ndarray, sure: float = 0.9, source: Any = "mail") -> Match:
    """Both on rows of two classes in turns; `ours` and `theirs` say which rows each got right."""
    n = len(ours)
    right = np.arange(n) % 2
    table = pa.table(
        {
            "id": [str(i) for i in range(n)],
            "text": ["word " * (1 + i % 40) for i in range(n)],
            "label": [LABELS[i] for i in right],
            "source": [source] * n if isinstance(source, str) else list(source),
        }
    )
    tokens = pa.table({"label": right})
    objective = TextClassification()

    def outcome(hits: np.ndarray, sure: float) -> Any:
        said = np.where(hits, right, 1 - right)
        scores = np.where(np.eye(2)[said] > 0, sure, 1 - sure)
        return objective.compute_outcome(tokens, {"scores": scores}, {"labels": LABELS})

    outcomes = {CANDIDATE: outcome(ours, sure), CHAMPION: outcome(theirs, 0.9)}
    draws = metrics.resample(n, 500, 1)
    return Match(Rows("test", "digest", table), contender("2", LABELS), LABELS, outcomes, draws)


def hits(n: int, share: float, seed: int = 0) -> np.ndarray:
    found = np.zeros(n, bool)
    found[np.random.default_rng(seed).permutation(n)[: round(share * n)]] = True
    return found


def match_numbers(rows: int, differing: int) -> Match:
    """Two versions whose predicted numbers are off by 1, and in `differing` rows by 0.01 more or less in turns."""
    right = np.arange(rows, dtype=float)
    table = pa.table({"id": [str(i) for i in range(rows)], "text": ["word"] * rows, "label": [str(i) for i in right]})
    objective, targets = Regression(), {"mean": 0.0, "deviation": 1.0}
    shift = np.where(np.arange(rows) < differing, 0.01 * (-1.0) ** np.arange(rows), 0.0)

    def outcome(values: np.ndarray) -> Any:
        tokens = pa.table({"label": right, "standard": right})
        return objective.compute_outcome(tokens, {"scores": values}, targets, table)

    outcomes = {CANDIDATE: outcome(right + 1 + shift), CHAMPION: outcome(right + 1)}
    ours = replace(contender("2", [], objective), targets=targets)
    return Match(Rows("test", "digest", table), ours, [], outcomes, metrics.resample(rows, 500, 1))
