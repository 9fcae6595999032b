"""A training run in MLflow, told by the process that started the training.

One train key has one run: a training that is resumed goes on in it, and no step is in a curve twice.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hone.environment import current_user
from hone.errors import ServiceError
from hone.tracking.client import check_tracking_uri, connect, get_or_create_experiment, translate_errors
from hone.tracking.links import build_url, run_route

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

TRAIN_KEY = "hone.train_key"
FLUSH_SECONDS = 2.0
FLUSH_METRICS = 100  # one call takes 30 to 45 ms on SQLite, for 1 metric or for 100
BATCH_METRICS = 1000  # the most that MLflow takes in one call
BATCH_PARAMS = 100
SYSTEM_SECONDS = 5.0
INTERNAL = ("type", "pid")  # fields of an event that nobody looks up in MLflow

_log = logging.getLogger(__name__)


class RunLog:
    """The log of one training run. Its methods return at once: a thread of its own talks to MLflow.

    While MLflow does not answer, events wait in memory and training goes on; what is still waiting at the end
    is in the training's history.jsonl, from which registering fills the curves.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.run_id = str(run.info.run_id)
        self.experiment_id = str(run.info.experiment_id)
        self._client = client
        self._status = run.info.status
        self._artifacts = str(run.info.artifact_uri)
        self._seen = logged_steps(client, self.run_id)
        self._waiting: list[list[Metric]] = []
        self._labels: dict[str, str] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._silent = False
        self._thread: threading.Thread | None = None
        self._monitor: Any = None

    def hear(self, event: Mapping[str, Any]) -> None:
        """Log any of the training's events: figures of `step` and `valid`, tags for what else it says of itself."""
        kind = event.get("type")
        if kind == "step":
            self.step(event)
        elif kind == "valid":
            self.valid(event)
        elif kind in ("started", "resumed", "out_of_memory"):
            with self._lock:
                self._labels |= {
                    f"hone.{kind}.{name}": str(value)
                    for name, value in event.items()
                    if name not in INTERNAL and value not in ("", [], None)
                }
            self._start()

    def step(self, event: Mapping[str, Any]) -> None:
        """Log the figures of one optimizer step under `train/`; a step that is logged already is left out."""
        self._add("train", event)

    def valid(self, event: Mapping[str, Any]) -> None:
        """Log the figures of one evaluation on the validation split under `valid/`, each step once."""
        self._add("valid", event)

    def links(self) -> dict[str, str]:
        """Where a person finds the run: its page where there is a server, else the directory of its files."""
        url = build_url(self._client.tracking_uri, run_route(self.experiment_id, self.run_id))
        return {"MLflow run": url or self._artifacts}

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Send what waits, stop the system metrics and end the run; a run that had ended and heard nothing stays so.

        An MLflow that is gone is logged, not raised: what was trained is not lost for it.
        """
        self._stopped = True
        self._wake.set()
        if self._thread:
            self._thread.join()
        elif self._status != "RUNNING":
            return
        try:
            with self._answering():
                if self._monitor:
                    self._monitor.finish()
                self._client.set_terminated(self.run_id, status)
        except ServiceError as fault:
            _log.warning("The MLflow run %s could not be ended: %s", self.run_id, fault)

    def _add(self, split: str, event: Mapping[str, Any]) -> None:
        step = int(event["step"])
        if step in self._seen[split]:
            return
        self._seen[split].add(step)
        with self._lock:
            self._waiting.append(as_metrics(split, event, int(time.time() * 1000)))
            full = sum(map(len, self._waiting)) >= FLUSH_METRICS
        self._start()
        if full:
            self._wake.set()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name="mlflow-log", daemon=True)
            self._thread.start()

    def _deliver(self) -> None:
        if self._status != "RUNNING":
            self._client.update_run(self.run_id, status="RUNNING")
        self._monitor = _system_monitor(self._client.tracking_uri, self.run_id)
        while not self._stopped:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        from mlflow.entities import RunTag

        with self._lock:
            batch, labels, self._labels = take(self._waiting, BATCH_METRICS), self._labels, {}
        if not batch and not labels:
            return
        metrics = [metric for event in batch for metric in event]
        try:
            with self._answering():
                self._client.log_batch(self.run_id, metrics, tags=[RunTag(*label) for label in labels.items()])
        except ServiceError as fault:
            with self._lock:
                self._waiting[:0] = batch
                self._labels = labels | self._labels
            if not self._silent:
                _log.warning("Training goes on without MLflow for now: %s", fault)
            self._silent = True
        else:
            self._silent = False
            self._flush()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """As `translate_errors`, but a server that is gone is seen at once, before MLflow's minutes of retries."""
        check_tracking_uri(self._client.tracking_uri)
        with translate_errors(self._client.tracking_uri):
            yield


