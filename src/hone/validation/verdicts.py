"""Great Expectations' results on a split, made strict.

Great Expectations itself passes an expectation without rows, or with only null values, and may hide an exception: here
all three fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ValidationFailed
from hone.objectives.base import Objective
from hone.splits import SPLITS
from hone.validation.suites import Expected

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 5  # rows shown of each expectation that does not hold
CLIP = 100  # characters shown of a text
_VIEW = {"module_name": "hone.validation.escaping", "class_name": "EscapingView"}


@dataclass(frozen=True)
class Finding:
    """The result of an expectation: `unexpected` is the number of failing rows; `examples` up to five of them."""

    split: str
    expectation: str
    column: str
    success: bool
    observed: str
    expected: str
    unexpected: int
    examples: list[dict[str, str]]


class Judge:
    """A Great Expectations context that lives in memory and writes its Data Docs to the directory `docs`."""

    def __init__(self, docs: Path) -> None:
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )
        from great_expectations.execution_engine import pandas_execution_engine

        # Bytes of pointers, not of texts, up to which a frame is hashed at every call: into a mark that nothing reads,
        # in four times the memory of the texts.
        pandas_execution_engine.HASH_THRESHOLD = 0
        site = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
            "site_section_builders": {"expectations": {"view": _VIEW}, "validations": {"view": _VIEW}},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            data_docs_sites={docs.name: site},
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
        )
        self._context = gx.get_context(project_config=config, mode="ephemeral")
        source = self._context.data_sources.add_pandas("splits")
        self._batches = {
            split: source.add_dataframe_asset(split).add_batch_definition_whole_dataframe("rows") for split in SPLITS
        }
        self._round = 0

    def evaluate_suite(
        self, frames: Mapping[str, pd.DataFrame], suite: Sequence[Expected], objective: Objective, find_rows: bool
    ) -> tuple[list[Finding], dict[str, dict[int, list[str]]]]:
        """Evaluate `suite`; returns a finding for each expectation, in the suite's order, and the failing rows.

        The failing rows, by split and position, have the names of their failed expectations; only with `find_rows`.
        """
        self._round += 1
        findings: dict[int, Finding] = {}
        failing: dict[str, dict[int, list[str]]] = {split: {} for split in SPLITS}
        for split, frame in frames.items():
            places = [place for place, expected in enumerate(suite) if expected.split == split]
            batch = self._batches[split].get_batch(batch_parameters={"dataframe": frame})
            for place, result in self._evaluate(split, batch, {place: suite[place] for place in places}).items():
                findings[place] = _build_finding(suite[place], result, frame, objective)
                if find_rows and result.result.get("partial_unexpected_index_list") and not findings[place].success:
                    complete = batch.validate(suite[place].build(), result_format="COMPLETE").result
                    for row in complete["unexpected_index_list"]:
                        failing[split].setdefault(int(row), []).append(describe_expectation(suite[place]))
        return [findings[place] for place in range(len(suite))], failing

    def build_docs(self) -> None:
        """Write the Data Docs of all evaluations so far."""
        self._context.build_data_docs()

    def _evaluate(self, split: str, batch: Any, expected: Mapping[int, Expected]) -> dict[int, Any]:
        """Great Expectations' result by position in the suite, stored for the Data Docs; raises if one is missing."""
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
            ValidationResultIdentifier,
        )

        expectations = [expectation.build() for expectation in expected.values()]
        for place, expectation in zip(expected, expectations, strict=True):
            expectation.meta = {"place": place}
        suite = self._context.suites.add_or_update(gx.ExpectationSuite(name=split, expectations=expectations))
        # Failing rows and values are collected only for expectations that have any: that takes a third of the time.
        verdict = batch.validate(suite, result_format="BASIC")
        unclear = {
            result.expectation_config.meta["place"]: index
            for index, result in enumerate(verdict.results)
            if not result.success or result.result.get("unexpected_count")
        }
        if unclear:
            again = [
                copy(expectation) for place, expectation in zip(expected, expectations, strict=True) if place in unclear
            ]
            part = gx.ExpectationSuite(name=split, expectations=again)
            for result in batch.validate(part, result_format="SUMMARY").results:
                verdict.results[unclear[result.expectation_config.meta["place"]]] = result
        for result in verdict.results:
            result.success = bool(result.success)  # quantiles give a numpy.bool, which the store cannot write
        results = {result.expectation_config.meta["place"]: result for result in verdict.results}
        if results.keys() != expected.keys():
            lost = ", ".join(describe_expectation(expected[place]) for place in expected.keys() - results.keys())
            raise ValidationFailed(f"Great Expectations did not evaluate {lost}", where=f"the {split} split")
        run = RunIdentifier(run_name=f"round-{self._round}", run_time=datetime.now(UTC))
        verdict.meta["run_id"] = run
        key = ValidationResultIdentifier(ExpectationSuiteIdentifier(split), run, batch.id)
        self._context.validation_results_store.set(key, verdict)
        return results


