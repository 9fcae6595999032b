"""A flow's process and the worker that started it: the one does not outlive the other."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache

LOOK_SECONDS = 0.5


@cache
def end_with_worker() -> None:
    """From here on this process is asked to end as soon as the worker that started it has ended, however that came.

    Prefect would let it run on: no one could cancel it then, and a worker that comes back would not know of it. Asked
    by SIGTERM, it ends its training, gives its GPU slot back and reports the run as crashed, for someone to retry.
    """
    parent = os.getppid()
    if "PREFECT__FLOW_RUN_ID" not in os.environ or parent <= 1:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="worker", daemon=True).start()
