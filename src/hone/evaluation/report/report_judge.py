"""The verdicts of a model that compared answers, in words: the report, the terminal, the card and MLflow show these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.evaluation.report import figures
from hone.evaluation.report.figures import View

OPPONENTS = {"untuned": "the base model's answers", "reference": "the rows' own answers"}


def judge(result: Mapping[str, Any] | None) -> View | None:
    """The view of a judge.json; None without one."""
    if not result:
        return None
    opponents = [
        {**entry, "name": OPPONENTS[name], "score": {**entry["score"], "share": True}}
        for name, entry in result["opponents"].items()
    ]
    return {**result, "opponents": opponents, "trust": _describe_trust(result)}


def describe_judge(result: Mapping[str, Any] | None) -> list[str]:
    """A sentence for each opponent, and one on how far the judge is to be trusted; empty without a judge.json."""
    view = judge(result)
    if view is None:
        return []
    sentences = [
        f"{view['model']} preferred the model's answers to {entry['name']} in {figures.shown(entry['score'])}"
        f" of {figures.counted(entry['rows'], 'pair')} ({figures.interval(entry['score'])}; {entry['wins']:,} won,"
        f" {entry['ties']:,} tied, {entry['losses']:,} lost)."
        for entry in view["opponents"]
    ]
    return [*sentences, view["trust"]]


def _describe_trust(result: Mapping[str, Any]) -> str:
    """How often the judge contradicts itself, and how often people agree with it."""
    consistent = [entry["consistent"] for entry in result["opponents"].values() if entry["consistent"] is not None]
    words = (
        f"It gave the same verdict in both orders for {figures.percent(min(consistent))} of the pairs"
        if consistent
        else "No pair was asked in both orders"
    )
    agreement = result["agreement"]
    if not agreement:
        return f"{words}; its agreement with people was not measured (evaluation.judge.labelled)."
    share = agreement["agreed"] / agreement["rows"] if agreement["rows"] else 0
    kappa = "" if agreement["kappa"] is None else f", kappa {agreement['kappa']:.2f}"
    return f"{words}; people agree with it on {figures.percent(share)} of {agreement['rows']:,} labelled pairs{kappa}."
