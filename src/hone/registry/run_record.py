"""Completes a training's run in MLflow when its model is registered: curves, datasets, files, test figures."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hone.evaluation.report.report_bias import list_gap_figures
from hone.splits import TEST, TRAIN, VALID
from hone.store import layout
from hone.store.artifact import Artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, LoggedModel, Run

MLFLOW_CONTEXTS = {TRAIN: "train", VALID: "validation", TEST: "test"}  # split to MLflow's name of the context
DATASET_DIGEST = 36  # characters: MLflow's limit for a dataset digest
FIGURES = "test_figures.json"
_UNNAMEABLE = re.compile(r"[^\w.\- :]")  # what MLflow refuses in a metric's name, and its separator


def log_datasets(client: MlflowClient, run: Run, datasets: Mapping[str, Dataset]) -> None:
    """Log the splits, by name, as the run's inputs; MLflow ignores those it has already."""
    from mlflow.entities import DatasetInput, InputTag

    inputs = [
        DatasetInput(dataset, [InputTag("mlflow.data.context", MLFLOW_CONTEXTS[split])])
        for split, dataset in datasets.items()
    ]
    client.log_inputs(run.info.run_id, datasets=inputs)


def describe_split(splits: Artifact, split: str) -> Dataset:
    """A split as an MLflow dataset; only the file's metadata is read."""
    import pyarrow.parquet as pq
    from mlflow.entities import Dataset

    name = layout.rows_file(split)
    file = pq.ParquetFile(splits.path / name)
    columns = [{"type": "string", "name": column, "required": True} for column in file.schema_arrow.names]
    return Dataset(
        name=f"{splits.manifest()['name'] or splits.stage} {split}",
        digest=splits.manifest()["files"][name]["sha256"][:DATASET_DIGEST],
        source_type="local",
        source=json.dumps({"uri": str(splits.path / name)}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": file.metadata.num_rows}),
    )


def has_test_rows(run: Run, dataset: Dataset) -> bool:
    """Whether the run was tested on the rows of this dataset."""
    return any(
        entry.dataset.digest == dataset.digest and any(tag.value == MLFLOW_CONTEXTS[TEST] for tag in entry.tags)
        for entry in run.inputs.dataset_inputs
    )


def list_test_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """MLflow's metrics: `test/accuracy`; a baseline's as `test_majority/accuracy`. From the content of metrics.json."""
    return {
        f"{'test' if system == 'model' else f'test_{system}'}/{metric}": float(figure["value"])
        for system, metric, figure in _iter_figures(metrics)
    } | {**_list_benchmark_metrics(metrics), **_list_judge_metrics(metrics)}


def _list_benchmark_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """`benchmark_TASK/METRIC` of the model, `benchmark_TASK/base_METRIC` of its base model."""
    values = {}
    for figure in (metrics.get("benchmarks") or {}).get("figures", ()):
        task, metric = (_UNNAMEABLE.sub("_", figure[name]) for name in ("task", "metric"))
        values[f"benchmark_{task}/{metric}"] = float(figure["ours"]["value"])
        values[f"benchmark_{task}/base_{metric}"] = float(figure["theirs"]["value"])
    return values


def _list_judge_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """`judge_untuned/score`: the share of pairs that the model won, a tie being half a win."""
    opponents = (metrics.get("judge") or {}).get("opponents", {})
    return {f"judge_{name}/score": float(entry["score"]["value"]) for name, entry in opponents.items()}


def log_test_metrics(
    client: MlflowClient, run: Run, metrics: Mapping[str, Any], dataset: Dataset, logged: LoggedModel | None
) -> None:
    """Log the test metrics that the run or the logged model lacks; the model's own with its id and the test split.

    MLflow shows a metric in its tables of models and in their comparison by the id, and the dataset beside it.
    """
    from mlflow.entities import Metric

    run_id, now = run.info.run_id, int(time.time() * 1000)
    of_model = {metric.key: metric.value for metric in (logged.metrics if logged else None) or ()}
    missing = []
    for name, value in list_test_metrics(metrics).items():
        belongs_to_model = logged is not None and name.startswith("test/")
        in_run = run.data.metrics.get(name) == value
        if in_run and (not belongs_to_model or of_model.get(name) == value):
            continue
        # With the time of the run's own point MLflow adds none to its curve, only that of the model.
        timestamp = client.get_metric_history(run_id, name)[-1].timestamp if in_run else now
        about = (
            {"model_id": logged.model_id, "dataset_name": dataset.name, "dataset_digest": dataset.digest}
            if logged and belongs_to_model
            else {}
        )
        missing.append(Metric(name, value, timestamp, 0, **about))
    if missing:
        client.log_batch(run_id, metrics=missing)


def log_intervals(client: MlflowClient, run_id: str, metrics: Mapping[str, Any]) -> None:
    """Log all systems' figures with their intervals as one table, which MLflow shows among the run's files."""
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    rows = [
        [system, metric, *(_round(figure.get(name)) for name in ("value", "low", "high"))]
        for system, metric, figure in _iter_figures(metrics)
    ]
    table = {"columns": ["system", "metric", "value", "low", "high"], "data": rows}
    # log_table would append the rows to those of an earlier registration.
    client.log_text(run_id, json.dumps(table), FIGURES)
    client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": FIGURES, "type": "table"}]))


def _iter_figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each figure of a metrics.json with the names of its system and metric, prompted models included."""
    prompted = {f"prompt_{rival['name']}": rival["theirs"] for rival in metrics.get("rivals") or ()}
    for system, figures in {**metrics["systems"], **prompted}.items():
        yield from ((system, metric, figure) for metric, figure in figures.items() if figure is not None)
    for system, name, figure in list_gap_figures(metrics):
        yield system, _UNNAMEABLE.sub("_", name), figure


def _round(value: float | None) -> float | None:
    """Six significant digits: more do not fit a column of MLflow's table."""
    return None if value is None else float(f"{value:.6g}")
