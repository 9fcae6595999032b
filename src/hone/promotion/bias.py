"""The gates of bias: limits on the candidate alone. A gap as wide as the champion's is no reason to pass.

As the other guards, each refuses if its figure is above the limit significantly (the whole interval is), and is
inconclusive if the figure alone is (`promotion.inconclusive`), or if the rows are too few for a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hone.config.sections import Promotion
from hone.evaluation.judging.gaps import measure_gap
from hone.evaluation.judging.groups import MIN_ROWS, metric_rate, split_groups
from hone.evaluation.judging.wilson import wilson
from hone.promotion.gates import Gate
from hone.promotion.match import Match
from hone.splits import TEST
from hone.tracking.aliases import CANDIDATE

FLIPS = "answers that change with swapped words"


def judge_bias(
    matches: Sequence[Match], report: Mapping[str, Any], settings: Promotion, columns: Sequence[str]
) -> list[Gate]:
    """The gates of groups on each set of rows, and that of flips; `report` is the candidate's metrics.json."""
    gaps = [gate for match in matches for gate in judge_group_gaps(match, settings, columns)]
    return [*gaps, *judge_flip_rate(report, settings)]


def judge_group_gaps(match: Match, settings: Promotion, columns: Sequence[str]) -> list[Gate]:
    """A gate for the gap of the main metric between the groups of each column that the rows have; none without a limit.

    The interval is as of `measure_gap`, at the confidence 1 - 2 x level.
    """
    limit = settings.guards.group_gap
    columns = [column for column in columns if column in match.rows.table.column_names]
    return [] if limit is None else [_judge_column(match, settings, column, limit) for column in columns]


def judge_flip_rate(report: Mapping[str, Any], settings: Promotion) -> list[Gate]:
    """The gate of flips, from what the evaluation counted (metrics.json); none without a limit."""
    from scipy.special import ndtri

    limit = settings.guards.flip_rate
    if limit is None:
        return []
    counts = report.get("flips") or {}
    if not counts.get("rows"):
        words = "no test row contains a word of the lexicon" if counts else "its evaluation swapped no words"
        return [_undecided(FLIPS, limit, settings, TEST, words)]
    rows, changed = counts["rows"], counts["changed"]
    low, high = wilson(changed / rows, rows, float(ndtri(1 - settings.level)))
    note = f"{changed:,} of {rows:,} rows with words of {counts['lexicon']}, as evaluated"
    return [_decide(FLIPS, limit, settings, (changed / rows, low, high), TEST, note)]


def _judge_column(match: Match, settings: Promotion, column: str, limit: float) -> Gate:
    objective = match.candidate.objective
    metric = objective.main_metric
    name = f"{metric}: gap between groups of {column}"
    groups, rate = metric_rate(
        split_groups(match.rows.table[column].to_pylist()),
        lambda rows: match.draw_main_metric(CANDIDATE, rows),
        objective.metrics[metric].share,
    )
    if len(groups.names) < 2:
        return _undecided(name, limit, settings, match.rows.name, f"fewer than two groups have {MIN_ROWS} rows")
    gap = measure_gap([rate], 1 - 2 * settings.level)
    values = np.round(rate.values[:, 0], 4)
    ends = [f"{groups.names[end]} {values[end]:g}" for end in gap.ends]
    note = f"highest {ends[0]}, lowest {ends[1]}"
    if groups.left_out:
        note += f"; not judged: {sum(groups.left_out.values()):,} rows of {len(groups.left_out):,} smaller groups"
    figure = (gap.interval["value"], gap.interval["low"], gap.interval["high"])
    return _decide(name, limit, settings, figure, match.rows.name, note)


def _decide(
    name: str, limit: float, settings: Promotion, figure: tuple[float, float, float], rows: str, note: str
) -> Gate:
    value, low, high = figure
    refused, inconclusive = low > limit, low <= limit < value
    passed = not refused and not (inconclusive and settings.inconclusive == "refuse")
    note += "; beyond it, perhaps by chance" if inconclusive else ""
    return Gate(name, passed, f"≤ {limit:g}", value, low, high, rows=rows, note=note, inconclusive=inconclusive)


def _undecided(name: str, limit: float, settings: Promotion, rows: str, note: str) -> Gate:
    """The gate without a figure."""
    return Gate(name, settings.inconclusive != "refuse", f"≤ {limit:g}", rows=rows, note=note, inconclusive=True)
