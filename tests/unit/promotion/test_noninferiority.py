"""The exact test of a margin: its p-values by hand, and how often it lets pass what is worse by the whole margin."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from hone.promotion.noninferiority import count_needed_rows, exact_p_value, score


@cache
def p_value(rows: int, won: int, lost: int, margin: float) -> float:
    return exact_p_value(rows, won, lost, margin)


@pytest.mark.parametrize("rows", [10, 50, 300])
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.1])
def test_of_two_that_never_differ_it_is_no_less_than_the_chance_to_lose_no_row(rows: int, margin: float) -> None:
    assert p_value(rows, 0, 0, margin) >= (1 - margin) ** rows - 1e-9


@pytest.mark.parametrize(("margin", "level"), [(0.01, 0.05), (0.1, 0.05), (0.03, 0.01)])
def test_the_number_of_rows_that_are_needed(margin: float, level: float) -> None:
    needed = count_needed_rows(margin, level)
    assert p_value(needed, 0, 0, margin) <= level < p_value(round(needed / 1.03) - 1, 0, 0, margin)


def test_without_a_margin_the_score_is_mcnemars() -> None:
    assert score(40, np.array(9), np.array(4), 0.0) == pytest.approx(5 / np.sqrt(13))


def test_more_won_and_fewer_lost_rows_speak_for_us() -> None:
    assert p_value(100, 3, 2, 0.05) < p_value(100, 2, 2, 0.05) < p_value(100, 2, 3, 0.05)
    assert p_value(100, 2, 2, 0.06) < p_value(100, 2, 2, 0.05)
    assert exact_p_value(100, 0, 100, 1.0) == 0.0


# Rows, margin, and the true shares of rows that are lost and won: worse by the whole margin.
WORSE = [
    (100, 0.01, 0.01, 0.0),
    (50, 0.02, 0.02, 0.0),
    (200, 0.01, 0.01, 0.0),
    (100, 0.01, 0.02, 0.01),
    (50, 0.05, 0.05, 0.0),
    (10, 0.1, 0.1, 0.0),
    (20, 0.1, 0.15, 0.05),
    (300, 0.1, 0.1, 0.0),
    (3000, 0.005, 0.005, 0.0),
]


@pytest.mark.parametrize(("rows", "margin", "lost", "won"), WORSE)
def test_at_most_the_level_of_those_that_are_worse_by_the_margin_pass(
    rows: int, margin: float, lost: float, won: float
) -> None:
    """By enumeration of all results that have a chance of more than 1e-4."""
    assert lost - won == pytest.approx(margin)
    passing = 0.0
    for lost_rows in np.flatnonzero(binom.pmf(np.arange(rows + 1), rows, lost) > 1e-4):
        chances = binom.pmf(np.arange(rows - lost_rows + 1), rows - lost_rows, won / (1 - lost))
        for won_rows in np.flatnonzero(chances > 1e-4):
            if p_value(rows, int(won_rows), int(lost_rows), margin) <= 0.05:
                passing += binom.pmf(lost_rows, rows, lost) * chances[won_rows]
    assert passing <= 0.05 - 1e-3  # for what was left out
