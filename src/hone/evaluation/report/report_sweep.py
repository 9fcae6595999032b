"""The report's section on the sweep that chose the values: its trials, their course, and what made the difference."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.evaluation.report import charts, figures
from hone.evaluation.report.figures import View
from hone.sweep.words import format_value, shorten

ROWS = 10  # trials in the table, the best first; the run's page in MLflow has all
LINES = 200  # of the parallel coordinates


@dataclass(frozen=True)
class Axis:
    """An axis of the parallel coordinates: its position and `ticks` (height, label), in percent from the bottom."""

    title: str
    x: float
    ticks: tuple[tuple[float, str], ...]


def sweep(result: View) -> View:
    """The views of a sweep.json."""
    metric, trials = result["metric"], result["trials"]
    complete = sorted(
        (trial for trial in trials if trial["state"] == "complete"),
        key=lambda trial: (trial["value"] if metric["lower"] else -trial["value"], trial["number"]),
    )
    best = trials[result["best"]]
    names = shorten(list(result["space"]))
    return {
        "takeaway": _describe(result, best),
        "names": list(names.values()),
        "metric": metric["title"],
        "rows": [
            {
                "number": trial["number"],
                "figure": _show(trial["value"], metric),
                "values": [format_value(trial["changes"][path]) if path in trial["changes"] else "" for path in names],
                "best": trial["number"] == result["best"],
                "seconds": trial["seconds"],
            }
            for trial in complete[:ROWS]
        ],
        "more": max(0, len(complete) - ROWS),
        "failed": [(trial["number"], trial["reason"]) for trial in trials if trial["state"] == "failed"],
        "history": _draw_history(trials, metric),
        "importances": [(names[path], share) for path, share in result["importances"].items()],
        "parallel": _draw_parallel(result, complete, names),
    }


def _show(value: float, metric: Mapping[str, Any]) -> str:
    return figures.shown({"value": value, "share": metric["share"]})


def _describe(result: View, best: View) -> str:
    """How many trials there were, how they ended, which is the best, and that its validation figure is optimistic."""
    trials, metric = result["trials"], result["metric"]
    pruned, failed = (sum(trial["state"] == state for trial in trials) for state in ("pruned", "failed"))
    ended = [f"{figures.count(pruned)} ended early"] if pruned else []
    ended += [f"{figures.count(failed)} failed"] if failed else []
    counts = figures.counted(len(trials), "trial") + (f", of which {' and '.join(ended)}" if ended else "")
    title = figures.within_sentence(metric["title"])
    if not title.startswith("validation"):
        title = f"validation {title}"
    sentence = f"{counts}. Trial {best['number']} is the best by {title}: {_show(best['value'], metric)}."
    if len(trials) == 1:
        return sentence
    return (
        f"{sentence} As the best of {figures.count(len(trials))}, this figure is optimistic; the test figures are not:"
        " no other trial was measured on the test rows."
    )


def _draw_history(trials: Sequence[View], metric: Mapping[str, Any]) -> charts.LineChart | None:
    """The value of each complete trial, and the best one so far; None with fewer than two."""
    points = [(float(trial["number"]), float(trial["value"])) for trial in trials if trial["state"] == "complete"]
    if len(points) < 2:
        return None
    course: list[charts.Point] = []
    for number, value in points:
        best = course[-1][1] if course else value
        course.append((number, min(best, value) if metric["lower"] else max(best, value)))
    x = charts.steps_scale(max(1.0, float(len(trials) - 1)))
    values = [value for _, value in points]
    label = figures.percent if metric["share"] else figures.number
    y = charts.scale(values, zero=False, label=label)
    dots = tuple((x.at(a), round(100 - y.at(b), 2), f"trial {a:,.0f}: {_show(b, metric)}") for a, b in points)
    text = charts.readout(course, x, lambda number, value: f"best after trial {number:,.0f}: {_show(value, metric)}")
    lines = (("smooth", charts.path(course, x, y), "best so far"),)
    return charts.LineChart(f"{metric['title']} by trial", "", x, y, lines, dots, "trial", readout=text)


def _draw_parallel(result: View, complete: Sequence[View], names: Mapping[str, str]) -> View | None:
    """A line for each complete trial across one axis for each field and the metric; None with fewer than two."""
    metric, space = result["metric"], result["space"]
    if len(complete) < 2:
        return None
    columns = [(names[path], path, space[path]) for path in names]
    step = 100 / len(columns)
    heights = [_Heights(values) for _, _, values in columns]
    values = [trial["value"] for trial in complete]
    label = figures.percent if metric["share"] else figures.number
    scale = charts.scale(values, zero=False, label=label)
    axes = [Axis(name, round(i * step, 2), heights[i].ticks) for i, (name, _, _) in enumerate(columns)] + [
        Axis(metric["title"], 100, scale.ticks)
    ]
    lines = []
    for trial in reversed(complete[:LINES]):  # the best is drawn last
        spots = [
            (axes[i].x, heights[i].at(trial["changes"][path]))
            for i, (_, path, _) in enumerate(columns)
            if path in trial["changes"]
        ]
        spots.append((100, scale.at(trial["value"])))
        path = "M" + "L".join(f"{x:g} {100 - y:g}" for x, y in spots)
        lines.append(
            (path, f"trial {trial['number']}: {_show(trial['value'], metric)}", trial["number"] == result["best"])
        )
    return {"axes": axes, "lines": lines}


class _Heights:
    """The heights of a field's values on its axis, in percent: by rank in a list, by (logarithmic) size in a range."""

    def __init__(self, values: Any) -> None:
        self._choices = [json.dumps(value, sort_keys=True) for value in values] if isinstance(values, list) else []
        self._log = isinstance(values, dict) and bool(values.get("log"))
        if isinstance(values, list):
            self._low, self._high = 0.0, max(1.0, float(len(values) - 1))
            marks = list(values)
        else:
            self._low, self._high = self._scale(values["low"]), self._scale(values["high"])
            marks = [values["low"], values["high"]]
        self.ticks = tuple((self.at(mark), figures.clip(format_value(mark), 14)) for mark in marks)

    def at(self, value: Any) -> float:
        """The height of a value."""
        number = float(self._choices.index(json.dumps(value, sort_keys=True))) if self._choices else self._scale(value)
        return round(100 * (number - self._low) / (self._high - self._low), 2)

    def _scale(self, value: float) -> float:
        return math.log(value) if self._log else float(value)
