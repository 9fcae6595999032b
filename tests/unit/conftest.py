"""Fixtures of unit tests: artifacts of a tiny model, and MLflow stores to register it in."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from hone.models.locate import BaseModel, locate_base_model
from hone.store.artifact import Artifact
from hone.store.store import Store
from hone.tracking.client import create_sqlite_store
from tests.tiny_bases import tiny_bert
from tests.untrained_line import WORDS, build_line


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A BERT of two layers with random weights, and a tokenizer that knows a dozen words."""
    place = tiny_bert(tmp_path_factory.mktemp("base"), words=WORDS, hidden=32, positions=32, seed=1)
    (place / "README.md").write_text("---\nlicense: apache-2.0\n---\n", "utf8")
    return locate_base_model(str(place))


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, base: BaseModel) -> Mapping[str, Artifact]:
    """The artifacts of ingest to evaluate, of a model tuned in full."""
    from hone.methods.full import Full

    return build_line(Store(tmp_path_factory.mktemp("full")), base, Full())


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, base: BaseModel) -> Mapping[str, Artifact]:
    """The artifacts of ingest to evaluate, of a model tuned with LoRA."""
    from hone.methods.lora import Lora

    return build_line(Store(tmp_path_factory.mktemp("lora")), base, Lora(rank=4))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its tables made and nothing in them."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    create_sqlite_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking_uri(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow store of the test's own; the working directory is another, and must stay empty."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "mlflow").mkdir()
    shutil.copyfile(empty_database, tmp_path / "mlflow" / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow/mlflow.db"


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
