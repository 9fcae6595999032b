"""What `hone monitor` prints of a check."""

from __future__ import annotations

import io

from rich.console import Console

from hone.drift.check import Verdict
from hone.drift.compare import Finding
from hone_app.cli.drift import print_tests


def test_each_test_of_a_check_has_a_row() -> None:
    findings = (
        Finding("length", "D", 0.31, 0.0001, 964, 412, "a < b | c", 0.0004, True),
        Finding("language", "V", 0.02, 0.7, 964, 412),
    )
    output = io.StringIO()
    console = Console(file=output, width=80)
    print_tests(console, Verdict("drift", 964, 412, findings))
    assert output.getvalue().splitlines() == [
        "test      figure   corrected p  drift  what changed",
        "length    D 0.310       0.0004  yes    a < b | c",
        "language  V 0.020       1.0000  no",
    ]
    print_tests(console, Verdict("too few rows", 964, 3))
    assert output.getvalue().count("\n") == 3
