"""MLflow is not there: said at once, by name; a training that has begun goes on."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ServiceError
from hone.tracking.client import check_tracking_uri, connect, create_sqlite_store, translate_errors
from hone.tracking.run_log import open_run
from tests.polling import until
from tests.postgresql import QUOTED, SECRET, Cluster

ABOUT: dict[str, Any] = {"experiment": "hone", "name": "tiny", "key": "k", "params": {}, "tags": {}}


@pytest.fixture
def dead_uri() -> str:
    """The address of a server that has gone."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def answering_with(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_is_gone_is_named_before_any_retry(dead_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def retried(*_: Any, **__: Any) -> None:
        raise AssertionError("MLflow's own retries take minutes")

    monkeypatch.setattr("mlflow.utils.rest_utils.http_request", retried)
    with pytest.raises(ServiceError) as fault:
        open_run(dead_uri, **ABOUT)
    assert dead_uri in str(fault.value)
    assert "MLFLOW_TRACKING_URI" in str(fault.value)
    assert fault.value.retryable
    assert fault.value.exit_code == 8


def test_registering_where_the_server_is_gone(dead_uri: str, tmp_path: Path) -> None:
    from hone.tracking.client import connect

    with pytest.raises(ServiceError, match="MLflow did not answer"):
        connect(dead_uri)


def test_a_server_that_says_nothing_is_given_up() -> None:
    with closing(socket.socket()) as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(ServiceError, match="timed out"):
            check_tracking_uri(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout=0.2)


def test_a_broken_server_is_told_from_one_that_hides_its_health() -> None:
    with answering_with(503) as uri, pytest.raises(ServiceError, match="503"):
        check_tracking_uri(uri)
    with answering_with(404) as uri:
        check_tracking_uri(uri)


def test_a_refusal_is_no_silence() -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException), translate_errors("sqlite:///x"):
        raise MlflowException("no such run", error_code=1001)


def test_training_goes_on_without_mlflow_and_its_curve_is_whole_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from hone.tracking import run_log

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    create_sqlite_store(uri)
    run = open_run(uri, **ABOUT)
    failed, back = threading.Event(), threading.Event()

    def absent(_: str) -> None:
        if not back.is_set():
            failed.set()
            raise ServiceError("MLflow did not answer", where=uri)

    monkeypatch.setattr(run_log, "check_tracking_uri", absent)
    monkeypatch.setattr(run_log, "FLUSH_SECONDS", 0.01)
    with caplog.at_level(logging.WARNING):
        run.hear({"type": "step", "step": 1, "loss": 1.0})
        assert failed.wait(60)
        run.hear({"type": "step", "step": 2, "loss": 0.5})
        back.set()
        run.finish("FINISHED")
    assert caplog.text.count("Training goes on without MLflow") == 1
    history = run_log.connect(uri).get_metric_history(run.run_id, "train/loss")  # type: ignore[attr-defined]
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 1.0), (2, 0.5)]


def test_a_server_that_dies_in_training_does_not_fail_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from hone.tracking import run_log

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    create_sqlite_store(uri)
    run = open_run(uri, **ABOUT)

    def absent(_: str) -> None:
        raise ServiceError("MLflow did not answer", where=uri)

    monkeypatch.setattr(run_log, "check_tracking_uri", absent)
    run.hear({"type": "step", "step": 1, "loss": 1.0})
    run.finish("FINISHED")
    assert "could not be ended" in caplog.text


def test_a_run_that_is_deleted_during_its_training_ends_nothing_and_a_retry_opens_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client, run = connect(uri), open_run(uri, **ABOUT)
    client.delete_run(run.run_id)
    run.hear({"type": "step", "step": 1, "loss": 1.0})
    run.finish("FINISHED")
    assert "deleted" in caplog.text
    assert open_run(uri, **ABOUT).run_id != run.run_id


@pytest.mark.long
def test_a_restart_of_postgresql_delays_a_training_by_nothing_and_its_curves_are_whole(
    tmp_path: Path, postgresql: Cluster
) -> None:
    postgresql.execute("create database restarted")
    uri = postgresql.url_of("restarted").replace("postgresql://", "postgresql+psycopg://")
    client = connect(uri)

    def read_steps() -> list[int]:
        return sorted(metric.step for metric in client.get_metric_history(run.run_id, "train/loss"))

    run = open_run(uri, artifact_root=str(tmp_path), **ABOUT)
    for step in (1, 2):
        run.hear({"type": "step", "step": step, "loss": 1 / step})
    until(lambda: read_steps() == [1, 2])
    postgresql.stop()
    for step in (3, 4):
        run.hear({"type": "step", "step": step, "loss": 1 / step})
    # What needs an answer fails with an error that a retry may follow: registering, a promotion.
    with pytest.raises(ServiceError) as fault:
        open_run(uri, **ABOUT | {"key": "another"})
    assert fault.value.retryable and SECRET not in str(fault.value) and QUOTED not in str(fault.value)
    postgresql.start()
    for step in (5, 6):
        run.hear({"type": "step", "step": step, "loss": 1 / step})
    run.finish("FINISHED")
    assert read_steps() == [1, 2, 3, 4, 5, 6]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert open_run(uri, **ABOUT).run_id == run.run_id
