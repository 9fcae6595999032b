"""What a reader of the headline figure is told of the test rows."""

from __future__ import annotations

from typing import Any

import pytest

from hone.evaluation.report.population import describe_population

METRICS = {
    "main_metric": "accuracy",
    "measures": {"accuracy": {"title": "Accuracy", "share": True}},
    "systems": {"model": {"accuracy": {"value": 0.5}}},
    "rows": 30,
}


def facts(
    curate: dict[str, Any], tokenize: dict[str, Any], ingest: dict[str, dict[str, int]] | None = None
) -> dict[str, Any]:
    splits = {split: {"rows": rows} for split, rows in (("train", 100), ("valid", 20), ("test", 30))}
    stages = {"curate": {"funnel": [], **curate}, "tokenize": {"splits": splits, **tokenize}, "train": {}}
    return {**stages, "ingest": {"splits": ingest} if ingest else {}}


@pytest.mark.parametrize(
    ("curate", "tokenize", "sentences"),
    [
        ({}, {}, []),
        ({"given": {"test": 30, "valid": 20}, "flawed": {"test": 0}}, {}, []),
        (
            {"given": {"test": 40, "valid": 25}},
            {},
            ["30 of 40 given test rows were used.", "20 of 25 given validation rows were used."],
        ),
        (
            {"given": {"test": 30}, "flawed": {"test": 7}},
            {},
            ["Test rows that would have been dropped as training rows: 7 (see the slice curation)."],
        ),
        (
            {},
            {"unseen_labels": {"test": {"late": 3, "new": 2}}},
            ["Test rows with labels that no training row has, which count as errors: 5 (late, new)."],
        ),
        (
            {"funnel": [{"step": "redact", "notes": {"e-mail": 3}}]},
            {},
            ["In test rows too, redact replaced personal data, as the served model does in what is sent to it."],
        ),
    ],
)
def test_what_differs_is_said(curate: dict[str, Any], tokenize: dict[str, Any], sentences: list[str]) -> None:
    assert describe_population(facts(curate, tokenize), METRICS) == sentences


USED, TRAIN = {"rows": 30}, {"rows": 90, "refused": 8}


@pytest.mark.parametrize(
    ("ingest", "sentences"),
    [
        ({"train": TRAIN, "test": USED, "valid": {"rows": 20}}, []),
        ({"train": TRAIN, "test": {**USED, "refused": 3, "skipped": 1}}, ["30 of 34 given test rows were used."]),
        ({"train": TRAIN, "valid": {"rows": 20, "refused": 2}}, ["20 of 22 given validation rows were used."]),
    ],
)
def test_rows_that_could_not_be_read_are_among_those_that_came(
    ingest: dict[str, dict[str, int]], sentences: list[str]
) -> None:
    given = {"given": {"test": 30, "valid": 20}}
    assert describe_population(facts(given, {}, ingest), METRICS) == sentences


def test_a_split_of_which_no_row_could_be_read_is_named() -> None:
    ingest = {"train": TRAIN, "test": {"refused": 7}}
    sentence = "None of the 7 given test rows was used: other rows took their place."
    assert describe_population(facts({"given": {}}, {}, ingest), METRICS) == [sentence]
    # All rows are of one split: they were split anew, those that could not be read are no test rows.
    assert describe_population(facts({"given": {}}, {}, {"test": {**USED, "refused": 7}}), METRICS) == []


@pytest.mark.parametrize(
    ("valid", "rows", "test", "test_rows", "which"),
    [
        (0.717, 400, 0.464, 500, "25.3 points above"),
        (0.3, 400, 0.464, 500, "16.4 points below"),
        (0.52, 400, 0.464, 500, ""),  # by chance: the standard error is 3.3 points
        (0.717, 10, 0.464, 500, ""),
        (1.0, 30, 1.0, 30, ""),
    ],
)
def test_validation_and_test_rows_that_part_are_named(
    valid: float, rows: int, test: float, test_rows: int, which: str
) -> None:
    metrics = METRICS | {"systems": {"model": {"accuracy": {"value": test}}}, "rows": test_rows}
    given = facts({}, {}) | {"train": {"valid": {"accuracy": valid}, "valid_rows": rows}}
    [sentence] = describe_population(given, metrics)
    figure = f"On the {rows} validation rows accuracy was {100 * valid:.1f}%"
    parted = ": more than chance explains. The two splits may hold rows of different kinds."
    assert sentence == (f"{figure}, {which} that on the test rows{parted}" if which else f"{figure}.")
    # Versions of earlier releases did not record their validation figures.
    assert describe_population(facts({}, {}), metrics) == []


@pytest.mark.parametrize(
    ("valid", "rows", "said"),
    [
        (12.4, 300, "12.4."),
        (14.0, 300, "14, 2 above that on the test rows: more than chance explains. The two splits may hold rows of"),
        (10.0, 300, "10, 2 below that on the test rows: more than chance explains. The two splits may hold rows of"),
        (14.0, 20, "14."),  # so few rows may vary by as much
    ],
)
def test_a_metric_that_is_no_share_is_compared_too(valid: float, rows: int, said: str) -> None:
    """The standard error of the perplexity of 12 on 300 test rows is 0.5, that of the difference is 0.71 or more."""
    figure = {"value": 12.0, "low": 12 - 1.96 * 0.5, "high": 12 + 1.96 * 0.5}
    metrics = {
        "main_metric": "perplexity",
        "measures": {"perplexity": {"title": "Perplexity per token", "share": False}},
        "systems": {"model": {"perplexity": figure}},
        "rows": 300,
        "confidence": 0.95,
    }
    trained = facts({}, {}) | {"train": {"valid": {"perplexity": valid}, "valid_loss": 2.5, "valid_rows": rows}}
    [sentence] = describe_population(trained, metrics)
    assert sentence.startswith(f"On the {rows} validation rows perplexity per token was {said}")


def test_an_objective_without_metrics_in_training_shows_the_validation_loss() -> None:
    trained = facts({}, {}) | {"train": {"valid": {}, "valid_loss": 2.512345, "valid_rows": 1200}}
    assert describe_population(trained, METRICS) == ["On the 1,200 validation rows the loss was 2.512."]
    # Without validation rows there is nothing to show.
    assert describe_population(facts({}, {}) | {"train": {"valid_rows": 0, "valid_loss": None}}, METRICS) == []
