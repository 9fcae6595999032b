"""Processes that go on when the command that started them has returned, and that are found again to be ended.

Each carries a mark in its environment, which its children inherit: what was started is told from what was not even
where a parent has died, and a process id that came to another program is never taken for ours.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "HONE_SERVICE"
GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Process:
    """A process by its id and the moment it began, in seconds since 1970, for ids are used again."""

    pid: int
    began: float

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.began and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def start_process(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path, mark: str
) -> tuple[Process, subprocess.Popen[bytes]]:
    """Start `command` in a session of its own, its words appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            list(command),
            env={**environment, MARK: mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return Process(child.pid, psutil.Process(child.pid).create_time()), child


def list_marked(mark: str) -> list[psutil.Process]:
    """The processes of this user that carry `mark`, the oldest first."""
    processes = [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _read_mark(process) == mark
    ]
    return sorted(processes, key=lambda process: process.pid)


def end_marked(mark: str, last: Process | None = None, grace: float = GRACE_SECONDS) -> int:
    """End all that carry `mark`, each asked before it is killed; how many there were.

    Parents are asked before their children, whom they end as they see fit; `last`, a worker, after all others, for it
    would kill its runs before they have said that they crash.
    """
    count, spared_pids = len(list_marked(mark)), {last.pid} if last and last.alive else set()
    while remaining := list_marked(mark):
        pids = {process.pid for process in remaining} - spared_pids
        _end_all([process for process in remaining if process.pid in pids and _parent(process) not in pids], grace)
        if not pids:
            spared_pids = set()
    return count


def _end_all(processes: Iterable[psutil.Process], grace: float) -> None:
    terminated = list(processes)
    for process in terminated:
        _signal(process, "terminate")
    _, survivors = psutil.wait_procs(terminated, timeout=grace)
    for process in survivors:
        _signal(process, "kill")
    psutil.wait_procs(survivors, timeout=grace)


def _signal(process: psutil.Process, how: str) -> None:
    with suppress(psutil.NoSuchProcess):  # it compares the moment at which the process began, too
        getattr(process, how)()


def _read_mark(process: psutil.Process) -> str:
    try:
        return str(process.environ().get(MARK, ""))
    except (psutil.Error, OSError):
        return ""


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return 0
