"""The report's data on the model: the verdict, its metrics, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.evaluation.report import charts, figures
from hone.evaluation.report.figures import View
from hone.evaluation.report.report_answers import split_text

SYSTEMS = {
    "model": "Fine-tuned model",
    "majority": "Most frequent class",
    "neighbours": "Nearest neighbours",
    "probe": "Probe of embeddings",
    "tf-idf": "TF-IDF and linear SVM",
    "untuned": "Base model, untuned",
}
# Explanations of the baselines whose names are not self-explanatory.
BASELINES = {
    "majority": "the class that is most frequent",
    "neighbours": "what the nearest training rows by the base model's own embeddings say",
    "probe": "logistic regression on the base model's own embeddings",
    "tf-idf": "a linear support vector machine on words and pairs of words",
    "untuned": "the base model as it was",
}
PARTS = {"tokenize": "Tokenizing", "forward": "The model's forward pass", "post": "Answers from scores"}
MARKS = {"model": "model", "neighbours": "rival", "probe": "rival", "tf-idf": "rival", "untuned": "rival"}


def measured(metrics: Mapping[str, Any]) -> View:
    """The metrics, with `share` added to each figure: whether it is a share (0 to 1)."""
    measures = metrics["measures"]

    def with_share(values: View) -> View:
        return {name: {**figure, "share": measures[name]["share"]} for name, figure in values.items()}

    share = measures[metrics["main_metric"]]["share"]
    return {
        **metrics,
        "systems": {system: with_share(values) for system, values in metrics["systems"].items()},
        "comparisons": {name: {**comparison, "share": share} for name, comparison in metrics["comparisons"].items()},
        "slices": {
            name: [
                {key: with_share(values) if isinstance(values, dict) else values for key, values in part.items()}
                for part in parts
            ]
            for name, parts in metrics["slices"].items()
        },
    }


def select_figures(metrics: Mapping[str, Any], other: Mapping[str, Any]) -> View:
    """The figures of the model of `other` that `metrics` measures too, with `share`; both from a metrics.json."""
    measures = metrics["measures"]
    return {
        name: {**figure, "share": measures[name]["share"]}
        for name, figure in other["systems"]["model"].items()
        if figure and name in measures
    }


def system_name(system: str) -> str:
    """The display name of the model or a baseline."""
    return SYSTEMS.get(system, figures.words(system))


def verdict(metrics: View) -> View:
    """Whether fine-tuning was worth it: `state` is worth, unproven, worse, or alone (no baseline to compare with).

    worth: for every baseline the interval of the difference is above 0 and p (one-sided, for "not better") is below
    1 - confidence. worse: for some baseline the interval of the difference is below 0.
    """
    main, alpha = metrics["main_metric"], 1 - metrics["confidence"]
    figure = metrics["systems"]["model"][main]
    rivals = sorted(_differences(metrics), key=lambda rival: rival["difference"])
    better = [rival for rival in rivals if rival["low"] > 0 and rival["p"] < alpha]
    worse = [rival for rival in rivals if rival["high"] < 0]
    state = "worse" if worse else "alone" if not rivals else "worth" if len(better) == len(rivals) else "unproven"
    return {
        "state": state,
        "figure": figure,
        "metric": metrics["measures"][main]["title"],
        "rows": metrics["rows"],
        "confidence": metrics["confidence"],
        "rival": next(iter(worse or rivals), None),
        "against": "the baseline" if worse or len(rivals) < 2 else f"the best of {len(rivals)} baselines",
        "baselines": "; ".join(BASELINES[name] for name in metrics["comparisons"] if name in BASELINES),
    }


def _differences(metrics: View) -> list[View]:
    """The comparisons with the baselines, each with the baseline's display name and value."""
    return [
        {
            "name": system_name(system),
            "mark": MARKS.get(system, "plain"),
            "figure": metrics["systems"][system][comparison["metric"]],
            **comparison,
        }
        for system, comparison in metrics["comparisons"].items()
    ]


def dot_plots(metrics: View) -> list[View]:
    """For each metric, the main one first, the values and intervals of the model and the baselines that have it."""
    names = list(dict.fromkeys(name for system in metrics["systems"].values() for name in system))
    names.sort(key=lambda name: name != metrics["main_metric"])
    return [_dot_plot(metrics, name) for name in names]


def _dot_plot(metrics: View, metric: str) -> View:
    measure = metrics["measures"][metric]
    lower = measure["lower"]
    rows = [
        {"name": system_name(system), "mark": MARKS.get(system, "plain"), "figure": figures_of[metric]}
        for system, figures_of in metrics["systems"].items()
        if figures_of.get(metric)
    ]
    rows.sort(key=lambda row: (row["mark"] != "model", row["figure"]["value"] * (1 if lower else -1)))
    scale = _scale([row["figure"] for row in rows], measure)
    return {"title": measure["title"], "lower": lower, "rows": rows, "scale": scale}


def _scale(shown: list[View], measure: View) -> charts.Scale:
    """A scale that contains the figures and their intervals; up to 100% for shares of which more is better."""
    ends = [end for figure in shown for end in (figure["value"], figure.get("low"), figure.get("high"))]
    if not measure["share"]:
        return charts.scale(ends)
    return charts.shares(ends if measure["lower"] or min(filter(None, ends), default=0) < 0 else [1.0])


