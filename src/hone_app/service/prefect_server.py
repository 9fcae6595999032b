"""Prefect's command line, for a server on SQLite that many write to at once.

Started by `python -m hone_app.service.prefect_server`.

Prefect opens most transactions as BEGIN DEFERRED and reads before it writes. Where another one has written meanwhile,
SQLite refuses at once ("database is locked"): the API answers 503, its UI says "Something went wrong". With BEGIN
IMMEDIATE each waits its turn (https://sqlite.org/lang_transaction.html). Other databases see neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.cli import app
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy import Engine, event, make_url

from hone_app.service.schemas import create_prefect_database


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def write_in_turn(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """The statement and its parameters as they are; a transaction that would be deferred takes its turn at once."""
    return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def prepare_database() -> None:
    """Make a SQLite database that is not there yet in one step; any other is the server's to migrate, as ever."""
    url = make_url(str(PREFECT_API_DATABASE_CONNECTION_URL.value()))
    in_memory = not url.database or ":memory:" in url.database or url.query.get("mode") == "memory"
    if url.get_backend_name() == "sqlite" and not in_memory:
        create_prefect_database(Path(str(url.database)))


if __name__ == "__main__":
    prepare_database()
    app()
