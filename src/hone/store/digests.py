"""SHA-256 digests of plain values and of files, with a cache so that unchanged files are not read again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def digest_of(value: object) -> str:
    """SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf8")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestMemo:
    """File digests, cached by (path, size, mtime, inode) so that unchanged files are not read again.

    A file modified within the last two seconds is read but not cached: a second change within the clock's
    resolution would go unnoticed (git calls such files racy).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digest(self, file: Path) -> str:
        """SHA-256 of `file`, from the cache if path, size, mtime and inode are unchanged."""
        stat = file.stat()
        identity = (str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        with self._table() as table:
            row = table.execute(
                "select digest from digests where path=? and size=? and mtime=? and inode=?", identity
            ).fetchone()
            if row:
                return str(row[0])
            digest = file_digest(file)
            if time.time_ns() - stat.st_mtime_ns > 2_000_000_000:
                table.execute("insert or replace into digests values (?,?,?,?,?)", (*identity, digest))
        return digest

    @contextmanager
    def _table(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            with connection:
                connection.execute(
                    "create table if not exists digests "
                    "(path text primary key, size int, mtime int, inode int, digest text)"
                )
                yield connection
        finally:
            connection.close()
