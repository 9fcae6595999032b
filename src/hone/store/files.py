"""Durable writes: data is on disk before the rename that publishes it, so a crash leaves a whole file or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone.store.layout import TRASH


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; when the block ends, that file is on disk and replaces `path`.

    If the block raises, the file is removed and `path` is as before. The name has the process id: two processes that
    write one path at a time do not write into each other's file.
    """
    work = path.with_name(f".{path.name}.{os.getpid()}.partial")
    work.unlink(missing_ok=True)  # of a killed process that had the same id
    try:
        yield work
        sync(work)
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)
    sync(path.parent)


def write_synced(path: Path, text: str) -> None:
    """Write `text` to `path` and flush it to disk."""
    path.write_text(text, "utf8")
    sync(path)


def sync(path: Path) -> None:
    """Flush a file, or a directory's list of names, to disk, so that it survives a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(directory: Path) -> None:
    """Flush every file and directory under `directory`, and itself, to disk."""
    for folder, _, files in os.walk(directory, topdown=False):
        for name in files:
            sync(Path(folder) / name)
        sync(Path(folder))


def discard(path: Path, folder: Path) -> bool:
    """Move `path` into the trash of `folder` in one step, and delete it there; whether there was anything to delete.

    A kill leaves nothing in the place of `path` that looks whole.
    """
    if not path.exists():
        return False
    moved = folder / TRASH / f"{path.parent.name}-{path.name}-{os.getpid()}"
    moved.parent.mkdir(parents=True, exist_ok=True)
    remove(moved)  # of a killed process that had the same id
    try:
        path.rename(moved)
    except FileNotFoundError:  # by another process
        return False
    sync(path.parent)
    return remove(moved)


def remove(path: Path) -> bool:
    """Delete a file or a directory, if it exists; whether it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
