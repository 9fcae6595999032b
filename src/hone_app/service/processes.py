"""Starts background processes and finds them again to end them.

Each has a mark in its environment, which its children inherit. The mark identifies them even after their parent has
died, and a process id that the system gave to another program is never mistaken for one of ours.
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
    """A process, identified by its id and its start in seconds since 1970, because ids are used again."""

    pid: int
    began: float

    @property
    def alive(self) -> bool:
        """Whether this process, and not another one with its id, is running."""
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.began and process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.NoSuchProcess, ValueError):  # of a damaged record: a negative number
            return False


def start_process(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path, mark: str
) -> tuple[Process, subprocess.Popen[bytes]]:
    """Start `command` in a session of its own, with its output appended to `log`."""
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
    """The processes with this mark that this user can see, lowest id first."""
    processes = [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _read_mark(process) == mark
    ]
    return sorted(processes, key=lambda process: process.pid)


def end_marked(mark: str, last: Process | None = None, grace: float = GRACE_SECONDS) -> int:
    """End all processes with this mark, by SIGTERM and after `grace` seconds by SIGKILL; return their number.

    Parents are ended before their children, so that they can end these in order. `last`, a worker, is ended after all
    others: it would kill its runs before they have reported that they crashed.
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
    with suppress(psutil.NoSuchProcess):  # psutil compares the start time too, so a reused id is safe
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
