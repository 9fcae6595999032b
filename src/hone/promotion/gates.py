"""The gates of a promotion: each is a figure, a bound, and whether it was passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.config.sections import Promotion
from hone.errors import ConfigError
from hone.evaluation.judging.comparison import compare_paired
from hone.promotion.contender import Contender
from hone.promotion.match import Match
from hone.promotion.noninferiority import count_needed_rows, exact_p_value
from hone.promotion.rows import Rows
from hone.store.tables import take_rows
from hone.tracking.aliases import CANDIDATE, CHAMPION

MIN_DIFFERING = 10  # rows in which two versions differ, with fewer the bootstrap has no width
POWER = 0.8
REQUESTS, WARM_UP = 40, 3


@dataclass(frozen=True)
class Gate:
    """One condition. `rows` names the rows it is about, '' for none; `figure` is the measured value, with its interval.

    `bound` is the condition in words, `note` further information. `inconclusive`: the rows are too few to say
    whether it is met; `passed` is then as configured (`promotion.inconclusive`).
    """

    name: str
    passed: bool
    bound: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    rows: str = ""
    note: str = ""
    inconclusive: bool = False


def main_metric_gate(match: Match, settings: Promotion) -> Gate:
    """The main metric: the candidate's is better, or, with a margin, not worse by more than that.

    With the margin m the null hypothesis is "worse by m or more" (non-inferiority: Blackwelder, Controlled
    Clinical Trials 3, 1982): see `margin_p_value`. With mcnemar, `p` is that of the exact one-sided test on the rows
    where one version is right and the other wrong (McNemar, Psychometrika 12, 1947). The note has the difference that
    a comparison on as many rows finds in 4 of 5 cases.
    """
    ours, theirs = match.draw_main_metric(CANDIDATE), match.draw_main_metric(CHAMPION)
    metric, level = match.candidate.objective.main_metric, settings.comparison_level
    share_rows = len(match.rows.table) if match.candidate.objective.metrics[metric].share else 0
    difference = compare_paired(metric, ours, theirs, 1 - 2 * level, match.lower, share_rows)
    p, note = difference["p"], f"paired bootstrap, {settings.resamples:,} resamples"
    if settings.test == "mcnemar":
        p, note = mcnemar_p_value(match)
    elif settings.margin:
        p, note = margin_p_value(match, settings.margin, level)
    if not settings.margin:
        note += _describe_power(ours - theirs, level)
    condition = f"not worse by {settings.margin:g} or more" if settings.margin else "better"
    return Gate(
        f"{metric}: {condition}",
        p <= level,
        f"p ≤ {level:g}",
        difference["difference"],
        difference["low"],
        difference["high"],
        p,
        match.rows.name,
        note,
    )


def _describe_power(differences: np.ndarray, level: float) -> str:
    """`; finds 0.021 in 4 of 5`; empty if the versions do not differ.

    It is the difference whose test at this level has a power of 80% with the standard error of the resamples
    (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988).
    """
    from scipy.special import ndtri

    error = float(differences[1:].std())
    return f"; finds a difference of {(ndtri(1 - level) + ndtri(POWER)) * error:.2g} in 4 of 5" if error else ""


def mcnemar_p_value(match: Match) -> tuple[float, str]:
    """The p-value of the null hypothesis "not better", and a note with the numbers of rows that decide it.

    Raises ConfigError if the main metric is not the share of rows without an error.
    """
    from scipy.stats import binomtest

    if not match.is_share_of_right_rows:
        raise ConfigError(
            f"mcnemar counts right and wrong rows; {match.candidate.objective.main_metric} is not their share",
            where="promotion.test",
            fix="Set promotion.test to bootstrap.",
        )
    ours, theirs = match.count_won_and_lost()
    note = f"exact McNemar: {_describe_differing(ours, theirs)}"
    if not ours + theirs:
        return 1.0, note
    return float(binomtest(ours, ours + theirs, 0.5, alternative="greater").pvalue), note


def margin_p_value(match: Match, margin: float, level: float) -> tuple[float, str]:
    """The p-value of the null hypothesis "worse by `margin` or more", and a note on how it was found.

    For a share of right rows it is that of an exact test (`noninferiority`). For other metrics of classes, such as
    macro-F1, it is the larger one of the exact test's on the share of right rows and the paired bootstrap's, which sees
    nothing where few rows differ. For all other metrics it is the bootstrap's, and 1 if the versions differ in fewer
    than MIN_DIFFERING rows.
    """
    ours, theirs = match.draw_main_metric(CANDIDATE), match.draw_main_metric(CHAMPION)
    shifted = ours - margin if match.lower else ours + margin
    resampled = compare_paired("", shifted, theirs, 1 - 2 * level, match.lower)["p"]
    note = f"paired bootstrap, {len(ours) - 1:,} resamples"
    if not (match.is_share_of_right_rows or match.has_classes):
        differing = match.count_differing()
        if differing < MIN_DIFFERING:
            return 1.0, f"the versions differ in {differing} rows; a margin can be judged from {MIN_DIFFERING} on"
        return resampled, note
    rows, (won, lost) = len(match.rows.table), match.count_won_and_lost()
    exact = exact_p_value(rows, won, lost, margin)
    if resampled > exact and not match.is_share_of_right_rows:
        return resampled, note
    note = f"exact: {_describe_differing(won, lost)}"
    if exact > level and (needed := count_needed_rows(margin, level)) > rows:
        note += f"; even versions that never differ pass from {needed:,} rows on"
    return exact, note


def _describe_differing(ours: int, theirs: int) -> str:
    return f"{ours} rows right for the candidate alone, {theirs} for the champion alone"


def latency_gate(contenders: Mapping[str, Contender], rows: Rows, max_ratio: float, level: float, seed: int) -> Gate:
    """The ratio of both p95 latencies of single requests, timed alternately: load on the machine affects both alike."""
    import time

    places = np.linspace(0, len(rows.table) - 1, WARM_UP + REQUESTS).astype(int)
    requests = contenders[CANDIDATE].objective.inference_inputs(take_rows(rows.table, places))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for request in requests:
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender.answer([request])
            seconds[name].append(time.perf_counter() - start)
    latencies = {name: np.array(times[WARM_UP:]) for name, times in seconds.items()}
    draws = np.random.default_rng(seed).integers(REQUESTS, size=(1000, REQUESTS))
    p95 = {name: np.quantile(times[draws], 0.95, axis=1) for name, times in latencies.items()}
    value = {name: float(np.quantile(times, 0.95)) for name, times in latencies.items()}
    low, high = np.quantile(p95[CANDIDATE] / p95[CHAMPION], (level, 1 - level))
    note = " and ".join(f"{1000 * value[name]:.3g} ms ({name})" for name in (CANDIDATE, CHAMPION))
    ratio = value[CANDIDATE] / value[CHAMPION]
    return Gate(
        "latency p95, ratio", bool(low <= max_ratio), f"≤ {max_ratio:g}", ratio, float(low), float(high), None, "", note
    )


def size_gate(contenders: Mapping[str, Contender], max_ratio: float) -> Gate:
    """The ratio of the sizes of both models' weights, in bytes."""
    sizes = {name: contender.weight_bytes for name, contender in contenders.items()}
    note = " and ".join(f"{sizes[name]:,} bytes ({name})" for name in (CANDIDATE, CHAMPION))
    ratio = sizes[CANDIDATE] / sizes[CHAMPION]
    return Gate("size of the weights, ratio", ratio <= max_ratio, f"≤ {max_ratio:g}", ratio, note=note)


