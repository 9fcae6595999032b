"""Fixtures that more than one room of tests uses."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests import changed, ending, preloaded, schedule
from tests.durations import pytest_terminal_summary as pytest_terminal_summary
from tests.postgresql import Cluster, throw_away
from tests.services import Service
from tests.small_line import topic_base, topic_rows

if TYPE_CHECKING:
    from tests.tiny_versions import Versions

# Tiny models are done before a second thread has woken; on a busy machine waiting threads take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Under nohup the first is ignored, in a background job of a shell script the second: so would every command be that is
# started here.
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("HONE_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-families", action="store_true", help="write docs/families.md from tests/unit/families")
    parser.addoption("--changed", action="store_true", help="only test files that a change since main could matter to")


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks of groups in this hook too
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--changed"):
        changed.deselect(config, items)
    schedule.arrange(config, items)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--write-families"):
        config.option.markexpr = ""  # the page has all of them, long tests too
    ending.pytest_configure(config)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and models; tests that need it skip where it is not."""
    if not SHARED.is_dir():
        pytest.skip(f"real data sets and models are not at {SHARED} (HONE_SHARED names another place)")
    return SHARED


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server that ends with the tests."""
    with throw_away() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def trained_versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Two versions of a tiny classifier, trained and registered once; tests take a copy (`tiny_versions.copy`)."""
    from tests.tiny_versions import train_versions

    return train_versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture
def versions(trained_versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    """A store of the test's own with both versions; HONE_HOME is a folder of the test's own too."""
    from tests.tiny_versions import copy

    monkeypatch.setenv("HONE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return copy(trained_versions, tmp_path / "store")


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model of the small line."""
    return topic_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def rows_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its 300 rows."""
    return topic_rows(tmp_path_factory.mktemp("data") / "rows.csv")


@pytest.fixture(scope="session")
def small(base_model: Path, rows_csv: Path) -> dict[str, Any]:
    """The configuration of the small line."""
    return {
        "name": "small",
        "ingest": {"source": {"kind": "files", "paths": [str(rows_csv)]}, "columns": {"label": "topic"}},
        "curation": {"steps": [{"kind": "normalize"}, {"kind": "filters"}, {"kind": "duplicates"}]},
        "model": {"base": str(base_model)},
        "tokenization": {"max_length": 32},
        "training": {"epochs": 10, "batch_size": 16, "learning_rate": 5.0e-3, "precision": "fp32"},
        "evaluation": {"resamples": 200},
    }


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, small: dict[str, Any]) -> Path:
    """A project's folder: the configurations that are shipped and small.yaml, and the deployments."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "conf", place / "conf")
    (place / "conf" / "small.yaml").write_text(yaml.safe_dump(small))
    shutil.copytree(ROOT / "deployments", place / "deployments")
    return place


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, place: Path) -> Iterator[Service]:
    """The service of a data folder of its own, which ends with the tests."""
    with Service(tmp_path_factory.mktemp("service") / "hone", place).running() as service:
        yield service


@pytest.fixture
def forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process starts by `sys.executable`, such as trainings, is forked with its imports done."""
    monkeypatch.setattr(sys, "executable", preloaded.python())


@pytest.fixture(autouse=True)
def no_tracking_uri_left() -> Iterator[None]:
    """MLflow's tracking URI is the process's: a test that sets it leaves none to the next."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
