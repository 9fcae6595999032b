"""Benchmark tasks of the fine-tuned model compared with its base model, document by document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import DataError
from hone.evaluation.benchmarks.samples import AGGREGATIONS, MEAN
from hone.evaluation.judging import metrics
from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.intervals import Interval, percentile_interval, share_interval
from hone.store import layout

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class BenchmarkResults:
    """The folders with the samples of the fine-tuned model and of its base model (`benchmarks.harness`)."""

    model: Path
    base: Path


@dataclass(frozen=True)
class PairedSamples:
    """Both models' samples of one metric, float64 [documents, 2] (value, weight), in the order of the documents."""

    figure: Mapping[str, Any]
    ours: np.ndarray
    theirs: np.ndarray

    @cached_property
    def is_share(self) -> bool:
        """Whether the metric is a mean of values in 0..1."""
        values = np.concatenate([self.ours[:, 0], self.theirs[:, 0]])
        return self.figure["aggregation"] == MEAN and bool(((values >= 0) & (values <= 1)).all())

    def draw(self, samples: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """The metric on every draw: [1 + resamples]."""
        values, weights = metrics.totals(samples, draws)
        with np.errstate(over="ignore"):  # the perplexity of a model that knows nothing of a text
            return AGGREGATIONS[self.figure["aggregation"]](values, weights)


def judge_benchmarks(results: BenchmarkResults, resamples: int, confidence: float, seed: int) -> dict[str, Any]:
    """The `figures` of all tasks: both models' values with intervals, and their paired difference.

    A figure has `comparison` as `compare_paired` returns it, above 0 where the fine-tuned model is better, and `fall`:
    what a guard needs (`_measure_fall`). `left_out` are metrics that have no value of single documents. The documents
    of a task are drawn with replacement, the same for both models. Raises DataError if these had different ones.
    """
    ours, theirs = (_load(folder) for folder in (results.model, results.base))
    figures = []
    for key, figure in ours.figures.items():
        if key not in theirs.figures or theirs.figures[key]["aggregation"] != figure["aggregation"]:
            continue
        paired = _pair(figure, ours.samples, theirs.samples)
        draws = metrics.resample(len(paired.ours), resamples, seed)
        figures.append(_judge(paired, draws, confidence))
    judged = {f"{figure['task']}/{figure['metric']}" for figure in figures}
    names = {f"{task}/{metric}" for task, metric in (*ours.figures, *theirs.figures)}
    return {"figures": figures, "left_out": sorted((names | ours.left_out | theirs.left_out) - judged)}


@dataclass(frozen=True)
class _Loaded:
    """One model's samples, their figures by task and metric, and the names of metrics without samples."""

    samples: pa.Table
    figures: Mapping[tuple[str, str], Mapping[str, Any]]
    left_out: frozenset[str]


def _load(folder: Path) -> _Loaded:
    import pyarrow.parquet as pq

    summary = json.loads((folder / layout.BENCHMARKS).read_text("utf8"))
    figures = {(figure["task"], figure["metric"]): figure for figure in summary["figures"]}
    return _Loaded(pq.read_table(folder / layout.SAMPLES), figures, frozenset(summary["left_out"]))


def _pair(figure: Mapping[str, Any], ours: pa.Table, theirs: pa.Table) -> PairedSamples:
    """The samples of both models for the same documents; raises DataError if these are not the same."""
    import pyarrow.compute as pc

    parts = [
        samples.filter(
            pc.and_(pc.equal(samples["task"], figure["task"]), pc.equal(samples["metric"], figure["metric"]))
        )
        for samples in (ours, theirs)
    ]
    documents = [part.select(["doc", "hash"]).to_pylist() for part in parts]
    if documents[0] != documents[1]:
        raise DataError(
            "the fine-tuned model and its base model were asked different documents",
            where=f"evaluation.benchmarks, task {figure['task']}",
            fix="A task must have the same documents, in the same order, each time: give it no random choice.",
        )
    pairs = (np.column_stack([part["value"].to_numpy(), part["weight"].to_numpy()]) for part in parts)
    return PairedSamples(figure, *pairs)


def _judge(paired: PairedSamples, draws: np.ndarray, confidence: float) -> dict[str, Any]:
    """One metric of one task, as in metrics.json."""
    figure, rows = paired.figure, len(paired.ours)
    drawn = {name: paired.draw(samples, draws) for name, samples in (("ours", paired.ours), ("theirs", paired.theirs))}

    def interval(values: np.ndarray) -> Interval:
        return share_interval(values, confidence, rows) if paired.is_share else percentile_interval(values, confidence)

    share_rows = rows if paired.is_share else 0
    return {
        **{name: figure[name] for name in ("task", "metric", "version", "lower")},
        "rows": rows,
        "share": paired.is_share,
        **{name: interval(values) for name, values in drawn.items()},
        "comparison": compare_paired(
            figure["metric"], drawn["ours"], drawn["theirs"], confidence, figure["lower"], share_rows
        ),
        "fall": _measure_fall(paired, drawn["ours"], drawn["theirs"]),
    }


def _measure_fall(paired: PairedSamples, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """How much worse the fine-tuned model is, and what decides whether that is chance.

    `value` is in the metric's unit, above 0 if it is worse; `p`, of "not worse", and the standard `error` are those of
    the paired bootstrap; `lost` and `won` count the documents that one model alone has right, None if a document is not
    right or wrong.
    """
    falls = ours - theirs if paired.figure["lower"] else theirs - ours
    our_values, their_values = paired.ours[:, 0], paired.theirs[:, 0]
    is_binary = paired.is_share and bool(np.isin([our_values, their_values], (0, 1)).all())
    better, worse = (our_values > their_values).sum(), (our_values < their_values).sum()
    won, lost = (worse, better) if paired.figure["lower"] else (better, worse)
    return {
        "value": float(falls[0]),
        "p": float((1 + np.count_nonzero(falls[1:] <= 0)) / len(falls)),
        "error": float(falls[1:].std()),
        "lost": int(lost) if is_binary else None,
        "won": int(won) if is_binary else None,
    }
