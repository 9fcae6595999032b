"""A batch prediction as a run in MLflow: experiment `NAME predictions`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hone.batch.output import Account
from hone.batch.request import Batch
from hone.environment import Home
from hone.tracking.client import connect, get_or_create_experiment, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "hone.batch_key"
METRICS = ("rows", "unanswered", "seconds", "rows_per_second", "shards")
PARAMS = ("version", "output", "files_sha256")


def log_batch_run(batch: Batch, account: Account, home: Home) -> str:
    """The id of the MLflow run of this output; it is created if it does not exist, finished if its call was killed.

    Metrics: rows, unanswered, seconds, rows_per_second, shards. Params: version, output, files_sha256, data.
    """
    client = connect(home.tracking_uri)
    with translate_errors(home.tracking_uri):
        experiment = get_or_create_experiment(client, f"{batch.name} predictions", home.artifact_root)
        status_by_run = {
            str(run.info.run_id): run.info.status
            for run in client.search_runs([experiment], f"tags.`{KEY}` = '{batch.key}'")
        }
        finished = [run_id for run_id, status in status_by_run.items() if status == "FINISHED"]
        if finished:
            return finished[0]
        run_id = next(iter(status_by_run), "") or _create_run(client, experiment, batch, account)
        _log_account(client, run_id, batch, account)
        return run_id


def describe_account(batch: Batch, account: Account) -> str:
    """`demo version 3 predicted 3,080 rows, 2 without a prediction: out.csv`."""
    unanswered = f", {account['unanswered']:,} without a prediction" if account["unanswered"] else ""
    return f"{batch.name} version {batch.number} predicted {account['rows']:,} rows{unanswered}: {account['output']}"


def _create_run(client: MlflowClient, experiment: str, batch: Batch, account: Account) -> str:
    name = f"{batch.name} {batch.number} {account['finished']}"
    return str(client.create_run(experiment, tags={KEY: batch.key}, run_name=name).info.run_id)


def _log_account(client: MlflowClient, run_id: str, batch: Batch, account: Account) -> None:
    """Log all of the account, and end the run."""
    from mlflow.entities import Metric, Param

    timestamp = int(time.time() * 1000)
    metrics = [Metric(name, float(account[name]), timestamp, 0) for name in METRICS]
    params = [Param(name, str(account[name])) for name in PARAMS] + [Param("data", batch.data)]
    client.log_batch(run_id, metrics=metrics, params=params)
    client.log_dict(run_id, account, "account.json")
    client.set_terminated(run_id, "FINISHED")
