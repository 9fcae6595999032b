"""Real servers: the registry over HTTP, and a registered model that answers a request."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ModelError, ServiceError
from hone.methods.lora import Lora
from hone.models.locate import BaseModel
from hone.store.artifact import Artifact
from hone.tracking import reader
from hone.tracking.client import connect
from hone.tracking.reader import describe_fault
from hone.tracking.run_log import open_run
from tests.registering import assert_answers_as_evaluated, do_register, predictions

pytestmark = pytest.mark.slow


@contextmanager
def mlflow(*words: str, log: Path, **environment: str) -> Iterator[None]:
    """Within the block `mlflow WORDS` runs and has said that it listens; at the end its process group is ended."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words],
        # `mlflow models serve` calls uvicorn by its name.
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONPATH": "", "PATH": path} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=log.parent,
        start_new_session=True,
    )
    assert process.stdout
    said, waiting = [], ["Application startup complete", "Uvicorn running"]
    try:
        for line in process.stdout:
            said.append(line)
            waiting = [sign for sign in waiting if sign not in line]
            if not waiting:
                break
        else:
            raise AssertionError("".join(said))
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_registered_model_answers_an_http_request(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel, free_port: int
) -> None:
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    evaluated = predictions(artifacts)
    words = ("models", "serve", "-m", made["model_uri"], "--env-manager", "local", "-p", str(free_port))
    with mlflow(*words, log=tmp_path / "serve.log", MLFLOW_TRACKING_URI=tracking_uri):
        for payload in (
            {"inputs": evaluated["text"]},
            {"dataframe_split": {"columns": ["text"], "data": [[text] for text in evaluated["text"]]}},
        ):
            answer = asked(free_port, payload)
            assert [row["label"] for row in answer] == evaluated["prediction"]
            assert [row["score"] for row in answer] == pytest.approx(evaluated["confidence"], abs=1e-5)
        (row,) = asked(free_port, {"inputs": evaluated["text"][:1], "params": {"all_scores": True}})
        assert list(row["scores"].values()) == pytest.approx(evaluated["scores"][0], abs=1e-5)


def asked(port: int, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(payload).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        rows: list[dict[str, Any]] = json.load(answer)["predictions"]
    return rows


def test_over_http_all_is_as_on_a_database(
    tmp_path: Path,
    empty_database: Path,
    adapted: Mapping[str, Artifact],
    base: BaseModel,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    uri = f"http://127.0.0.1:{free_port}"
    words = ("server", "--host", "127.0.0.1", "--port", str(free_port), "--workers", "1")
    places = ("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", str(tmp_path / "a"))
    with mlflow(*words, *places, log=tmp_path / "server.log"):
        run = open_run(uri, experiment="hone", name="tiny", key=adapted["train"].key, params={"a": 1}, tags={})
        run.hear({"type": "started", "steps": 6, "device": "cpu"})
        for number in range(1, 4):
            run.hear({"type": "step", "step": number, "loss": 1 / number})
        run.finish("KILLED")
        made = do_register(tmp_path / "out", adapted, base, uri, Lora(merged=False))
        assert run.links()["MLflow run"].startswith(f"{uri}/#/experiments/{made['experiment_id']}/runs/")
        client = connect(uri)
        history = client.get_metric_history(made["run_id"], "train/loss")
        assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5, 6]
        assert str(client.get_model_version_by_alias("tiny", "candidate").version) == made["version"]
        assert do_register(tmp_path / "again", adapted, base, uri, Lora(merged=False)) == made | {"existing": True}
        assert len(client.search_model_versions("name='tiny'")) == 1
        assert_answers_as_evaluated(made, adapted, clean=True)
        assert not describe_fault(uri, "tiny", made["version"])
        found = reader.get_version(uri, "models:/tiny@candidate")
        assert (found.uri, found.run_id) == ("models:/tiny/1", made["run_id"])
        assert found == reader.get_version(uri, "models:/tiny/1")
        place = reader.model_directory(uri, found, tmp_path / "downloads")
        assert (place / "adapter_model.safetensors").is_file()
        assert place == reader.model_directory(uri, found, tmp_path / "downloads")
        for missing in ("models:/tiny/2", "models:/tiny@champion", "models:/other/1"):
            with pytest.raises(ModelError, match="no such model version"):
                reader.get_version(uri, missing)
        client.delete_model_version("tiny", made["version"])
        assert describe_fault(uri, "tiny", made["version"])
    assert not describe_fault(uri, "tiny", made["version"])  # a server that is away has not lost it
    with pytest.raises(ServiceError, match="did not answer"):
        reader.get_version(uri, "models:/tiny/1")
