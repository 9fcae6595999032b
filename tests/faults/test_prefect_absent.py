"""Prefect's server is gone in the middle of a run: the work goes on, since the server is only informed of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.environment import Home
from hone_app.service.parts import Settings, build_prefect
from hone_app.service.servers import use
from tests import preloaded
from tests.polling import until
from tests.postgresql import Cluster
from tests.services import ask

# Far from what a busy machine takes, and from what a wait for the server took: Prefect's client tried for 62 s in the
# middle of a training, and for five minutes at the end of a command. The end has two requests of 14 s.
MAX_GAP_SECONDS, MAX_STAGE_SECONDS, MAX_END_SECONDS = 10, 45, 120
PIPE_BYTES = 65_536


@pytest.mark.slow
def test_a_server_that_dies_in_training_neither_delays_nor_ends_the_run(tmp_path: Path, small: dict[str, Any]) -> None:
    conf, home = tmp_path / "small.yaml", tmp_path / "hone"
    # Its events are more than a pipe holds: a training that waits for a reader stands still.
    conf.write_text(yaml.safe_dump(small | {"training": small["training"] | {"batch_size": 4}}))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "HONE_"))}
    own = {"HONE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [preloaded.hone(), "run", str(conf)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=inherited | own, cwd=tmp_path, **pipes) as run:
        until(lambda: run.poll() is not None or any(f.stat().st_size for f in home.glob("store/work/*/history.jsonl")))
        os.kill(json.loads((home / "servers" / "prefect.json").read_text())["server"], signal.SIGKILL)
        until(lambda: run.poll() is not None or list(home.glob("store/register/*/manifest.json")))
        registered = time.monotonic()
        printed, faults = run.communicate()
    assert run.returncode == 0, faults
    assert "small version 1, alias candidate" in printed
    (warning,) = faults.splitlines()
    assert warning.startswith("hone: warning: the work is done, but Prefect's page of this run is incomplete")
    assert "Prefect's server did not answer" in warning
    assert time.monotonic() - registered < MAX_END_SECONDS
    assert max(list_gaps(home)) < MAX_GAP_SECONDS
    durations = [json.loads(manifest.read_text())["seconds"] for manifest in home.glob("store/*/*/manifest.json")]
    assert max(durations) < MAX_STAGE_SECONDS


def list_gaps(home: Path) -> list[float]:
    """The seconds between steps of the training."""
    [history] = home.glob("store/train/*/history.jsonl")
    entries = [json.loads(line) for line in history.read_text().splitlines()]
    seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
    assert history.stat().st_size > 2 * PIPE_BYTES
    return [later - earlier for earlier, later in pairwise(seconds)]


@pytest.mark.slow
@pytest.mark.long
def test_a_restart_of_prefects_postgresql_neither_ends_a_run_nor_loses_its_state(
    tmp_path: Path, small: dict[str, Any], postgresql: Cluster
) -> None:
    postgresql.execute("create database prefect_restarted")
    conf, home = tmp_path / "small.yaml", Home(tmp_path / "hone")
    conf.write_text(yaml.safe_dump(small))
    api = use(build_prefect(home, Settings(prefect_database=postgresql.url_of("prefect_restarted")))) + "/api"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "HONE_"))}
    own = {"HONE_HOME": str(home.root), "HF_HUB_OFFLINE": "1", "PREFECT_API_URL": api}
    command = [preloaded.hone(), "run", str(conf)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=inherited | own, cwd=tmp_path, **pipes) as run:
        until(lambda: run.poll() is not None or list(home.root.glob("store/tokenize/*/manifest.json")))
        postgresql.stop()
        time.sleep(3)
        postgresql.start()
        printed, faults = run.communicate()
    assert run.returncode == 0, faults
    assert "small version 1, alias candidate" in printed
    [state] = [run["state"] for run in ask(f"{api}/flow_runs/filter", {})]
    assert state["type"] == "COMPLETED", state


@pytest.fixture
def answered() -> Iterator[threading.Event]:
    """What a server that takes requests and never answers waits for."""
    event = threading.Event()
    yield event
    event.set()


def test_artifacts_wait_for_a_server_that_never_answers_once_and_for_a_moment(
    answered: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import httpx

    from hone.progress import Outbox
    from tasks.runtime import pages

    outbox = Outbox("pages")
    monkeypatch.setattr(pages, "_outbox", outbox)
    monkeypatch.setattr(pages, "WAIT_SECONDS", 0.01)
    created: list[str] = []

    def create(page: str, *, key: str) -> None:
        answered.wait()
        if page == "refused":
            raise httpx.ConnectError("refused")
        created.append(f"{key}: {page}")

    for page in ("first", "refused", "second"):
        pages.publish(create, page, key="version")
    assert not pages.is_idle()
    assert created == []
    answered.set()
    assert outbox.wait(60)
    assert created == ["version: first", "version: second"]
    assert "did not take an artifact of the run: refused" in caplog.text
