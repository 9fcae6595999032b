"""Reads model versions from MLflow: by alias or number, with their files and the versions they were tuned from.

A SQLite store and a server are read without importing MLflow, so that `hone plan` stays fast. MLflow is imported for
remote files and for other databases.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sqlite3
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from hone.errors import ConfigError, ModelError, ServiceError
from hone.store.digests import digest_of
from hone.tracking.client import ARTIFACTS, connect, sqlite_path, translate_errors
from hone.tracking.relocate import relocate_files
from hone.tracking.version_tags import unfold_digests

SCHEME = "models:/"
# A tag of a version whose files were found to differ from those that were registered: which file.
DAMAGED = "hone.damaged"
# The same of the files of its run, such as its configuration, its figures and its rows.
DAMAGED_RUN = "hone.damaged_run"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[1-9]\d*))")
# Where the transformers model is in a version's directory: Hone's layout, mlflow.transformers' layout, the directory.
_INSIDE = ("artifacts/model", "model", ".")


@dataclass(frozen=True)
class Version:
    """A model version: the run that made it, its tags, and the location of its files as MLflow stores it."""

    name: str
    version: str
    run_id: str
    location: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """`models:/NAME/NUMBER`, which always refers to this version."""
        return f"{SCHEME}{self.name}/{self.version}"


def get_version(tracking_uri: str, uri: str) -> Version:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/NUMBER` refers to in the store at `tracking_uri`.

    Raises ModelError if there is none or the URI has another form, ServiceError if MLflow does not answer.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        fix = "Write models:/NAME@ALIAS or models:/NAME/NUMBER."
        raise ModelError("does not name a model version", where=uri, fix=fix)
    with _registry(tracking_uri) as registry:
        name = parts["name"]
        number = parts["version"] or registry.alias_version(name, parts["alias"])
        fields = registry.version(name, number) if number else None
        if fields is None or number is None:
            raise ModelError(
                "there is no such model version in MLflow",
                where=f"{uri} in {tracking_uri}",
                fix=registry.describe_alternatives(name),
            )
        if fields["status"] != "READY":
            raise ModelError(f"is {fields['status']}", where=uri, fix="Register it again.")
        location = _location(registry, str(fields["source"]))
    return Version(name, number, str(fields["run_id"] or ""), location, unfold_digests(fields["tags"]))


def describe_fault(tracking_uri: str, model: str, number: str) -> str:
    """Why the model version cannot be used: it was deleted, or files of it or of its run were found damaged; else ''.

    A server that does not answer has lost no version. Raises ConfigError if MLflow refuses the credentials.
    """
    try:
        with _registry(tracking_uri) as registry:
            fields = registry.version(model, number)
    except ModelError:  # there is no store
        fields = None
    except (ServiceError, sqlite3.Error):
        return ""
    if fields is None:
        return f"version {number} of {model} is no longer in MLflow"
    damage = fields["tags"].get(DAMAGED)
    run_damage = fields["tags"].get(DAMAGED_RUN)
    if damage:
        return f"the files of version {number} of {model} are damaged: {damage}"
    return f"the run of version {number} of {model} is damaged: {run_damage}" if run_damage else ""


def has_run(tracking_uri: str, run_id: str) -> bool:
    """Whether MLflow has this run and it is not deleted; True if MLflow does not answer, as in `has_version`."""
    try:
        with _registry(tracking_uri) as registry:
            return registry.lifecycle(run_id) == "active"
    except ModelError:  # there is no store
        return False
    except (ServiceError, sqlite3.Error):
        return True


def list_lineage(tracking_uri: str, uri: str) -> list[Version]:
    """The version `uri` and the versions it was tuned from, newest first; a deleted version ends the list."""
    chain: list[Version] = []
    while uri.startswith(SCHEME) and uri not in {version.uri for version in chain}:
        try:
            chain.append(get_version(tracking_uri, uri))
        except ModelError:
            break
        uri = chain[-1].tags.get("hone.base_model", "")
    return chain


def model_directory(tracking_uri: str, version: Version, downloads: Path) -> Path:
    """The directory of the version's transformers model: in MLflow's store, or downloaded once into `downloads`.

    Raises ModelError if the version contains no transformers model.
    """
    directory = version_directory(tracking_uri, version, downloads)
    for subfolder in _INSIDE:
        for config in ("config.json", "adapter_config.json"):
            if (directory / subfolder / config).is_file():
                return directory / subfolder
    raise ModelError(
        "contains no transformers model",
        where=f"{version.uri} ({directory})",
        fix="Name a version that Hone or mlflow.transformers registered.",
    )


def version_directory(tracking_uri: str, version: Version, downloads: Path, *, refetch: bool = False) -> Path:
    """The version's directory on this machine: in MLflow's store, or a download in `downloads`.

    An earlier download is used again, unless `refetch`. Raises ModelError if the files are gone or cannot be
    downloaded.
    """
    return _local_directory(version.location) or _fetch_directory(tracking_uri, version, downloads, refetch)


def find_local_path(location: str) -> Path | None:
    """The path of MLflow's files at `location`, a path or a URL; None if they are not on this machine."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    return Path(urllib.parse.unquote(parts.path) if parts.scheme else location)


