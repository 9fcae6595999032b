"""The files of a version's run that others read, with their digests in a tag of the run: `hone.run_files`.

The digests are the run's and not the version's: all versions of one training have one run, and each registration logs
its own configuration and results there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hone.store.digests import file_digest
from hone.tracking.files import log_run_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TAG = "hone.run_files"


def log_run_files(client: MlflowClient, run: Run, files: Mapping[str, Path], links: Mapping[str, Path]) -> None:
    """Log copies of `files` and links to `links`, by their path among the run's files, and record their digests.

    A file that is replaced has no digest meanwhile: after a kill it is one that an earlier release logged.
    """
    run_id = run.info.run_id
    digests = {path: file_digest(file) for path, file in {**files, **links}.items()}
    recorded = read_digests(run)
    unchanged = {path: digest for path, digest in recorded.items() if digests.get(path) == digest}
    if unchanged != recorded:
        client.set_tag(run_id, TAG, json.dumps(unchanged))
    for path, file in files.items():
        client.log_artifact(run_id, str(file), path.rpartition("/")[0] or None)
    for path, file in links.items():
        log_run_file(client, run, file, path.rpartition("/")[0])
    if digests != recorded:
        client.set_tag(run_id, TAG, json.dumps(digests))


def read_digests(run: Run) -> dict[str, str]:
    """The recorded digests by path; none of a run of an earlier release, or if a person edited the tag."""
    try:
        digests = json.loads(run.data.tags.get(TAG) or "{}")
    except ValueError:
        return {}
    return dict(digests) if isinstance(digests, dict) else {}


def find_fault(place: Path, path: str, digests: Mapping[str, str]) -> str:
    """What is wrong with the run's file or folder `path`, which was downloaded to `place`; '' if nothing is known."""
    for name, digest in digests.items():
        if name != path and not name.startswith(f"{path}/"):
            continue
        file = place / name.removeprefix(path).lstrip("/")
        if not file.is_file():
            return f"{name} is missing"
        if file_digest(file) != digest:
            return f"the bytes of {name} differ from those that were logged"
    return ""
