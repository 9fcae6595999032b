"""The exact test of a margin: its p-values by hand, and how often it lets pass what is worse by the whole margin."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import audit
from hone.promotion.noninferiority import count_needed_rows, exact_p_value, score


@pytest.mark.parametrize("rows", [10, 50, 300])
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.1])
def test_of_two_that_never_differ_it_is_no_less_than_the_chance_to_lose_no_row(rows: int, margin: float) -> None:
    assert exact_p_value(rows, 0, 0, margin) >= (1 - margin) ** rows - 1e-9


@pytest.mark.parametrize(("margin", "level"), [(0.01, 0.05), (0.1, 0.05), (0.03, 0.01)])
def test_the_number_of_rows_that_are_needed(margin: float, level: float) -> None:
    needed = count_needed_rows(margin, level)
    assert exact_p_value(needed, 0, 0, margin) <= level < exact_p_value(round(needed / 1.03) - 1, 0, 0, margin)


def test_without_a_margin_the_score_is_mcnemars() -> None:
    assert score(40, np.array(9), np.array(4), 0.0) == pytest.approx(5 / np.sqrt(13))


def test_more_won_and_fewer_lost_rows_speak_for_us() -> None:
    assert exact_p_value(100, 3, 2, 0.05) < exact_p_value(100, 2, 2, 0.05) < exact_p_value(100, 2, 3, 0.05)
    assert exact_p_value(100, 2, 2, 0.06) < exact_p_value(100, 2, 2, 0.05)
    assert exact_p_value(100, 0, 100, 1.0) == 0.0


@pytest.mark.parametrize("rows", [10, 20])
def test_whatever_share_of_rows_differs_at_most_the_level_pass(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the least number of won rows that passes, which is that of the test itself."""
    monkeypatch.setattr(audit, "GRID_ROWS", (rows,))
    monkeypatch.setattr(audit, "GRID_MARGINS", (0.02, 0.1))
    assert audit.print_grid() == []
    least_won = audit.least_passing(rows, 0.1)
    for lost in range(0, rows, 4):
        for won in range(0, rows - lost + 1, 4):
            assert (won >= least_won[lost]) == (exact_p_value(rows, won, lost, 0.1) <= audit.LEVEL), (won, lost)


def test_a_broken_bound_ends_the_benchmark_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "TABLES", {"sound": list, "broken": lambda: ["9.0% pass"]})
    assert audit.main(["sound"]) == 0
    assert audit.main([]) == 1
    assert "broken: 9.0% pass" in capsys.readouterr().out
    # A coverage below the least one is a broken bound, and so are false passes above the level.
    always_0 = [np.zeros(101)] * 10
    assert audit.print_cell("accuracy", 50, always_0, 0.9) == ["0.0% coverage of accuracy on 50 rows"]
    monkeypatch.setattr(audit, "MARGINS", ((20, 0.1, 0.1, 0.0),))
    monkeypatch.setattr(audit, "exact", lambda *_: 0.0)
    assert audit.print_margins() == ["100.0% pass a margin of 0.1 on 20 rows"]


# The cells of the benchmark with few results.
FEW = [cell for cell in audit.MARGINS if cell[0] * cell[3] <= 1]


@pytest.mark.parametrize(("rows", "margin", "lost", "won"), [*FEW, (20, 0.1, 0.15, 0.05)])
def test_at_most_the_level_of_those_that_are_worse_by_the_margin_pass(
    rows: int, margin: float, lost: float, won: float
) -> None:
    """By enumeration of all results that have a chance."""
    assert lost - won == pytest.approx(margin)
    assert audit.passing(audit.exact, rows, margin, lost, won) <= audit.LEVEL
