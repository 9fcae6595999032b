"""Where base models are on this machine: in an installed package, a directory, the hub's cache, MLflow's registry.

A copy of this module is in every registered model that needs its base model (an adapter, DPO), which then looks it up
itself. It therefore imports no other module of hone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE, VERSION = "package:", "models:/"


def find_package(base: str) -> Path | None:
    """The directory that package:NAME/PATH names, which may not exist; None if the package is not installed."""
    package, _, inside = base.removeprefix(PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / inside


def fetch_snapshot(
    name: str, revision: str, patterns: Sequence[str], is_complete: Callable[[Path], bool] = lambda _: True
) -> Path:
    """The snapshot of a hub model with the files that match `patterns`, downloaded if it is not in the cache.

    A cached snapshot that is not complete is downloaded too. Raises what huggingface_hub raises.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    selection: dict[str, Any] = {"revision": revision or None, "allow_patterns": list(patterns)}
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **selection))
        if is_complete(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    return Path(snapshot_download(name, **selection))


def locate_recorded(record: Mapping[str, Any], fetch_version: Callable[[str], Path], directory: str = "") -> Path:
    """The directory of the base model that `record` describes: base.json of a registered model.

    That is `directory` if given, else the installed package, the directory, the hub snapshot, or the version in
    MLflow's registry, which `fetch_version` downloads. Raises ValueError if it is missing, or if a weight file differs
    from the one used for fine-tuning.
    """
    path = Path(directory) if directory else _find_recorded(record, fetch_version)
    for name, digest in record["files"].items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{record['id']} was tuned with {name}, which {path} does not have")
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise ValueError(f"{file} is not the file of {record['id']} {record['revision']} that was tuned")
    return path


def _find_recorded(record: Mapping[str, Any], fetch_version: Callable[[str], Path]) -> Path:
    name, recorded = str(record["id"]), Path(record["path"])
    if name.startswith(PACKAGE):
        if path := find_package(name):
            return path
        raise ValueError(f"the base model's package ({record['revision']}) is not installed: {name}")
    if not record["revision"] or (name.startswith(VERSION) and recorded.is_dir()):
        return recorded
    if name.startswith(VERSION):
        return fetch_version(name)
    return fetch_snapshot(name, record["revision"], list(record["files"]))
