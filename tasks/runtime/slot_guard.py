"""The guard of a GPU slot: a process that releases the slot if its holder is killed.

Its standard input is a pipe from the holder, which the kernel closes however the holder ends. A line contains the lease
to release, an empty line means that the slot was released. Until then the guard blocks in a read, with 10 MB of memory.
"""

from __future__ import annotations

import sys
import time
from uuid import UUID

TRIES = 30  # one every two seconds: after a minute the lease has expired by itself
PAUSE_SECONDS = 2.0


def main() -> int:
    """Wait for the holder's end, then release its lease unless it was released already."""
    lease = ""
    for line in sys.stdin:
        lease = line.strip()
        if not lease:
            return 0
    return _release_lease(UUID(lease)) if lease else 0


def _release_lease(lease: UUID) -> int:
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
