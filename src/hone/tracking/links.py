"""Look-ups in MLflow: a model's current version, the files of the run that made it, and links to its pages."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from hone.errors import DamagedVersion, HoneError, ModelError
from hone.store import layout
from hone.tracking import run_files
from hone.tracking.aliases import CHAMPION
from hone.tracking.client import connect, list_all, translate_errors
from hone.tracking.reader import DAMAGED_RUN, SCHEME, Version, get_version

CONFIG = "config.yaml"  # among the files of a run: the configuration that the version was made with
_UNREADABLE = (ValueError, LookupError, TypeError, EOFError, OSError, RecursionError, yaml.YAMLError)

# Without it MLflow 3 opens an experiment on its page for traces, which is empty for a training.
_VIEW = "?workflowType=machine_learning"


def run_route(experiment: str, run_id: str, file: str = "") -> str:
    """The address of a run's page, or of one of its files there, within MLflow's UI: valid on whatever host it runs."""
    page = f"#/experiments/{experiment}/runs/{run_id}"
    return f"{page}/artifacts/{quote(file)}{_VIEW}" if file else f"{page}{_VIEW}"


def version_route(model: str, version: str = "") -> str:
    """The address of a registered model's page, or of one of its versions, within MLflow's UI."""
    page = f"#/models/{quote(model, safe='')}"
    return f"{page}/versions/{version}{_VIEW}" if version else f"{page}{_VIEW}"


def build_url(tracking_uri: str, route: str) -> str:
    """The URL of a page of MLflow's UI, without user and password; '' if the tracking URI is no server."""
    server = re.sub("(?<=://)[^/@]*@", "", tracking_uri).rstrip("/")
    return f"{server}/{route}" if tracking_uri.startswith("http") else ""


def complete_links(markdown: str, tracking_uri: str) -> str:
    """Markdown whose links to MLflow's UI are URLs, for a page elsewhere; their text alone if there is no server."""
    if tracking_uri.startswith("http"):
        return markdown.replace("](#/", f"]({build_url(tracking_uri, '#/')}")
    return re.sub(r"\[([^\]]*)\]\(#/[^)]*\)", r"\1", markdown)


def find_current_version(tracking_uri: str, model: str) -> Version | None:
    """The champion of `model`, else its newest version, else None. Raises ServiceError if MLflow does not answer."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        ready_versions = [
            version for version in client.search_model_versions(f"name='{model}'") if version.status == "READY"
        ]
        if not ready_versions:
            return None
        champion = client.get_registered_model(model).aliases.get(CHAMPION)
        number = champion or max(int(version.version) for version in ready_versions)
    return get_version(tracking_uri, f"{SCHEME}{model}/{number}")


def list_models(tracking_uri: str) -> list[str]:
    """The names of all registered models, sorted."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        return sorted(str(model.name) for model in list_all(client.search_registered_models))


def list_versions_with_tag(tracking_uri: str, model: str, tag: str, value: str) -> list[str]:
    """The version numbers of `model` whose `tag` has this value, oldest first."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        versions = client.search_model_versions(f"name='{model}' and tags.`{tag}`='{value}'")
    return sorted((str(version.version) for version in versions), key=int)


def find_newest_tag(tracking_uri: str, model: str, tag: str) -> str:
    """The value of `tag` in the newest version of `model` that has it; '' if none has. Raises ServiceError."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        versions = client.search_model_versions(f"name='{model}'")
    tagged = [version for version in versions if version.status == "READY" and tag in version.tags]
    newest = max(tagged, key=lambda version: int(version.version), default=None)
    return str(newest.tags[tag]) if newest else ""


def run_link(tracking_uri: str, run_id: str) -> str:
    """How to find an MLflow run: the URL of its page if there is a server, else the ids of run and experiment."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        experiment = client.get_run(run_id).info.experiment_id
    url = build_url(tracking_uri, run_route(experiment, run_id))
    return url or f"MLflow run {run_id} of experiment {experiment}"


def fetch_run_file(tracking_uri: str, version: Version, path: str, directory: Path) -> Path:
    """Download the file or folder `path` of the run that made the version into `directory`; return its local path.

    Raises ModelError if the run has no such file, was deleted, or if the version was not made by Hone; DamagedVersion
    if the file is not what was logged.
    """
    from mlflow.exceptions import MlflowException

    if not version.run_id:
        raise ModelError("has no run: it was not registered by Hone", where=version.uri, fix="Name another version.")
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        digests: dict[str, str] = {}
        try:
            digests = run_files.read_digests(client.get_run(version.run_id))
            place = Path(client.download_artifacts(version.run_id, path, str(directory)))
        except (MlflowException, OSError) as fault:
            if getattr(fault, "error_code", "") not in ("", "RESOURCE_DOES_NOT_EXIST", "INTERNAL_ERROR"):
                raise
            if any(name == path or name.startswith(f"{path}/") for name in digests):
                raise report_damage(tracking_uri, version, f"{path} is missing") from fault
            raise ModelError(
                f"its run {version.run_id} has no {path}", where=version.uri, fix="Register it again: hone run CONF."
            ) from fault
    if damage := run_files.find_fault(place, path, digests):
        raise report_damage(tracking_uri, version, damage)
    return place


def check_run_files(tracking_uri: str, version: Version) -> None:
    """Read all files of the version's run whose digests are recorded; raises DamagedVersion for the first wrong one."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        digests = run_files.read_digests(client.get_run(version.run_id))
    for path in digests:
        with tempfile.TemporaryDirectory() as scratch:
            fetch_run_file(tracking_uri, version, path, Path(scratch))


@contextmanager
def parsing_run_file(tracking_uri: str, version: Version, path: str) -> Iterator[None]:
    """Within the block, raise DamagedVersion if the content of the run's file `path` cannot be parsed."""
    try:
        yield
    except _UNREADABLE as fault:
        raise report_damage(tracking_uri, version, f"{path} cannot be read ({str(fault)[:200]})") from fault


def report_damage(tracking_uri: str, version: Version, damage: str) -> DamagedVersion:
    """The error for a damaged file of the version's run. Tags the version, so that the next run of its configuration
    logs the file again; not where MLflow does not answer or refuses it.
    """
    from mlflow.exceptions import MlflowException

    with suppress(HoneError, MlflowException):
        connect(tracking_uri).set_model_version_tag(version.name, version.version, DAMAGED_RUN, damage)
    return DamagedVersion(
        f"a file of its run {version.run_id} is damaged: {damage}",
        where=version.uri,
        fix="Run `hone run CONF` with its configuration: it logs the run's files again.",
    )


def load_version_metrics(tracking_uri: str, version: Version) -> dict[str, Any]:
    """The metrics.json of the version's run. Raises like `fetch_run_file`."""
    with tempfile.TemporaryDirectory() as scratch:
        file = fetch_run_file(tracking_uri, version, layout.METRICS, Path(scratch))
        with parsing_run_file(tracking_uri, version, layout.METRICS):
            return dict(json.loads(file.read_text("utf8")))


def load_version_config(tracking_uri: str, version: Version) -> dict[str, Any]:
    """The configuration that the version was made with, as plain values. Raises like `fetch_run_file`."""
    with tempfile.TemporaryDirectory() as scratch:
        file = fetch_run_file(tracking_uri, version, CONFIG, Path(scratch))
        with parsing_run_file(tracking_uri, version, CONFIG):
            return dict(yaml.safe_load(file.read_text("utf8")))