def leakage_gate(rows: Rows, positions: Sequence[int]) -> Gate:
    """A gate that fails if rows of the golden set, at `positions`, were among the candidate's training rows."""
    ids = rows.table["id"].to_pylist()
    note = f"such as {', '.join(str(ids[position]) for position in positions[:3])}" if positions else ""
    return Gate(
        "leakage: rows that were trained on", not positions, "0 rows", float(len(positions)), rows=rows.name, note=note
    )


def baseline_gates(report: Mapping[str, Any], settings: Promotion) -> list[Gate]:
    """The gates of a first champion: better than each baseline that the candidate was evaluated with.

    With a margin: the interval of the difference, at the evaluation's confidence, is above it.
    """
    margin, gates = settings.margin, []
    for name, comparison in report["comparisons"].items():
        condition = f"not worse than {name} by {margin:g} or more" if margin else f"better than {name}"
        passed = comparison["low"] > -margin if margin else comparison["p"] <= settings.level
        gates.append(
            Gate(
                f"{comparison['metric']}: {condition}",
                passed,
                f"interval above {-margin:g}" if margin else f"p ≤ {settings.level:g}",
                comparison["difference"],
                comparison["low"],
                comparison["high"],
                None if margin else comparison["p"],
                "test",
                "there is no champion yet",
            )
        )
    no_baseline = "there is no champion yet, and it was evaluated with no baseline"
    return gates or [Gate("first champion", True, "none", note=no_baseline)]
