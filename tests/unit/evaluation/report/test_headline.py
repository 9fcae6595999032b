"""The verdict in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from hone.evaluation.report.headline import describe_verdict, summarize_verdict


def metrics(*differences: tuple[str, float, float, float, float], rows: int = 1000) -> dict[str, Any]:
    """metrics.json of a model with an accuracy of 0.694 and of baselines that are worse by these differences."""
    systems: dict[str, Any] = {"model": {"accuracy": {"value": 0.694, "low": 0.641, "high": 0.742}}}
    comparisons = {}
    for name, difference, low, high, p in differences:
        systems[name] = {"accuracy": {"value": 0.694 - difference, "low": 0.5, "high": 0.6}}
        comparisons[name] = {"metric": "accuracy", "difference": difference, "low": low, "high": high, "p": p}
    return {
        "main_metric": "accuracy",
        "measures": {"accuracy": {"title": "Accuracy", "share": True, "lower": False}},
        "rows": rows,
        "confidence": 0.95,
        "systems": systems,
        "comparisons": comparisons,
        "slices": {},
    }


@pytest.mark.parametrize(
    ("differences", "sentence", "words"),
    [
        (
            [("neighbours", 0.101, 0.06, 0.14, 0.0002), ("majority", 0.6, 0.5, 0.7, 0.0002)],
            "Fine-tuning was worth it: 69.4% accuracy on 1,000 test rows, 10.1 points better than the best of 2"
            " baselines, nearest neighbours (59.3%, p < 0.001).",
            "worth it",
        ),
        (
            [("majority", 0.02, -0.03, 0.07, 0.21)],
            "It is not proven that fine-tuning was worth it: 69.4% accuracy on 1,000 test rows, 2.0 points better than"
            " the baseline, most frequent class (67.4%, the difference is between −3.0 and +7.0, p = 0.21).",
            "not proven",
        ),
        (
            [("majority", -0.05, -0.08, -0.02, 0.99), ("neighbours", 0.1, 0.06, 0.14, 0.001)],
            "Fine-tuning was not worth it: 69.4% accuracy on 1,000 test rows, 5.0 points worse than the baseline, most"
            " frequent class (74.4%, the difference is between −8.0 and −2.0).",
            "worse than a baseline",
        ),
        (
            [],
            "69.4% accuracy on 1,000 test rows; there is no baseline to compare with.",
            "no baseline to compare with",
        ),
    ],
)
def test_the_sentence_gives_the_figure_the_rival_and_the_evidence(
    differences: list[Any], sentence: str, words: str
) -> None:
    assert describe_verdict(metrics(*differences)) == sentence
    assert summarize_verdict(metrics(*differences)) == words


def test_a_tie_is_as_good() -> None:
    assert "as good as the baseline, most frequent class (69.4%" in describe_verdict(
        metrics(("majority", 0.0, -0.1, 0.1, 0.5), rows=1)
    )


def test_an_interval_without_width_is_not_printed() -> None:
    """All resamples of few rows are the same: that says nothing about other rows."""
    same = describe_verdict(metrics(("majority", 0.0, 0.0, 0.0, 1.0), rows=4))
    assert same.endswith("as good as the baseline, most frequent class (69.4%, no row differs).")
    # Resamples of one difference differ by rounding.
    alike = describe_verdict(metrics(("majority", -0.1, -0.1, -0.1 + 1e-16, 1.0), rows=4))
    assert alike.endswith("10.0 points worse than the baseline, most frequent class (79.4%).")
