"""The gates of a promotion: each is a figure, a bound, and whether it was passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.config.sections import Guards, Promotion
from hone.errors import ConfigError
from hone.evaluation.judging import metrics
from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.intervals import Interval, metric_intervals
from hone.evaluation.judging.slices import LENGTH, slice_parts
from hone.objectives.base import Outcome
from hone.promotion.contender import Contender, common_labels
from hone.promotion.noninferiority import count_needed_rows, exact_p_value
from hone.promotion.rows import Rows
from hone.store.tables import take_rows
from hone.tracking.aliases import CANDIDATE, CHAMPION

MIN_ROWS = 5  # slices and classes with fewer rows are not judged
MIN_DIFFERING = 10  # rows in which two versions differ, with fewer the bootstrap has no width
REQUESTS, WARM_UP = 40, 3


@dataclass(frozen=True)
class Gate:
    """One condition. `rows` names the rows it is about, '' for none; `figure` is the measured value, with its interval.

    `bound` is the condition in words, `note` further information.
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


@dataclass(frozen=True)
class Match:
    """Both versions' outcomes on the same rows, in the same order. Without a champion there is only the candidate's."""

    rows: Rows
    candidate: Contender
    labels: Sequence[str]
    outcomes: Mapping[str, Outcome]
    draws: np.ndarray

    def compute_metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """The objective's metrics [k] by name, from summed statistics [k, n]."""
        return self.candidate.objective.compute_metrics(sums, self.candidate.widen_targets(self.labels))

    def compute_intervals(self, name: str, confidence: float) -> dict[str, Interval]:
        """The metrics of version `name` with intervals."""
        objective, targets = self.candidate.objective, self.candidate.widen_targets(self.labels)
        sums, rows = metrics.totals(self.outcomes[name].statistics, self.draws), len(self.rows.table)
        rows_by_metric = objective.count_rows(sums[:, 0], targets)
        return metric_intervals(self.compute_metrics(sums), objective.metrics, confidence, rows, rows_by_metric)

    def draw_main_metric(self, name: str, positions: np.ndarray | None = None) -> np.ndarray:
        """The main metric of version `name` on every draw, for all rows or those at `positions`: [1 + resamples]."""
        statistics, draws = self.outcomes[name].statistics, self.draws
        if positions is not None:
            statistics, draws = statistics[positions], draws[positions]
        return self.compute_metrics(metrics.totals(statistics, draws))[self.candidate.objective.main_metric]

    @property
    def has_classes(self) -> bool:
        """Whether a row has a class, which is right or wrong."""
        return all(outcome.classes is not None for outcome in self.outcomes.values())

    @property
    def is_share_of_right_rows(self) -> bool:
        """Whether the main metric is the share of rows without an error."""
        return all(
            np.isclose(self.draw_main_metric(name)[0], (outcome.errors == 0).mean())
            for name, outcome in self.outcomes.items()
        )

    def count_won_and_lost(self) -> tuple[int, int]:
        """The numbers of rows that are right for the candidate alone, and for the champion alone."""
        ours, theirs = (self.outcomes[name].errors == 0 for name in (CANDIDATE, CHAMPION))
        return int((ours & ~theirs).sum()), int((theirs & ~ours).sum())

    def count_differing(self) -> int:
        """The number of rows with different predictions; where these are not text, with different errors."""
        ours, theirs = (self.outcomes[name] for name in (CANDIDATE, CHAMPION))
        differing = np.array(ours.predictions, object) != np.array(theirs.predictions, object)
        if ours.confidences is None:
            differing = differing | (ours.errors != theirs.errors)
        return int(differing.sum())

    @property
    def lower(self) -> bool:
        """Whether lower values of the main metric are better."""
        return self.candidate.objective.metrics[self.candidate.objective.main_metric].lower


