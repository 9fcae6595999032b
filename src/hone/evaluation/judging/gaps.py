"""How far apart groups of rows are: the gap of a rate between them, on resamples of the rows, with intervals.

A rate is an array [groups, 1 + resamples] whose first column is of the original rows, nan where a group has no row that
the rate is about. The gap of a rate is its largest value minus its smallest one. Demographic parity and equalised odds
are the largest gap of several rates, as in fairlearn 0.15 (`demographic_parity_difference`,
`equalized_odds_difference`), for more than two classes of each class against the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hone.evaluation.judging.intervals import Interval, percentile_interval
from hone.evaluation.judging.metrics import tally
from hone.evaluation.judging.wilson import wilson

# Where groups do not differ, their gap on n rows is chance alone, b, and that on resamples of these b √2: they show
# b (√2 - 1) of the bias b, and √2 times as much as they show stays hidden.
HIDDEN_BIAS = math.sqrt(2)
_NO_SPREAD = 1e-12  # the standard deviation of resamples that are all the same, but for rounding


@dataclass(frozen=True)
class Rate:
    """One rate of every group: `values` [groups, 1 + resamples], of the class `name` ('' for none), of a `kind`.

    `rows` [groups] is the number of original rows that the rate is about; 0 for a rate that is not a share.
    """

    values: np.ndarray
    rows: np.ndarray
    name: str = ""
    kind: str = ""

    @property
    def undefined(self) -> np.ndarray:
        """The numbers of the groups in which it is undefined on the original rows."""
        return np.flatnonzero(np.isnan(self.values[:, 0]))


@dataclass(frozen=True)
class Gap:
    """The largest gap of some rates: the `interval` of its value, and the `rate` that has it.

    `gaps` [1 + resamples] is the largest gap on every draw.
    """

    interval: Interval
    rate: Rate
    gaps: np.ndarray

    @property
    def ends(self) -> tuple[int, int]:
        """The numbers of the groups with the highest and with the lowest value of the rate."""
        values = np.nan_to_num(self.rate.values[:, 0], nan=0.0)
        return int(values.argmax()), int(values.argmin())


def compute_gaps(values: np.ndarray) -> np.ndarray:
    """The gap between the groups of a rate [groups, n] on each of n draws: [n].

    An undefined rate counts as 0, as in fairlearn, whose true positive rate of a group without positive rows is 0.
    """
    defined: np.ndarray = np.nan_to_num(values, nan=0.0)
    gaps: np.ndarray = defined.max(0) - defined.min(0)
    return gaps


def measure_gap(rates: Iterable[Rate], confidence: float) -> Gap:
    """The largest gap of the rates, with an interval that covers the gap on infinitely many rows.

    Chance alone moves groups apart: a gap of few rows is too large, and on resamples of them more so, whose percentiles
    miss a gap of 0 always. But a gap is never further from the true one than the groups' rates have moved apart, in the
    worst pair of them. So the interval is the gap plus and minus the quantile of that movement over the resamples, as
    in a simultaneous interval for all pairs (Tukey's studentized range, by the bootstrap: Romano and Wolf, Econometrica
    73, 2005). With several rates it is the largest movement of any. It covers more than it must
    (`benchmarks/gaps.py`), mostly above. A group whose rows are all alike does not move on resamples: its share moves
    as far as Wilson's interval for 0 of its rows. If a rate is undefined in a group, the gap may be up to 1, and the
    lower end is that of the rates that are defined.
    """
    largest, least_reach, defined_gap, gaps, reaches = None, 0.0, 0.0, np.zeros(0), np.zeros(0)
    incomplete = False
    for rate in rates:
        rate_gaps, moved = compute_gaps(rate.values), _measure_movement(rate.values)
        gaps = rate_gaps if largest is None else np.maximum(gaps, rate_gaps)
        reaches = moved if largest is None else np.maximum(reaches, moved)
        least_reach = max(least_reach, _find_blind_reach(rate, confidence))
        defined = rate.values[~np.isnan(rate.values[:, 0]), 0]
        defined_gap = max(defined_gap, float(np.ptp(defined)) if len(defined) else 0.0)
        incomplete = incomplete or 0 < len(rate.undefined) < len(rate.values)
        if largest is None or rate_gaps[0] > compute_gaps(largest.values[:, :1])[0]:
            largest = rate
    if largest is None:
        raise ValueError("a gap needs a rate")
    reach = max(float(np.quantile(reaches, confidence)) if len(reaches) else 0.0, least_reach)
    value, is_share = float(gaps[0]), bool(largest.rows.any())
    high = 1.0 if incomplete else min(1.0, value + reach) if is_share else value + reach
    return Gap({"value": value, "low": max(0.0, defined_gap - reach), "high": max(value, high)}, largest, gaps)


def change_interval(ours: np.ndarray, theirs: np.ndarray, confidence: float) -> Interval:
    """The change of a gap from `theirs` to `ours`, each [1 + resamples] on the same draws, above 0 for a wider gap.

    Both gaps are too large on few rows, that of the system with more errors more so, and the percentiles double this:
    the interval reaches over the percentile and the basic one, which turns it round (Davison and Hinkley, 1997, 5.2).
    The basic one's end on the side of the bias is moved by what the bootstrap underestimates of it (HIDDEN_BIAS).
    """
    changes = ours - theirs
    interval = percentile_interval(changes, confidence)
    value, bias = interval["value"], float(changes[1:].mean() - changes[0])
    low = 2 * value - interval["high"] - HIDDEN_BIAS * max(bias, 0)
    high = 2 * value - interval["low"] - HIDDEN_BIAS * min(bias, 0)
    return {"value": value, "low": min(interval["low"], low), "high": max(interval["high"], high)}


def iter_class_rates(
    members: np.ndarray,
    groups: int,
    marks: Iterable[tuple[str, np.ndarray, np.ndarray]],
    draws: np.ndarray,
) -> Iterator[tuple[Rate, Rate, Rate]]:
    """For each class its selection, true positive and false positive rate in each group, on all draws.

    `members` [rows] are the numbers of the rows' groups, `marks` the classes' names with the rows that have the class
    and the rows that it was predicted for, bool [rows]. `draws` are [rows, 1 + resamples].
    """
    rows = tally(members, groups, draws)
    for name, has_class, predicted in marks:
        having, selected, hits = (
            tally(members[chosen], groups, draws[chosen]) for chosen in (has_class, predicted, has_class & predicted)
        )
        pairs = {
            "selection rate": (selected, rows),
            "true positive rate": (hits, having),
            "false positive rate": (selected - hits, rows - having),
        }
        selection, true, false = (
            Rate(_divide(part, whole), whole[:, 0], name, kind) for kind, (part, whole) in pairs.items()
        )
        yield selection, true, false


def label_gaps(members: np.ndarray, groups: int, marks: Sequence[tuple[str, np.ndarray]]) -> list[Rate]:
    """The share of each class in each group's rows, without resamples: values [groups, 1].

    `marks` are the classes' names with the rows that have them, bool [rows].
    """
    rows = np.bincount(members, minlength=groups)
    return [
        Rate((np.bincount(members[has_class], minlength=groups) / rows)[:, None], rows, name, "share of the labels")
        for name, has_class in marks
    ]


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where the whole is 0."""
    quotient: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return quotient


def _measure_movement(values: np.ndarray) -> np.ndarray:
    """How far the groups' rates moved apart from the original ones on each resample, in the worst pair: [resamples].

    A rate that is undefined on a resample did not move.
    """
    moved = np.nan_to_num(values[:, 1:] - values[:, :1], nan=0.0)
    apart: np.ndarray = moved.max(0) - moved.min(0)
    return apart


def _find_blind_reach(rate: Rate, confidence: float) -> float:
    """How far a share may be off in the smallest group whose rows are all alike: Wilson's limit for 0 of its rows."""
    from scipy.special import ndtri

    spread = np.nanmax(np.abs(rate.values - rate.values[:, :1]), axis=1, initial=0.0, where=~np.isnan(rate.values))
    blind = rate.rows[(spread < _NO_SPREAD) & (rate.rows > 0)]
    return wilson(0.0, float(blind.min()), float(ndtri((1 + confidence) / 2)))[1] if len(blind) else 0.0
