"""A paired bootstrap test on the same rows: is one system better than another?"""

from __future__ import annotations

from typing import Any

import numpy as np

from hone.evaluation.judging.intervals import difference_interval


def compare_paired(
    metric: str, ours: np.ndarray, theirs: np.ndarray, confidence: float, lower: bool = False, rows: int = 0
) -> dict[str, Any]:
    """The `difference` ours - theirs of a metric, its interval `low` to `high`, and the p-value `p`.

    `rows` is the number of test rows of a metric that is a share, 0 for another (`difference_interval`).
    If less is better (`lower`), the difference is theirs - ours, so that above 0 always means that ours is better.

    `ours` and `theirs` are the two systems' metric on the same draws, [1 + resamples]
    (`hone.evaluation.judging.metrics`). `p` is one-sided, for "ours is not better": the share of resamples with a
    difference of 0 or less, the original rows counted as one of them, (b + 1) / (n + 1), so that it is never 0 (Davison
    and Hinkley, 1997, 4.2). It is the inverse of the percentile interval (Efron and Tibshirani, 1993, 15.4). Two
    systems that never differ have p = 1. Resamples on which the metric is undefined are left out, as in the interval.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"metrics on different draws: {ours.shape[0] - 1} and {theirs.shape[0] - 1} resamples")
    differences = theirs - ours if lower else ours - theirs
    bounds = difference_interval(differences, confidence, rows)
    defined = differences[1:][np.isfinite(differences[1:])]
    p = (1 + np.count_nonzero(defined <= 0)) / (1 + len(defined))
    return {
        "metric": metric,
        "difference": bounds["value"],
        "low": bounds["low"],
        "high": bounds["high"],
        "p": float(p),
    }
