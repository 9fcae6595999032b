"""Metrics on resamples of the test rows.

The bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15) draws as many rows as
there are, with replacement, many times. `resample` draws once for all systems and metrics, so that every comparison is
paired. A figure is an array [1 + resamples] whose first entry is the metric's value on the original rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hone.evaluation.judging.intervals import share_interval, tails
from hone.evaluation.judging.wilson import wilson

BINS = 15
_BLOCK = 4_000_000  # float64 numbers held at once while tallying: 32 MB


def resample(rows: int, resamples: int, seed: int) -> np.ndarray:
    """How often each row is drawn: uint8 [rows, 1 + resamples]. The first column, the original rows, is all 1."""
    generator = np.random.default_rng(seed)
    # A row is drawn about Poisson(1) times: more than 255 times has a probability of 1e-507.
    draws = np.ones((rows, 1 + resamples), np.uint8)
    for column in range(1, 1 + resamples):
        draws[:, column] = np.bincount(generator.integers(rows, size=rows), minlength=rows)
    return draws


def tally(groups: np.ndarray, size: int, draws: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Drawn rows of each group 0..size-1, or the sums of their `values`: float64 [size, 1 + resamples]."""
    totals = np.zeros((size, draws.shape[1]))
    if not len(groups):
        return totals
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    weights = np.ones(len(groups)) if values is None else values[order].astype(np.float64)
    width = max(1, _BLOCK // len(groups))
    for start in range(0, draws.shape[1], width):
        drawn = draws[order, start : start + width] * weights[:, None]
        totals[present, start : start + width] = np.add.reduceat(drawn, starts, axis=0)
    return totals


def totals(statistics: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The sums of the rows' statistics [rows, k] over each draw: float64 [k, 1 + resamples]."""
    from scipy.sparse import csr_array

    columns = csr_array(statistics).T.tocsr()
    sums = np.empty((statistics.shape[1], draws.shape[1]))
    width = max(1, _BLOCK // max(1, len(draws)))
    for start in range(0, draws.shape[1], width):
        sums[:, start : start + width] = columns @ draws[:, start : start + width].astype(np.float64)
    return sums


def by_group(groups: Mapping[str, Mapping[str, np.ndarray]], confidence: float) -> dict[str, dict[str, Any]]:
    """Each class's or type's figures with intervals, and `support`: its number of rows or entities."""
    return {
        group: {
            name: int(figure[0])
            if name == "support"
            else share_interval(figure, confidence, int(figures["support"][0]))
            for name, figure in figures.items()
        }
        for group, figures in groups.items()
    }


def confusion(
    references: np.ndarray, predictions: np.ndarray, labels: Sequence[str], confidence: float
) -> dict[str, Any]:
    """`counts[i][j]` is the number of rows of label i predicted as label j; `low` and `high` bound each count.

    The bounds are Wilson's for the cell's share of all rows, 0 for a cell without a row.
    """
    from scipy.special import ndtri

    classes, rows, z = len(labels), len(references), float(ndtri((1 + confidence) / 2))
    counts = np.bincount(references * classes + predictions, minlength=classes**2)
    matrices = np.stack([counts] * 3)
    for cell in np.flatnonzero(counts):
        low, high = wilson(counts[cell] / rows, rows, z)
        matrices[1:, cell] = np.floor(low * rows), np.ceil(high * rows)
    cells = dict(zip(("counts", "low", "high"), matrices.reshape(3, classes, classes).tolist(), strict=True))
    return {"labels": list(labels), **cells}


def calibration(confidences: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """The expected calibration error `ece` and its `bins`: 15 of equal width, each `low` < confidence <= `high`.

    Guo et al., On Calibration of Modern Neural Networks, 2017. A bin without rows has confidence and accuracy 0.
    """
    edges = np.linspace(0, 1, BINS + 1)
    places = _assign_bins(confidences)
    rows = np.bincount(places, minlength=BINS)
    confidence = np.bincount(places, confidences, BINS) / np.maximum(rows, 1)
    accuracy = np.bincount(places, correct, BINS) / np.maximum(rows, 1)
    bins = [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "confidence": float(confidence[i]),
            "accuracy": float(accuracy[i]),
            "rows": int(rows[i]),
        }
        for i in range(BINS)
    ]
    return {"ece": float((np.abs(confidence - accuracy) * rows).sum() / rows.sum()), "bins": bins}


def ece_interval(
    confidences: np.ndarray, correct: np.ndarray, draws: np.ndarray, confidence: float, seed: int
) -> dict[str, float]:
    """The expected calibration error, with an interval for its value on infinitely many rows.

    Chance alone moves bins off the diagonal: the error is overestimated on few rows, and more so on resamples of them.
    The basic bootstrap interval (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 5.2) subtracts the
    resamples' excess; it is clipped at 0 and extended to include the value. It starts at 0 if a perfectly calibrated
    model with these confidences shows as large an error (Bröcker and Smith, Weather and Forecasting 22, 2007).
    """
    places = _assign_bins(confidences)
    gaps = calibration_errors(confidences, correct, draws)
    value = float(gaps[0])
    bottom, top = np.quantile(gaps[1:], tails(confidence))
    by_chance = np.quantile(_simulate_calibrated_errors(confidences, places, draws.shape[1] - 1, seed), confidence)
    low = 0.0 if value <= by_chance else max(0.0, 2 * value - float(top))
    return {"value": value, "low": min(low, value), "high": max(value, 2 * value - float(bottom))}


def calibration_errors(confidences: np.ndarray, correct: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The expected calibration error on each draw: [1 + resamples]."""
    gaps = np.abs(tally(_assign_bins(confidences), BINS, draws, confidences - correct)).sum(0)
    errors: np.ndarray = gaps / draws.sum(0, dtype=np.int64)
    return errors


def _simulate_calibrated_errors(confidences: np.ndarray, places: np.ndarray, times: int, seed: int) -> np.ndarray:
    """Simulated calibration errors, [times], of a perfectly calibrated model with these confidences."""
    generator = np.random.default_rng(seed)
    errors = np.empty(times)
    for time in range(times):
        gaps = confidences - (generator.random(len(confidences)) < confidences)
        errors[time] = np.abs(np.bincount(places, gaps)).sum() / len(confidences)
    return errors


def _assign_bins(confidences: np.ndarray) -> np.ndarray:
    bins: np.ndarray = np.digitize(confidences, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    return bins


def values(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each figure's value, without its interval."""
    return {name: figure["value"] for name, figure in figures.items()}
