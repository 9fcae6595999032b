"""The geometry of the report's charts: scales, ticks, paths.

Positions are percentages of the plot's width and height (y downwards), so that a chart fills any width while its text
keeps its size.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hone.evaluation.report import figures

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A linear scale from `low` to `high`; `ticks` are (position in percent, label)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()

    def at(self, value: float | None) -> float:
        """The position of a value in percent of the scale; values beyond an end are placed at that end."""
        share = ((self.low if value is None else value) - self.low) / ((self.high - self.low) or 1)
        return round(100 * min(max(share, 0), 1), 2)

    def span(self, low: float, high: float) -> float:
        """The distance between two values, in percent of the scale."""
        return round(self.at(high) - self.at(low), 2)


def round_step(span: float, ticks: int) -> float:
    """The step, 1, 2 or 5 times a power of ten, that divides a span into about `ticks` parts."""
    raw = max(span, 1e-12) / ticks
    power = 10 ** math.floor(math.log10(raw))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999))


def scale(
    values: Sequence[float | None],
    *,
    label: Callable[[float], str] = figures.number,
    ticks: int = 5,
    zero: bool = True,
    whole: bool = False,
) -> Scale:
    """A scale with round ends that contains all values, and 0 if `zero`; with `whole` only whole steps."""
    finite = [value for value in values if value is not None and math.isfinite(value)] or [0.0]
    low, high = (min(finite), max(finite)) if not zero else (min(0.0, *finite), max(0.0, *finite))
    step = round_step((high - low) or abs(high) or 1, ticks)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ends = Scale(first * step, last * step)
    return Scale(ends.low, ends.high, tuple((ends.at(i * step), label(i * step)) for i in range(first, last + 1)))


def shares(values: Sequence[float | None] = (1.0,), ticks: int = 5) -> Scale:
    """A scale for shares (0 to 1), its ticks in percent, with as many digits as tell them apart."""
    finite = [0.0, *(value for value in values if value is not None and math.isfinite(value))]
    step = round_step(max(finite) - min(finite) or 1, ticks)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) - 2)
    return scale(values, label=lambda value: figures.percent(value, digits), ticks=ticks)


def steps_scale(last: float) -> Scale:
    """A scale from 0 to exactly `last`, not to the next round number."""
    step = max(1.0, round_step(last or 1, 5))
    ends = Scale(0, last or 1)
    marks = [i * step for i in range(int((last or 1) / step) + 1)]
    return Scale(0, ends.high, tuple((ends.at(mark), figures.count(mark)) for mark in marks))


def path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """SVG path data through the points, in a box of 100 by 100."""
    spots = (f"{x.at(a):g} {round(100 - y.at(b), 2):g}" for a, b in points)
    return "M" + "L".join(spots) if points else ""


def smooth(points: Sequence[Point], weight: float) -> list[Point]:
    """Exponential moving average of the y values, bias-corrected at the start as in Adam (arXiv:1412.6980)."""
    mean, result = 0.0, []
    for n, (x, y) in enumerate(points, 1):
        mean = weight * mean + (1 - weight) * y
        result.append((x, mean / (1 - weight**n)))
    return result


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """At most `limit` points: the means of `limit` runs of neighbouring points."""
    if len(points) <= limit:
        return list(points)
    bounds = [round(i * len(points) / limit) for i in range(limit + 1)]
    runs = [points[a:b] for a, b in itertools.pairwise(bounds)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


@dataclass(frozen=True)
class LineChart:
    """A chart over training steps: `lines` are (class, path data, legend), `dots` (x, y, tooltip), all in percent.

    `rules` are (x, label) of vertical lines; `readout` is JSON [[x, text], ...], the tooltip at the pointer's x.
    """

    title: str
    unit: str
    x: Scale
    y: Scale
    lines: tuple[tuple[str, str, str], ...]
    dots: tuple[tuple[float, float, str], ...] = ()
    dots_legend: str = ""
    rules: tuple[tuple[float, str], ...] = ()
    readout: str = "[]"


def series(history: Sequence[dict[str, Any]], field: str) -> list[Point]:
    """(step, value) of each line of a training history that has a finite `field`."""
    values = ((line["step"], line.get(field)) for line in history)
    return [(step, float(value)) for step, value in values if isinstance(value, (int, float)) and math.isfinite(value)]


def readout(points: Sequence[Point], x: Scale, text: Callable[[float, float], str]) -> str:
    """JSON of the tooltip at each point: [[x in percent, text], ...]."""
    return json.dumps([[x.at(a), text(a, b)] for a, b in points], ensure_ascii=False)


def loss_chart(history: Sequence[dict[str, Any]], lowest_step: int | None) -> LineChart | None:
    """Training loss, raw and smoothed, with validation loss and ends of epochs; None without steps."""
    raw, valid = series(history, "loss"), series(history, "valid_loss")
    if not raw:
        return None
    smoothed = smooth(raw, 1 - 2 / (max(5, len(raw) / 15) + 1))
    drawn, smoothed = thin(raw, 500), thin(smoothed, 500)
    x, y = steps_scale(max(a for a, _ in raw + valid)), scale([b for _, b in drawn + valid])
    dots = tuple(
        (x.at(a), round(100 - y.at(b), 2), f"validation at step {a:,}: {b:.3f}" + (", the lowest" * (a == lowest_step)))
        for a, b in valid
    )
    lines = [("raw", path(drawn, x, y), "training, each step"), ("smooth", path(smoothed, x, y), "training, smoothed")]
    if len(valid) > 1:
        lines.append(("valid", path(valid, x, y), ""))
    pointer_texts = readout(smoothed, x, lambda step, loss: f"step {step:,.0f}: training loss {loss:.3f}")
    return LineChart("Loss", "", x, y, tuple(lines), dots, "validation", epoch_rules(history, x), pointer_texts)


def epoch_rules(history: Sequence[dict[str, Any]], x: Scale) -> tuple[tuple[float, str], ...]:
    """(x, label) of the end of each epoch; empty if there are more than twelve."""
    epochs = series([line for line in history if "loss" in line], "epoch")
    ends: list[tuple[float, str]] = []
    whole = 1
    for step, epoch in epochs:
        if epoch >= whole - 1e-6:
            ends.append((x.at(step), f"epoch {whole}"))
            whole = int(epoch + 1e-6) + 1
    return tuple(ends) if len(ends) <= 12 else ()


def small_chart(history: Sequence[dict[str, Any]], field: str, title: str, unit: str = "") -> LineChart | None:
    """One field of the training history over the steps; None if it has fewer than two values."""
    points = thin(series(history, field), 300)
    if len(points) < 2:
        return None
    x, y = steps_scale(points[-1][0]), scale([b for _, b in points], ticks=3)
    pointer_texts = readout(points, x, lambda step, value: f"step {step:,.0f}: {figures.number(value)} {unit}".strip())
    return LineChart(title, unit, x, y, (("smooth", path(points, x, y), ""),), readout=pointer_texts)