def forest(metrics: View) -> View:
    """The differences to the baselines on one scale that contains 0."""
    rivals = sorted(_differences(metrics), key=lambda rival: rival["difference"])
    ends = [end for rival in rivals for end in (rival["low"], rival["high"])]
    measure = metrics["measures"][metrics["main_metric"]]
    share = measure["share"]
    scale = charts.scale(ends, label=lambda value: figures.points(value, share).removesuffix(".0") if value else "0")
    return {"rows": rivals, "scale": scale, "metric": measure["title"], "share": share}


def classes(metrics: View, trained_on: Mapping[str, int]) -> list[View]:
    """The classes, lowest F1 first, those without test rows last; empty if the objective has no classes."""
    entries = [
        {"name": label, "train": trained_on.get(label), **figure}
        for label, figure in (metrics.get("per_class") or {}).items()
    ]
    return sorted(entries, key=lambda entry: (not entry["support"], entry["f1"]["value"], -entry["support"]))


def confusion(metrics: View) -> View | None:
    """The confusion matrix as shares of each true class, and the most confused pairs; None without a matrix."""
    matrix = metrics.get("confusion")
    if not matrix:
        return None
    labels, counts = matrix["labels"], matrix["counts"]
    totals = [max(sum(row), 1) for row in counts]
    cells = [
        [
            {
                "rows": n,
                "share": n / totals[i],
                "text": f"{labels[i]} taken for {labels[j]}: {n:,} of {totals[i]:,} rows",
            }
            for j, n in enumerate(row)
        ]
        for i, row in enumerate(counts)
    ]
    pairs = [
        {"true": labels[i], "predicted": labels[j], "of": totals[i], **_range(matrix, i, j), **cells[i][j]}
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and counts[i][j]
    ]
    pairs.sort(key=lambda pair: (-pair["rows"], -pair["share"]))
    return {"labels": labels, "cells": cells, "pairs": pairs[: 10 if len(labels) > 7 else 6], "all_pairs": len(pairs)}


def _range(matrix: View, i: int, j: int) -> View:
    """The interval of a cell's number of rows, '' if the matrix has none."""
    low, high = matrix.get("low"), matrix.get("high")
    return {"range": f"{figures.number(low[i][j])}–{figures.number(high[i][j])}" if low and high else ""}


def calibration(metrics: View) -> View | None:
    """The reliability diagram: accuracy against confidence for each bin with rows; None without calibration."""
    diagram = metrics.get("calibration") or {}
    bins = [entry for entry in diagram.get("bins", []) if entry["rows"]]
    if not bins:
        return None
    counts = [entry["rows"] for entry in bins]
    rows, largest, rows_scale = sum(counts), max(counts), charts.scale(counts, label=figures.count, whole=True)
    drift = sum((entry["confidence"] - entry["accuracy"]) * entry["rows"] for entry in bins) / rows
    scale = charts.shares(ticks=5)
    dots = [
        {
            "x": scale.at(entry["confidence"]),
            "y": 100 - scale.at(entry["accuracy"]),
            "radius": round(3 + 7 * (entry["rows"] / largest) ** 0.5, 1),
            "height": rows_scale.at(entry["rows"]),
            "left": round(scale.at(entry["low"]) + 0.25, 2),
            "width": round(scale.span(entry["low"], entry["high"]) - 0.5, 2),
            "text": f"{figures.percent(entry['confidence'], 0)} sure, {figures.percent(entry['accuracy'], 0)} right: "
            f"{entry['rows']:,} rows",
        }
        for entry in bins
    ]
    line = charts.path([(entry["confidence"], entry["accuracy"]) for entry in bins], scale, scale)
    return {"ece": diagram["ece"], "drift": drift, "dots": dots, "line": line, "scale": scale, "rows": rows_scale}


def slices(metrics: View) -> list[View]:
    """For each slicing column its parts, with the main metric of the model and the baselines on one scale."""
    main = metrics["main_metric"]
    scale = _scale(
        [
            values[main]
            for parts in metrics["slices"].values()
            for part in parts
            for values in part.values()
            if _has(values, main)
        ],
        metrics["measures"][main],
    )
    return [
        {"title": figures.words(column), "rows": [_slice(part, main) for part in parts], "scale": scale}
        for column, parts in metrics["slices"].items()
        if parts
    ]


def _slice(part: View, metric: str) -> View:
    systems = [key for key, value in part.items() if _has(value, metric)]
    systems.sort(key=lambda system: system == "model")
    return {
        "name": part["name"],
        "rows": part["rows"],
        "figure": part["model"][metric],
        "figures": [
            {"name": system_name(system), "mark": MARKS.get(system, "plain"), "figure": part[system][metric]}
            for system in systems
        ],
    }


def _has(value: Any, metric: str) -> bool:
    return isinstance(value, dict) and bool(value.get(metric))


def errors(metrics: View) -> list[View]:
    """The worst errors; `text` is the beginning of the row's text, `rest` what follows, cut to 4000 characters."""
    return [{**error, **split_text(str(error["text"]))} for error in metrics["worst"]]


def speed(facts: Mapping[str, Any]) -> View:
    """Latency and throughput, and the components of the time to answer all test rows, slowest first."""
    parts = sorted((facts.get("parts") or {}).items(), key=lambda part: -part[1])
    longest = parts[0][1] if parts else 1
    return {
        "latency": facts.get("latency_ms") or {},
        "rows_per_second": facts.get("rows_per_second"),
        "slowest": PARTS.get(facts.get("slowest", ""), facts.get("slowest")),
        "parts": [
            {
                "name": PARTS.get(name, figures.words(name)),
                "seconds": seconds,
                "share": round(100 * seconds / (longest or 1), 2),
            }
            for name, seconds in parts
        ],
        "total": sum(seconds for _, seconds in parts),
    }
