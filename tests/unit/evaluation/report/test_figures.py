"""Numbers as people read them, in the report and in a promotion's decision."""

from __future__ import annotations

import pytest

from hone.evaluation.report import figures
from hone.promotion.decision import format_figure
from hone.promotion.gates import Gate


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.0, "p < 0.001"), (0.00049, "p < 0.001"), (0.001, "p = 0.001"), (0.0499, "p = 0.050"), (0.41, "p = 0.41"),
     (1.0, "p = 1.00"), (None, ""), (float("nan"), "")],
)  # fmt: skip
def test_a_p_value_is_never_zero_and_reads_the_same_in_report_and_decision(p: float | None, shown: str) -> None:
    assert figures.p_value(p) == shown
    if shown:
        assert format_figure(Gate("accuracy: better", True, "p ≤ 0.05", 0.05, 0.01, 0.09, p)).endswith(f", {shown}")


def test_a_gates_figures_are_grouped_and_have_a_minus_sign() -> None:
    gate = Gate("perplexity: better", False, "p ≤ 0.05", -32_033.7, -40_000.2, 0.012345, 0.0001)
    assert format_figure(gate) == "−32,034 [−40,000, 0.01235], p < 0.001"
    assert format_figure(Gate("first champion", True, "none")) == "–"


@pytest.mark.parametrize(
    ("value", "share", "shown"),
    [(0.101, True, "+10.1"), (-0.0004, True, "−0.0"), (77.66, False, "+77.66"), (-90_111.1, False, "−90,111"),
     (0, False, "0"), (None, True, "–")],
)  # fmt: skip
def test_a_difference_has_its_sign(value: float | None, share: bool, shown: str) -> None:
    assert figures.points(value, share) == shown


def test_an_interval_below_zero_has_no_dash_beside_a_minus_sign() -> None:
    figure = {"value": -0.05, "low": -0.1, "high": 0.2}
    assert figures.interval(figure) == "−10.0 to 20.0%"
    assert figures.interval({**figure, "share": False}) == "−0.1 to 0.2"
    assert figures.interval({**figure, "low": 0.01}) == "1.0–20.0%"


@pytest.mark.parametrize(("title", "shown"), [("Entity F1", "entity F1"), ("R²", "R²"), ("Accuracy", "accuracy")])
def test_symbols_keep_their_capital_in_a_sentence(title: str, shown: str) -> None:
    assert figures.within_sentence(title) == shown


def test_one_row_is_not_many() -> None:
    assert [figures.counted(n, "row") for n in (0, 1, 32_033)] == ["0 rows", "1 row", "32,033 rows"]
