"""Evaluate: is the trained model better than what could be had without training it?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.artifacts import Product
from hone.errors import DataError, ModelError
from hone.evaluation import baselines, metrics, predict
from hone.evaluation.comparison import compare
from hone.evaluation.slices import check_slices, slice_figures, slice_parts
from hone.methods.method import Method
from hone.objectives.objective import Objective
from hone.objectives.tokenizer import load_tokenizer
from hone.progress import OnProgress, ignore
from hone.tokenization import TARGETS, read_tokens

if TYPE_CHECKING:
    import pyarrow as pa

MODEL = "model"
CLIP = 500


@dataclass(frozen=True)
class Trial:
    """All systems' scores of the same test rows: `rows` as text, their label indices `references` [rows], and for each
    system `scores` [rows, labels], the model's own first."""

    rows: pa.Table
    references: np.ndarray
    scores: Mapping[str, np.ndarray]
    labels: Sequence[str]

    def predictions(self, system: str = MODEL) -> np.ndarray:
        """The label index with the highest score of each row; of equal ones the first."""
        found: np.ndarray = self.scores[system].argmax(1)
        return found

    def confidences(self) -> np.ndarray:
        """The model's highest score of each row, float64."""
        found: np.ndarray = self.scores[MODEL].max(1).astype(np.float64)
        return found


def evaluate(
    model: Path,
    tokens: Path,
    splits: Path,
    out: Path,
    *,
    base: Path,
    objective: Objective,
    method: Method,
    slices: Sequence[str],
    neighbours: int,
    resamples: int,
    confidence: float,
    worst: int,
    seed: int,
    on_progress: OnProgress = ignore,
) -> Product:
    """The trained model in `model`/model judged on all test rows, beside the baselines, into `out`.

    Writes metrics.json, predictions.parquet and speed.json. Raises ConfigError for a slice that is no column,
    DataError where the test split is empty or not the one that was tokenized, ModelError where the saved model
    cannot be loaded as it would be served, or where merged weights and adapter do not score alike.
    """
    test, train = read_tokens(tokens / "test.arrow"), read_tokens(tokens / "train.arrow")
    rows = _rows_of(test, splits / "test.parquet", slices, objective)
    targets = json.loads((tokens / TARGETS).read_text("utf8"))
    passes = 3 if method.adapter else 2
    advance = predict.advancing(passes * len(test) + len(train), on_progress)

    tokenizer = load_tokenizer(model / MODEL)
    reader = predict.Reader(objective, tokenizer.pad_token_id, predict.best_device())
    trained = predict.load_trained(model / MODEL, targets, reader.device)
    scores, seconds = predict.class_scores(trained, test, reader, advance, "testing the model")
    speed = predict.speed(trained, tokenizer, rows, test, targets, reader, seconds)
    del trained
    merged = _check_adapter(model, base, targets, test, reader, advance, scores) if method.adapter else None

    classes = len(targets["labels"])
    systems = {
        MODEL: scores,
        "majority": baselines.majority(train["label"].to_numpy(), classes, len(test)),
        "neighbours": baselines.neighbours(base, train, test, classes, neighbours, reader, advance),
    }
    trial = Trial(rows, test["label"].to_numpy(), systems, targets["labels"])
    draws = metrics.resample(len(test), resamples, seed)
    report = {
        **judge(trial, draws, objective.main_metric, confidence, seed),
        "slices": by_slice(trial, draws, slices, objective.text, confidence),
        "worst": worst_errors(trial, objective.text, worst),
        "merged": merged,
    }
    _write_json(out / "metrics.json", report)
    _write_json(out / "speed.json", speed)
    _write_predictions(out / "predictions.parquet", trial)
    return Product(len(test), ("metrics.json", "predictions.parquet"), _facts(report))


