"""Runs of `hone` commands: their flow runs are in the process of a terminal, not in one of a worker.

HONE_HOME/runs has a file for each such process, which holds a lock on it until it ends, however it ends. `hone down`
finds those that use the service; the next start marks the flow runs of dead ones as crashed: nobody else would, and
Prefect would show them as running for ever.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import UUID

from hone.environment import Home
from hone_app.records import parse_json

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@dataclass(frozen=True)
class TerminalRun:
    """The process of a command, and the API of the Prefect server that it uses."""

    command: str
    api: str
    pid: int
    host: str


@contextmanager
def record_run(home: Home, command: str, api: str) -> Iterator[Callable[[object], None]]:
    """Record this process within the block; yields a function that adds the id of a flow run to the record.

    The file has the process on its first line and the id of a flow run on each further one.
    """
    folder = home.root / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    run = TerminalRun(command, api, os.getpid(), socket.gethostname())
    path = folder / f"{run.pid}-{os.urandom(4).hex()}.json"
    starting = path.with_suffix(".starting")
    with starting.open("w", buffering=1, encoding="utf8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(asdict(run)) + "\n")
        starting.rename(path)  # what others see is locked and has its content

        def add_flow_run(flow_run: object) -> None:
            file.write(f"{flow_run}\n")

        try:
            yield add_flow_run
        finally:
            path.unlink(missing_ok=True)


def list_live(home: Home, api: str) -> list[TerminalRun]:
    """The running processes of this machine that use the Prefect server at `api`."""
    live = [_read(file)[0] for file, is_live in _list_records(home) if is_live]
    return [run for run in live if run.api == api]


def wait_for_end(home: Home, api: str) -> None:
    """Return when no process uses the Prefect server at `api`."""
    while list_live(home, api):
        for file, is_live in _list_records(home):
            if is_live and _read(file)[0].api == api:
                fcntl.flock(file, fcntl.LOCK_SH)  # the process holds it until its end


def has_dead(home: Home) -> bool:
    """Whether there is a record of a process of this machine that has ended without removing it."""
    return any(not is_live for _, is_live in _list_records(home))


def mark_crashed(home: Home, client: SyncPrefectClient) -> list[str]:
    """Mark the flow runs of dead processes of this machine as crashed, and return their ids.

    The records of runs that this server does not know are kept: they may be another's.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    marked = []
    for file, is_live in _list_records(home):
        if is_live:
            continue
        run, flow_runs = _read(file)
        try:
            for flow_run in flow_runs:
                state = client.read_flow_run(flow_run).state
                if not (state and state.is_final()):
                    message = f"The process of `{run.command}` ({run.pid} on {run.host}) was killed."
                    client.set_flow_run_state(flow_run, Crashed(message=message), force=True)
                    marked.append(str(flow_run))
        except ObjectNotFound:
            continue
        Path(file.name).unlink(missing_ok=True)
    return marked


def _list_records(home: Home) -> Iterator[tuple[IO[str], bool]]:
    """The records of this machine's processes, and whether each is running."""
    for path in sorted((home.root / "runs").glob("*.json")):
        try:
            file = path.open(encoding="utf8")
        except FileNotFoundError:  # the process has just ended
            continue
        with file:
            if _is_of_this_machine(file):
                yield file, _is_locked(file)


def _is_of_this_machine(file: IO[str]) -> bool:
    """Whether the process ran here; False for a damaged record, whose process is unknown."""
    try:
        return _read(file)[0].host == socket.gethostname()
    except ValueError:
        return False


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(file: IO[str]) -> tuple[TerminalRun, list[UUID]]:
    """The record of a process and its flow runs. Raises ValueError if it is damaged."""
    file.seek(0)
    first, *flow_runs = file.read().splitlines() or [""]
    return parse_json(first, TerminalRun), [UUID(flow_run) for flow_run in flow_runs]
