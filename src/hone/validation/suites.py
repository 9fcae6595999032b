"""The expectations on the rows: one suite from the settings, one from the user's file.

A suite is a list of `Expected`, each for one split. The columns that start with `hone_` are computed:

hone_tokens        the row's length in tokens of the base model's tokenizer
hone_label_rows    the number of rows of the split that have the row's label
hone_label_share   the share of the split's rows that have that label
hone_same_as       the id of a duplicate or near duplicate in an earlier split (train, valid, test); else null
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError
from hone.splits import SPLITS, TRAIN

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from hone.objectives.base import Objective


@dataclass(frozen=True)
class Expected:
    """One expectation about one split: Great Expectations' name for it and its arguments.

    `fix` says what the user can do if it does not hold.
    """

    split: str
    type: str
    kwargs: dict[str, Any]
    fix: str

    @property
    def column(self) -> str:
        """The column or columns that it applies to; '' if it applies to the table."""
        named = [self.kwargs[key] for key in ("column", "column_A", "column_B") if key in self.kwargs]
        return ", ".join([*named, *self.kwargs.get("column_list", [])])

    def build(self) -> Expectation:
        """Great Expectations' object for it."""
        from great_expectations.expectations.registry import get_expectation_impl

        return get_expectation_impl(self.type)(**self.kwargs)


def settings_suite(objective: Objective, labels: Sequence[str], settings: Mapping[str, Any]) -> list[Expected]:
    """The suite of the config's `validation` section and the objective; `labels` are those of the training split."""
    suite = []
    for split in SPLITS:
        held_out = split != TRAIN
        suite += _expect_columns(split, objective)
        suite += _expect_size(split, settings, "min_rows_held_out" if held_out else "min_rows")
        if objective.label:
            suite += _expect_balance(split, settings)
            if held_out and settings["unseen_labels"] == "stop":
                suite += _expect_training_labels(split, objective.label, labels)
        if held_out:
            suite += _expect_no_leak(split)
    return suite


def _expect_columns(split: str, objective: Objective) -> list[Expected]:
    """The columns exist and contain strings, no nulls and no empty text; the ids are unique."""
    mapping = "Check ingest.columns, which says what the source calls the column."
    dropping = "Drop such rows (curation's normalize and filters do), fix the source, or set them aside: " + ASIDE
    suite = []
    for column in ("id", *objective.columns):
        target = {"column": column}
        suite += [
            Expected(split, "expect_column_to_exist", target, mapping),
            Expected(split, "expect_column_values_to_not_be_null", target, dropping),
            Expected(split, "expect_column_values_to_be_of_type", {**target, "type_": "str"}, mapping),
        ]
        if column in objective.text:
            suite.append(Expected(split, "expect_column_values_to_match_regex", {**target, "regex": r"\S"}, dropping))
    unique = "Two rows have the same id; ingest gives each row its own."
    return [*suite, Expected(split, "expect_column_values_to_be_unique", {"column": "id"}, unique)]


def _expect_size(split: str, settings: Mapping[str, Any], min_rows: str) -> list[Expected]:
    """There are enough rows, and their median length is within bounds."""
    between = {"min_value": settings["min_median_tokens"], "max_value": settings["max_median_tokens"]}
    return [
        Expected(
            split,
            "expect_table_row_count_to_be_between",
            {"min_value": settings[min_rows]},
            f"Bring more rows, lose fewer in curation, give the split a larger share, or lower validation.{min_rows}.",
        ),
        Expected(
            split,
            "expect_column_median_to_be_between",
            {"column": "hone_tokens", **between},
            "Check that the text column is the right one, or set validation.min_median_tokens and max_median_tokens.",
        ),
    ]


def _expect_balance(split: str, settings: Mapping[str, Any]) -> list[Expected]:
    """No label has nearly all rows; in the training split none has too few."""
    share = Expected(
        split,
        "expect_column_max_to_be_between",
        {"column": "hone_label_share", "max_value": settings["max_class_share"]},
        "Bring more rows of the other labels, cap this one in curation, or raise validation.max_class_share.",
    )
    rows = Expected(
        split,
        "expect_column_values_to_be_between",
        {"column": "hone_label_rows", "min_value": settings["min_rows_per_class"]},
        "Bring more rows of the label, drop it with a class floor in curation, or lower validation.min_rows_per_class.",
    )
    return [share, rows] if split == TRAIN else [share]


