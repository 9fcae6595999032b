"""The files that lm-evaluation-harness writes with --log_samples, as one table of a value for each document."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hone.errors import ModelError

_SAMPLES = re.compile(r"samples_(.+)_\d{4}-\d\d-\d\dT[\d.:-]+\.jsonl")
NO_FILTER = "none"  # the harness's name of answers that were not filtered
SCHEMA = pa.schema(
    {
        "task": pa.string(),
        "metric": pa.string(),
        "doc": pa.int64(),
        "hash": pa.string(),
        "value": pa.float64(),
        "weight": pa.float64(),
    }
)
# How a metric follows from the sums [n] of its documents' values and weights. The log-likelihoods that the harness
# logs have weights (words, bytes); all other values have the weight 1.
MEAN = "mean"
AGGREGATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    MEAN: lambda values, weights: values / weights,
    "perplexity": lambda values, weights: np.exp(-values / weights),
    "bits_per_byte": lambda values, weights: -values / weights / math.log(2),
}
_TOLERANCE = 1e-6  # relative: the harness sums in another order


def read_results(output: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The samples in the harness's output directory, and a summary of their metrics.

    The table has the columns of SCHEMA: a row for each document and metric, in the order of `doc`, the document's
    number in its task. `metric` has the filter's name after a dot, if the answers were filtered. The summary has
    `figures` (task, metric, value, rows, lower, aggregation, version) and `left_out`, the names `task/metric` of those
    that no aggregation of single documents yields, such as a corpus's BLEU: they have no interval. Raises ModelError
    if a file is missing, or contains a document twice.
    """
    results = json.loads(_find_results(output).read_text("utf8"))
    tasks = {re.sub(r"\W", "_", name): name for name in results["configs"]}  # as the harness names its files
    tables, figures, left_out = [], [], []
    for task, file in sorted(_find_samples(output).items()):
        samples = [json.loads(line) for line in file.read_text("utf8").splitlines()]
        name = tasks[task]
        for metric, key, values in _list_metrics(samples):
            reported = results["results"][name].get(key)
            aggregation = _find_aggregation(values, reported)
            if aggregation is None:
                left_out.append(f"{name}/{metric}")
                continue
            tables.append(_build_table(name, metric, values))
            figures.append(
                {
                    "task": name,
                    "metric": metric,
                    "value": float(reported),
                    "rows": len(values),
                    "lower": not results["higher_is_better"][name].get(key.split(",")[0], True),
                    "aggregation": aggregation,
                    "version": results["versions"].get(name),
                }
            )
    if not figures:
        raise ModelError("no task has a metric of single documents", where=str(output), fix="Choose other tasks.")
    return pa.concat_tables(tables), {"figures": figures, "left_out": sorted(left_out)}


def _find_results(output: Path) -> Path:
    """The results file, in a folder with the model's name; raises ModelError if there is none."""
    files = sorted(output.rglob("results_*.json"))
    if not files:
        raise ModelError(
            "lm-evaluation-harness wrote no results", where=str(output), fix="Install a version >=0.4.13,<0.5."
        )
    return files[-1]


def _find_samples(output: Path) -> dict[str, Path]:
    """The files of samples, by the name of the task as it is in file names."""
    matches = ((_SAMPLES.fullmatch(file.name), file) for file in output.rglob("samples_*.jsonl"))
    return {match[1]: file for match, file in matches if match}


def _list_metrics(samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, list[tuple[int, str, Any]]]]:
    """Each metric's name, its key in the results, and for each document its number, its hash and its value."""
    by_key: dict[tuple[str, str], list[tuple[int, str, Any]]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            row = (int(sample["doc_id"]), str(sample["doc_hash"]), sample[metric])
            by_key.setdefault((metric, str(sample["filter"])), []).append(row)
    for (metric, filtered), rows in by_key.items():
        name = metric if filtered == NO_FILTER else f"{metric}.{filtered}"
        yield name, f"{metric},{filtered}", sorted(rows, key=lambda row: row[0])


def _find_aggregation(rows: Sequence[tuple[int, str, Any]], reported: Any) -> str | None:
    """The aggregation that yields the `reported` figure from the documents' values; None if none does."""
    if not isinstance(reported, (int, float)) or not all(_is_value(value) for _, _, value in rows):
        return None
    # A pair may also be the right and the predicted class, whose ratio is an F1 of 1 if all are right: no mean.
    has_pairs = any(isinstance(value, list) for _, _, value in rows)
    values, weights = np.array([_split_value(value) for _, _, value in rows]).sum(0)[:, None]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for name, aggregate in AGGREGATIONS.items():
            if not (has_pairs and name == MEAN) and np.isclose(
                aggregate(values, weights)[0], reported, rtol=_TOLERANCE, atol=1e-12
            ):
                return name
    return None


def _is_value(value: Any) -> bool:
    """Whether a document's value is a finite number, or a pair of numbers (log-likelihood, weight)."""
    numbers = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)


def _split_value(value: Any) -> tuple[float, float]:
    """A document's value and its weight."""
    return (float(value[0]), float(value[1])) if isinstance(value, list) else (float(value), 1.0)


def _build_table(task: str, metric: str, rows: Sequence[tuple[int, str, Any]]) -> pa.Table:
    """The rows of one metric; raises ModelError if a document occurs twice."""
    documents, hashes, values = zip(*rows, strict=True)
    if len(set(documents)) < len(documents):
        raise ModelError(
            "has a document twice in its samples: they cannot be joined", where=f"task {task}", fix="Leave it out."
        )
    split = [_split_value(value) for value in values]
    columns = {
        "task": [task] * len(rows),
        "metric": [metric] * len(rows),
        "doc": documents,
        "hash": hashes,
        "value": [value for value, _ in split],
        "weight": [weight for _, weight in split],
    }
    return pa.table(columns, SCHEMA)
