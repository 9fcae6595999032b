"""A slot of Prefect's global concurrency limit `gpu`, which a training holds while it runs.

A slot is leased for a minute at a time. Three see to it that it comes back: this process, as the training ends, is
cancelled or fails; a guard process beside it, where this process is killed; the end of the lease, where the whole
machine is gone. Prefect's own `concurrency` knows the first and the last, and gives the slot away for good when its
server was not there for one renewal.
"""

from __future__ import annotations

import contextvars
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import ObjectAlreadyExists
from prefect.logging import get_run_logger
from prefect.runtime import deployment, task_run

from hone.errors import ServiceError
from hone.progress import Progress, emit
from tasks.runtime import slot_guard

LIMIT = "gpu"
LEASE_SECONDS = 60.0  # the least that Prefect's server accepts
RENEW_SECONDS = 15.0  # so a server that restarts is missed three times before the lease is over
ASK_SECONDS = 2.0
STOP_SECONDS = 5.0

Logger = logging.Logger | logging.LoggerAdapter[Any]


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Wait for a slot of the limit `gpu`; hold it within the block.

    Where the limit does not exist, a run that a worker started makes it, with one slot; any other run has the machine
    for itself and goes on without. Raises ServiceError where Prefect's server does not answer.
    """
    logger = get_run_logger()
    try:
        with get_client(sync_client=True) as client:
            lease = _wait(client, logger)
    except httpx.HTTPError as fault:
        raise ServiceError(f"Prefect's server gave no GPU slot: {fault}", where=f"limit {LIMIT}") from fault
    if lease is None:
        yield
        return
    slot = _Slot(lease, logger)
    try:
        yield
    finally:
        slot.give_back()


def _wait(client: SyncPrefectClient, logger: Logger) -> UUID | None:
    """The lease of a slot, as soon as one is free; None where there is no limit and none is to be made."""
    told = False
    while True:
        granted = _ask(client)
        if granted == []:
            if not deployment.id:
                return None
            _make_limit(client, logger)
        elif granted:
            return granted[0]
        else:
            if not told:
                logger.info("Waits for a GPU slot: all are taken (prefect gcl inspect %s).", LIMIT)
                emit("train", "progress", Progress(0, 0, note="waits for a GPU slot"))
            told = True
            time.sleep(ASK_SECONDS)


def _ask(client: SyncPrefectClient) -> list[UUID] | None:
    """A list of the lease that was granted, an empty one where the limit does not exist; None where no slot is free."""
    holder = ConcurrencyLeaseHolder(type="task_run", id=UUID(str(task_run.id))) if task_run.id else None
    try:
        answer = client.increment_concurrency_slots_with_lease(
            names=[LIMIT], slots=1, mode="concurrency", lease_duration=LEASE_SECONDS, holder=holder
        ).json()
    except httpx.HTTPStatusError as fault:
        # 423: all are taken. 422: someone has set the limit to 0, so that no training begins.
        if fault.response.status_code in (httpx.codes.LOCKED, httpx.codes.UNPROCESSABLE_ENTITY):
            return None
        raise
    return [UUID(answer["lease_id"])] if answer["limits"] else []


def _make_limit(client: SyncPrefectClient, logger: Logger) -> None:
    with suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        logger.warning(
            "There was no limit %s, it was made: one training at a time. `prefect gcl update %s --limit 2` allows two.",
            LIMIT,
            LIMIT,
        )


class _Slot:
    """A slot that is held: its lease is renewed by a thread, and a guard process knows it."""

    def __init__(self, lease: UUID, logger: Logger) -> None:
        self._logger = logger
        self._given_back = threading.Event()
        self._guard = subprocess.Popen(
            # A session of its own: what is sent to this process's group does not end it.
            [sys.executable, "-P", str(Path(slot_guard.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        self._lease: UUID | None = None
        self._hold(lease)
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._renew,), name="gpu-slot", daemon=True)
        self._thread.start()

    def give_back(self) -> None:
        """Release the slot. What this cannot do, because the server is away, the guard tries for a minute."""
        self._given_back.set()
        self._thread.join(STOP_SECONDS)
        with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
            if self._lease:
                client.release_concurrency_slots_with_lease(self._lease)
            self._tell_guard("")
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._guard.stdin.close()  # type: ignore[union-attr]
            self._guard.wait(STOP_SECONDS)

    def _hold(self, lease: UUID) -> None:
        self._lease = lease
        self._tell_guard(str(lease))

    def _tell_guard(self, line: str) -> None:
        with suppress(BrokenPipeError):
            self._guard.stdin.write(line + "\n")  # type: ignore[union-attr]
            self._guard.stdin.flush()  # type: ignore[union-attr]

    def _renew(self) -> None:
        """Renew the lease until the slot is given back; one that has run out meanwhile is asked for anew."""
        with get_client(sync_client=True) as client:
            while not self._given_back.wait(RENEW_SECONDS):
                try:
                    self._renew_once(client)
                except httpx.HTTPError as fault:
                    self._logger.warning("The GPU slot could not be renewed, training goes on: %s", fault)

    def _renew_once(self, client: SyncPrefectClient) -> None:
        if self._lease is None:
            granted = _ask(client)
            if granted:
                self._hold(granted[0])
            return
        try:
            client.renew_concurrency_lease(self._lease, LEASE_SECONDS)
        except httpx.HTTPStatusError as fault:
            if fault.response.status_code != httpx.codes.GONE:
                raise
            self._lease = None
            self._logger.warning(
                "Prefect's server was away for longer than %.0f s and gave the GPU slot away. Training goes on and "
                "takes the next free slot; until then one training more than the limit %s allows may run.",
                LEASE_SECONDS,
                LIMIT,
            )
