"""How often the intervals of gaps between groups hold the gap on infinitely many rows, beside bootstrap percentiles.

    python benchmarks/gaps.py [SIMULATIONS]     1,000 by default: some five minutes on 2 cores

Rows are right with a probability that depends on their group. The peer is the percentiles of the bootstrap, as of
fairlearn's MetricFrame with n_boot. Ends with status 1 if a gap is held in less than LEAST_COVERAGE of the simulations,
or if more than MOST_CLAIMS of the changes that are none are claimed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from hone.evaluation.judging.gaps import Gap, change_interval, iter_class_rates, measure_gap
from hone.evaluation.judging.metrics import resample

LEAST_COVERAGE, MOST_CLAIMS = 0.92, 0.1
RESAMPLES = 500
# Accuracies of the groups, and rows of each.
GAPS: Sequence[tuple[Sequence[float], int]] = (
    ((0.8, 0.8), 20),
    ((0.9, 0.8), 20),
    ((0.98, 0.98), 50),
    ((0.9, 0.8), 200),
    ((0.8,) * 5, 50),
    ((0.9, 0.9, 0.85, 0.85, 0.8), 50),
    ((0.9, 0.9, 0.9, 0.9, 0.7), 200),
    ((0.9,) * 10, 200),
)
# Accuracies after and before, the same in all groups; their number; rows of each. No gap changes.
CHANGES: Sequence[tuple[float, float, int, int]] = (
    (0.9, 0.9, 2, 50),
    (0.9, 0.6, 2, 50),
    (0.9, 0.6, 5, 50),
    (0.95, 0.6, 5, 60),
    (0.9, 0.6, 5, 200),
)


def draw_gap(generator: np.random.Generator, shares: Sequence[float], rows: int, draws: np.ndarray) -> Gap:
    """The gap of simulated answers, `rows` in each group, right with the group's share."""
    members = np.repeat(np.arange(len(shares)), rows)
    right = generator.random(len(members)) < np.array(shares)[members]
    marks = [("", np.ones(len(right), bool), right)]
    [(_, rate, _)] = iter_class_rates(members, len(shares), marks, draws)
    return measure_gap([rate], 0.95)


def print_gaps(simulations: int) -> list[str]:
    """The table of gaps; the bounds that are broken."""
    print(
        "| accuracies | rows of each | percentiles hold it | Hone's interval | their mean widths |"
        "\n|---|---|---|---|---|"
    )
    broken = []
    for shares, rows in GAPS:
        generator, true = np.random.default_rng(1), max(shares) - min(shares)
        intervals = np.empty((simulations, 4))
        for number in range(simulations):
            gap = draw_gap(generator, shares, rows, resample(len(shares) * rows, RESAMPLES, number))
            ends = np.quantile(gap.gaps[1:], (0.025, 0.975))
            intervals[number] = *ends, gap.interval["low"], gap.interval["high"]
        held = [
            np.mean((low <= true + 1e-9) & (high >= true - 1e-9)) for low, high in (intervals.T[:2], intervals.T[2:])
        ]
        widths = [np.mean(high - low) for low, high in (intervals.T[:2], intervals.T[2:])]
        title = (
            ", ".join(f"{share:g}" for share in shares) if len(set(shares)) > 1 else f"{len(shares)} x {shares[0]:g}"
        )
        print(f"| {title} | {rows} | {held[0]:.1%} | {held[1]:.1%} | {widths[0]:.3f}, {widths[1]:.3f} |", flush=True)
        broken += [f"{held[1]:.1%} of {title}, {rows} rows"] if held[1] < LEAST_COVERAGE else []
    return broken


def print_changes(simulations: int) -> list[str]:
    """The table of changes that are none; the bounds that are broken."""
    print(
        "\n| accuracy before, after | groups | rows of each | percentiles claim a change | Hone does |"
        "\n|---|---|---|---|---|"
    )
    broken = []
    for after, before, groups, rows in CHANGES:
        generator, claims = np.random.default_rng(2), np.zeros(2)
        for number in range(simulations):
            draws = resample(groups * rows, RESAMPLES, number)
            ours, theirs = (draw_gap(generator, [share] * groups, rows, draws) for share in (after, before))
            low, high = np.quantile((ours.gaps - theirs.gaps)[1:], (0.025, 0.975))
            interval = change_interval(ours.gaps, theirs.gaps, 0.95)
            claims += (low > 0 or high < 0, interval["low"] > 0 or interval["high"] < 0)
        claims /= simulations
        print(f"| {before:g}, {after:g} | {groups} | {rows} | {claims[0]:.1%} | {claims[1]:.1%} |", flush=True)
        broken += [f"{claims[1]:.1%} of {before:g} to {after:g}"] if claims[1] > MOST_CLAIMS else []
    return broken


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    failures = print_gaps(count) + print_changes(count)
    for failure in failures:
        print(f"broken: {failure}")
    sys.exit(1 if failures else 0)
