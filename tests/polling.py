"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(what: Callable[[], Found | None], seconds: float = 300) -> Found:
    """What `what` gives as soon as it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"it did not come true in {seconds} s"
        time.sleep(0.1)
    return found
