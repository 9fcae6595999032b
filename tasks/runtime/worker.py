"""Ends a flow's process when the worker that started it has ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache

POLL_SECONDS = 0.5


@cache
def end_with_worker() -> None:
    """Send SIGTERM to this process as soon as the worker that started it has ended for any reason.

    Prefect would let the process run: nobody could cancel it, and a new worker would not know of it. On SIGTERM it
    ends its training, releases its GPU slot and reports the run as crashed, so that it can be retried.
    """
    parent = os.getppid()
    if "PREFECT__FLOW_RUN_ID" not in os.environ or parent <= 1:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="worker", daemon=True).start()
