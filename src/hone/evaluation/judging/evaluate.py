"""Evaluate: is the trained model better than baselines that need no training?"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import DataError
from hone.evaluation.judging import baselines, metrics, predict
from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.slices import check_slices, slice_figures, slice_parts
from hone.methods.method import AdapterMethod, Method
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.progress import OnProgress, ignore
from hone.store.artifact import Product
from hone.store.tables import take_rows
from hone.tokenization.tokenize import TARGETS, dropped_ids, read_tokens

if TYPE_CHECKING:
    import pyarrow as pa

MODEL, ADAPTER = "model", "adapter"
CLIP = 500  # characters of text and labels in the report's worst errors


@dataclass(frozen=True)
class Trial:
    """How all systems did on the same test rows: `rows` as text, and the systems' outcomes, the model's own first."""

    rows: pa.Table
    objective: Objective
    targets: Targets
    outcomes: Mapping[str, Outcome]

    @property
    def ours(self) -> Outcome:
        """The model's."""
        return self.outcomes[MODEL]

    def figures(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """The objective's figures of summed statistics [k, n]."""
        return self.objective.compute_metrics(sums, self.targets)


def evaluate(
    model: Path,
    tokens: Path,
    splits: Path,
    out: Path,
    *,
    base: Path,
    objective: Objective,
    method: Method,
    max_length: int,
    slices: Sequence[str],
    neighbours: int,
    resamples: int,
    confidence: float,
    worst: int,
    seed: int,
    on_progress: OnProgress = ignore,
) -> Product:
    """The trained model in `model`/model evaluated on all test rows, with the baselines, into `out`.

    Writes metrics.json (`whole`: whether the model has weights of its own), predictions.parquet, speed.json, and
    targets.json: the tokens', with what was chosen on the validation rows. An adapter that cannot be merged left no
    weights in `model`/model: it is judged as it is served, on its base model.

    Raises ConfigError for a slice that is no column, DataError where the test split is empty or not the one that was
    tokenized, ModelError where the saved model cannot be loaded as it would be served, or where merged weights and
    adapter do not score alike.
    """

    test, train = read_tokens(tokens / "test.arrow"), read_tokens(tokens / "train.arrow")
    rows = _rows_of(test, splits / "test.parquet", slices, objective, dropped_ids(tokens, "test"))
    plain = json.loads((tokens / TARGETS).read_text("utf8"))
    valid = read_tokens(tokens / "valid.arrow") if objective.tunes_targets else test.slice(0, 0)
    whole = method.can_merge if isinstance(method, AdapterMethod) else True
    passes = (1 + objective.has_neighbour_baseline) * (len(test) + len(valid))
    passes += (objective.works_untuned + (method.adapter and whole)) * len(test)
    advance = predict.advancing(passes + objective.has_neighbour_baseline * len(train), on_progress)

    tokenizer = load_tokenizer(model / MODEL)
    reader = Reader(objective, tokenizer.pad_token_id, predict.best_device(), tokenizer)
    trained = _served(model, base, plain, reader, whole)
    targets = plain
    if len(valid):
        targets = objective.tune_targets(valid, predict.read(trained, valid, reader, advance, "tuning")[0], plain)
    raw, seconds = predict.read(trained, test, reader, advance, "testing the model")
    speed = predict.speed(trained, rows, test, targets, reader, max_length, raw, seconds)
    del trained
    merged = _check_merge(method, raw, model, base, targets, test, reader, advance) if whole else None

    said = {MODEL: (raw, targets), **_rivals(base, train, valid, test, rows, neighbours, reader, advance, plain)}
    if objective.works_untuned:
        test = baselines.beside(test, objective.reference_columns(said["untuned"][0]))
    outcomes = {name: objective.compute_outcome(test, *of, rows) for name, of in said.items()}
    trial = Trial(rows, objective, targets, outcomes)
    draws = metrics.resample(len(rows), resamples, seed)
    report = {
        **judge(trial, draws, confidence, seed),
        "slices": by_slice(trial, draws, slices, confidence),
        "worst": worst_errors(trial, worst),
        "merged": merged,
        "whole": whole,
    }
    _write_json(out / "metrics.json", report)
    _write_json(out / "speed.json", speed)
    _write_json(out / TARGETS, targets)
    _write_predictions(out / "predictions.parquet", trial, raw)
    return Product(len(rows), ("metrics.json", "predictions.parquet", TARGETS), _facts(report))


def judge(trial: Trial, draws: np.ndarray, confidence: float, seed: int) -> dict[str, Any]:
    """The figures of all systems with intervals, the model compared with each other one, and the model's details."""
    measures = dict(trial.objective.metrics)
    sums = {name: metrics.totals(outcome.statistics, draws) for name, outcome in trial.outcomes.items()}
    figures = {name: trial.figures(of) for name, of in sums.items()}
    systems = {
        name: {metric: metrics.interval(figure, confidence) for metric, figure in of.items()}
        for name, of in figures.items()
    }
    details: dict[str, Any] = {}
    ours, main = trial.ours, trial.objective.main_metric
    if ours.confidences is not None:
        measures["ece"] = Metric("Calibration error", lower=True)
        correct = ours.errors == 0
        systems[MODEL]["ece"] = metrics.ece_interval(ours.confidences, correct, draws, confidence, seed)
        details["calibration"] = metrics.calibration(ours.confidences, correct)
    if ours.classes is not None:
        right, said = ours.classes
        details["confusion"] = metrics.confusion(right, said, trial.targets["labels"], draws, confidence)
    lower = measures[main].lower
    return {
        "main_metric": main,
        "measures": {name: asdict(measure) for name, measure in measures.items()},
        "rows": len(trial.rows),
        "confidence": confidence,
        "resamples": draws.shape[1] - 1,
        "systems": systems,
        "comparisons": {
            name: compare_paired(main, figures[MODEL][main], of[main], confidence, lower)
            for name, of in figures.items()
            if name != MODEL
        },
        "per_class": metrics.by_group(trial.objective.compute_group_metrics(sums[MODEL], trial.targets), confidence),
        **details,
    }


def by_slice(trial: Trial, draws: np.ndarray, slices: Sequence[str], confidence: float) -> dict[str, Any]:
    """For each of `slices` its parts with the figures of the model and of the strongest kind of baseline there is."""
    rivals = [name for name in ("neighbours", "untuned") if name in trial.outcomes] or list(trial.outcomes)[1:2]
    statistics = {name: trial.outcomes[name].statistics for name in (MODEL, *rivals)}
    texts = trial.objective.row_texts(trial.rows)
    return {
        name: slice_figures(slice_parts(name, trial.rows, texts), statistics, trial.figures, draws, confidence)
        for name in slices
    }


def worst_errors(trial: Trial, limit: int) -> list[dict[str, Any]]:
    """The `most` rows on which the model erred most, with at most 500 characters of text."""

    ours = trial.ours
    wrong = np.flatnonzero(ours.errors > 0)
    worst = wrong[np.argsort(-ours.errors[wrong], kind="stable")][:limit]
    rows = take_rows(trial.rows, worst)
    return [
        {
            "id": row["id"],
            "text": _clip(text),
            "label": _clip(ours.references[at]),
            "predicted": _clip(ours.predictions[at]),
            "confidence": None if ours.confidences is None else float(ours.confidences[at]),
            "source": row["source"],
        }
        for at, row, text in zip(worst.tolist(), rows.to_pylist(), trial.objective.row_texts(rows), strict=True)
    ]


def _served(model: Path, base: Path, targets: Targets, reader: Reader, whole: bool) -> Any:
    """The model as it will be served: its own weights where it is `whole`, else the adapter on its base."""
    if whole:
        return predict.load_trained(model / MODEL, targets, reader.device)
    return predict.load_adapted(model / ADAPTER, base, targets, reader)


def _check_merge(
    method: Method,
    merged: Predictions,
    model: Path,
    base: Path,
    targets: Targets,
    test: pa.Table,
    reader: Reader,
    advance: predict.Advance,
) -> dict[str, Any] | None:
    """Check that adapter and merged weights give the same scores; None where the method has no adapter."""
    if not isinstance(method, AdapterMethod):
        return None
    adapted = predict.load_adapted(model / ADAPTER, base, targets, reader, method.load_on_base)
    unmerged, _ = predict.read(adapted, test, reader, advance, "testing the adapter")
    return predict.check_merged(merged, unmerged, model / ADAPTER)


def _rivals(
    base: Path,
    train: pa.Table,
    valid: pa.Table,
    test: pa.Table,
    rows: pa.Table,
    neighbours: int,
    reader: Reader,
    advance: predict.Advance,
    targets: Targets,
) -> dict[str, tuple[Predictions, Targets]]:
    """What each baseline says of the test rows, and the targets with its own choices on the rows of `valid`, if any."""
    import pyarrow as pa

    objective = reader.objective
    said = {name: (raw, targets) for name, raw in objective.baseline_predictions(train, test, targets, rows).items()}
    if objective.has_neighbour_baseline:
        asked = pa.concat_tables([valid, test])
        raw = baselines.neighbours(base, train, asked, neighbours, reader, advance, targets)
        of_valid = {name: of[: len(valid)] for name, of in raw.items()}
        of_test = {name: of[len(valid) :] for name, of in raw.items()}
        said["neighbours"] = of_test, objective.tune_targets(valid, of_valid, targets) if len(valid) else targets
    if objective.works_untuned:
        said["untuned"] = baselines.untuned(base, test, reader, advance, targets), targets
    return said


def _rows_of(
    tokens: pa.Table, path: Path, slices: Sequence[str], objective: Objective, dropped: Collection[str]
) -> pa.Table:
    """The rows of the split at `path` in the order of `tokens`, where a row may stand several times in succession.

    Checks that they are the same, but for those with the ids `dropped`, and can be sliced.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    check_slices(slices, rows.column_names, objective.text)
    if not len(rows):
        raise DataError("has no rows to test the model on", where=str(path), fix="Raise curation.split.test.")
    rows = rows.filter(pc.invert(pc.is_in(rows["id"], value_set=pa.array(sorted(dropped), pa.string()))))
    tokenized = tokens["id"].unique()
    places = pc.index_in(tokenized, value_set=rows["id"])
    if len(rows) != len(tokenized) or places.null_count:
        raise DataError(
            f"its {len(rows)} rows are not the {len(tokenized)} that were tokenized",
            where=str(path),
            fix="Evaluate with the tokens that were made of these splits.",
        )
    return take_rows(rows, places.to_numpy())


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """The facts for the manifest and MLflow."""
    systems = {name: metrics.values(figures) for name, figures in report["systems"].items()}
    return {
        "metrics": systems.pop(MODEL),
        "baselines": systems,
        "comparisons": report["comparisons"],
        "rows": report["rows"],
        "merged": report["merged"],
        "whole": report["whole"],
    }


def _clip(text: str) -> str:
    return text if len(text) <= CLIP else text[: CLIP - 1] + "…"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1), "utf8")


def _write_predictions(path: Path, trial: Trial, raw: Predictions) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ours = trial.ours
    columns = {
        "id": trial.rows["id"],
        "reference": pa.array(ours.references, pa.string()),
        "prediction": pa.array(ours.predictions, pa.string()),
        "error": pa.array(ours.errors, pa.float64()),
    }
    if ours.confidences is not None:
        columns["confidence"] = pa.array(ours.confidences, pa.float64())
    if len(raw["scores"]) == len(trial.rows):
        scores = [np.ravel(row).astype(np.float32) for row in raw["scores"]]
        columns["scores"] = pa.array(scores, pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), path, compression="zstd")