def build_match(rows: Rows, contenders: Mapping[str, Contender], settings: Promotion) -> Match:
    """Evaluate both versions on the same rows. Rows that one of them cannot encode are left out for both."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = common_labels(list(contenders.values()), [rows.table])
    tokens = {name: contender.encode(rows.table, labels) for name, contender in contenders.items()}
    ids_by_version = [set(encoded["id"].to_pylist()) for encoded in tokens.values()]
    both = pa.array(sorted(set.intersection(*ids_by_version)), pa.string())
    table = rows.table.filter(pc.is_in(rows.table["id"], value_set=both))
    rows = Rows(rows.name, rows.digest, table, rows.left_out + len(rows.table) - len(table))
    outcomes = {}
    for name, contender in contenders.items():
        encoded = tokens[name].filter(pc.is_in(tokens[name]["id"], value_set=both))
        encoded = take_rows(encoded, _in_order_of(table["id"].to_pylist(), encoded["id"].to_pylist()))
        predictions, targets = contender.predict(encoded, labels), contender.widen_targets(labels)
        outcomes[name] = contender.objective.compute_outcome(encoded, predictions, targets, table)
    draws = metrics.resample(len(table), settings.resamples, settings.seed)
    return Match(rows, contenders[CANDIDATE], labels, outcomes, draws)


def judge_match(match: Match, settings: Promotion, slices: Sequence[str]) -> list[Gate]:
    """The gates of one set of rows: the main metric, slices, classes, calibration."""
    guards = settings.guards
    gates = [main_metric_gate(match, settings)]
    gates += slice_gates(match, guards, slices, settings.level)
    gates += class_gates(match, guards, settings.level)
    gates += calibration_gates(match, guards, settings.level)
    return gates


def main_metric_gate(match: Match, settings: Promotion) -> Gate:
    """The main metric: the candidate's is better, or, with a margin, not worse by more than that.

    With the margin m the null hypothesis is "worse by m or more" (non-inferiority: Blackwelder, Controlled
    Clinical Trials 3, 1982): see `margin_p_value`. With mcnemar, `p` is that of the exact one-sided test on the rows
    where one version is right and the other wrong (McNemar, Psychometrika 12, 1947).
    """
    ours, theirs = match.draw_main_metric(CANDIDATE), match.draw_main_metric(CHAMPION)
    metric, confidence = match.candidate.objective.main_metric, 1 - 2 * settings.level
    share_rows = len(match.rows.table) if match.candidate.objective.metrics[metric].share else 0
    difference = compare_paired(metric, ours, theirs, confidence, match.lower, share_rows)
    p, note = difference["p"], f"paired bootstrap, {settings.resamples:,} resamples"
    if settings.test == "mcnemar":
        p, note = mcnemar_p_value(match)
    elif settings.margin:
        p, note = margin_p_value(match, settings.margin, settings.level)
    condition = f"not worse by {settings.margin:g} or more" if settings.margin else "better"
    return Gate(
        f"{metric}: {condition}",
        p <= settings.level,
        f"p ≤ {settings.level:g}",
        difference["difference"],
        difference["low"],
        difference["high"],
        p,
        match.rows.name,
        note,
    )


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


def slice_gates(match: Match, guards: Guards, slices: Sequence[str], level: float) -> list[Gate]:
    """One gate for each of the `slices` present in the rows: the part whose main metric fell most."""
    if guards.slice_fall is None:
        return []
    table, texts = match.rows.table, match.candidate.objective.row_texts(match.rows.table)
    sliced = [name for name in slices if name == LENGTH or name in table.column_names]
    gates = []
    for name in sliced:
        falls = {
            part: _fall(
                match.draw_main_metric(CANDIDATE, positions), match.draw_main_metric(CHAMPION, positions), match.lower
            )
            for part, positions in slice_parts(name, table, texts).items()
            if len(positions) >= MIN_ROWS
        }
        gates += _no_fall(f"slices by {name}", falls, guards.slice_fall, level, match.rows.name)
    return gates


def class_gates(match: Match, guards: Guards, level: float) -> list[Gate]:
    """One gate for all classes of the rows: the class whose F1 fell most."""
    if guards.class_fall is None:
        return []
    ours, theirs = (
        match.candidate.objective.compute_group_metrics(
            metrics.totals(match.outcomes[name].statistics, match.draws), match.candidate.widen_targets(match.labels)
        )
        for name in (CANDIDATE, CHAMPION)
    )
    falls = {}
    for group, figures in ours.items():
        if "f1" in figures and figures["support"][0] >= MIN_ROWS:
            falls[group] = _fall(np.nan_to_num(figures["f1"]), np.nan_to_num(theirs[group]["f1"]), False)
    return _no_fall("F1 by class", falls, guards.class_fall, level, match.rows.name)


def calibration_gates(match: Match, guards: Guards, level: float) -> list[Gate]:
    """A gate on the growth of the expected calibration error; none if the objective has no probabilities."""
    if guards.calibration is None:
        return []
    errors = [
        metrics.calibration_errors(outcome.confidences, outcome.errors == 0, match.draws)
        for outcome in (match.outcomes[CANDIDATE], match.outcomes[CHAMPION])
        if outcome.confidences is not None
    ]
    if len(errors) < 2:
        return []
    growth = {"calibration error": errors[0] - errors[1]}
    return _no_fall("calibration", growth, guards.calibration, level, match.rows.name, "grows")


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


def baseline_gates(report: Mapping[str, Any], level: float) -> list[Gate]:
    """The gates of a first champion: better than each baseline that the candidate was evaluated with."""
    gates = [
        Gate(
            f"{comparison['metric']}: better than {name}",
            comparison["p"] <= level,
            f"p ≤ {level:g}",
            comparison["difference"],
            comparison["low"],
            comparison["high"],
            comparison["p"],
            "test",
            "there is no champion yet",
        )
        for name, comparison in report["comparisons"].items()
    ]
    no_baseline = "there is no champion yet, and it was evaluated with no baseline"
    return gates or [Gate("first champion", True, "none", note=no_baseline)]


def _fall(ours: np.ndarray, theirs: np.ndarray, lower: bool) -> np.ndarray:
    """How much worse the candidate (`ours`) is than the champion, on every draw."""
    fall: np.ndarray = ours - theirs if lower else theirs - ours
    return fall


def _no_fall(
    name: str, falls: Mapping[str, np.ndarray], max_fall: float, level: float, rows: str, verb: str = "falls"
) -> list[Gate]:
    """A gate that fails if the lower end of a fall's one-sided interval is above `max_fall`; none without a fall.

    With m parts each interval is at level / m (Bonferroni): otherwise many small parts would fail the gate by chance.
    """
    bounds_by_part: dict[str, tuple[float, float, float]] = {}
    for part, fall in falls.items():
        finite = fall[np.isfinite(fall)]
        if np.isfinite(fall[0]) and len(finite) > 1:
            low, high = np.quantile(finite[1:], (level / len(falls), 1 - level / len(falls)))
            bounds_by_part[part] = float(fall[0]), float(low), float(high)
    if not bounds_by_part:
        return []
    worst = max(bounds_by_part, key=lambda part: (bounds_by_part[part][1] > max_fall, bounds_by_part[part][0]))
    refused = [part for part in bounds_by_part if bounds_by_part[part][1] > max_fall]
    note = f"{', '.join(refused[:5])} {verb} by more" if refused else f"largest: {worst}"
    return [Gate(name, not refused, f"{verb} by {max_fall:g} at most", *bounds_by_part[worst], rows=rows, note=note)]


def _in_order_of(ids: Sequence[str], encoded: Sequence[str]) -> list[int]:
    """Positions that bring the encoded rows into the order of `ids`; windows of one row stay in their order."""
    position_by_id = {name: index for index, name in enumerate(ids)}
    return sorted(range(len(encoded)), key=lambda index: position_by_id[encoded[index]])
