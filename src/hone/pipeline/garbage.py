"""What nothing needs any more in the data folder and in MLflow: `hone gc`.

What stays: everything used within `Retention.days`, everything that a running stage or a held lock needs, and the
artifacts that registered versions are tagged with. A version's own files, its rows and its base are in MLflow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hone.environment import Home, Retention
from hone.pipeline.stages import STAGES
from hone.promotion import retention
from hone.promotion.retention import Registry, read_registry
from hone.store.retention import (
    DAY,
    Garbage,
    find_last_use,
    list_artifacts,
    list_old,
    list_trash,
    list_work,
)
from hone.store.store import Store

LOG_BYTES, LOG_TAIL = 10 << 20, 1 << 20  # size from which a log is cut, and how much of its end stays


def list_garbage(home: Home, settings: Retention) -> list[Garbage]:
    """Everything that nothing needs now. Raises ServiceError if MLflow, which knows what is needed, does not answer."""
    before = time.time() - settings.days * DAY
    registry = read_registry(home.tracking_uri)
    elsewhere = _list_registered_elsewhere(home, registry)
    versions: list[Garbage] = []
    if settings.versions:
        is_used = partial(_is_training_used, home.store, before)
        versions, registry = retention.list_garbage(registry, settings.versions, before, is_used)
    resumable = {name for name, stage in STAGES.items() if stage.resumable}
    return [
        *versions,
        *list_artifacts(home.store, before, partial(_is_needed, registry, elsewhere)),
        *list_work(home.store, before, resumable),
        *list_old(home.downloads, "downloads", before),
        *list_old(home.data_docs, "Data Docs of stopped runs", before),
        *list_old(home.promotions, "results of promotion tasks", before),
        *(item for folder in _list_folders(home) for item in list_trash(folder)),
        *_list_logs(home),
    ]


def _list_folders(home: Home) -> tuple[Path, ...]:
    """The folders that have a trash."""
    return home.store.root, home.downloads, home.data_docs, home.promotions


def _is_training_used(store: Store, before: float, key: str) -> bool:
    """Whether the store used the training with this key, or wrote its work, since the time `before`."""
    places = (store.directory("train", key), store.work_directory("train", key))
    return any(place.is_dir() and find_last_use(place) >= before for place in places)


def _is_needed(registry: Registry, elsewhere: set[str], manifest: dict[str, Any]) -> bool:
    """Whether a version is tagged with the artifact, has its base model in it, or is in another registry (`elsewhere`).

    These are the digests of what such versions were made from.
    """
    if manifest["stage"] == "base":
        return registry.has_base_from_scratch()
    return manifest["digest"] in registry.digests | elsewhere


def _list_registered_elsewhere(home: Home, registry: Registry) -> set[str]:
    """The digests of the artifacts whose versions are in another registry, where they cannot be looked up."""
    manifests = [
        manifest
        for manifest in home.store.list_manifests("register")
        if manifest["facts"].get("tracking_uri") != home.tracking_uri
        and not registry.has_registration(manifest["facts"])
    ]
    inputs = {str(digest) for manifest in manifests for digest in manifest["recipe"]["inputs"].values()}
    return inputs | {manifest["digest"] for manifest in manifests}


def _list_logs(home: Home) -> Iterator[Garbage]:
    for log in sorted((*home.logs.glob("*.log"), *home.servers.glob("*.log"))):
        if log.stat().st_size > LOG_BYTES:
            reason = f"more than {LOG_BYTES >> 20} MB; its end stays"
            yield Garbage("logs", log.name, reason, (log,), partial(_cut, log))


def _cut(log: Path) -> bool:
    """Drop all but the end of a log. The service has it open for appending: it is cut in place, not replaced."""
    with log.open("rb+") as file:
        file.seek(-LOG_TAIL, os.SEEK_END)
        end = file.read()
        file.truncate(0)
        file.seek(0)
        file.write(end.partition(b"\n")[2])
    return True
