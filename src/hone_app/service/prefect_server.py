"""Prefect's command line, for a server on SQLite with concurrent writers.

Started by `python -m hone_app.service.prefect_server`.

Prefect opens most transactions as BEGIN DEFERRED and reads before it writes. If another transaction has written in
between, SQLite refuses at once ("database is locked"): the API answers 503, its UI says "Something went wrong". With
BEGIN IMMEDIATE each waits its turn (https://sqlite.org/lang_transaction.html). Other databases are not affected.
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
    """Replace BEGIN DEFERRED by BEGIN IMMEDIATE; return other statements and all parameters unchanged."""
    return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def prepare_database() -> None:
    """Create a missing SQLite database in one step; the server migrates any other database, as usual."""
    url = make_url(str(PREFECT_API_DATABASE_CONNECTION_URL.value()))
    in_memory = not url.database or ":memory:" in url.database or url.query.get("mode") == "memory"
    if url.get_backend_name() == "sqlite" and not in_memory:
        create_prefect_database(Path(str(url.database)))


if __name__ == "__main__":
    prepare_database()
    app()
