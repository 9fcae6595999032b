"""The gates of a promotion: each is a figure, a bound, and whether it was passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.config.sections import Promotion
from hone.errors import ConfigError
from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.paired_rows import PairedRows
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

    paired = match.paired
    if not paired.is_share:
        raise ConfigError(
            f"mcnemar counts right and wrong rows; {match.candidate.objective.main_metric} is not their share",
            where="promotion.test",
            fix="Set promotion.test to bootstrap.",
        )
    note = f"exact McNemar: {_describe_differing(paired, CHAMPION)}"
    if not paired.won + paired.lost:
        return 1.0, note
    return float(binomtest(paired.won, paired.won + paired.lost, 0.5, alternative="greater").pvalue), note


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
    paired = match.paired
    if not (paired.is_share or paired.has_classes):
        few = _describe_few_rows(paired)
        return (1.0, few) if few else (resampled, note)
    exact = exact_p_value(paired.rows, paired.won, paired.lost, margin)
    if resampled > exact and not paired.is_share:
        return resampled, note
    return exact, _describe_exact(paired, CHAMPION, margin, level, exact)


def _describe_few_rows(paired: PairedRows) -> str:
    """That a bootstrap cannot judge a margin since the answers differ in too few rows; empty if it can."""
    if paired.differing >= MIN_DIFFERING:
        return ""
    return f"the answers differ in {paired.differing} rows; a margin can be judged from {MIN_DIFFERING} on"


def _describe_exact(paired: PairedRows, opponent: str, margin: float, level: float, p: float) -> str:
    note = f"exact: {_describe_differing(paired, opponent)}"
    if p > level and (needed := count_needed_rows(margin, level)) > paired.rows:
        note += f"; even versions that never differ pass from {needed:,} rows on"
    return note


def _describe_differing(paired: PairedRows, opponent: str) -> str:
    return f"{paired.won} rows right for the candidate alone, {paired.lost} for the {opponent} alone"


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
    """The gates of a first champion: better than each baseline that the candidate was evaluated with (metrics.json).

    With a margin: not worse than each by that much, as `_judge_baseline_margin` decides.
    """
    margin, gates = settings.margin, []
    for name, comparison in report["comparisons"].items():
        note = "there is no champion yet"
        if margin:
            condition = f"not worse than {name} by {margin:g} or more"
            passed, p, bound, reason = _judge_baseline_margin(
                comparison, report.get("confidence", 0), settings.level, margin
            )
            note = f"{note}; {reason}"
        else:
            condition, p, bound = f"better than {name}", comparison["p"], f"p ≤ {settings.level:g}"
            passed = p <= settings.level
        figures = (comparison["difference"], comparison["low"], comparison["high"])
        gates.append(Gate(f"{comparison['metric']}: {condition}", passed, bound, *figures, p, "test", note))
    no_baseline = "there is no champion yet, and it was evaluated with no baseline"
    return gates or [Gate("first champion", True, "none", note=no_baseline)]


def _judge_baseline_margin(
    comparison: Mapping[str, Any], confidence: float, level: float, margin: float
) -> tuple[bool, float | None, str, str]:
    """Whether a comparison speaks against "worse by `margin` or more"; its p-value, the bound in words, and a note.

    As `margin_p_value`, but the resamples are those of the evaluation: in place of their p-value the interval, whose
    tail must not be larger than the level, must lie above minus the margin.
    """
    if not (counts := comparison.get("paired")):  # written by an older release
        return False, None, f"p ≤ {level:g}", "its evaluation did not count the rows in which they differ: run it again"
    paired, p, note = PairedRows(**counts), None, ""
    if paired.is_share or paired.has_classes:
        p = exact_p_value(paired.rows, paired.won, paired.lost, margin)
        note = _describe_exact(paired, "baseline", margin, level, p)
        if paired.is_share or p > level:
            return p <= level, p, f"p ≤ {level:g}", note
    elif few := _describe_few_rows(paired):
        return False, None, f"interval above {-margin:g}", few
    if (1 - confidence) / 2 > level + 1e-9:
        note = f"an interval of {confidence:g} cannot judge at the level {level:g}: raise evaluation.confidence"
        return False, p, f"interval above {-margin:g}", note
    return comparison["low"] > -margin, p, f"interval above {-margin:g}", note or f"interval of {confidence:g}"