def _local_directory(location: str) -> Path | None:
    """The directory on this machine; None for a remote location."""
    path = find_local_path(location)
    if path is not None and not path.is_dir():
        raise ModelError("its files are gone", where=str(path), fix="Register it again, or name another version.")
    return path


def _fetch_directory(tracking_uri: str, version: Version, downloads: Path, refetch: bool) -> Path:
    directory = downloads / f"{version.name}-{version.version}-{digest_of([tracking_uri, version.location])[:12]}"
    if directory.is_dir() and not refetch:
        os.utime(directory)  # `hone gc` removes what was not used for long
        return directory
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".fetching-") as scratch:
        try:
            with translate_errors(tracking_uri):
                downloaded = Path(download_artifacts(version.location, dst_path=scratch, tracking_uri=tracking_uri))
        except (MlflowException, ImportError) as fault:
            raise ModelError(
                f"its files cannot be fetched ({fault})",
                where=f"{version.uri} ({version.location})",
                fix="Install the store's package (boto3 for S3) and set its credentials: see MLflow's documentation.",
            ) from fault
        with suppress(FileNotFoundError):  # processes that have files of the earlier copy open can still read them
            directory.rename(Path(scratch) / "former")
        try:
            downloaded.rename(directory)
        except OSError:
            if not directory.is_dir():  # otherwise another process was first
                shutil.copytree(downloaded, directory)
    return directory


class _Registry(Protocol):
    """The queries that each kind of store answers."""

    def alias_version(self, name: str, alias: str) -> str | None:
        """The number of the version that an alias points to; None if there is no such alias."""

    def version(self, name: str, number: str) -> dict[str, Any] | None:
        """`source`, `run_id`, `status` and `tags` of a version; None if there is no such version."""

    def logged_model_location(self, model_id: str) -> str:
        """The location of a logged model's files."""

    def run_location(self, run_id: str) -> str:
        """The location of a run's artifacts."""

    def lifecycle(self, run_id: str) -> str:
        """`active` or `deleted`; '' if there is no such run."""

    def describe_alternatives(self, name: str) -> str:
        """A sentence that lists the existing versions or aliases, for error messages."""


@contextmanager
def _registry(tracking_uri: str) -> Iterator[_Registry]:
    path = sqlite_path(tracking_uri)
    if path is not None:
        if not path.is_file():
            raise ModelError("there is no MLflow store yet", where=str(path), fix="Register a model there first.")
        relocate_files(path, path.parent / ARTIFACTS)
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            yield _Tables(database)
    elif urlsplit(tracking_uri).scheme in ("http", "https"):
        yield _Server(tracking_uri)
    else:
        client = connect(tracking_uri)
        with translate_errors(tracking_uri):
            yield _Client(client)


def _location(registry: _Registry, source: str) -> str:
    """The location of the files that a version's `source` refers to."""
    if source.startswith(SCHEME):
        return registry.logged_model_location(source.removeprefix(SCHEME))
    if source.startswith("runs:/"):
        run_id, _, subfolder = source.removeprefix("runs:/").partition("/")
        return f"{registry.run_location(run_id).rstrip('/')}/{subfolder}"
    return source


