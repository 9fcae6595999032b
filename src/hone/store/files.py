"""Durable writes: data is on disk before the rename that publishes it, so a crash leaves a whole file or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
