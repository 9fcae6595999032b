"""What took the time of a run: its slowest tests and the total of each folder, for the next regression to be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

import pytest

SLOWEST = 10
LONGEST = 120  # characters of a name: an id may have thousands


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write both at the end of the run."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    lines = account(report for report in reports if isinstance(report, pytest.TestReport))
    if lines:
        terminalreporter.section("durations: setup, call and teardown together", sep="=")
        for line in lines:
            terminalreporter.line(line)


def account(reports: Iterable[pytest.TestReport]) -> list[str]:
    """The lines: the slowest tests, then folders with the number of their tests, each with its seconds."""
    by_test: Counter[str] = Counter()
    for report in reports:
        by_test[_name(report.nodeid)] += report.duration  # type: ignore[assignment]
    by_folder: Counter[str] = Counter()
    for name, seconds in by_test.items():
        by_folder[_folder(name)] += seconds
    tests = Counter(map(_folder, by_test))
    slowest = [f"{seconds:8.1f} s  {_clip(name)}" for name, seconds in by_test.most_common(SLOWEST)]
    return [*slowest, *(f"{seconds:8.1f} s  {name}/ ({tests[name]})" for name, seconds in by_folder.most_common())]


def _name(nodeid: str) -> str:
    """The test's name without the group that xdist appends to it."""
    head, mark, group = nodeid.rpartition("@")
    return head if mark and "]" not in group else nodeid


def _clip(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def _folder(name: str) -> str:
    return str(PurePosixPath(name.partition("::")[0]).parent)
