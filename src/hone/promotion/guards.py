"""The guards of a promotion: what must not get worse though the main metric is better.

A guard is about parts of the rows (slices, classes) or one figure of all (calibration). It refuses if a part fell by
more than its limit on the test rows and the fall is significant: for right and wrong rows by McNemar's exact test
(Psychometrika 12, 1947), else by the paired bootstrap; with several parts by Holm's procedure (Scandinavian Journal of
Statistics 6, 1979). A fall by more than the limit that is not significant makes it inconclusive. Beside each verdict
stands the least fall that the guard could have refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.config.sections import Promotion
from hone.evaluation.judging import metrics
from hone.evaluation.judging.slices import LENGTH, slice_parts
from hone.promotion.gates import Gate
from hone.promotion.match import Match
from hone.tracking.aliases import CANDIDATE, CHAMPION

BENCHMARKS = "benchmarks against the base model"
MIN_ROWS = 5  # slices and classes with fewer rows are not judged
MAX_NAMED = 5  # parts that a gate names
_ROUNDING = 1e-9  # a fall of exactly the limit is none beyond it


@dataclass(frozen=True)
class Fall:
    """How much worse the candidate is on a part: `value`, and the p-value `p` of "not worse at all".

    `detectable` returns the least fall that is significant at a level, infinite if none is.
    """

    value: float
    p: float
    detectable: Callable[[float], float]


def judge_guards(match: Match, settings: Promotion, slices: Sequence[str]) -> list[Gate]:
    """The gates of slices, classes and calibration on one set of rows; none for a guard that is null."""
    guards = settings.guards
    gates = []
    if guards.slice_fall is not None:
        for name in slices:
            gates += judge_falls(
                f"slices by {name}", find_slice_falls(match, name), guards.slice_fall, match.rows.name, settings
            )
    if guards.class_fall is not None:
        gates += judge_falls("F1 by class", find_class_falls(match), guards.class_fall, match.rows.name, settings)
    if guards.calibration is not None:
        growth = find_calibration_growth(match)
        gates += judge_falls("calibration", growth, guards.calibration, match.rows.name, settings, "growth")
    return gates


def judge_falls(
    name: str, falls: Mapping[str, Fall], limit: float, rows: str, settings: Promotion, noun: str = "fall"
) -> list[Gate]:
    """The gate on the falls of all parts, with the figure of the part that decides; none without a part.

    `rows` names the rows that they are about.
    """
    if not falls:
        return []
    p_values = adjust_holm({part: fall.p for part, fall in falls.items()})
    beyond = [part for part, fall in falls.items() if fall.value > limit + _ROUNDING]
    refused = [part for part in beyond if p_values[part] <= settings.level]
    worst = max(falls, key=lambda part: (part in refused, falls[part].value))
    if refused:
        note = f"beyond it: {_name_parts(refused)}"
    elif beyond:
        note = f"beyond it, perhaps by chance: {_name_parts(beyond)}"
    else:
        note = f"largest: {worst}"
    return [
        Gate(
            name,
            not refused and not (beyond and settings.inconclusive == "refuse"),
            f"{noun} ≤ {limit:g}",
            falls[worst].value,
            p=p_values[worst],
            rows=rows,
            note=f"{note}; {_describe_detectable(falls, limit, settings.level)}",
            inconclusive=bool(beyond and not refused),
        )
    ]


def judge_benchmarks(report: Mapping[str, Any], settings: Promotion) -> list[Gate]:
    """The gate on benchmark tasks, from the candidate's metrics.json: against its base model, whoever is the champion.

    So the limit bounds all that was forgotten: against the champion, each version could lose as much once more.
    """
    limit = settings.guards.benchmark_fall
    if limit is None:
        return []
    falls = find_benchmark_falls(report)
    if not falls:
        note = "it was evaluated without a task whose metric is from 0 to 1"
        return [Gate(BENCHMARKS, False, f"fall ≤ {limit:g}", note=note)]
    return judge_falls(BENCHMARKS, falls, limit, "", settings)


def find_benchmark_falls(report: Mapping[str, Any]) -> dict[str, Fall]:
    """The fall of each metric in 0..1 of each task, from the base model to the candidate; empty without benchmarks."""
    figures = (report.get("benchmarks") or {}).get("figures", ())
    return {
        f"{figure['task']} {figure['metric']}": _benchmark_fall(figure["fall"], figure["rows"])
        for figure in figures
        if figure["share"] and figure["rows"] >= MIN_ROWS
    }


def find_slice_falls(match: Match, name: str) -> dict[str, Fall]:
    """The fall of the main metric in each part of a slice; empty if the rows have no such column."""
    table = match.rows.table
    if name != LENGTH and name not in table.column_names:
        return {}
    parts = slice_parts(name, table, match.candidate.objective.row_texts(table))
    parts = {part: positions for part, positions in parts.items() if len(positions) >= MIN_ROWS}
    if match.paired.is_share:
        right = {name: outcome.errors == 0 for name, outcome in match.outcomes.items()}
        return {part: _share_fall(right[CANDIDATE][rows], right[CHAMPION][rows]) for part, rows in parts.items()}
    falls: dict[str, Fall] = {}
    for part, positions in parts.items():
        ours, theirs = (match.draw_main_metric(name, positions) for name in (CANDIDATE, CHAMPION))
        falls |= _resampled_fall(part, ours - theirs if match.lower else theirs - ours)
    return falls


def find_class_falls(match: Match) -> dict[str, Fall]:
    """The fall of the F1 of each class or type with enough rows; empty if the objective has none.

    A row is lost to a class if its own F1 fell: for one label a row, if the class is missed or wrongly predicted there
    by the candidate alone.
    """
    targets = match.candidate.widen_targets(match.labels)
    ours, theirs = (
        match.candidate.objective.compute_group_metrics(
            np.column_stack([match.outcomes[name].statistics.sum(0), match.outcomes[name].statistics.T]), targets
        )
        for name in (CANDIDATE, CHAMPION)
    )
    return {
        group: _f1_fall(figures, theirs[group])
        for group, figures in ours.items()
        if "f1" in figures and figures["support"][0] >= MIN_ROWS
    }


def find_calibration_growth(match: Match) -> dict[str, Fall]:
    """The growth of the expected calibration error; empty if the objective has no probabilities."""
    errors = [
        metrics.calibration_errors(outcome.confidences, outcome.errors == 0, match.draws)
        for outcome in (match.outcomes[CANDIDATE], match.outcomes[CHAMPION])
        if outcome.confidences is not None
    ]
    return _resampled_fall("calibration error", errors[0] - errors[1]) if len(errors) == 2 else {}


def adjust_holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values that, compared with the level of all tests together, decide as Holm's procedure does."""
    adjusted, largest = {}, 0.0
    for rank, part in enumerate(sorted(p_values, key=lambda part: p_values[part])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[part]))
        adjusted[part] = largest
    return adjusted


