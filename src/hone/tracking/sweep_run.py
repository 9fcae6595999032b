"""The MLflow run of a sweep: the parent of its trainings' runs, with one point of its curves for each trial."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hone.errors import HoneError
from hone.progress import Outbox
from hone.tracking.client import check_tracking_uri, connect, get_or_create_experiment, translate_errors
from hone.tracking.run_log import END_SECONDS, Outcome, describe_origin, find_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SWEEP_KEY = "hone.sweep_key"
TRIAL = "hone.trial"
PARAM_CHARACTERS = 6000  # the most that MLflow takes
_log = logging.getLogger(__name__)


class SweepRun:
    """The log of one sweep. Once it is open, nothing waits for MLflow but the end of the block, END_SECONDS at most."""

    def __init__(self, client: MlflowClient, run: Run, metric: str) -> None:
        self.run_id = str(run.info.run_id)
        self._client, self._experiment, self._metric = client, str(run.info.experiment_id), metric
        self._outbox = Outbox("mlflow-sweep")
        self._logged = {point.step for point in client.get_metric_history(self.run_id, metric)}

    def child_tags(self) -> dict[str, str]:
        """The tags that make a training's run a child of this one."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        return {MLFLOW_PARENT_RUN_ID: self.run_id}

    def add(self, number: int, state: str, key: str, value: float | None, best: float | None) -> None:
        """Log trial `number`: its value and the best one so far, and mark the run of the training `key` as its own."""
        self._send(lambda: self._add(number, state, key, {self._metric: value, f"best_{self._metric}": best}))

    def finish(self, best: int, values: Mapping[str, Any], file: Path) -> None:
        """Log the best trial, its values, and the file with all trials."""

        def log() -> None:
            self._client.log_artifact(self.run_id, str(file))
            self._client.set_tag(self.run_id, "hone.best_trial", str(best))
            self._client.set_tag(self.run_id, "hone.best_values", json.dumps(values))

        self._send(log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        status: Outcome = "FINISHED"
        if fault is not None:
            status = "FAILED" if isinstance(fault, Exception) else "KILLED"
        self._send(lambda: self._client.set_terminated(self.run_id, status))
        if not self._outbox.close(END_SECONDS):
            _log.warning("The MLflow run %s of the sweep was not completed: MLflow did not answer in time", self.run_id)

    def _add(self, number: int, state: str, key: str, figures: Mapping[str, float | None]) -> None:
        for name, value in figures.items() if number not in self._logged else ():
            if value is not None:
                self._client.log_metric(self.run_id, name, value, step=number)
        run = find_run(self._client, self._experiment, key) if key else None
        if run:
            tags = {TRIAL: str(number), "hone.trial_state": state, **self.child_tags()}
            for name, text in tags.items():
                self._client.set_tag(run.info.run_id, name, text)

    def _send(self, call: Callable[[], None]) -> None:
        self._outbox.send(lambda: self._attempt(call))

    def _attempt(self, call: Callable[[], None]) -> None:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            check_tracking_uri(self._client.tracking_uri)
            with translate_errors(self._client.tracking_uri):
                call()
        except (HoneError, MlflowException, RequestException) as fault:
            _log.warning("The MLflow run %s of the sweep lacks an entry: %s", self.run_id, fault)


def open_sweep_run(
    tracking_uri: str,
    *,
    experiment: str,
    artifact_root: str,
    name: str,
    key: str,
    metric: str,
    space: Mapping[str, Any],
    tags: Mapping[str, str],
) -> SweepRun:
    """The log of the sweep with this key: in its run if there is one, else in a new one. Raises ServiceError."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        home = get_or_create_experiment(client, experiment, artifact_root)
        runs = client.search_runs([home], f"tags.`{SWEEP_KEY}` = '{key}'", max_results=1)
        if runs:
            run = runs[0]
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            note = f"{name}: a sweep over {', '.join(space)}. Each trial is a run of its own below it."
            about = describe_origin(f"hone sweep {name}", note)
            run = client.create_run(home, run_name=f"{name} sweep", tags={SWEEP_KEY: key} | about | dict(tags))
            for path, values in space.items():
                client.log_param(run.info.run_id, path, json.dumps(values)[:PARAM_CHARACTERS])
        return SweepRun(client, run, metric)
