"""Confidence intervals of metrics and of their differences, from resamples of the test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hone.evaluation.judging.wilson import wilson

if TYPE_CHECKING:
    from hone.objectives.base import Metric

Interval = dict[str, float]

UNKNOWN: Interval = {"value": 0.0, "low": 0.0, "high": 1.0}
_NO_SPREAD = 1e-12  # the standard deviation of resamples that are all the same, but for rounding


def metric_intervals(
    figures: Mapping[str, np.ndarray],
    measures: Mapping[str, Metric],
    confidence: float,
    rows: int,
    rows_by_metric: Mapping[str, int],
) -> dict[str, Interval]:
    """Each metric's `value` with an interval from `low` to `high` that covers the share `confidence`.

    `rows` is the number of test rows, `rows_by_metric` that of the metrics that are about some of them.
    """
    return {
        name: share_interval(figure, confidence, rows_by_metric.get(name, rows))
        if measures[name].share
        else percentile_interval(figure, confidence)
        for name, figure in figures.items()
    }


def share_interval(figure: np.ndarray, confidence: float, rows: int) -> Interval:
    """The interval of a metric in 0..1 on `rows` rows: Wilson's, at the effective number of rows.

    The percentile interval has no width if all rows are right, is too narrow near 0 and 1, and lies too low for a
    macro-average of many classes, which resampling biases as sampling does. So the resamples give the bias and the
    standard deviation s (Efron and Tibshirani, 1993, 6 and 10), s gives the number of independent right-or-wrong rows
    that would vary as much, v (1 - v) / s² (Kish, Survey Sampling, 1965, 8.2), and the interval is Wilson's for that
    number (Journal of the American Statistical Association 22, 1927) around the value less its bias, with a quantile of
    Student's t since s is estimated. The bootstrap underestimates a bias, so the end on its side is moved by the bias
    once more. If the resamples are all the same, it is Wilson's interval for `rows`. `benchmarks/audit.py` has the
    coverage. If the figure is undefined on the original rows (the recall of a class without rows), the value is 0, as
    in scikit-learn, and the interval is 0 to 1: nothing is known.
    """
    from scipy.special import ndtri, stdtrit

    value, drawn = float(figure[0]), figure[1:][np.isfinite(figure[1:])]
    if not np.isfinite(value):
        return dict(UNKNOWN)
    rows, tail = max(rows, 1), (1 + confidence) / 2
    spread = float(drawn.std()) if drawn.size else 0.0
    if spread < _NO_SPREAD or rows < 2:
        low, high = wilson(value, rows, float(ndtri(tail)))
    else:
        bias, variance = float(drawn.mean()) - value, spread**2 * rows / (rows - 1)
        effective_rows = max(value * (1 - value), _NO_SPREAD) / variance
        low, high = wilson(min(max(value - bias, 0), 1), effective_rows, float(stdtrit(rows - 1, tail)))
        low, high = low - max(bias, 0), high - min(bias, 0)
    return {"value": value, "low": max(0.0, min(value, low)), "high": min(1.0, max(value, high))}


def percentile_interval(figure: np.ndarray, confidence: float) -> Interval:
    """The percentile interval of the bootstrap, for metrics that are not shares and for differences.

    Resamples on which the figure is undefined are left out; if it is undefined on the original rows, the result is as
    in `share_interval`.
    """
    value, defined = float(figure[0]), figure[1:][np.isfinite(figure[1:])]
    if not np.isfinite(value):
        return dict(UNKNOWN)
    low, high = np.quantile(defined, tails(confidence)) if defined.size else (value, value)
    return {"value": value, "low": float(low), "high": float(high)}


def difference_interval(differences: np.ndarray, confidence: float, rows: int) -> Interval:
    """The percentile interval of a paired difference, of shares on `rows` rows or (0) of other metrics.

    If the resamples of a difference of shares are all the same, no row speaks against it: the interval reaches as far
    as Wilson's for 0 of `rows` rows.
    """
    from scipy.special import ndtri

    interval = percentile_interval(differences, confidence)
    if not rows or interval["low"] < interval["high"]:
        return interval
    _, reach = wilson(0.0, rows, float(ndtri((1 + confidence) / 2)))
    return interval | {"low": max(-1.0, interval["value"] - reach), "high": min(1.0, interval["value"] + reach)}


def tails(confidence: float) -> tuple[float, float]:
    """The probabilities of the two ends of an interval that covers the share `confidence`."""
    return (1 - confidence) / 2, (1 + confidence) / 2
