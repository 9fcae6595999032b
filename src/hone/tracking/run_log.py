"""A training run in MLflow, told by the process that started the training.

One train key has one run: a training that is resumed goes on in it, and no step is in a curve twice. A curve has some
CURVE_POINTS points; every step is in the training's history.jsonl.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hone.environment import current_user
from hone.errors import HoneError
from hone.tracking.client import check_tracking_uri, connect, get_or_create_experiment, translate_errors
from hone.tracking.links import build_url, run_route

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

TRAIN_KEY = "hone.train_key"
CURVE_POINTS = 500  # MLflow's database grows by 2.5 kB a step: 5.9 MB for 2,400
FLUSH_SECONDS = 2.0
FLUSH_METRICS = 100  # one call takes 30 to 45 ms on SQLite, for 1 metric or for 100
END_SECONDS = 20.0  # that the end of a training waits for MLflow
BATCH_METRICS = 1000  # the most that MLflow takes in one call
BATCH_PARAMS = 100
SYSTEM_SECONDS = 5.0
INTERNAL = ("type", "pid")  # fields of an event that nobody looks up in MLflow

Outcome = Literal["FINISHED", "FAILED", "KILLED"]
_log = logging.getLogger(__name__)


@dataclass
class Curve:
    """The steps of a curve in MLflow: of each `stride` steps the first that is offered."""

    steps: set[int]
    stride: int = 1
    _parts: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._parts = {step // self.stride for step in self.steps}

    def limit(self, total: int) -> None:
        """From now on, take some CURVE_POINTS of `total` steps."""
        self.stride = math.ceil(max(total, 1) / CURVE_POINTS)
        self.__post_init__()

    def offer(self, step: int, *, last: bool = False) -> bool:
        """Whether `step` is to be logged; the `last` one always is, unless it has been."""
        if step in self.steps or (step // self.stride in self._parts and not last):
            return False
        self.steps.add(step)
        self._parts.add(step // self.stride)
        return True


class RunLog:
    """The log of one training run. Its methods return at once: a thread of its own talks to MLflow.

    While MLflow does not answer, the points of the curves wait in memory and training goes on; what is still waiting
    at the end is in the training's history.jsonl, from which registering fills the curves.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.run_id = str(run.info.run_id)
        self.experiment_id = str(run.info.experiment_id)
        self._client = client
        self._status = run.info.status
        self._artifacts = str(run.info.artifact_uri)
        self._curves = {split: Curve(steps) for split, steps in logged_steps(client, self.run_id).items()}
        self._latest: dict[str, Mapping[str, Any]] = {}
        self._waiting: list[list[Metric]] = []
        self._labels: dict[str, str] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._outcome: Outcome | None = None
        self._silent = False
        self._thread: threading.Thread | None = None
        self._monitor: Any = None

    def hear(self, event: Mapping[str, Any]) -> None:
        """Log any of the training's events: figures of `step` and `valid`, tags for what else it says of itself."""
        kind = event.get("type")
        if kind == "step":
            self._add("train", event)
        elif kind == "valid":
            self._add("valid", event)
        elif kind in ("started", "resumed", "out_of_memory"):
            for curve in self._curves.values() if "steps" in event else ():
                curve.limit(event["steps"])
            with self._lock:
                self._labels |= {
                    f"hone.{kind}.{name}": str(value)
                    for name, value in event.items()
                    if name not in INTERNAL and value not in ("", [], None)
                }
            self._start()

    def links(self) -> dict[str, str]:
        """Where a person finds the run: its page where there is a server, else the directory of its files."""
        url = build_url(self._client.tracking_uri, run_route(self.experiment_id, self.run_id))
        return {"MLflow run": url or self._artifacts}

    def finish(self, outcome: Outcome) -> None:
        """Send what waits, stop the system metrics and end the run.

        A run that had ended and heard nothing stays so, unless it was killed or had failed and is finished now.
        Waits END_SECONDS at most. An MLflow that is gone is logged, not raised: what was trained is not lost for it.
        """
        for split, event in self._latest.items():
            self._add(split, event, last=True)
        self._outcome = outcome
        stays = self._status == "FINISHED" or (self._status != "RUNNING" and outcome != "FINISHED")
        if self._thread is None and stays:
            return
        self._start()
        self._wake.set()
        if self._thread:
            self._thread.join(END_SECONDS)
            if self._thread.is_alive():
                _log.warning("The MLflow run %s was not ended: MLflow did not answer in time", self.run_id)

    def _add(self, split: str, event: Mapping[str, Any], *, last: bool = False) -> None:
        self._latest[split] = event
        if not self._curves[split].offer(int(event["step"]), last=last):
            return
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
        start = time.monotonic()
        while self._outcome is None:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self._attempt(self._flush, "Training goes on without MLflow for now")
            if self._monitor:
                self._monitor.samples_before_logging = _count_samples(time.monotonic() - start)
        self._attempt(self._flush, "What MLflow lacks of the curves is added when the model is registered")
        self._attempt(self._end, f"The MLflow run {self.run_id} could not be ended")

    def _flush(self) -> None:
        """Send what waits; what is not received waits on."""
        from mlflow.entities import RunTag

        while True:
            with self._lock:
                batch, labels, self._labels = take(self._waiting, BATCH_METRICS), self._labels, {}
            if not batch and not labels:
                return
            received = False
            try:
                if self._monitor is None:
                    self._begin()
                metrics = [metric for event in batch for metric in event]
                self._client.log_batch(self.run_id, metrics, tags=[RunTag(*label) for label in labels.items()])
                received = True
            finally:
                if not received:
                    with self._lock:
                        self._waiting[:0] = batch
                        self._labels = labels | self._labels

    def _begin(self) -> None:
        if self._status != "RUNNING":
            self._client.update_run(self.run_id, status="RUNNING")
        self._monitor = _start_system_monitor(self._client.tracking_uri, self.run_id)

    def _end(self) -> None:
        if self._monitor:
            self._monitor.finish()
        self._client.set_terminated(self.run_id, self._outcome)

    def _attempt(self, call: Callable[[], None], consequence: str) -> None:
        """Make `call`; log a fault of MLflow, once. A server that is gone is noticed before MLflow retries."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            check_tracking_uri(self._client.tracking_uri)
            with translate_errors(self._client.tracking_uri):
                call()
        except (HoneError, MlflowException, RequestException) as fault:
            if not self._silent or self._outcome:
                _log.warning("%s: %s", consequence, fault)
            self._silent = True
        else:
            self._silent = False


@contextmanager
def training_run(tracking_uri: str, **about: Any) -> Iterator[RunLog]:
    """Within the block the run that `open_run` gives for `about`; it ends as the block does."""
    run = open_run(tracking_uri, **about)
    status: Outcome = "FINISHED"
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
            run = client.create_run(home, run_name=name, tags={TRAIN_KEY: key} | _describe_training(name, params))
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
    """Log the points that MLflow's curves lack, from a training's history.jsonl; how many there were."""
    curves = {split: Curve(steps) for split, steps in logged_steps(client, run_id).items()}
    lines: dict[str, list[dict[str, Any]]] = {"train": [], "valid": []}
    for line in filter(None, history.read_text("utf8").splitlines()):
        entry = json.loads(line)
        lines["valid" if "valid_loss" in entry else "train"].append(entry)
    now, missing = int(time.time() * 1000), []
    total = max((entry["step"] for entries in lines.values() for entry in entries), default=0)
    for split, entries in lines.items():
        curves[split].limit(total)
        for entry in entries:
            if curves[split].offer(int(entry["step"]), last=entry is entries[-1]):
                missing.append(as_metrics(split, entry, now))
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


def describe_origin(command: str, note: str) -> dict[str, str]:
    """MLflow's own tags of a new run: its user, its source, and its description."""
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER

    return {
        MLFLOW_USER: current_user(),
        MLFLOW_SOURCE_NAME: command,
        MLFLOW_SOURCE_TYPE: "LOCAL",
        MLFLOW_RUN_NOTE: note,
    }