def _expect_training_labels(split: str, label: str, labels: Sequence[str]) -> list[Expected]:
    fix = "Add training rows with the label, or drop it in curation; or set such rows aside: " + ASIDE
    return [Expected(split, "expect_column_values_to_be_in_set", {"column": label, "value_set": list(labels)}, fix)]


def _expect_no_leak(split: str) -> list[Expected]:
    fix = "A row of an earlier split has the same text: let curation split the rows, or set such rows aside: " + ASIDE
    return [Expected(split, "expect_column_values_to_be_null", {"column": "hone_same_as"}, fix)]


ASIDE = "validation.on_failure=quarantine."


def file_suite(path: Path) -> list[Expected]:
    """The expectations in a YAML file: a list, or `{expectations: [...]}`, of `{type, kwargs, splits}`.

    Without `splits` an entry applies to all three. Raises one ConfigError with all faults.
    """
    from yaml import YAMLError

    from hone.parts.strict_yaml import load_yaml

    try:
        tree = load_yaml(path.read_text("utf8"))
    except (OSError, UnicodeDecodeError, YAMLError) as fault:
        raise ConfigError(
            f"the suite cannot be read: {fault}", where=str(path), fix="Correct validation.suite."
        ) from None
    entries = tree.get("expectations") if isinstance(tree, dict) else tree
    if not isinstance(entries, list) or not entries:
        raise ConfigError("contains no list of expectations", where=str(path), fix="See docs/validation.md for one.")
    faults = [f"expectation {n}: {fault}" for n, entry in enumerate(entries, 1) for fault in _find_entry_faults(entry)]
    if faults:
        raise ConfigError(
            "the suite cannot be used\n" + "\n".join(f"  {fault}" for fault in faults),
            where=str(path),
            fix="docs/validation.md shows a suite; greatexpectations.io/expectations lists what there is.",
        )
    fix = f"It is configured in {path}."
    return [
        Expected(split, entry["type"], dict(entry.get("kwargs") or {}), fix)
        for entry in entries
        for split in entry.get("splits", SPLITS)
    ]


def _find_entry_faults(entry: Any) -> list[str]:
    """The faults of one entry of a suite's file."""
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    if not isinstance(entry, dict) or "type" not in entry:
        return ["is not of the form {type: ..., kwargs: {...}}"]
    faults = [
        _describe_unknown("field", key, ("type", "kwargs", "splits"))
        for key in entry.keys() - {"type", "kwargs", "splits"}
    ]
    splits = entry.get("splits", SPLITS)
    if not isinstance(splits, (list, tuple)) or not splits:
        faults.append("splits is not a list of splits")
    else:
        faults += [_describe_unknown("split", split, SPLITS) for split in splits if split not in SPLITS]
    types = list_registered_expectation_implementations()
    if entry["type"] not in types:
        return [*faults, _describe_unknown("expectation", entry["type"], types)]
    return faults + _find_argument_faults(entry["type"], entry.get("kwargs") or {})


def _find_argument_faults(type_: str, kwargs: Any) -> list[str]:
    from great_expectations.compatibility.pydantic import ValidationError
    from great_expectations.expectations.registry import get_expectation_impl

    if not isinstance(kwargs, dict):
        return ["kwargs is not of the form {name: value}"]
    kind = get_expectation_impl(type_)
    try:
        kind(**kwargs)
    except ValidationError as fault:
        return [_describe_argument_fault(error, kind.__fields__) for error in fault.errors()]
    except (TypeError, ValueError) as fault:
        return [f"{type_}: {fault}"]
    return []


def _describe_argument_fault(error: Mapping[str, Any], valid_names: Iterable[str]) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "value_error.extra":
        return _describe_unknown("argument", name, valid_names)
    return f"{name}: {error['msg']}"


def _describe_unknown(what: str, name: object, valid_names: Iterable[str]) -> str:
    names = list(valid_names)
    similar = difflib.get_close_matches(str(name), names, 1, cutoff=0.5)
    suggestion = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(names)}"
    return f"no such {what} as {name}; {suggestion}"
