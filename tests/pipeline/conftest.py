"""A small real line: a tiny BERT, a few hundred rows that can be learned, and real servers."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.services import Service
from tests.tiny_bases import tiny_bert

if TYPE_CHECKING:
    from tests.workers import Workers

WORDS = {
    "weather": "rain sun cloud storm wind snow frost hail fog thunder".split(),
    "sport": "goal match team race player coach score league ball win".split(),
}
FILLING = "the a today we saw again there was some more of it in town with our own old friends and many others".split()

ROOT = Path(__file__).parents[2]

Hone = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised BERT of two layers with a word-level tokenizer, as save_pretrained writes it."""
    words = [*FILLING, *(word for group in WORDS.values() for word in group)]
    sizes = {"hidden": 32, "positions": 512, "initializer_range": 0.02}
    return tiny_bert(tmp_path_factory.mktemp("base"), words=words, seed=1, **sizes)


@pytest.fixture(scope="session")
def rows_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows of two topics, told apart by their words."""
    draw = random.Random(1)
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    lines = ["text,topic"]
    for i in range(300):
        topic = list(WORDS)[i % 2]
        words = draw.choices(FILLING, k=9) + draw.choices(WORDS[topic], k=3)
        draw.shuffle(words)
        lines.append(f"{' '.join(words)},{topic}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def small(base_model: Path, rows_csv: Path) -> dict[str, Any]:
    """The configuration of the small line."""
    return {
        "name": "small",
        "ingest": {"source": {"kind": "files", "paths": [str(rows_csv)]}, "columns": {"label": "topic"}},
        "curation": {"steps": [{"kind": "normalize"}, {"kind": "filters"}, {"kind": "duplicates"}]},
        "model": {"base": str(base_model)},
        "tokenization": {"max_length": 32},
        "training": {"epochs": 10, "batch_size": 16, "learning_rate": 5.0e-3},
        "evaluation": {"resamples": 200},
    }


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
    from hone.servers import prefect_server, use

    return use(prefect_server(Home(tmp_path_factory.mktemp("prefect")))) + "/api"


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, small: dict[str, Any]) -> Path:
    """A project's folder: the configurations that are shipped and small.yaml, and the deployments."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "conf", place / "conf")
    (place / "conf" / "small.yaml").write_text(yaml.safe_dump(small))
    shutil.copytree(ROOT / "deployments", place / "deployments")
    file = place / "deployments" / "prefect.yaml"
    tree = yaml.safe_load(file.read_text())
    there = [entry for entry in tree["deployments"] if find_spec(entry["entrypoint"].rpartition(".")[0])]
    file.write_text(yaml.safe_dump(tree | {"deployments": there}))
    return place


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, place: Path) -> Iterator[Service]:
    """The service of a data folder of its own, which ends with the tests."""
    with Service(tmp_path_factory.mktemp("service") / "hone", place).running() as service:
        yield service


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
        command = [str(Path(sys.executable).with_name("hone")), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment | more, cwd=tmp_path)

    return call


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory, base_model: Path, rows_csv: Path) -> Iterator[Workers]:
    """A Prefect server with a work pool and the deployment `finetune` of a training that takes an hour."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate

    from hone.environment import Home
    from hone.servers import prefect_server, use
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
