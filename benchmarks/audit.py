"""How often the test of `promotion.margin` errs, beside what it replaced: `python benchmarks/audit.py`.

The table is computed from probabilities, in Markdown, as it is in docs/promotion.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.stats import binom

from hone.promotion.noninferiority import exact_p_value

LEVEL = 0.05
LEAST_CHANCE = 1e-5  # of a result, for it to count
RESAMPLES = 2_000

# Test rows, margin, and the true shares of rows that the candidate loses and wins: worse by the whole margin.
MARGINS = (
    (100, 0.01, 0.01, 0.0),
    (50, 0.02, 0.02, 0.0),
    (200, 0.01, 0.01, 0.0),
    (100, 0.01, 0.02, 0.01),
    (50, 0.05, 0.05, 0.0),
    (10, 0.1, 0.1, 0.0),
    (300, 0.05, 0.08, 0.03),
    (1000, 0.01, 0.02, 0.01),
    (3000, 0.005, 0.005, 0.0),
)


@cache
def bootstrap_p_value(rows: int, won: int, lost: int, margin: float) -> float:
    """The share of paired resamples in which the candidate is worse by the margin or more."""
    draws = np.random.default_rng(0).multinomial(rows, (won / rows, lost / rows, 1 - (won + lost) / rows), RESAMPLES)
    return float((1 + np.count_nonzero((draws[:, 0] - draws[:, 1]) / rows + margin <= 0)) / (1 + RESAMPLES))


@cache
def exact(rows: int, won: int, lost: int, margin: float) -> float:
    """The exact test's p-value."""
    return exact_p_value(rows, won, lost, margin)


def passing(p_value: Callable[..., float], rows: int, margin: float, lost: float, won: float) -> float:
    """The probability that the margin is passed, over all results."""
    chance = 0.0
    for lost_rows in np.flatnonzero(binom.pmf(np.arange(rows + 1), rows, lost) > LEAST_CHANCE):
        chances = binom.pmf(np.arange(rows - lost_rows + 1), rows - lost_rows, won / (1 - lost))
        for won_rows in np.flatnonzero(chances > LEAST_CHANCE):
            if p_value(rows, int(won_rows), int(lost_rows), margin) <= LEVEL:
                chance += float(binom.pmf(lost_rows, rows, lost) * chances[won_rows])
    return chance


def print_margins() -> None:
    """How often a candidate passes that is worse by the whole margin, and one that never differs."""
    print("| test rows | margin | rows lost, won | pass by bootstrap | pass by exact test |")
    print("|---|---|---|---|---|")
    for rows, margin, lost, won in MARGINS:
        shares = [passing(p_value, rows, margin, lost, won) for p_value in (bootstrap_p_value, exact)]
        cells = " | ".join(f"{100 * share:.1f}%" for share in shares)
        print(f"| {rows:,} | {margin:g} | {100 * lost:g}%, {100 * won:g}% | {cells} |", flush=True)


if __name__ == "__main__":
    print_margins()
