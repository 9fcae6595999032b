"""Prefect's command line, for a server on SQLite that many write to at once.

Started by `python -m hone_app.service.prefect_server`.

Prefect opens most transactions as BEGIN DEFERRED and reads before it writes. Where another one has written meanwhile,
SQLite refuses at once ("database is locked"): the API answers 503, its UI says "Something went wrong". With BEGIN
IMMEDIATE each waits its turn (https://sqlite.org/lang_transaction.html). Other databases see neither.
"""

from __future__ import annotations

from typing import Any

from prefect.cli import app
from sqlalchemy import Engine, event


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def write_in_turn(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """The statement and its parameters as they are; a transaction that would be deferred takes its turn at once."""
    return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


if __name__ == "__main__":
    app()
