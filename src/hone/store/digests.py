"""SHA-256 digests of plain values and of files, with a cache so that unchanged files are not read again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hone.disk import describe_disk_fault
from hone.errors import DataError

_RACY_NS = 2_000_000_000
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


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
        """SHA-256 of `file`, from the cache if path, size, times and inode are unchanged.

        A damaged cache is begun anew; one that cannot be written is not used.
        """
        stat = file.stat()
        identity = (str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest = None
        with self._rebuilding():
            digest = self._look_up(identity)
        if digest is None:
            digest = file_digest(file)
            if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _RACY_NS:
                with self._rebuilding():
                    self._remember(identity, digest)
        return digest

    def _look_up(self, identity: tuple[str | int, ...]) -> str | None:
        condition = "path=? and size=? and mtime=? and ctime=? and inode=?"
        with self._table() as table:
            row = table.execute(f"select digest, proof from proved_digests where {condition}", identity).fetchone()
        return str(row[0]) if row and row[1] == digest_of([*identity, row[0]]) else None

    def _remember(self, identity: tuple[str | int, ...], digest: str) -> None:
        row = (*identity, digest, digest_of([*identity, digest]))
        with self._table() as table:
            table.execute("insert or replace into proved_digests values (?,?,?,?,?,?,?)", row)

    @contextmanager
    def _table(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            with connection:
                connection.execute(  # the tables of earlier versions have no ctime or no proof, and are not read
                    "create table if not exists proved_digests "
                    "(path text primary key, size int, mtime int, ctime int, inode int, digest text, proof text)"
                )
                yield connection
        finally:
            connection.close()

    @contextmanager
    def _rebuilding(self) -> Iterator[None]:
        """Without an error: a damaged cache is removed, a full or read-only disk keeps nothing."""
        try:
            yield
        except sqlite3.Error as fault:
            if getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGE:
                for suffix in ("", "-journal"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        except OSError as fault:
            if not describe_disk_fault(fault):
                raise
