"""The report of a check: plain text for tables, escaped in the Markdown page."""

from __future__ import annotations

from hone.drift.check import Verdict
from hone.drift.compare import Finding
from hone.drift.report import build_table, render_page
from hone.tracking.reader import Version


def test_data_is_escaped_on_the_page_alone() -> None:
    findings = (Finding("labels", "V", 0.31, 0.0001, 964, 412, "<b> | c", 0.31, 0.0004, True),)
    verdict = Verdict("drift", 964, 412, findings)
    [row] = build_table(verdict)
    assert row["what changed"] == "<b> | c"
    page = render_page(Version("m", "1", "run", "", {}), verdict, episode=1)
    assert r"| labels | V 0.310 | 31.0% | 0.0001 | 0.0004 | yes | 964, 412 | &lt;b> \| c |" in page
