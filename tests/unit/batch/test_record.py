"""The run in MLflow: one for each output, however often the call that records it is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from hone.batch.record import METRICS, PARAMS, log_batch_run
from hone.batch.request import Batch, Request
from hone.environment import Home
from hone.tracking.client import connect

ACCOUNT: dict[str, Any] = {
    "rows": 3,
    "unanswered": 1,
    "seconds": 0.5,
    "rows_per_second": 6.0,
    "shards": 1,
    "finished": "now",
}
ACCOUNT |= {"version": "models:/m/1", "output": "file:///out.csv", "files_sha256": "a" * 64}


@pytest.fixture
def home(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    return Home(tmp_path / "home")


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_dict", "set_terminated"])
@pytest.mark.parametrize("before", [True, False])
def test_a_killed_call_that_is_repeated_leaves_one_finished_run(
    home: Home, monkeypatch: pytest.MonkeyPatch, call: str, before: bool
) -> None:
    request = Request(model="m", version="1", source={"kind": "files", "paths": ["a.csv"]}, output="out.csv")
    batch = Batch(request, "m", "1", "proof", ("text",), {"label": "string"}, "data")
    original = getattr(MlflowClient, call)

    def killed(client: MlflowClient, *arguments: Any, **options: Any) -> Any:
        if not before:
            original(client, *arguments, **options)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, killed)
        with pytest.raises(KilledError):
            log_batch_run(batch, ACCOUNT, home)
    run_id = log_batch_run(batch, ACCOUNT, home)
    assert log_batch_run(batch, ACCOUNT, home) == run_id
    client = connect(home.tracking_uri)
    [run] = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert {name: run.data.metrics[name] for name in METRICS} == {name: ACCOUNT[name] for name in METRICS}
    assert {name: run.data.params[name] for name in PARAMS} == {name: ACCOUNT[name] for name in PARAMS}
    assert [file.path for file in client.list_artifacts(run_id)] == ["account.json"]
