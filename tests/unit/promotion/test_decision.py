"""What a decision's pages show of labels: text, and no markup."""

from __future__ import annotations

from hone.config.sections import Promotion
from hone.promotion.champion import Standing
from hone.promotion.decision import Decision, Judged, describe_gate, render_markdown, render_page, render_section
from hone.promotion.gates import Gate, main_metric_gate
from tests.unit.promotion.matches import match_numbers

HOSTILE = "F1 of <img src=x onerror=alert(1)> | ![x](http://127.0.0.1:9/x.png)"


def test_a_label_is_no_markup_in_any_page_of_a_decision() -> None:
    gate = Gate(HOSTILE, passed=False, bound=HOSTILE, note=HOSTILE)
    decision = Decision(
        "m", "2", Standing("", "", 0), "auto", "bootstrap", "2026-01-01T00:00:00Z", "r", "1", "accuracy", [], [gate], 60
    )
    for page in (render_markdown(decision), render_page(decision), render_section(decision, "refused")):
        assert "onerror=alert(1)" in page
        assert "<img" not in page
    for markdown in (render_markdown(decision), render_section(decision, "refused")):
        assert r"![x]\(http" in markdown and "![x](" not in markdown


def test_equal_versions_have_no_interval_in_any_page_of_a_decision() -> None:
    """Of numbers that are the same in every row all resamples are 0: that says nothing about other rows."""
    gate = main_metric_gate(match_numbers(12, 0), Promotion(resamples=200))
    assert describe_gate(gate) == "test: r2: better 0, no row differs, p = 1.00 (p ≤ 0.05)"
    values = {name: {"r2": {"value": 0.75, "low": 0.75, "high": 0.75}} for name in ("candidate", "champion")}
    sets = [Judged("test", "digest", 12, 0, values)]
    decision = Decision(
        "m", "2", Standing("1", "", 0), "auto", "bootstrap", "2026-01-01T00:00:00Z", "r", "1", "r2", sets, [gate], 60
    )
    for page in (render_markdown(decision), render_page(decision), render_section(decision, "refused")):
        assert "no row differs" in page and "[" not in page.partition("no row differs")[2].partition("p = 1")[0]
    assert "0.75 to" not in render_page(decision) and "0.75 [" not in render_section(decision, "refused")


def test_a_difference_that_is_the_same_in_every_row_has_no_interval() -> None:
    gate = Gate("mae: better", False, "p ≤ 0.05", -0.5, -0.5, -0.5 + 1e-17, 1.0)
    assert describe_gate(gate) == "mae: better −0.5, p = 1.00 (p ≤ 0.05)"
