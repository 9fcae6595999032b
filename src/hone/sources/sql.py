"""Rows out of a database: any SQLAlchemy URL and a query."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ConfigError, DataError, ServiceError
from hone.parts.options import REQUIRED, option
from hone.parts.variables import expand
from hone.sources.source import RawRow

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection
    from sqlalchemy.exc import DBAPIError

_BATCH = 1000


@dataclass(frozen=True)
class Sql:
    """Rows out of a database: what a query gives, streamed."""

    url: str = option(
        REQUIRED,
        "An SQLAlchemy URL: postgresql://user:${PASSWORD}@host/database, sqlite:///file.sqlite. ${VAR} and "
        "${VAR:-default} are replaced when the database is asked, and are never written anywhere.",
        location=True,
        min_length=1,
    )
    query: str = option(
        REQUIRED, "The SELECT whose rows are read, in its order: give it an ORDER BY over a unique key.", min_length=1
    )
    fingerprint_query: str = option(
        "",
        "A fast query whose result changes when the rows do (select count(*), max(updated_at) from ...). "
        "Where empty, the rows themselves are read and digested.",
    )

    libraries: ClassVar[tuple[str, ...]] = ("sqlalchemy",)

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """SHA-256 over what `fingerprint_query` gives, or over all rows where there is none."""
        sha = hashlib.sha256()
        for values in self._values(self.fingerprint_query or self.query):
            sha.update(json.dumps(values, default=str).encode() + b"\n")
        return sha.hexdigest()

    def rows(self) -> Iterator[RawRow]:
        """The query's rows. Raises DataError where it is wrong, ServiceError where the database does not answer."""
        for number, values in enumerate(self._values(self.query), 1):
            yield RawRow(f"sql:{number}", "sql", values)

    def _values(self, query: str) -> Iterator[dict[str, Any]]:
        from sqlalchemy import text

        with self._connected() as connection:
            result = connection.execute(text(query))
            if not result.returns_rows:
                raise DataError("the query gives no rows", where="ingest.source.query", fix="Write a SELECT.")
            names = list(result.keys())
            if len(set(names)) < len(names):
                twins = ", ".join(sorted({name for name in names if names.count(name) > 1}))
                fix = "Name them apart: SELECT a.id AS a_id, b.id AS b_id."
                raise DataError(f"the query gives several columns called {twins}", where="ingest.source.query", fix=fix)
            for batch in result.yield_per(_BATCH).partitions():
                yield from (dict(zip(names, row, strict=True)) for row in batch)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection that streams and that is rolled back at the end; names what goes wrong without a secret."""
        from sqlalchemy import create_engine
        from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
        from sqlalchemy.pool import NullPool

        url = self._url()
        shown = url.set(query={}).render_as_string(hide_password=True)
        hide = _hider(url)
        try:
            engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
        except (NoSuchModuleError, ImportError) as fault:
            raise ConfigError(f"no driver for it is installed: {hide(fault)}", where=shown, fix=_driver(url)) from None
        try:
            connection = engine.connect()
        except DBAPIError as fault:
            raise _unreachable(hide(fault.orig), shown) from None
        try:
            with connection.execution_options(stream_results=True):
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
                fix="It has the form dialect://user:password@host:port/database; percent-encode what is special in it.",
            ) from None
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "sqlite":
            _must_exist(url)
        return url


_COLON = "Mend ingest.source.query. A colon before a word is a parameter: write \\: where it is meant as it stands."


def _must_exist(url: URL) -> None:
    """SQLite makes an empty database of a file that is not there."""
    name = url.database or ":memory:"
    if name != ":memory:" and not name.startswith("file:") and not Path(name).is_file():
        raise DataError("no such SQLite file", where=name, fix="Mend ingest.source.url.")


def _hider(url: URL) -> Callable[[object], str]:
    """A function that gives a message without the URL's password and without its query's values."""
    query: Mapping[str, Any] = url.query
    values = [value for given in query.values() for value in ([given] if isinstance(given, str) else given)]
    secrets = [re.escape(secret) for secret in [str(url.password or ""), *values] if secret]

    def hide(message: object) -> str:
        text = str(message).strip()
        return re.sub("|".join(sorted(secrets, key=len, reverse=True)), "***", text) if secrets else text

    return hide


def _driver(url: URL) -> str:
    return "pip install 'hone[postgresql]'" if url.get_backend_name() == "postgresql" else "pip install its driver."


def _unreachable(message: str, shown: str) -> ServiceError:
    fix = "Check that it runs, the address, the user and the password, then run again."
    return ServiceError(f"the database cannot be reached: {message}", where=shown, fix=fix)


def _query_fault(fault: DBAPIError, url: URL, message: str, shown: str) -> DataError | ServiceError:
    """Whether it was the query or the server. SQLite calls both OperationalError."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    lost = isinstance(fault, (OperationalError, InterfaceError)) and url.get_backend_name() != "sqlite"
    if lost or fault.connection_invalidated or "database is locked" in message:
        return ServiceError(f"the database broke off: {message}", where=shown, fix="Run again.")
    return DataError(f"the query cannot be run: {message}", where=shown, fix="Mend ingest.source.query.")
