"""The connection to MLflow: reachability, the SQLite store, and translation of its errors."""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hone.disk import describe_disk_fault
from hone.errors import ConfigError, ServiceError, StoreError
from hone.store.databases import Schema, create_file
from hone.tracking.relocate import relocate_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

SCHEMA = Schema(Path(__file__).with_name("mlflow.sql"), "mlflow", "store/db_migrations/versions")
ARTIFACTS = "artifacts"  # the folder of MLflow's files, beside a SQLite store
_HTTP = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_MANAGED = ("databricks", "databricks-uc", "uc")
_FIX = "Start it, or name another with MLFLOW_TRACKING_URI; unset, a SQLite store under HONE_HOME is used."


def check_tracking_uri(tracking_uri: str, *, timeout: float = 5.0) -> None:
    """Raise ServiceError if no MLflow server answers at `tracking_uri` within `timeout` seconds.

    Databases are not opened: SQLite needs no server. Raises ConfigError for a URI that MLflow does not support, such
    as a plain directory. Imports no large package.
    """
    scheme = urlsplit(tracking_uri).scheme.partition("+")[0]
    if scheme in _HTTP:
        _check_server(f"{tracking_uri.rstrip('/')}/health", tracking_uri, timeout)
    elif scheme not in _DATABASES and scheme not in _MANAGED and tracking_uri not in _MANAGED:
        raise ConfigError(
            "MLflow does not support this kind of URI",
            where=f"MLflow tracking URI {tracking_uri!r}",
            fix="Use http(s)://HOST:PORT, sqlite:////ABSOLUTE/PATH.db or postgresql://...",
        )


def create_sqlite_store(tracking_uri: str) -> None:
    """Create a SQLite store that does not exist yet, or follow one that was moved; nothing for other tracking URIs.

    The tables come from the schema that ships with Hone if it is the installed MLflow's, otherwise from its
    migrations. Of two processes the first one wins.
    """
    path = sqlite_path(tracking_uri)
    if path is None:
        return
    if path.exists():
        relocate_files(path, path.parent / ARTIFACTS)
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    artifact_root = _artifact_root(path)

    def make(file: Path) -> None:
        if SCHEMA.is_current:
            SCHEMA.create_tables(file)
        SqlAlchemyStore(f"sqlite:///{file}", artifact_root).engine.dispose()

    create_file(path, make)


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of a SQLite store; None for any other tracking URI."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(urllib.parse.unquote(tracking_uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def connect(tracking_uri: str) -> MlflowClient:
    """A client for `tracking_uri` that leaves the process's default URI alone. Raises ServiceError."""
    check_tracking_uri(tracking_uri)
    create_sqlite_store(tracking_uri)
    from mlflow import MlflowClient

    # It logs each fault of a database with a traceback, and raises it too.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with translate_errors(tracking_uri):
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)


@contextmanager
def translate_errors(tracking_uri: str) -> Iterator[None]:
    """Within the block, raise ServiceError if MLflow does not answer, StoreError if its SQLite file cannot be written.

    Raises ConfigError if MLflow refuses the credentials.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as fault:
        if _is_refused(fault):
            raise ConfigError(
                "MLflow refused the credentials, or none are set",
                where=tracking_uri,
                fix="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
            ) from fault
        disk_fault = describe_disk_fault(fault)
        if disk_fault:
            fix = "Free or extend the disk, or make it writable, and run again."
            raise StoreError(f"MLflow could not write: {disk_fault[0]}", where=tracking_uri, fix=fix) from fault
        if not _is_unanswered(fault):
            raise
        raise ServiceError(f"MLflow did not answer ({_describe_cause(fault)})", where=tracking_uri, fix=_FIX) from fault


def list_all(fetch_page: Callable[..., PagedList[Any]]) -> list[Any]:
    """All items of a paged listing call of the client."""
    items: list[Any] = []
    token: str | None = None
    while token is None or token:
        page = fetch_page(page_token=token)
        items += page
        token = page.token or ""
    return items


@contextmanager
def default_tracking_uri(tracking_uri: str) -> Iterator[None]:
    """Within the block, make `tracking_uri` the process's default URI, for MLflow calls that use it (3.17).

    Example: create_model_version on a database looks up models:/ID with a client of the default URI.
    """
    import mlflow

    if mlflow.get_tracking_uri() == tracking_uri:
        yield
        return
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    previous_uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(previous_uri)
        if environment is not None:
            os.environ["MLFLOW_TRACKING_URI"] = environment


def get_or_create_experiment(client: MlflowClient, name: str, artifact_root: str = "") -> str:
    """The id of the experiment `name`, created if missing. Raises ConfigError if it was deleted.

    Its files go below `artifact_root`. If that is empty, a server chooses the place, and a SQLite store uses
    `artifacts/` beside it (MLflow's default would be the working directory).
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        path = sqlite_path(client.tracking_uri)
        root = artifact_root or (_artifact_root(path) if path else "")
        location = f"{root}/{urllib.parse.quote(name, safe='')}" if root else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise ConfigError(
            "this MLflow experiment was deleted",
            where=f"registration.experiment {name}",
            fix="Restore it (mlflow experiments restore -x ID), or choose another name.",
        )
    return str(experiment.experiment_id)


def _check_server(url: str, tracking_uri: str, timeout: float) -> None:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            answer.read(1)
    except urllib.error.HTTPError as fault:
        # Some proxies hide /health: any status below 500 shows that a server is running.
        if fault.code >= 500:
            raise ServiceError(f"MLflow answered {fault.code} to /health", where=tracking_uri, fix=_FIX) from fault
    except (urllib.error.URLError, TimeoutError, OSError) as fault:
        reason = getattr(fault, "reason", fault)
        if "CERTIFICATE_VERIFY_FAILED" in str(reason):
            return  # MLflow's client has its own certificate settings and may accept the server
        raise ServiceError(f"MLflow did not answer ({reason})", where=tracking_uri, fix=_FIX) from fault


def _artifact_root(database: Path) -> str:
    return (database.parent / ARTIFACTS).as_uri()


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


def _is_unanswered(fault: BaseException) -> bool:
    """Whether a failed call may succeed later: no connection, a timeout, a locked or missing database."""
    import requests

    silent = (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)
    unavailable = getattr(fault, "error_code", "") == "TEMPORARILY_UNAVAILABLE"
    return unavailable or any(isinstance(cause, silent) for cause in _causes(fault))


def _is_refused(fault: BaseException) -> bool:
    return getattr(fault, "error_code", "") in ("PERMISSION_DENIED", "UNAUTHENTICATED")


def _describe_cause(fault: BaseException) -> str:
    """The innermost cause on one line."""
    *_, last = _causes(fault)
    return " ".join(str(last).split())[:300] or type(last).__name__
