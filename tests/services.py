"""A service as `hone up` starts it, in a data folder of its own: what tests and the browser's journey are done on."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import preloaded
from tests.polling import until


@dataclass
class Service:
    """The service of the data folder `home`, with the conf/ and deployments/ of `place`.

    Its commands and runs are forked from a process with all imports done, unless it is `plain`.
    """

    home: Path
    place: Path
    said: str = ""
    more: dict[str, str] = field(default_factory=dict)
    plain: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """That of a person's shell, in which `hone` finds the data folder."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "HONE_"))}
        return kept | {"HONE_HOME": str(self.home), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | self.more

    @property
    def prefect_url(self) -> str:
        """Where the Prefect UI is; its API is at /api."""
        return self._url("Prefect")

    @property
    def mlflow_url(self) -> str:
        """Where the MLflow UI is."""
        return self._url("MLflow")

    def hone(self, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        """`hone WORDS` as a person would type it in `place`."""
        command = [preloaded.plain_hone() if self.plain else preloaded.hone(), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment | more, cwd=self.place)

    @contextmanager
    def running(self, *words: object) -> Iterator[Service]:
        """Within the block the service runs."""
        try:
            self.up(*words)
            yield self
        finally:
            self.hone("down", "--now")

    def up(self, *words: object) -> str:
        """`hone up WORDS`, and what it says."""
        done = self.hone("up", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        self.said = done.stdout
        return self.said

    def secrets(self) -> dict[str, str]:
        """The passwords that were made at random."""
        found: dict[str, str] = json.loads((self.home / "service" / "secrets.json").read_text())
        return found

    def ask(self, path: str, body: Any = None, password: str = "", method: str = "") -> Any:
        """The answer of Prefect's API; an HTTP error is raised."""
        return ask(f"{self.prefect_url}/api{path}", body, password, method)

    def start(self, deployment: str, password: str = "", **parameters: Any) -> str:
        """Start a run of `FLOW/DEPLOYMENT`, as the UI's form does it; the run's id."""
        found = self.ask(f"/deployments/name/{deployment}", password=password)
        made = self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters}, password)
        return str(made["id"])

    def state(self, run: str, password: str = "") -> str:
        """The type of a run's state."""
        return str(self.ask(f"/flow_runs/{run}", password=password)["state_type"])

    def ended(self, run: str, password: str = "") -> str:
        """Wait until the run has ended; the type of its last state."""
        until(lambda: self.state(run, password) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))
        return self.state(run, password)

    def noticed(self, model: str, password: str = "") -> list[str]:
        """The runs of watch-registry that MLflow's webhook started for the model, the oldest first."""
        filters = {"flow_runs": {"tags": {"all_": ["mlflow-webhook"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found = self.ask("/flow_runs/filter", filters, password)
        return [str(run["id"]) for run in found if run["parameters"] == {"models": [model]}]

    @contextmanager
    def unscheduled(self, deployment: str, password: str = "") -> Iterator[None]:
        """Within the block nothing but people and events start the deployment."""
        found = self.ask(f"/deployments/name/{deployment}", password=password)
        paths = [f"/deployments/{found['id']}/schedules/{schedule['id']}" for schedule in found["schedules"]]
        for path in paths:
            self.ask(path, {"active": False}, password, "PATCH")
        try:
            yield
        finally:
            for path in paths:
                self.ask(path, {"active": True}, password, "PATCH")

    def _url(self, name: str) -> str:
        return next(line.split()[1] for line in self.said.splitlines() if line.startswith(f"{name} "))


def ask(
    url: str, body: Any = None, password: str = "", method: str = "", headers: Mapping[str, str] | None = None
) -> Any:
    """The JSON that `url` answers, to the user admin where there is a password."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"content-type": "application/json", **(headers or {})}, method=method or None
    )
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def status(url: str, password: str = "", body: Any = None, **headers: str) -> int:
    """The HTTP status with which `url` answers; 200 for every success."""
    try:
        ask(url, body, password, headers=headers)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    return 200
