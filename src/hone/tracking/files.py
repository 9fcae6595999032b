"""Files that MLflow keeps: hard links where its folder is on the file system of the store, uploads elsewhere.

A linked file takes its space once. It has no write permission: a change in one place would be one in both. Both notice
one all the same: the store by its manifests, a version by its SHA256SUMS.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hone.tracking.reader import find_local_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

WRITABLE = 0o222


def log_model_directory(client: MlflowClient, logged: LoggedModel, directory: Path) -> None:
    """Log the files in `directory` as those of the logged model."""
    folder = find_local_path(logged.artifact_location)
    if folder is None:
        client.log_model_artifacts(logged.model_id, str(directory))
        return
    for file in directory.rglob("*"):
        if file.is_file():
            link_file(file, folder / file.relative_to(directory))


def log_run_file(client: MlflowClient, run: Run, file: Path, folder: str) -> None:
    """Log `file`, which nobody writes to any more, in `folder` of the run's files."""
    home = find_local_path(run.info.artifact_uri)
    if home is None:
        client.log_artifact(run.info.run_id, str(file), folder)
    else:
        link_file(file, home / folder / file.name)


def link_file(file: Path, to: Path) -> None:
    """Replace `to` by a read-only hard link to `file`, or by a copy if the file system refuses."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)  # writing into a link would write into the store
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
    to.chmod(to.stat().st_mode & ~WRITABLE)


def delete_files(location: str, tracking_uri: str) -> None:
    """Delete the files that MLflow keeps at `location`, by its own client for that kind of store."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder = find_local_path(location)
    if folder is None or folder.is_dir():
        get_artifact_repository(location, tracking_uri=tracking_uri).delete_artifacts()
