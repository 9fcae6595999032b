"""Artifacts of a run in Prefect's UI. They only inform: no task waits for a server that does not answer, or fails.

They are made in a thread of their own: Prefect's client tries a server that is away for 62 s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
from prefect.exceptions import PrefectException

from hone.progress import Outbox
from tasks.runtime.clients import leave_task_client

WAIT_SECONDS = 2.0  # a server that answers takes some 20 ms
END_SECONDS = 20.0

_log = logging.getLogger("hone.pages")  # Prefect's handlers write the loggers of hone to the run's log
_outbox = Outbox("pages")


def publish(create: Callable[..., object], *content: Any, **about: Any) -> None:
    """Call `create(*content, **about)`, and wait a moment for it unless earlier calls are still waiting."""
    is_first = is_idle()
    post(create, *content, **about)
    if is_first:
        _outbox.wait(WAIT_SECONDS)


def publish_last(create: Callable[..., object], *content: Any, **about: Any) -> None:
    """As `publish`, in what may be a run's last task: wait END_SECONDS for all calls, which end with the process."""
    publish(create, *content, **about)
    if not _outbox.wait(END_SECONDS):
        _log.warning("Prefect's server did not answer in time: its page of the run is incomplete")


def post(create: Callable[..., object], *content: Any, **about: Any) -> None:
    """Call `create(*content, **about)` soon."""
    _outbox.send(partial(_attempt, partial(create, *content, **about)))


def is_idle() -> bool:
    """Whether all calls have been made."""
    return _outbox.wait(0)


def _attempt(call: Callable[[], object]) -> None:
    leave_task_client()
    try:
        call()
    except (httpx.HTTPError, PrefectException) as fault:
        _log.warning("Prefect's server did not take an artifact of the run: %s", fault)
