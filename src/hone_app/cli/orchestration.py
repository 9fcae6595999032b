"""The Prefect server for a flow that a command runs in this process: the configured one, or Hone's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hone.environment import Home
from hone.tracking.client import check_tracking_uri
from hone_app.service import servers
from hone_app.service.up import check_stores


@contextmanager
def orchestrated(data: Home) -> Iterator[Callable[[], bool]]:
    """Import flows within the block and run them after it; meanwhile the server may be starting.

    Yields a function that returns whether it is still starting. Prefect reads its settings when it is imported, which
    takes about as long as the server's start. Prefect's logs go to its UI only, not to the terminal. Raises
    ServiceError if a server does not answer.
    """
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] = "hone"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check_stores(data)
    check_tracking_uri(data.tracking_uri)
    url = servers.find_configured_prefect()
    if url:
        os.environ["PREFECT_API_URL"] = url
        yield lambda: False
        return
    server = servers.prefect_server(data)
    os.environ["PREFECT_HOME"] = str(data.prefect)
    with servers.starting(server) as server_url:
        os.environ["PREFECT_API_URL"] = f"{server_url}/api"
        yield lambda: not servers.is_healthy(server_url, server.health)