def _build_finding(expected: Expected, result: Any, frame: pd.DataFrame, objective: Objective) -> Finding:
    """The finding from Great Expectations' result: an exception, no rows or no values make it a failure."""
    details = result.result
    exception = _describe_exception(result.exception_info)
    empty = _describe_emptiness(details)
    success = result.success and not exception and not empty
    rows = list(details.get("partial_unexpected_index_list") or [])
    examples = (
        []
        if success
        else [_build_example(frame, row, objective) for row in rows or _find_extremes(expected, details, frame)]
    )
    return Finding(
        split=expected.split,
        expectation=expected.type,
        column=expected.column,
        success=success,
        observed=exception or empty or _describe_observed(expected, details, frame, success),
        expected=_describe_arguments(expected),
        unexpected=int(details.get("unexpected_count") or 0),
        examples=examples[:EXAMPLES],
    )


def _describe_exception(info: Mapping[str, Any]) -> str:
    """The message of an exception in an expectation, '' for none. Great Expectations has two forms of `info`."""
    shapes = [info] if "raised_exception" in info else list(info.values())
    raised = [str(shape["exception_message"]) for shape in shapes if shape["raised_exception"]]
    return f"could not be evaluated: {raised[0]}" if raised else ""


def _describe_emptiness(details: Mapping[str, Any]) -> str:
    if details.get("element_count") == 0:
        return "there are no rows"
    if "missing_count" in details and details["missing_count"] == details.get("element_count"):
        return f"all {details['missing_count']} values are null"
    if "observed_value" in details and details["observed_value"] is None:
        return "there are no values"
    return ""


def _describe_observed(expected: Expected, details: Mapping[str, Any], frame: pd.DataFrame, success: bool) -> str:
    """The observed value, or the number of failing rows and some of their values."""
    if "observed_value" in details:
        return _short(details["observed_value"])
    if "unexpected_count" not in details:
        return "yes" if success else "no"
    observed = f"{details['unexpected_count']} of {details['element_count']} rows fail"
    if not details["unexpected_count"]:
        return observed
    values = [entry["value"] for entry in details.get("partial_unexpected_counts") or []]
    if "value_set" in expected.kwargs and expected.column in frame:
        values = sorted(set(frame[expected.column].dropna()) - set(expected.kwargs["value_set"]), key=str)
    return f"{observed}: {_short(values)}" if values else observed


def _find_extremes(expected: Expected, details: Mapping[str, Any], frame: pd.DataFrame) -> list[int]:
    """Example rows if no single row fails: the most extreme ones in a numeric column, else the first ones."""
    import pandas as pd

    if not (expected.column in frame and pd.api.types.is_numeric_dtype(frame[expected.column])):
        return list(range(min(EXAMPLES, len(frame))))
    highest, value = expected.kwargs.get("max_value"), details.get("observed_value")
    above = highest is not None and isinstance(value, (int, float)) and value > highest
    values = frame[expected.column]
    return list((values.nlargest if above else values.nsmallest)(EXAMPLES).index)


def _build_example(frame: pd.DataFrame, row: int, objective: Objective) -> dict[str, str]:
    """A row as an example: its id, its label and the start of its text."""
    shown = {name: frame[name].iloc[row] for name in ("id", objective.label) if name in frame}
    text = " | ".join(str(frame[name].iloc[row]) for name in objective.text if name in frame)
    return {**{name: str(value) for name, value in shown.items()}, "text": _clip(" ".join(text.split()))}


def _describe_arguments(expected: Expected) -> str:
    """The arguments in words, comparable with the observed value."""
    named = {k: v for k, v in expected.kwargs.items() if k not in ("column", "column_A", "column_B", "column_list")}
    return ", ".join(f"{name} {_short(value)}" for name, value in named.items()) or _words(expected.type)


def _words(type_: str) -> str:
    """`expect_column_values_to_not_be_null` -> `to not be null`."""
    return ("to " + type_.partition("_to_")[2] if "_to_" in type_ else type_).replace("_", " ")


def _short(value: Any) -> str:
    """A value on one line: at most ten elements of a list, numbers with four significant digits."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple, set)):
        more = f" and {len(value) - 10} more" if len(value) > 10 else ""
        return ", ".join(_short(inner) for inner in list(value)[:10]) + more
    if isinstance(value, str):
        return repr(_clip(value))
    return f"{float(value):.4g}" if hasattr(value, "__float__") and float(value) % 1 else str(value)


def _clip(text: str) -> str:
    return text if len(text) <= CLIP else text[: CLIP - 1] + "…"


def describe_expectation(expected: Expected) -> str:
    """An expectation's type and column, its name in the quarantine and in errors."""
    return f"{expected.type}({expected.column})"
