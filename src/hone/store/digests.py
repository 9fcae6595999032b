"""SHA-256 digests of plain values and of files, with a cache so that unchanged files are not read again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hone.errors import DataError

_RACY_NS = 2_000_000_000


def digest_of(value: object) -> str:
    """SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf8")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(before: Mapping[str, str], after: Mapping[str, str], where: str) -> None:
    """Raise DataError if inputs that were digested `before` they were read have other digests afterwards.

    What was read would otherwise be stored under the digest of something else.
    """
    for name, digest in before.items():
        if after.get(name) != digest:
            raise changed_error(where, f"input {name}")


def changed_error(where: str, name: str = "") -> DataError:
    """The error for an input that changed while it was read; `name` says which one where `where` does not."""
    return DataError(
        f"{name} changed while it was read".strip(),
        where=where,
        fix="Nothing was stored. Wait until nothing writes to it, or name a copy, and run again. Limit a query to rows "
        "that no longer change (ingest.as_of), and give it an ORDER BY over a unique key.",
    )


class DigestMemo:
    """File digests, cached by (path, size, mtime, ctime, inode) so that unchanged files are not read again.

    ctime is the only one that `cp -p` of another file over it, or `touch -r`, cannot set.

    A file modified within the last two seconds is read but not cached: a second change within the clock's
    resolution would go unnoticed (git calls such files racy).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digest(self, file: Path) -> str:
        """SHA-256 of `file`, from the cache if path, size, times and inode are unchanged."""
        stat = file.stat()
        identity = (str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        with self._table() as table:
            row = table.execute(
                "select digest from file_digests where path=? and size=? and mtime=? and ctime=? and inode=?", identity
            ).fetchone()
            if row:
                return str(row[0])
            digest = file_digest(file)
            if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _RACY_NS:
                table.execute("insert or replace into file_digests values (?,?,?,?,?,?)", (*identity, digest))
        return digest

    @contextmanager
    def _table(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            with connection:
                connection.execute(  # the table `digests` of earlier versions has no ctime and is not read
                    "create table if not exists file_digests "
                    "(path text primary key, size int, mtime int, ctime int, inode int, digest text)"
                )
                yield connection
        finally:
            connection.close()
