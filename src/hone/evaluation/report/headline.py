"""The verdict in words, for plain text and Markdown: MLflow's pages, tags and the model card show the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.evaluation.report import figures
from hone.evaluation.report.figures import View
from hone.evaluation.report.report_results import measured, verdict

WORDS = {
    "worth": "worth it",
    "unproven": "not proven",
    "worse": "worse than a baseline",
    "alone": "no baseline to compare with",
}
_OPENINGS = {
    "worth": "Fine-tuning was worth it: ",
    "unproven": "It is not proven that fine-tuning was worth it: ",
    "worse": "Fine-tuning was not worth it: ",
    "alone": "",
}


def describe_verdict(metrics: Mapping[str, Any]) -> str:
    """`Fine-tuning was worth it: 69.4% accuracy on 1,000 test rows, 10.1 points better than ...`, from metrics.json."""
    judged = verdict(measured(metrics))
    metric = figures.within_sentence(judged["metric"])
    result = f"{figures.shown(judged['figure'])} {metric} on {figures.counted(judged['rows'], 'test row')}"
    comparison = _compare(judged) if judged["rival"] else "; there is no baseline to compare with"
    return f"{_OPENINGS[judged['state']]}{result}{comparison}."


def summarize_verdict(metrics: Mapping[str, Any]) -> str:
    """The verdict in two or three words: `worth it`, `not proven`, `worse than a baseline`."""
    return WORDS[verdict(measured(metrics))["state"]]


def _compare(judged: View) -> str:
    """`, 10.1 points better than the best of 2 baselines, nearest neighbours (59.3%, p < 0.001)`."""
    rival: dict[str, Any] = judged["rival"]
    difference, share = rival["difference"], rival["share"]
    size = f"{figures.amount(difference, share)} {'better' if difference > 0 else 'worse'} than"
    evidence = [figures.shown(rival["figure"])]
    if judged["state"] != "worth" and (
        interval := figures.difference_interval(rival, "the difference is between {} and {}")
    ):
        evidence.append(interval)
    if difference > 0:
        evidence.append(figures.p_value(rival["p"]))
    name = figures.within_sentence(rival["name"])
    return f", {size if difference else 'as good as'} {judged['against']}, {name} ({', '.join(evidence)})"
