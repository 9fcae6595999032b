"""Communication of the training process with its parent: the child sends events, and ends when the parent ends.

Events are JSON lines on a separate pipe. Training does not wait for a parent that does not read them: what only informs
is then left out, and is in history.jsonl. The child's standard input is a pipe that the parent never writes to and that
the kernel closes when the parent ends, however it ends: the child's process group is then killed at once. (Linux's
PR_SET_PDEATHSIG would fire when the parent's thread ends, and would reach the child only.)
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hone.errors
from hone.errors import HoneError, TrainingError

Event = dict[str, Any]
Send = Callable[[Event], None]
INFORMING = ("step", "valid", "checkpoint")  # types of events that are left out while the pipe is full


def make_sender(descriptor: int) -> Send:
    """A function that writes events to the pipe `descriptor`; a closed pipe is not handled: this process ends then.

    The event `done` has the number of events that were left out: `unsent`.
    """
    os.set_inheritable(descriptor, False)
    os.set_blocking(descriptor, False)
    unsent = 0

    def send(event: Event) -> None:
        nonlocal unsent
        if event["type"] in INFORMING and not _is_writable(descriptor, 0):
            unsent += 1
            return
        counted = event | {"unsent": unsent} if event["type"] == "done" and unsent else event
        line = json.dumps(counted).encode() + b"\n"
        while line:
            _is_writable(descriptor, None)
            line = line[os.write(descriptor, line) :]

    return send


def _is_writable(descriptor: int, seconds: float | None) -> bool:
    """Whether a pipe takes PIPE_BUF bytes (4 kB on Linux) within `seconds`; None waits until it does."""
    return bool(select.select([], [descriptor], [], seconds)[1])


def end_with_parent() -> None:
    """From now on, kill this process group as soon as standard input reaches its end."""
    group = os.getpgrp()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.killpg(group, signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    if hasattr(fcntl, "F_SETSIG"):  # Linux: the kernel sends the signal itself, even while the GIL is held
        stdin = sys.stdin.fileno()
        fcntl.fcntl(stdin, fcntl.F_SETOWN, -group)
        fcntl.fcntl(stdin, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(stdin, fcntl.F_SETFL, fcntl.fcntl(stdin, fcntl.F_GETFL) | os.O_ASYNC)


def read_events(descriptor: int, alive: Callable[[], bool]) -> Iterator[Event]:
    """The child's events as they arrive, until it has ended. Wakes twice a second, so that interrupts get through."""
    buffer = b""
    while True:
        running = alive()
        ready, _, _ = select.select([descriptor], [], [], 0.5 if running else 0)
        chunk = os.read(descriptor, 65536) if ready else b""
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        yield from (json.loads(line) for line in lines)
        if not chunk and (ready or not running):
            return


def error_to_event(error: HoneError) -> Event:
    """The event that reports an error to the parent."""
    return {"type": "error", "kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}


def event_to_error(event: Event) -> HoneError:
    """The error, of its original class, from an event of `error_to_event`."""
    kind = getattr(hone.errors, event["kind"], TrainingError)
    error: HoneError = kind(event["what"], where=event["where"], fix=event["fix"])
    return error
