"""Prompted models beside the trained one, in words: the report, the terminal, the model card and MLflow show these."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hone.evaluation.report import figures
from hone.evaluation.report.figures import View


def rivals(metrics: Mapping[str, Any]) -> list[View]:
    """The rivals of a metrics.json, the best first; empty if none was asked."""
    measures = metrics["measures"]
    views = [_view(rival, measures, metrics["rows"]) for rival in metrics.get("rivals") or ()]
    return sorted(views, key=lambda view: float(view["comparison"]["difference"]))


def describe_rivals(metrics: Mapping[str, Any]) -> list[str]:
    """A sentence for each rival: `gpt (8 nearest examples): 84.1% accuracy on 500 rows; the trained model's ...`."""
    return [_describe(view) for view in rivals(metrics)]


def list_rival_notes(metrics: Mapping[str, Any]) -> list[str]:
    """For each rival how it was asked, its cost, and what to know of its answers: what a table leaves out."""
    return [
        "; ".join([f"{view['name']}: {view['prompt']}", *([view["price"]] if view["price"] else []), *view["notes"]])
        for view in rivals(metrics)
    ]


def describe_prompt(rival: Mapping[str, Any]) -> str:
    """How a rival was asked: `8 nearest examples, 4 passages`."""
    shots, choose = rival["shots"], rival["choose"]
    kind = {"random": "random", "nearest": "nearest", "bm25": "BM25"}[choose]
    words = [f"{shots} {kind} example{'s' if shots > 1 else ''}" if shots else "no examples"]
    if rival["passages"]:
        words.append(f"{figures.counted(rival['passages'], 'passage')} of a corpus")
    return ", ".join(words)


def _view(rival: Mapping[str, Any], measures: Mapping[str, Any], rows: int) -> View:
    measure = measures[rival["metric"]]
    share = measure["share"]
    return {
        **rival,
        "title": measure["title"],
        "prompt": describe_prompt(rival),
        "figure": {**rival["theirs"][rival["metric"]], "share": share},
        "ours": {**rival["ours"][rival["metric"]], "share": share},
        "comparison": {**rival["comparison"], "share": share},
        "asked": f"{rival['rows']:,}" if rival["rows"] == rows else f"{rival['rows']:,} of {rows:,}",
        "notes": _list_notes(rival, measure),
        "per_1000": _format_cost(rival["cost"]["per_1000"]) if rival["cost"] else "",
        "price": _describe_cost(rival),
    }


def _list_notes(rival: Mapping[str, Any], measure: Mapping[str, Any]) -> list[str]:
    """What a reader must know of its answers."""
    counts = {
        "invalid": "without a readable form",
        "refused": "refused",
        "cut": "cut off at the maximum length",
    }
    notes = [f"{figures.counted(rival[name], 'answer')} {words}" for name, words in counts.items() if rival[name]]
    if rival["unread"]:
        notes.append(f"{figures.counted(rival['unread'], 'row')} too long for the model, which count as wrong")
    if rival.get("with_passages"):
        notes.append(_describe_with_passages(rival, measure["share"]))
    if rival["recall"] is not None:
        notes.append(f"the passages contain the answer of {figures.percent(rival['recall'])} of the rows")
    if rival["left_out"]:
        notes.append(f"examples left out of {figures.counted(rival['left_out'], 'prompt')} that were too long")
    if rival["stopped"] == "budget":
        notes.append("stopped at its maximum cost")
    if rival["retries"]:
        notes.append(", ".join(f"{kind}: {figures.counted(n, 'repeat')}" for kind, n in rival["retries"].items()))
    return notes


def _format_cost(cost: float) -> str:
    """An amount of money; two digits that are not 0 of one below 0.1, or a small model would seem to be free."""
    return f"{cost:,.2f}" if cost >= 0.1 or not cost else f"{Decimal(f'{cost:.2g}'):f}"


def _describe_with_passages(rival: Mapping[str, Any], share: bool) -> str:
    """`the trained model with the same passages: 61.2%, +3.1 to without (−0.2 to 6.4)`."""
    helped = rival["with_passages"]
    figure = {**helped["ours"][rival["metric"]], "share": share}
    lead = helped["comparison"]  # of the model without passages
    gain = {"difference": -lead["difference"], "low": -lead["high"], "high": -lead["low"], "share": share}
    interval = figures.difference_interval(gain, "{} to {}")
    change = f"{figures.points(gain['difference'], share)} to without them" + (f" ({interval})" if interval else "")
    return f"the trained model with the same passages: {figures.shown(figure)}, {change}"


def _describe_cost(rival: Mapping[str, Any]) -> str:
    """`1.20 per 1,000 answers; training pays off from 52,000 requests`; '' without prices."""
    if not rival["cost"]:
        return ""
    words = f"{_format_cost(rival['cost']['per_1000'])} per 1,000 answers"
    if rival["break_even"] is not None:
        words += f"; training pays off from {figures.counted(rival['break_even'], 'request')}"
    return words


def _describe(view: View) -> str:
    result = f"{figures.shown(view['figure'])} {figures.within_sentence(view['title'])} on {view['asked']} rows"
    comparison = view["comparison"]
    lead = figures.points(comparison["difference"], comparison["share"])
    unit = " points" if comparison["share"] else ""
    interval = figures.difference_interval(comparison, "{} to {}")
    parts = [
        f"{view['name']} ({view['prompt']}): {result}",
        f"the trained model's lead is {lead}{unit}" + (f" ({interval})" if interval else ""),
        view["price"],
        *view["notes"],
    ]
    return "; ".join(part for part in parts if part)