@dataclass(frozen=True)
class _Tables:
    """Reads the tables of a SQLite store."""

    database: sqlite3.Connection

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        return self.database.execute(query, values).fetchall()

    def alias_version(self, name: str, alias: str) -> str | None:
        rows = self._rows("select version from registered_model_aliases where name=? and alias=?", name, alias)
        return str(rows[0][0]) if rows else None

    def version(self, name: str, number: str) -> dict[str, Any] | None:
        query = "select source, run_id, status from model_versions where name=? and version=? and current_stage!=?"
        rows = self._rows(query, name, number, "Deleted_Internal")
        tags = self._rows("select key, value from model_version_tags where name=? and version=?", name, number)
        return dict(zip(("source", "run_id", "status"), rows[0], strict=True), tags=dict(tags)) if rows else None

    def logged_model_location(self, model_id: str) -> str:
        rows = self._rows("select artifact_location from logged_models where model_id=?", model_id)
        return str(rows[0][0]) if rows else ""

    def run_location(self, run_id: str) -> str:
        return str(self._rows("select artifact_uri from runs where run_uuid=?", run_id)[0][0])

    def lifecycle(self, run_id: str) -> str:
        rows = self._rows("select lifecycle_stage from runs where run_uuid=?", run_id)
        return str(rows[0][0]) if rows else ""

    def describe_alternatives(self, name: str) -> str:
        query = "select version from model_versions where name=? and current_stage!=? order by version"
        numbers = [str(number) for (number,) in self._rows(query, name, "Deleted_Internal")]
        aliases = self._rows("select alias, version from registered_model_aliases where name=?", name)
        if not numbers:
            return f"No version of {name} is registered there."
        alias_list = ", ".join(f"@{alias} (version {number})" for alias, number in aliases)
        return f"There are version {', '.join(numbers)}" + (f", {alias_list}." if alias_list else ".")


@dataclass(frozen=True)
class _Server:
    """Reads from an MLflow server over HTTP."""

    uri: str

    def _ask(self, path: str, **query: str) -> dict[str, Any] | None:
        """A response of MLflow's REST API; None if the object does not exist."""
        url = f"{self.uri.rstrip('/')}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=_credentials()), timeout=10) as answer:
                response: dict[str, Any] = json.load(answer)
                return response
        except urllib.error.HTTPError as fault:
            if fault.code in (400, 404):
                return None
            if fault.code in (401, 403):
                fix = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
                raise ConfigError("MLflow refused the credentials", where=self.uri, fix=fix) from fault
            raise ServiceError(f"MLflow answered {fault.code}", where=self.uri, fix="Look at its log.") from fault
        except OSError as fault:
            reason = getattr(fault, "reason", fault)
            raise ServiceError(f"MLflow did not answer ({reason})", where=self.uri, fix="Start it.") from fault

    def alias_version(self, name: str, alias: str) -> str | None:
        response = self._ask("registered-models/alias", name=name, alias=alias)
        return str(response["model_version"]["version"]) if response else None

    def version(self, name: str, number: str) -> dict[str, Any] | None:
        response = self._ask("model-versions/get", name=name, version=number)
        if not response:
            return None
        fields: dict[str, Any] = {"run_id": "", "status": "READY"} | response["model_version"]
        return fields | {"tags": {tag["key"]: tag.get("value", "") for tag in fields.get("tags", [])}}

    def logged_model_location(self, model_id: str) -> str:
        response = self._ask(f"logged-models/{model_id}")
        return str(response["model"]["info"]["artifact_uri"]) if response else ""

    def run_location(self, run_id: str) -> str:
        response = self._ask("runs/get", run_id=run_id)
        return str(response["run"]["info"]["artifact_uri"]) if response else ""

    def lifecycle(self, run_id: str) -> str:
        response = self._ask("runs/get", run_id=run_id)
        return str(response["run"]["info"]["lifecycle_stage"]) if response else ""

    def describe_alternatives(self, name: str) -> str:
        response = self._ask("registered-models/get", name=name)
        if not response:
            return f"No version of {name} is registered there."
        aliases = [f"@{entry['alias']}" for entry in response["registered_model"].get("aliases", [])]
        return f"Its aliases are {', '.join(aliases)}." if aliases else "It has no alias: name a version's number."


@dataclass(frozen=True)
class _Client:
    """Reads from any other store with MLflow's client."""

    client: Any

    def alias_version(self, name: str, alias: str) -> str | None:
        number = self._or_none("get_model_version_by_alias", name, alias, field="version")
        return str(number) if number else None

    def version(self, name: str, number: str) -> dict[str, Any] | None:
        fields = ("source", "run_id", "status", "tags")
        values = {field: self._or_none("get_model_version", name, number, field=field) for field in fields}
        return values if values["source"] else None

    def logged_model_location(self, model_id: str) -> str:
        return str(self.client.get_logged_model(model_id).artifact_location)

    def run_location(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).info.artifact_uri)

    def lifecycle(self, run_id: str) -> str:
        info = self._or_none("get_run", run_id, field="info")
        return str(info.lifecycle_stage) if info else ""

    def describe_alternatives(self, name: str) -> str:
        versions = self.client.search_model_versions(f"name='{name}'")
        return f"There are {len(versions)} versions of {name}."

    def _or_none(self, call: str, *values: str, field: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return getattr(getattr(self.client, call)(*values), field)
        except MlflowException as fault:
            if fault.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def _credentials() -> dict[str, str]:
    """The authorization header that MLflow's client would send."""
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