def _share_fall(ours: np.ndarray, theirs: np.ndarray) -> Fall:
    """The fall of the share of right rows."""
    return _counted_fall(int((theirs & ~ours).sum()), int((ours & ~theirs).sum()), len(ours))


def _counted_fall(lost: int, won: int, rows: int) -> Fall:
    """The fall of a share of right rows, by McNemar's test."""

    def detectable(level: float) -> float:
        needed = _count_needed(level)
        return needed / rows if needed <= rows else math.inf

    return Fall((lost - won) / rows, _sign_p_value(lost, won), detectable)


def _benchmark_fall(fall: Mapping[str, Any], rows: int) -> Fall:
    """The fall as the evaluation measured it: right and wrong documents are counted, others were resampled."""
    from scipy.special import ndtri

    if fall["lost"] is not None:
        return _counted_fall(fall["lost"], fall["won"], rows)
    return Fall(fall["value"], fall["p"], lambda level: float(ndtri(1 - level) * fall["error"]))


def _f1_fall(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> Fall:
    """The fall of an F1, from the figures [1 + rows] of all rows and of each row, undefined where it has no class."""
    our_rows, their_rows = (np.nan_to_num(figures["f1"][1:], nan=1.0) for figures in (ours, theirs))
    lost, won = int((our_rows < their_rows).sum()), int((our_rows > their_rows).sum())
    value, recall, precision = (float(np.nan_to_num(theirs[name][0])) for name in ("f1", "recall", "precision"))
    right = recall * float(theirs["support"][0])
    present_and_predicted = theirs["support"][0] + (right / precision if precision else 0)

    def detectable(level: float) -> float:
        needed = _count_needed(level)
        left = 2 * (right - needed) / (present_and_predicted - needed) if needed <= right else math.inf
        return value - left if needed <= right else math.inf

    return Fall(value - float(np.nan_to_num(ours["f1"][0])), _sign_p_value(lost, won), detectable)


def _resampled_fall(part: str, falls: np.ndarray) -> dict[str, Fall]:
    """The fall on every draw [1 + resamples] as that of a part; empty if it is undefined."""
    drawn = falls[1:][np.isfinite(falls[1:])]
    if not np.isfinite(falls[0]) or not len(drawn):
        return {}

    def detectable(level: float) -> float:
        return float(falls[0] - np.quantile(drawn, level)) if level * (1 + len(drawn)) >= 1 else math.inf

    return {part: Fall(float(falls[0]), float((1 + np.count_nonzero(drawn <= 0)) / (1 + len(drawn))), detectable)}


def _sign_p_value(lost: int, won: int) -> float:
    """McNemar's exact one-sided p-value of "as many rows are won as lost, or more"."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue) if lost + won else 1.0


def _count_needed(level: float) -> int:
    """The least number of lost rows that is significant if none is won."""
    return math.ceil(-math.log2(level))


def _describe_detectable(falls: Mapping[str, Fall], limit: float, level: float) -> str:
    """The least fall that the guard sees, in the part where that is largest."""
    detectable = {part: fall.detectable(level / len(falls)) for part, fall in falls.items()}
    blind = [part for part, least in detectable.items() if least == math.inf]
    if blind:
        return f"too few rows to see any fall in {_name_parts(blind)}"
    return f"sees {max(limit, *detectable.values()):.2g} or more" + (" in each" if len(falls) > 1 else "")


def _name_parts(parts: Sequence[str]) -> str:
    rest = f" and {len(parts) - MAX_NAMED} more" if len(parts) > MAX_NAMED else ""
    return ", ".join(parts[:MAX_NAMED]) + rest
