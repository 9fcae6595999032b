"""The report of a check: plain text for tables, escaped in the Markdown page."""

from __future__ import annotations

from dataclasses import replace

from hone.drift.check import Verdict
from hone.drift.compare import Finding
from hone.drift.report import build_table, describe_power, render_page
from hone.tracking.reader import Version


def test_data_is_escaped_on_the_page_alone() -> None:
    findings = (Finding("labels", "V", 0.31, 0.0001, 964, 412, "<b> | c", 0.31, 0.0004, True),)
    verdict = Verdict("drift", 964, 412, findings)
    [row] = build_table(verdict)
    assert row["what changed"] == "<b> | c"
    assert "too few rows or permutations" in describe_power(verdict)
    assert "at least 3.0% of the recent ones (12 of 412)" in describe_power(replace(verdict, visible=0.03))
    page = render_page(Version("m", "1", "run", "", {}), verdict, episode=1)
    assert r"| labels | V 0.310 | 31.0% | 0.0001 | 0.0004 | yes | 964, 412 | &lt;b> \| c |" in page
