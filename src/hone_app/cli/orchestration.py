"""The Prefect server for a flow that a command runs in this process: that of the environment, or one of our own."""

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
    """Within the block flows are imported, after it they can run; the server may be starting meanwhile.

    Gives a function that says whether it still is. Prefect reads its settings when it is imported, which takes about
    as long as the server needs to start. Its logs go to its UI; the terminal shows what the command shows. Raises
    ServiceError where a server does not answer.
    """
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] = "hone"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check_stores(data)
    check_tracking_uri(data.tracking_uri)
    url = servers.configured_prefect()
    if url:
        os.environ["PREFECT_API_URL"] = url
        yield lambda: False
        return
    server = servers.prefect_server(data)
    os.environ["PREFECT_HOME"] = str(data.prefect)
    with servers.starting(server) as root:
        os.environ["PREFECT_API_URL"] = f"{root}/api"
        yield lambda: not servers.healthy(root, server.health)
