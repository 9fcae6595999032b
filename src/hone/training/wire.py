"""Between the training process and its parent: events and errors one way, the parent's life the other.

Events are JSON lines on a pipe of their own. The child's standard input is a pipe that the parent never writes to and
that the kernel closes with it: however the parent ends, the child's process group ends at once. (Linux's
PR_SET_PDEATHSIG would fire when the parent's thread ends, and reach the child alone.)
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


def make_sender(descriptor: int) -> Send:
    """What writes events to the parent. A parent that is gone is no fault here: this process ends for it."""
    os.set_inheritable(descriptor, False)

    def send(event: Event) -> None:
        line = json.dumps(event).encode() + b"\n"
        while line:
            line = line[os.write(descriptor, line) :]

    return send


def end_with_parent() -> None:
    """From here on this process group is killed as soon as standard input is at its end."""
    group = os.getpgrp()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.killpg(group, signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    if hasattr(fcntl, "F_SETSIG"):  # the kernel's own signal needs no turn of the interpreter
        stdin = sys.stdin.fileno()
        fcntl.fcntl(stdin, fcntl.F_SETOWN, -group)
        fcntl.fcntl(stdin, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(stdin, fcntl.F_SETFL, fcntl.fcntl(stdin, fcntl.F_GETFL) | os.O_ASYNC)


def read_events(descriptor: int, alive: Callable[[], bool]) -> Iterator[Event]:
    """The child's events as they come, until it is gone. Wakes twice a second, so that an interrupt gets through."""
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
    """An error as an event."""
    return {"type": "error", "kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}


def event_to_error(event: Event) -> HoneError:
    """The error that `pack` made an event of, of its own class."""
    kind = getattr(hone.errors, event["kind"], TrainingError)
    error: HoneError = kind(event["what"], where=event["where"], fix=event["fix"])
    return error