def _describe_training(name: str, params: Mapping[str, Any]) -> dict[str, str]:
    """The origin of a training's run, with a description until `register` writes the results."""
    base, method = params.get("model.base") or "a model from scratch", params.get("method.kind") or "training"
    note = f"{name}: {method} of {base}. The test figures are added when the model is registered."
    return describe_origin(f"hone run {name}", note)


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


def _start_system_monitor(tracking_uri: str, run_id: str) -> Any:
    """MLflow's own sampling of processor, memory, disk, network and GPU (`system/...`), started."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    # It ends itself, with a warning, as soon as MLflow does not answer; that is logged here already.
    logging.getLogger("mlflow.system_metrics.system_metrics_monitor").setLevel(logging.CRITICAL)
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=SYSTEM_SECONDS, resume_logging=True, tracking_uri=tracking_uri
    )
    monitor.start()
    return monitor


def _count_samples(seconds: float) -> int:
    """How many samples of the machine are averaged to one point, after a training of `seconds`: 1, 2, 4, ...

    Twice CURVE_POINTS points are logged in the first 83 minutes, and CURVE_POINTS each time the duration doubles.
    """
    return int(2 ** max(0, math.floor(math.log2(max(seconds, 1.0) / (CURVE_POINTS * SYSTEM_SECONDS)))))
