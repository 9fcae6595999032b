"""The last lines of a run of tests: the slowest ones and the time of each folder."""

from __future__ import annotations

import pytest

from tests.durations import account


def report(name: str, seconds: float, when: str = "call") -> pytest.TestReport:
    return pytest.TestReport(name, (name, 0, name), {}, "passed", None, when, duration=seconds)


def test_phases_of_a_test_are_added_up_and_folders_are_totalled() -> None:
    reports = [
        report("tests/unit/cli/test_a.py::test_one", 1.0, "setup"),
        report("tests/unit/cli/test_a.py::test_one", 2.0),
        report("tests/unit/cli/test_a.py::test_one", 0.5, "teardown"),
        report("tests/unit/cli/test_b.py::test_two", 0.3),
        report("tests/pipeline/test_c.py::test_three", 3.6),
    ]
    assert account(reports) == [
        "     3.6 s  tests/pipeline/test_c.py::test_three",
        "     3.5 s  tests/unit/cli/test_a.py::test_one",
        "     0.3 s  tests/unit/cli/test_b.py::test_two",
        "     3.8 s  tests/unit/cli/ (2)",
        "     3.6 s  tests/pipeline/ (1)",
    ]


def test_only_the_ten_slowest_are_listed_and_all_are_counted() -> None:
    lines = account(report(f"tests/unit/test_a.py::test_{number}", float(number)) for number in range(12))
    assert [line.rpartition("_")[2] for line in lines[:-1]] == [str(number) for number in range(11, 1, -1)]
    assert lines[-1] == "    66.0 s  tests/unit/ (12)"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tests/pipeline/test_a.py::test_up@service", "tests/pipeline/test_a.py::test_up"),
        ("tests/unit/test_a.py::test_b[x]@tests/unit/test_a.py", "tests/unit/test_a.py::test_b[x]"),
        ("tests/unit/test_a.py::test_b[ada@work]", "tests/unit/test_a.py::test_b[ada@work]"),
        ("tests/unit/test_a.py::test_b[ada@work]@service", "tests/unit/test_a.py::test_b[ada@work]"),
        (f"tests/unit/test_a.py::test_b[{'x' * 500}]", f"tests/unit/test_a.py::test_b[{'x' * 88}..."),
    ],
    ids=["group", "id and group", "at sign", "at sign and group", "long"],
)
def test_names_are_without_groups_and_fit_a_line(name: str, shown: str) -> None:
    line, _ = account([report(name, 1.0)])
    assert line == f"     1.0 s  {shown}"


def test_a_run_without_tests_has_no_lines() -> None:
    assert account([]) == []
