"""What nothing needs any more in a store and in other folders, and its removal while others work.

A directory is moved to a trash folder in one rename, under the lock of its key, and deleted there: a killed removal
leaves nothing that looks complete, and the next one deletes the rest. Lock files stay: they have no bytes, and without
its file a lock that someone waits for would exclude nobody.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hone.errors import StoreError
from hone.store.files import discard, remove
from hone.store.layout import LOCKS, MANIFEST, TRASH, WORK
from hone.store.manifest import read_manifest
from hone.store.store import Store

DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Garbage:
    """Something that nothing needs: its kind, its name, why it is not needed, its files, and how it is removed.

    `remove` returns False if it turned out to be in use, or was removed by another process.
    """

    kind: str
    name: str
    reason: str
    paths: tuple[Path, ...]
    remove: Callable[[], bool]


def mark_used(artifacts: Iterable[Path]) -> None:
    """Record in the modification time of these directories that they are used now."""
    for directory in artifacts:
        with suppress(OSError):  # a store that can only be read
            os.utime(directory)


def list_artifacts(store: Store, before: float, is_needed: Callable[[dict[str, Any]], bool]) -> Iterator[Garbage]:
    """The artifacts that were last used before the time `before`, without those that are needed (by manifest).

    A running stage, however long it takes, keeps what was used since a day before its start: its run's other stages.
    """
    before = min(before, _find_oldest_start(store) - DAY)
    for file in sorted(store.root.glob(f"*/*/{MANIFEST}")):
        directory = file.parent
        if directory.parent.name in (WORK, TRASH) or find_last_use(directory) >= before:
            continue
        if not _is_needed(directory, is_needed):
            lock = f"{directory.parent.name}-{directory.name}"
            yield _build_garbage(store, f"{directory.parent.name} artifacts", directory, lock, before)


def _is_needed(directory: Path, is_needed: Callable[[dict[str, Any]], bool]) -> bool:
    try:
        return is_needed(read_manifest(directory))
    except StoreError:
        return False  # a damaged one is used by nobody


def list_work(store: Store, before: float, resumable: Collection[str]) -> Iterator[Garbage]:
    """The work directories of killed stages: those of `resumable` stages only if nothing was written since `before`."""
    for directory in _list_entries(store.root / WORK):
        is_resumable = directory.name.rpartition("-")[0] in resumable
        if is_locked(store, directory.name) or (is_resumable and find_last_use(directory) >= before):
            continue
        if is_resumable:
            yield _build_garbage(store, "interrupted trainings", directory, directory.name, before)
        else:
            yield _build_garbage(store, "work of killed stages", directory, directory.name, None)


def list_old(folder: Path, kind: str, before: float) -> Iterator[Garbage]:
    """The entries of `folder` that were last written or used before the time `before`."""
    for path in _list_entries(folder):
        last_use = find_last_use(path)
        if path.name != TRASH and last_use < before:
            yield Garbage(kind, path.name, _describe_age(last_use), (path,), partial(_remove, path, folder, before))


def list_trash(folder: Path) -> Iterator[Garbage]:
    """What killed removals left in the trash of `folder`."""
    for path in _list_entries(folder / TRASH):
        yield Garbage("unfinished removals", path.name, "its removal was killed", (path,), partial(remove, path))


def find_last_use(path: Path) -> float:
    """The newest modification time of a file or directory and of everything in it; infinite if it is gone."""
    times = []
    for entry in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):  # being written or removed
            times.append(entry.lstat().st_mtime)
    return max(times, default=float("inf"))


def is_locked(store: Store, name: str) -> bool:
    """Whether a process holds the lock STAGE-KEY."""
    with _try_lock(store, name) as is_free:
        return not is_free


def measure_freed(paths: Iterable[Path]) -> int:
    """The bytes that are freed if all these are removed: a file with a link elsewhere frees none."""
    sizes: dict[tuple[int, int], int] = {}
    other_links: dict[tuple[int, int], int] = {}
    for path in paths:
        for entry in (path, *path.rglob("*")):
            with suppress(FileNotFoundError):
                stat = entry.lstat()
                inode = (stat.st_dev, stat.st_ino)
                sizes[inode] = 0 if entry.is_dir() else stat.st_size
                other_links[inode] = other_links.get(inode, stat.st_nlink) - 1
    return sum(size for inode, size in sizes.items() if not other_links[inode])


def _build_garbage(store: Store, kind: str, directory: Path, lock: str, before: float | None) -> Garbage:
    """Garbage of the store: removed under its lock, and unless `before` is None only if it is still unused."""

    def remove() -> bool:
        with _try_lock(store, lock) as is_free:
            return is_free and _remove(directory, store.root, before)

    reason = "its process was killed" if before is None else _describe_age(find_last_use(directory))
    return Garbage(kind, lock, reason, (directory,), remove)


def _remove(path: Path, folder: Path, before: float | None) -> bool:
    """Move `path` to the trash of `folder` and delete it there, unless it was used since `before`."""
    if before is not None and find_last_use(path) >= before:
        return False
    return discard(path, folder)


def _find_oldest_start(store: Store) -> float:
    """When the oldest stage that is running now started, or an earlier attempt of it; infinite if none is."""
    starts = [float("inf")]
    for work in _list_entries(store.root / WORK):
        with suppress(OSError):  # committed in the meantime
            if is_locked(store, work.name):
                starts += [path.lstat().st_mtime for path in (work, *work.iterdir())]
    return min(starts)


def _describe_age(last_use: float) -> str:
    return f"not used for {(time.time() - last_use) / DAY:.0f} days"


def _list_entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def _try_lock(store: Store, name: str) -> Iterator[bool]:
    """Hold the lock STAGE-KEY within the block if it is free; yields whether it was."""
    path = store.root / LOCKS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
