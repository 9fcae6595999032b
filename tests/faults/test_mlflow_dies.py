"""A real MLflow server dies in the middle of the work: one error each time, and what is repeated completes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone.batch.request import Request, resolve_request
from hone.config.file import parse_config
from hone.environment import Home
from hone.errors import PromotionError, ServiceError
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_stages
from hone.promotion import promote
from hone.promotion.reconcile import reconcile
from hone.store.artifact import Artifact
from hone_app.service.parts import Settings, build_mlflow
from hone_app.service.servers import find_free_port, is_healthy
from tests.in_process import begin
from tests.polling import until

pytestmark = pytest.mark.slow


class Server:
    """An MLflow server, which can be killed and started again at its address."""

    def __init__(self, folder: Path, port: int) -> None:
        self._server, self._folder, self._port = build_mlflow(Home(folder), Settings()), folder, port
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        command = [word.replace("{port}", str(self._port)) for word in self._server.command]
        environment = os.environ | self._server.environment
        log = (self._folder / "log").open("a")
        self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        until(lambda: is_healthy(self.url, "/health"))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    (folder / "mlflow").mkdir(parents=True)
    server = Server(folder, find_free_port("127.0.0.1", 0))
    yield server
    server.kill()


def test_work_that_needs_the_server_is_one_error_and_completes_once_it_is_back(
    server: Server, small: dict[str, Any], rows_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = begin(tmp_path / "hone", monkeypatch).home
    monkeypatch.setenv("HONE_HOME", str(home.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    config = parse_config(small)
    made: dict[str, Artifact] = {}
    *before, last = list_stages(config)
    for stage in before:
        made[stage] = run_stage(stage, Job(config, made, home))

    def fails_without_the_server(work: Callable[[], Any]) -> Any:
        """The result of `work`, which is an error while the server is away."""
        server.kill()
        with pytest.raises(ServiceError) as fault:
            work()
        assert server.url in str(fault.value)
        assert fault.value.retryable
        server.start()
        return work()

    registered = fails_without_the_server(lambda: run_stage(last, Job(config, made, home)))
    assert registered.facts()["version"] == "1"
    assert {stage: run_stage(stage, Job(config, made, home)).key for stage in before} == {
        stage: artifact.key for stage, artifact in made.items()
    }

    journal = promote.open_journal(server.url, "small")
    decision = promote.decide(journal, "1", downloads=home.downloads)
    refused = fails_without_the_server(lambda: promote.refuse(journal, decision, "ada", "as good as the baseline"))
    assert refused.entry.action == "refused"

    def promote_first() -> Any:
        first = promote.decide(journal, "1", downloads=home.downloads)
        passed = replace(first, gates=[])
        return promote.promote_version(journal, passed, who="ada", why="first", downloads=home.downloads)

    assert fails_without_the_server(promote_first).entry.to_version == "1"
    assert fails_without_the_server(lambda: reconcile(journal, downloads=home.downloads)) == []
    with pytest.raises(PromotionError, match="no former champion"):
        fails_without_the_server(lambda: promote.rollback(journal, who="ada", why="", downloads=home.downloads))

    source = {"kind": "files", "paths": [str(rows_csv)]}
    request = Request.model_validate(
        {"model": "small", "source": source, "output": str(tmp_path / "out.csv"), "version": "1"}
    )
    assert fails_without_the_server(lambda: resolve_request(request, home)).number == "1"
    assert [record.entry.action for record in promote.open_journal(server.url, "small").records()] == [
        "refused",
        "promoted",
    ]
