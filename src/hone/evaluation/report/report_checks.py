"""The report's data on validation: the checks that can matter first, in plain words; those of the columns apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hone.evaluation.report import figures
from hone.evaluation.report.figures import View
from hone.splits import SPLITS

ROW_COUNT = ("expect_table_row_count_to_be_between", "")
LABEL_SHARE = ("expect_column_max_to_be_between", "hone_label_share")
LABEL_ROWS = ("expect_column_values_to_be_between", "hone_label_rows")
REPEATS = ("expect_column_values_to_be_null", "hone_same_as")
# The checks of the settings, by expectation and column, in the order in which they are shown.
TITLES = {
    ROW_COUNT: "Enough rows",
    REPEATS: "No row repeats a row of an earlier split",
    LABEL_SHARE: "Share of the most frequent label",
    LABEL_ROWS: "Rows of each label",
    ("expect_column_median_to_be_between", "hone_tokens"): "Length of the median row, in tokens",
}
TRAINED_LABELS = "expect_column_values_to_be_in_set"
TRAINED_LABELS_TITLE = "Every label has training rows"
OWN_RANK = len(TITLES) + 1  # the place of the user's suite, after the checks of the settings that can matter
# What the settings check of each column. They fail where a mapping or a file is broken, which stops most runs.
COLUMN_CHECKS = (
    "expect_column_to_exist",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_match_regex",
    "expect_column_values_to_be_unique",
)
PHRASES = (
    ("expect_", ""),
    ("column_to_exist", "is there"),
    ("column_", ""),
    ("_to_not_be_", " not "),
    ("_to_be_", " "),
    ("_to_not_", " do not "),
    ("_to_", " "),
    ("_", " "),
)
BOUNDS = re.compile(r"(?:min_value (?P<low>[^,]+))?(?:, )?(?:max_value (?P<high>[^,]+))?")
FAILING = re.compile(r"(\d+) of (\d+) rows fail")


def phrase(expectation: str) -> str:
    """An expectation's name as words: expect_column_values_to_not_be_null -> values not null."""
    for name, words in PHRASES:
        expectation = expectation.replace(name, words)
    return expectation.strip()


def describe_unmet(name: str) -> str:
    """A name of the quarantine, `expectation(column)`, as the reason why a row was set aside."""
    expectation, _, column = name.rstrip(")").partition("(")
    title = TITLES.get((expectation, column)) or f"{column} {phrase(expectation)}".strip()
    return f"fails “{title}”"


def validation(facts: View) -> View:
    """The checks with their results on each split.

    `lines` are those that failed, then those of the settings that can matter, then the user's suite; `columns` those
    of the settings that only say that each column is there and is text, `column_checks` their number.
    """
    entries = facts["expectations"]
    lines = _build_lines(entries)
    columns = [line for line in lines if line["rank"] > OWN_RANK and not line["failed"]]
    split_names = {entry["split"] for entry in entries}
    return {
        "lines": sorted(
            (line for line in lines if line not in columns), key=lambda line: (not line["failed"], line["rank"])
        ),
        "columns": columns,
        "column_checks": sum(len(cells) for line in columns for cells in line["cells"].values()),
        "splits": [name for name in SPLITS if name in split_names] + sorted(split_names - set(SPLITS)),
        "checks": len(entries),
        "failed": sum(not entry["success"] for entry in entries),
        "quarantined": facts["quarantined"],
    }


def _build_lines(entries: Sequence[View]) -> list[View]:
    """One line for each check, with a cell for each of its results on a split."""
    # The suite of the settings ends with the repeats in the test split; what follows is the user's.
    last = max(
        (n for n, entry in enumerate(entries) if (entry["expectation"], entry["column"]) == REPEATS), default=None
    )
    lines: dict[tuple[str, str, bool], View] = {}
    for n, entry in enumerate(entries):
        own = last is not None and n > last
        key = (entry["expectation"], entry["column"] or "", own)
        line = lines.setdefault(key, {**_describe_check(*key), "own": own, "cells": {}, "failed": []})
        line["cells"].setdefault(entry["split"], []).append(_build_cell(entry))
        if not entry["success"]:
            examples = [_describe_example(example) for example in entry.get("examples") or []]
            line["failed"].append({"split": entry["split"], "rows": entry.get("unexpected"), "examples": examples})
    for line in lines.values():
        expected = {cell["expected"] for cells in line["cells"].values() for cell in cells}
        line["expected"] = expected.pop() if len(expected) == 1 else ""
    return list(lines.values())


def _describe_check(expectation: str, column: str, own: bool) -> View:
    """The words of a check, the column that they are about ('' where they name it), and its rank among the lines."""
    key = (expectation, column)
    if not own and key in TITLES:
        return {"name": TITLES[key], "column": "", "rank": list(TITLES).index(key)}
    if not own and expectation == TRAINED_LABELS:
        return {"name": TRAINED_LABELS_TITLE, "column": "", "rank": len(TITLES)}
    rank = OWN_RANK + 1 if not own and expectation in COLUMN_CHECKS else OWN_RANK
    words = phrase(expectation)
    return {"name": words if column else figures.words(words), "column": column, "rank": rank}


def _describe_example(example: Any) -> str:
    """A row for which an expectation does not hold, on one line."""
    values = example.values() if isinstance(example, dict) else [example]
    return " · ".join(figures.clip(figures.plain(value), 400) for value in values)


def _build_cell(entry: View) -> View:
    """The result on one split: what was observed and, where it says more than the title, what was expected."""
    key = (entry["expectation"], entry["column"] or "")
    observed, expected = (figures.clip(figures.plain(entry[field]), 120) for field in ("observed", "expected"))
    share = key == LABEL_SHARE
    return {
        "success": entry["success"],
        "observed": _describe_observed(observed, key, share),
        "expected": _describe_expected(expected, share),
    }


def _describe_observed(observed: str, key: tuple[str, str], share: bool) -> str:
    if held := re.fullmatch(r"0 of (\d+) rows fail", observed):
        rows = figures.counted(int(held[1]), "row")
        return "every label" if key == LABEL_ROWS else f"none of {rows}" if key == REPEATS else f"all of {rows}"
    grouped = FAILING.sub(lambda match: f"{int(match[1]):,} of {int(match[2]):,} rows fail", observed)
    return _format_number(grouped, share)


def _describe_expected(expected: str, share: bool) -> str:
    """`min_value 20` -> at least 20; '' where it repeats the check's name."""
    match = BOUNDS.fullmatch(expected)
    if match and any(match.groups()):
        low, high = (bound and _format_number(bound, share) for bound in (match["low"], match["high"]))
        return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"
    return "" if expected == figures.NONE or expected.startswith("to ") else expected


def _format_number(text: str, share: bool) -> str:
    """A number as the report writes it, other text unchanged."""
    try:
        value = float(text)
    except ValueError:
        return text
    return figures.percent(value).replace(".0%", "%") if share else figures.number(value)
