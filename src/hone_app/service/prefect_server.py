"""Prefect's server, for its own pages and programs only, and on SQLite for concurrent writers.

Started by `python -m hone_app.service.prefect_server --host HOST --port PORT`. Everything else is set by Prefect's
settings; its command line has ways to start the server without the check of `OwnPagesOnly`.

Prefect opens most transactions as BEGIN DEFERRED and reads before it writes. If another transaction has written in
between, SQLite refuses at once ("database is locked"): the API answers 503, its UI says "Something went wrong". With
BEGIN IMMEDIATE each waits its turn (https://sqlite.org/lang_transaction.html). Other databases are not affected.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, get_current_settings
from sqlalchemy import Engine, event, make_url

from hone.environment import set_umask
from hone_app.service.origins import VARIABLE, OwnPagesOnly
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


def list_names(environment: Mapping[str, str]) -> list[str]:
    """The server's names: those in HONE_PREFECT_HOSTS, and those in the URLs that clients and pages are given."""
    urls = [
        environment.get(name, "") for name in ("PREFECT_API_URL", "PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL")
    ]
    names = [*environment.get(VARIABLE, "").split(","), *(urlsplit(url).netloc for url in urls)]
    return [name.strip() for name in names if name.strip()]


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description="Serve Prefect's API and UI.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4200, help="port to listen on (default: 4200)")
    return parser


def main() -> None:
    """Serve until the process is terminated."""
    options = build_parser().parse_args()
    set_umask()
    prepare_database()
    from prefect.server.api.server import create_app

    settings = get_current_settings().server
    uvicorn.run(
        OwnPagesOnly(create_app(final=True), list_names(os.environ)),
        host=options.host,
        port=options.port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


if __name__ == "__main__":
    main()
