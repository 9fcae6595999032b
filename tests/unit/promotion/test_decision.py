"""What a decision's pages show of labels: text, and no markup."""

from __future__ import annotations

from hone.promotion.champion import Standing
from hone.promotion.decision import Decision, render_markdown, render_page, render_section
from hone.promotion.gates import Gate

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
