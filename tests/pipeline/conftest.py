"""A small real line: a tiny BERT, a few hundred rows that can be learned, and real servers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests import preloaded

if TYPE_CHECKING:
    from tests.in_process import Line
    from tests.workers import Workers

Hone = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def conf(tmp_path: Path, small: dict[str, Any]) -> Path:
    """A file of the small line's configuration."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small))
    return path


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The API of a real Prefect server that ends with the tests."""
    from hone.environment import Home
    from hone_app.service.servers import prefect_server, use

    return use(prefect_server(Home(tmp_path_factory.mktemp("prefect")))) + "/api"


@pytest.fixture
def environment(tmp_path: Path, prefect_url: str) -> dict[str, str]:
    """The environment of a `hone` command: a data folder of its own, the Prefect server of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "HONE_"))}
    own = {"HONE_HOME": str(tmp_path / "hone"), "PREFECT_API_URL": prefect_url, "HF_HUB_OFFLINE": "1"}
    return kept | own | {"PREFECT_HOME": str(tmp_path / "prefect"), "COLUMNS": "200"}


@pytest.fixture
def hone(environment: dict[str, str], tmp_path: Path) -> Hone:
    """`hone(*words)` runs the command as a person would; gives its exit status and output."""

    def call(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [preloaded.hone(), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment | more, cwd=tmp_path)

    return call


@pytest.fixture
def plain_hone(environment: dict[str, str], tmp_path: Path) -> Hone:
    """The same by the installed command and the plain interpreter."""

    def call(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [preloaded.plain_hone(), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment | more, cwd=tmp_path)

    return call


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """The line in this process, in the data folder that `hone` has."""
    from tests.in_process import begin

    return begin(tmp_path / "hone", monkeypatch)


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory, base_model: Path, rows_csv: Path) -> Iterator[Workers]:
    """A Prefect server with a work pool and the deployment `finetune` of a training that takes an hour."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate

    from hone.environment import Home
    from hone_app.service.servers import prefect_server, use
    from tests.workers import POOL, Workers

    home = tmp_path_factory.mktemp("workers")
    url = use(prefect_server(Home(home))) + "/api"
    config = {
        "name": "slow",
        "ingest": {"source": {"kind": "files", "paths": [str(rows_csv)]}, "columns": {"label": "topic"}},
        "model": {"base": str(base_model)},
        "tokenization": {"max_length": 32},
        "training": {"epochs": 1000, "batch_size": 1, "checkpoint_seconds": 0.5},
    }
    with SyncPrefectClient(url) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        flow = client.create_flow_from_name("finetune")
        deployment = client.create_deployment(
            flow, "finetune", work_pool_name=POOL, entrypoint="flows.finetune.finetune", enforce_parameter_schema=False
        )
        found = Workers(url, home, client, deployment, config)
        yield found
        found.close()
