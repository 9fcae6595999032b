"""What a flow's process has to do with the worker that started it: whether there is one, and to end with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache

from prefect.runtime import deployment

POLL_SECONDS = 0.5
RUN = "PREFECT__FLOW_RUN_ID"  # a variable that workers set for the runs that they start


def is_deployed() -> bool:
    """Whether a worker started this run, from a deployment. Without one, `deployment.id` alone would ask the server."""
    return RUN in os.environ and bool(deployment.id)


@cache
def end_with_worker() -> None:
    """Send SIGTERM to this process as soon as the worker that started it has ended for any reason.

    Prefect would let the process run: nobody could cancel it, and a new worker would not know of it. On SIGTERM it
    ends its training, releases its GPU slot and reports the run as crashed, so that it can be retried.
    """
    parent = os.getppid()
    if RUN not in os.environ or parent <= 1:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="worker", daemon=True).start()
