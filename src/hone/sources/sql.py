"""Rows from a database: an SQLAlchemy URL and a query."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ConfigError, DataError, ServiceError
from hone.parts.options import REQUIRED, option
from hone.parts.variables import expand, hide_values
from hone.sources.source import RawRow
from hone.sources.splits import DEFAULT_COLUMN

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.exc import DBAPIError

_BATCH = 1000


@dataclass(frozen=True)
class Sql:
    """Rows from a database: the result of a query, streamed over a connection that only reads."""

    url: str = option(
        REQUIRED,
        "An SQLAlchemy URL: postgresql://user:${PASSWORD}@host/database, sqlite:///file.sqlite. ${VAR} and "
        "${VAR:-default} are replaced when connecting and never stored.",
        location=True,
        min_length=1,
    )
    query: str = option(
        REQUIRED,
        "The SELECT statement; needs an ORDER BY over a unique key, because the order is part of the content.",
        min_length=1,
    )
    fingerprint_query: str = option(
        "",
        "A fast query whose result changes when the rows change: select count(*), max(updated_at) from ... "
        "If empty, all rows are read to compute the digest.",
    )

    split_column: str = option(
        DEFAULT_COLUMN,
        "The column with each row's split: train, validation, dev, test, ... The column split counts only if its values"
        " are such names. Empty: no column.",
    )

    libraries: ClassVar[tuple[str, ...]] = ("sqlalchemy",)

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """SHA-256 over the result of `fingerprint_query`, or over all rows if it is empty."""
        sha = hashlib.sha256()
        for values in self._values(self.fingerprint_query or self.query):
            sha.update(json.dumps(values, default=str).encode() + b"\n")
        return sha.hexdigest()

    def rows(self) -> Iterator[RawRow]:
        """The query's rows. Raises DataError if the query fails, ServiceError if the database does not answer."""
        for number, values in enumerate(self._values(self.query), 1):
            yield RawRow(f"sql:{number}", "sql", values)

    def _values(self, query: str) -> Iterator[dict[str, Any]]:
        from sqlalchemy import text

        with self._connected() as connection:
            result = connection.execute(text(query))
            if not result.returns_rows:
                raise DataError("the query returns no rows", where="ingest.source.query", fix="Use a SELECT statement.")
            names = list(result.keys())
            if len(set(names)) < len(names):
                duplicates = ", ".join(sorted({name for name in names if names.count(name) > 1}))
                fix = "Give them different names: SELECT a.id AS a_id, b.id AS b_id."
                raise DataError(
                    f"the query returns several columns named {duplicates}", where="ingest.source.query", fix=fix
                )
            for batch in result.yield_per(_BATCH).partitions():
                yield from (dict(zip(names, row, strict=True)) for row in batch)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A streaming connection, rolled back at the end; database errors become Hone's, with secrets masked."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        url = self._url()
        shown = hide_values(url.set(query={}).render_as_string(hide_password=True), self.url)
        hide = _hider(url, self.url)
        engine = _make_engine(url, hide, shown)
        try:
            connection = engine.connect()
        except DBAPIError as fault:
            raise _unreachable(hide(fault.orig), shown) from None
        try:
            with connection.execution_options(stream_results=True, **_READ_ONLY.get(url.get_backend_name(), {})):
                yield connection
        except DBAPIError as fault:
            raise _query_fault(fault, url, hide(fault.orig), shown) from None
        except SQLAlchemyError as fault:
            raise DataError(f"the query cannot be run: {hide(fault)}", where=shown, fix=_COLON) from None

    def _url(self) -> URL:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(expand(self.url))
        except (ArgumentError, ValueError):
            raise ConfigError(
                "is not an SQLAlchemy URL",
                where="ingest.source.url",
                fix="Use dialect://user:password@host:port/database, with special characters percent-encoded.",
            ) from None
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "sqlite":
            _check_file_exists(url, self.url)
        return url


_READ_ONLY = {"postgresql": {"postgresql_readonly": True}}  # BEGIN READ ONLY
_COLON = "Correct ingest.source.query. A colon before a word marks a parameter: write \\: for a literal colon."


def _make_engine(url: URL, hide: Callable[[object], str], shown: str) -> Engine:
    """The engine, with SQLite's files opened to be read only; raises ConfigError if its driver is not installed."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = create_engine(_open_read_only(url) if is_sqlite else url, poolclass=NullPool, hide_parameters=True)
    except (NoSuchModuleError, ImportError) as fault:
        raise ConfigError(
            f"the database driver is not installed: {hide(fault)}", where=shown, fix=_install_hint(url)
        ) from None
    if is_sqlite:
        event.listen(engine, "connect", _forbid_other_files)
    return engine


def _open_read_only(url: URL) -> URL:
    """The URL of an SQLite file with `mode=ro`; one without a file has nothing to protect."""
    name = url.database or ":memory:"
    if name == ":memory:":
        return url
    uri = name if name.startswith("file:") else Path(name).resolve().as_uri()
    return url.set(database=uri).update_query_dict({"mode": "ro", "uri": "true"})


def _forbid_other_files(connection: sqlite3.Connection, _: object) -> None:
    """ATTACH and VACUUM INTO create files, whatever the mode of the first one."""

    def authorize(action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)


def _check_file_exists(url: URL, template: str) -> None:
    """Raise DataError if a SQLite file is missing; SQLite itself would create an empty database."""
    name = url.database or ":memory:"
    if name != ":memory:" and not name.startswith("file:") and not Path(name).is_file():
        raise DataError("no such SQLite file", where=hide_values(name, template), fix="Correct ingest.source.url.")


def _hider(url: URL, template: str) -> Callable[[object], str]:
    """A function that masks the URL's password, query values and values of variables in a message."""
    query: Mapping[str, Any] = url.query
    values = [text for value in query.values() for text in ([value] if isinstance(value, str) else value)]
    secrets = [re.escape(secret) for secret in [str(url.password or ""), *values] if secret]

    def hide(message: object) -> str:
        text = hide_values(str(message).strip(), template)
        return re.sub("|".join(sorted(secrets, key=len, reverse=True)), "***", text) if secrets else text

    return hide


def _install_hint(url: URL) -> str:
    return "pip install 'hone[postgresql]'" if url.get_backend_name() == "postgresql" else "pip install its driver."


def _unreachable(message: str, shown: str) -> ServiceError:
    fix = "Check that it is running, and the address, user and password; then run again."
    return ServiceError(f"the database cannot be reached: {message}", where=shown, fix=fix)


def _wants_to_write(fault: object) -> bool:
    """Whether the database refused to write: 25006 is PostgreSQL's read_only_sql_transaction."""
    return getattr(fault, "sqlstate", "") == "25006" or getattr(fault, "sqlite_errorname", "") in (
        "SQLITE_READONLY",
        "SQLITE_AUTH",
    )


def _query_fault(fault: DBAPIError, url: URL, message: str, shown: str) -> DataError | ServiceError:
    """The error for a fault of the query or of the server. SQLite raises OperationalError for both."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    if _wants_to_write(fault.orig):
        fix = "Write a SELECT statement: a source is read, never changed."
        return DataError(f"the query would change the database: {message}", where=shown, fix=fix)
    lost = isinstance(fault, (OperationalError, InterfaceError)) and url.get_backend_name() != "sqlite"
    if lost or fault.connection_invalidated or "database is locked" in message:
        return ServiceError(f"the connection to the database was lost: {message}", where=shown, fix="Run again.")
    return DataError(f"the query cannot be run: {message}", where=shown, fix="Correct ingest.source.query.")
