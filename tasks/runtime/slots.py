"""A slot of Prefect's global concurrency limit `gpu`, which a training holds while it runs.

A slot is leased for a minute at a time. It is released by this process when the training ends, is cancelled or fails;
by a guard process if this process is killed; by the end of the lease if the machine is gone. Prefect's own
`concurrency` has the first and the last of these, and loses the slot for good if its server misses one renewal.
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
from prefect.runtime import task_run

from hone.errors import ServiceError
from hone.progress import Progress, emit
from tasks.runtime import slot_guard
from tasks.runtime.clients import leave_task_client
from tasks.runtime.worker import is_deployed

LIMIT = "gpu"
LEASE_SECONDS = 60.0  # the minimum that Prefect's server accepts
RENEW_SECONDS = 15.0  # three renewals may fail, as during a restart of the server, before the lease ends
ASK_SECONDS = 2.0  # between two requests for a slot while all are taken
STOP_SECONDS = 5.0  # for the renewing thread, and then the guard, to end

Logger = logging.Logger | logging.LoggerAdapter[Any]


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Wait for a slot of the limit `gpu` and hold it within the block.

    If the limit does not exist, a run that a worker started creates it with one slot; any other run continues without
    a slot, since it has the machine to itself. Raises ServiceError if Prefect's server does not answer.
    """
    logger = get_run_logger()
    try:
        with get_client(sync_client=True) as client:
            lease = _wait_for_slot(client, logger)
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


def _wait_for_slot(client: SyncPrefectClient, logger: Logger) -> UUID | None:
    """The lease of a slot, as soon as one is free; None if there is no limit and this run creates none."""
    reported = False
    while True:
        granted = _request_slot(client)
        if granted == []:
            if not is_deployed():
                return None
            _make_limit(client, logger)
        elif granted:
            return granted[0]
        else:
            if not reported:
                logger.info("Waiting for a GPU slot: all are taken (prefect gcl inspect %s).", LIMIT)
                emit("train", "progress", Progress(0, 0, note="waits for a GPU slot"))
            reported = True
            time.sleep(ASK_SECONDS)


def _request_slot(client: SyncPrefectClient) -> list[UUID] | None:
    """A list with the granted lease, an empty list if the limit does not exist, None if no slot is free."""
    holder = ConcurrencyLeaseHolder(type="task_run", id=UUID(str(task_run.id))) if task_run.id else None
    try:
        answer = client.increment_concurrency_slots_with_lease(
            names=[LIMIT], slots=1, mode="concurrency", lease_duration=LEASE_SECONDS, holder=holder
        ).json()
    except httpx.HTTPStatusError as fault:
        # 423: all are taken. 422: the limit is 0, which someone set so that no training starts.
        if fault.response.status_code in (httpx.codes.LOCKED, httpx.codes.UNPROCESSABLE_ENTITY):
            return None
        raise
    return [UUID(answer["lease_id"])] if answer["limits"] else []


def _make_limit(client: SyncPrefectClient, logger: Logger) -> None:
    with suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        logger.warning(
            "Created the limit %s: one training at a time. `prefect gcl update %s --limit 2` allows two.",
            LIMIT,
            LIMIT,
        )


class _Slot:
    """A held slot: a thread renews its lease, and a guard process releases it if this process is killed."""

    def __init__(self, lease: UUID, logger: Logger) -> None:
        self._logger = logger
        self._given_back = threading.Event()
        self._guard = subprocess.Popen(
            # A session of its own: signals to this process's group do not end the guard.
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
        """Release the slot. If the server does not answer in time, the guard keeps trying for a minute."""
        self._given_back.set()
        self._thread.join(STOP_SECONDS)
        # In a thread, since Prefect's client tries for 62 s. What it tells the guard after its end arrives nowhere.
        context = contextvars.copy_context()
        release = threading.Thread(target=context.run, args=(self._release,), name="gpu-slot-release", daemon=True)
        release.start()
        release.join(STOP_SECONDS)
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._guard.stdin.close()  # type: ignore[union-attr]
            self._guard.wait(STOP_SECONDS)

    def _release(self) -> None:
        leave_task_client()
        with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
            if self._lease:
                client.release_concurrency_slots_with_lease(self._lease)
            self._tell_guard("")

    def _hold(self, lease: UUID) -> None:
        self._lease = lease
        self._tell_guard(str(lease))

    def _tell_guard(self, line: str) -> None:
        with suppress(BrokenPipeError, ValueError):  # ValueError: closed meanwhile
            self._guard.stdin.write(line + "\n")  # type: ignore[union-attr]
            self._guard.stdin.flush()  # type: ignore[union-attr]

    def _renew(self) -> None:
        """Renew the lease until the slot is released; request a new lease if it has run out."""
        leave_task_client()
        with get_client(sync_client=True) as client:
            while not self._given_back.wait(RENEW_SECONDS):
                try:
                    self._renew_once(client)
                except httpx.HTTPError as fault:
                    self._logger.warning("The GPU slot could not be renewed, training continues: %s", fault)

    def _renew_once(self, client: SyncPrefectClient) -> None:
        if self._lease is None:
            granted = _request_slot(client)
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
                "Prefect's server was unreachable for more than %.0f s and released the GPU slot. Training continues "
                "and takes the next free slot; until then one training more than the limit %s allows may run.",
                LEASE_SECONDS,
                LIMIT,
            )
