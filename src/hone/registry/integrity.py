"""Verifies that a model version's files are the ones that were registered.

Registration writes SHA256SUMS over every file of the logged model and stores the digest of SHA256SUMS in the tag
`hone.files_sha256`. This detects changed bytes, missing and added files, and a rewritten SHA256SUMS.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hone.environment import home
from hone.errors import HoneError, ModelError
from hone.registry.served import sums
from hone.tracking.client import connect
from hone.tracking.reader import DAMAGED, Version, version_directory

TAG = "hone.files_sha256"
MAX_LISTED = 5


def check_files(tracking_uri: str, version: Version, *, reuse: bool = False) -> Path:
    """Return the local directory of the version's logged model (the one with MLmodel) after verifying every file.

    Speed: about 1 GB/s. Files that MLflow stores remotely are downloaded into the data folder on every call; with
    `reuse`, an intact earlier download is accepted (for callers that then use that copy). Python bytecode in the
    directory is removed, so that Python recompiles it from the verified sources. Raises ModelError with the name of
    each file that differs, and for a version without SHA256SUMS. A damaged version gets the tag `hone.damaged`, by
    which the next run of its configuration registers it anew.
    """
    expected_digest = version.tags.get(TAG, "")
    if not expected_digest:
        raise ModelError(
            f"has no tag {TAG}: it was registered by an early version of Hone, or not by Hone",
            where=version.uri,
            fix="Register it again: `hone run CONF` with its configuration creates a version with the tag.",
        )
    directory, faults = _read_files(tracking_uri, version, expected_digest, reuse)
    _tag_damage(tracking_uri, version, faults)
    if faults:
        remainder = [f"and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
        raise ModelError(
            "its files are not those that were registered\n"
            + "\n".join(f"  {line}" for line in faults[:MAX_LISTED] + remainder),
            where=f"{version.uri} ({directory})",
            fix="Do not use it. Find out who changed it; `hone run CONF` with its configuration registers it anew.",
        )
    return directory


def is_intact(tracking_uri: str, version: Version) -> bool:
    """Whether the version has SHA256SUMS and every file is the one that was registered; False if files are gone."""
    expected_digest = version.tags.get(TAG, "")
    try:
        return bool(expected_digest) and not _read_files(tracking_uri, version, expected_digest, reuse=False)[1]
    except ModelError:
        return False


def _read_files(tracking_uri: str, version: Version, expected_digest: str, reuse: bool) -> tuple[Path, list[str]]:
    """The local directory of the version's files, and what is wrong with them."""
    downloads = home().downloads
    directory = version_directory(tracking_uri, version, downloads, refetch=not reuse)
    faults = _find_faults(directory, expected_digest)
    if faults and reuse and directory.is_relative_to(downloads):
        directory = version_directory(tracking_uri, version, downloads, refetch=True)
        faults = _find_faults(directory, expected_digest)
    return directory, faults


def _tag_damage(tracking_uri: str, version: Version, faults: Sequence[str]) -> None:
    """Record in MLflow that the version is damaged, or no longer; not where MLflow does not answer or refuses it."""
    if bool(faults) == (DAMAGED in version.tags):
        return
    from mlflow.exceptions import MlflowException

    with suppress(HoneError, MlflowException):
        client = connect(tracking_uri)
        if faults:
            client.set_model_version_tag(version.name, version.version, DAMAGED, faults[0])
        else:
            client.delete_model_version_tag(version.name, version.version, DAMAGED)


def load_verified(tracking_uri: str, version: Version, **settings: Any) -> tuple[Any, Path]:
    """The version as MLflow loads it, with rows of any length, and its directory, after `check_files`."""
    from mlflow.models import Model
    from mlflow.pyfunc import load_model

    directory = check_files(tracking_uri, version, reuse=True)
    known_settings = Model.load(directory).flavors["python_function"].get("config", {})
    settings = {"max_characters": 0, **settings}
    own = {name: value for name, value in settings.items() if name in known_settings}  # MLflow warns of all others
    return load_model(str(directory), model_config=own), directory


def _find_faults(directory: Path, expected_digest: str) -> list[str]:
    undeletable = _drop_bytecode(directory)
    if (directory / sums.SUMS).is_file() and sums.file_digest(directory / sums.SUMS) != expected_digest:
        return [f"{sums.SUMS} was changed: its digest is not the version's tag {TAG}", *sums.find_faults(directory)]
    return undeletable + sums.find_faults(directory)


def _drop_bytecode(directory: Path) -> list[str]:
    """Remove bytecode, which Python would run in place of the verified sources; return a fault for each failure."""
    undeletable = []
    for folder in sorted(directory.rglob(sums.BYTECODE)):
        try:
            shutil.rmtree(folder)
        except OSError as fault:
            undeletable.append(f"{folder.relative_to(directory)} was added, and cannot be removed ({fault.strerror})")
    return undeletable
