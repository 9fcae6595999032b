"""The guard of a GPU slot: a process that gives the slot back when its holder was killed and could not.

Its standard input is a pipe of the holder's, which the kernel closes however the holder ends. A line on it is the
lease to answer for, an empty one says that all is given back. Until then it waits in one read, at 10 MB.
"""

from __future__ import annotations

import sys
import time
from uuid import UUID

TRIES = 30  # one every two seconds: after a minute the lease has run out by itself
PAUSE_SECONDS = 2.0


def main() -> int:
    """Wait for the holder's end; its lease is released then, unless it was already."""
    lease = ""
    for line in sys.stdin:
        lease = line.strip()
        if not lease:
            return 0
    return _release(UUID(lease)) if lease else 0


def _release(lease: UUID) -> int:
    import httpx
    from prefect.client.orchestration import get_client

    for _ in range(TRIES):
        try:
            with get_client(sync_client=True) as client:
                client.release_concurrency_slots_with_lease(lease)
                return 0
        except httpx.HTTPError:
            time.sleep(PAUSE_SECONDS)
    return 1


if __name__ == "__main__":
    sys.exit(main())