def judge(trial: Trial, draws: np.ndarray, main_metric: str, confidence: float, seed: int) -> dict[str, Any]:
    """The figures of all systems with intervals, the model compared with each other one, and the model's details."""
    references, predictions, classes = trial.references, trial.predictions(), len(trial.labels)
    correct, confidences = references == predictions, trial.confidences()
    counts = {name: metrics.count(references, trial.predictions(name), classes, draws) for name in trial.scores}
    figures = {name: {"accuracy": c.accuracy(), "macro_f1": c.macro_f1()} for name, c in counts.items()}
    systems = {
        name: {metric: metrics.interval(figure, confidence) for metric, figure in of.items()}
        for name, of in figures.items()
    }
    systems[MODEL]["ece"] = metrics.ece_interval(confidences, correct, draws, confidence, seed)
    ours = figures.pop(MODEL)[main_metric]
    return {
        "main_metric": main_metric,
        "rows": len(references),
        "confidence": confidence,
        "resamples": draws.shape[1] - 1,
        "systems": systems,
        "comparisons": {name: compare(main_metric, ours, of[main_metric], confidence) for name, of in figures.items()},
        "per_class": metrics.per_class(counts[MODEL], trial.labels, confidence),
        "confusion": metrics.confusion(references, predictions, trial.labels, draws, confidence),
        "calibration": metrics.calibration(confidences, correct),
    }


def by_slice(
    trial: Trial, draws: np.ndarray, slices: Sequence[str], text: Sequence[str], confidence: float
) -> dict[str, Any]:
    """For each of `slices` its parts with the figures of the model and of the neighbours."""
    predictions = {name: trial.predictions(name) for name in (MODEL, "neighbours")}
    classes = len(trial.labels)
    return {
        name: slice_figures(
            slice_parts(name, trial.rows, text), trial.references, predictions, classes, draws, confidence
        )
        for name in slices
    }


def worst_errors(trial: Trial, text: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The `most` wrong predictions the model was surest of, with at most 500 characters of text."""
    predictions, confidences = trial.predictions(), trial.confidences()
    wrong = np.flatnonzero(predictions != trial.references)
    surest = wrong[np.argsort(-confidences[wrong], kind="stable")][:most]
    rows = trial.rows.take(surest).to_pylist()
    return [
        {
            "id": row["id"],
            "text": _clip("\n".join(row[column] for column in text)),
            "label": trial.labels[trial.references[at]],
            "predicted": trial.labels[predictions[at]],
            "confidence": float(confidences[at]),
            "source": row["source"],
        }
        for at, row in zip(surest, rows, strict=True)
    ]


def _rows_of(tokens: pa.Table, path: Path, slices: Sequence[str], objective: Objective) -> pa.Table:
    """The rows of the split at `path` in the order of `tokens`; checks that they are the same and can be sliced."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    check_slices(slices, rows.column_names, objective.text)
    if not len(rows):
        raise DataError("has no rows to test the model on", where=str(path), fix="Raise curation.split.test.")
    places = pc.index_in(tokens["id"], value_set=rows["id"].combine_chunks())
    if len(rows) != len(tokens) or places.null_count:
        raise DataError(
            f"its {len(rows)} rows are not the {len(tokens)} that were tokenized",
            where=str(path),
            fix="Evaluate with the tokens that were made of these splits.",
        )
    return rows.take(places)


def _check_adapter(
    model: Path,
    base: Path,
    targets: Mapping[str, Any],
    test: pa.Table,
    reader: predict.Reader,
    advance: predict.Advance,
    merged: np.ndarray,
) -> dict[str, Any]:
    adapter = model / "adapter"
    if not adapter.is_dir():
        raise ModelError("the method trains an adapter, and there is none", where=str(adapter), fix="Train again.")
    unmerged = predict.adapter_scores(adapter, base, targets, test, reader, advance)
    return predict.check_merged(merged, unmerged, adapter)


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest and MLflow are told."""
    systems = {name: metrics.values(figures) for name, figures in report["systems"].items()}
    return {
        "metrics": systems.pop(MODEL),
        "baselines": systems,
        "comparisons": report["comparisons"],
        "rows": report["rows"],
        "merged": report["merged"],
    }


def _clip(text: str) -> str:
    return text if len(text) <= CLIP else text[: CLIP - 1] + "…"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1), "utf8")


def _write_predictions(path: Path, trial: Trial) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = np.array(trial.labels, dtype=object)
    table = pa.table(
        {
            "id": trial.rows["id"],
            "reference": pa.array(names[trial.references], pa.string()),
            "prediction": pa.array(names[trial.predictions()], pa.string()),
            "confidence": trial.confidences(),
            "scores": pa.array(list(trial.scores[MODEL]), pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, path, compression="zstd")
