"""What a reader of the headline figure is told of the test rows."""

from __future__ import annotations

from typing import Any

import pytest

from hone.evaluation.report.population import describe_population


def facts(curate: dict[str, Any], tokenize: dict[str, Any]) -> dict[str, Any]:
    splits = {split: {"rows": rows} for split, rows in (("train", 100), ("valid", 20), ("test", 30))}
    return {"curate": {"funnel": [], **curate}, "tokenize": {"splits": splits, **tokenize}}


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
            ["Personal data was removed from test rows too; a served model gets the text that is sent."],
        ),
    ],
)
def test_what_differs_is_said(curate: dict[str, Any], tokenize: dict[str, Any], sentences: list[str]) -> None:
    assert describe_population(facts(curate, tokenize)) == sentences