@contextmanager
def training_run(tracking_uri: str, **about: Any) -> Iterator[RunLog]:
    """Within the block the run that `open_run` gives for `about`; it ends as the block does."""
    run = open_run(tracking_uri, **about)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED"
    try:
        yield run
    except BaseException as fault:
        # What is no Exception came from outside: Ctrl-C, or Prefect's signal for a run that is cancelled.
        status = "FAILED" if isinstance(fault, Exception) else "KILLED"
        raise
    finally:
        run.finish(status)


def open_run(
    tracking_uri: str,
    *,
    experiment: str,
    name: str,
    key: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    artifact_root: str = "",
) -> RunLog:
    """The log of the run of train key `key`: the one there is, unless it was deleted, else a new one.

    Params that the run has are left as they are, for MLflow refuses to change one. A new experiment keeps its
    files under `artifact_root`, where one is given. Raises ServiceError.
    """
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        home = get_or_create_experiment(client, experiment, artifact_root)
        run = find_run(client, home, key)
        if run is None:
            run = client.create_run(home, run_name=name, tags={TRAIN_KEY: key} | _describe_origin(name, params))
        _describe(client, run, params, tags)
        return RunLog(client, run)


def find_run(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """The oldest run of train key `key` in the experiment with that id that is not deleted."""
    runs = client.search_runs([experiment], f"tags.`{TRAIN_KEY}` = '{key}'", max_results=1, order_by=["start_time ASC"])
    return runs[0] if runs else None


def logged_steps(client: MlflowClient, run_id: str) -> dict[str, set[int]]:
    """The steps that MLflow has of the training's and of the validation's curves."""
    return {
        split: {metric.step for metric in client.get_metric_history(run_id, f"{split}/loss")}
        for split in ("train", "valid")
    }


def backfill(client: MlflowClient, run_id: str, history: Path) -> int:
    """Log the lines of a training's history.jsonl whose steps MLflow does not have; how many there were."""
    seen = logged_steps(client, run_id)
    lines = [json.loads(line) for line in history.read_text("utf8").splitlines() if line.strip()]
    now = int(time.time() * 1000)
    missing = []
    for line in lines:
        split = "valid" if "valid_loss" in line else "train"
        if int(line["step"]) not in seen[split]:
            seen[split].add(int(line["step"]))
            missing.append(as_metrics(split, line, now))
    count = len(missing)
    while missing:
        client.log_batch(run_id, metrics=[metric for event in take(missing, BATCH_METRICS) for metric in event])
    return count


def as_metrics(split: str, event: Mapping[str, Any], milliseconds: int) -> list[Metric]:
    """The figures of one event, `train/loss` or `valid/accuracy`, at its step; what is no number is left out."""
    from mlflow.entities import Metric

    return [
        Metric(f"{split}/{name.removeprefix('valid_')}", float(value), milliseconds, int(event["step"]))
        for name, value in event.items()
        if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    ]


def take(events: list[list[Metric]], limit: int) -> list[list[Metric]]:
    """Cut from the front of `events` as many as hold `limit` metrics together; an event is never split."""
    total, count = 0, 0
    for event in events:
        total += len(event)
        if total > limit and count:
            break
        count += 1
    taken = events[:count]
    del events[:count]
    return taken


def _describe_origin(name: str, params: Mapping[str, Any]) -> dict[str, str]:
    """MLflow's own tags of a new run: its user, its source, and a description until `register` writes the results."""
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER

    base, method = params.get("model.base") or "a model from scratch", params.get("method.kind") or "training"
    return {
        MLFLOW_USER: current_user(),
        MLFLOW_SOURCE_NAME: f"hone run {name}",
        MLFLOW_SOURCE_TYPE: "LOCAL",
        MLFLOW_RUN_NOTE: f"{name}: {method} of {base}. The test figures are added when the model is registered.",
    }


def _describe(client: MlflowClient, run: Run, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """Set the run's tags, and those of `params` that it does not have."""
    from mlflow.entities import Param, RunTag

    new = [Param(name, str(value)) for name, value in params.items() if name not in run.data.params]
    labels = [RunTag(name, str(value)) for name, value in tags.items()]
    for chunk in _chunks(new, BATCH_PARAMS):
        client.log_batch(run.info.run_id, params=chunk, tags=labels)
        labels = []


def _chunks(items: list[Any], size: int) -> Iterable[list[Any]]:
    """`items` in lists of at most `size`, one empty list where there are none."""
    return [items[start : start + size] for start in range(0, max(len(items), 1), size)]


def _system_monitor(tracking_uri: str, run_id: str) -> Any:
    """MLflow's own sampling of processor, memory, disk, network and GPU (`system/...`), started."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics.system_metrics_monitor").setLevel(logging.WARNING)
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=SYSTEM_SECONDS, resume_logging=True, tracking_uri=tracking_uri
    )
    monitor.start()
    return monitor
