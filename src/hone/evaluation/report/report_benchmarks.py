"""What the model forgot, in words: the report, the terminal and the model card show these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.evaluation.report import figures
from hone.evaluation.report.figures import View


def benchmarks(metrics: Mapping[str, Any]) -> list[View]:
    """The benchmark figures of a metrics.json, in the order of tasks; empty if there are none."""
    return [_view(figure) for figure in (metrics.get("benchmarks") or {}).get("figures", ())]


def list_left_out(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics, `task/metric`, that are not compared since single documents have no value of them."""
    return list((metrics.get("benchmarks") or {}).get("left_out", ()))


def describe_benchmarks(metrics: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure: `hellaswag acc: 41.0% on 200 documents, 3.5 points worse than ...`."""
    return [_describe(view) for view in benchmarks(metrics)]


def _view(figure: Mapping[str, Any]) -> View:
    share = figure["share"]
    shown = {name: {**figure[name], "share": share} for name in ("ours", "theirs", "comparison")}
    return {**figure, **shown, "documents": figures.counted(figure["rows"], "document")}


def _describe(view: View) -> str:
    comparison = view["comparison"]
    difference = comparison["difference"]
    size = figures.amount(difference, comparison["share"])
    than = f"{size} better than" if difference > 0 else f"{size} worse than" if difference < 0 else "the same as"
    interval = figures.difference_interval(comparison)
    return (
        f"{view['task']} {view['metric']}: {figures.shown(view['ours'])} on {view['documents']}, {than} the base model"
        f" ({figures.shown(view['theirs'])})" + (f", {interval}" if interval else "")
    )
