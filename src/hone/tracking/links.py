"""Look-ups in MLflow: a model's current version, the files of the run that made it, and links to runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from hone.errors import ModelError
from hone.tracking.aliases import CHAMPION
from hone.tracking.client import connect, translate_errors
from hone.tracking.reader import SCHEME, Version, get_version


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


def list_versions_with_tag(tracking_uri: str, model: str, tag: str, value: str) -> list[str]:
    """The version numbers of `model` whose `tag` has this value, oldest first."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        versions = client.search_model_versions(f"name='{model}' and tags.`{tag}`='{value}'")
    return sorted((str(version.version) for version in versions), key=int)


def run_link(tracking_uri: str, run_id: str) -> str:
    """How to find an MLflow run: the URL of its page if there is a server, else the ids of run and experiment."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        experiment = client.get_run(run_id).info.experiment_id
    if tracking_uri.startswith("http"):
        return f"{tracking_uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return f"MLflow run {run_id} of experiment {experiment}"


def fetch_run_file(tracking_uri: str, version: Version, path: str, directory: Path) -> Path:
    """Download the file or folder `path` of the run that made the version into `directory`; return its local path.

    Raises ModelError if the run has no such file, was deleted, or if the version was not made by Hone.
    """
    from mlflow.exceptions import MlflowException

    if not version.run_id:
        raise ModelError("has no run: it was not registered by Hone", where=version.uri, fix="Name another version.")
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        try:
            return Path(client.download_artifacts(version.run_id, path, str(directory)))
        except (MlflowException, OSError) as fault:
            if getattr(fault, "error_code", "") not in ("", "RESOURCE_DOES_NOT_EXIST", "INTERNAL_ERROR"):
                raise
            raise ModelError(
                f"its run {version.run_id} has no {path}",
                where=version.uri,
                fix="Register it again: `hone run CONF` uploads missing files of a registered version.",
            ) from fault


def load_version_config(tracking_uri: str, version: Version) -> dict[str, Any]:
    """The configuration that the version was made with, as plain values. Raises like `fetch_run_file`."""
    with tempfile.TemporaryDirectory() as scratch:
        text = fetch_run_file(tracking_uri, version, "config.yaml", Path(scratch)).read_text("utf8")
    return dict(yaml.safe_load(text))
