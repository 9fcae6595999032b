"""What `hone monitor` prints of a check."""

from __future__ import annotations

import io

from rich.console import Console

from hone.drift.check import Verdict
from hone.drift.compare import Finding
from hone_app.cli.drift import print_tests


def test_each_test_of_a_check_has_a_row() -> None:
    findings = (
        Finding("length", "D", 0.31, 0.0001, 964, 412, "a < b | c", 0.31, 0.0004, True),
        Finding("language", "V", 0.02, 0.7, 964, 412),
    )
    output = io.StringIO()
    console = Console(file=output, width=80)
    print_tests(console, Verdict("drift", 964, 412, findings, visible=0.03))
    assert output.getvalue().splitlines() == [
        "test      effect  corrected p  drift  what changed",
        "length     31.0%       0.0004  yes    a < b | c",
        "language    0.0%       1.0000  no",
        "Such a check finds rows that are unlike any of the training's in 4 of 5 cases if",
        "they are at least 3.0% of the recent ones (12 of 412); fewer can go unnoticed.",
    ]
    print_tests(console, Verdict("too few rows", 964, 3))
    assert output.getvalue().count("\n") == 5
