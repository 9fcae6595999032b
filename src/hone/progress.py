"""Progress and events of a stage: what long-running functions report, and the listener that receives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage's work (rows, steps), and figures to show (`{"loss": 0.7}`).

    `total` is 0 while it is unknown. `note` names the current activity in a word or two.
    """

    done: int
    total: int
    unit: str = "rows"
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Discards the progress; the default of every `on_progress` parameter."""


Listener = Callable[[str, str, object], None]
_listener: ContextVar[Listener | None] = ContextVar("hone_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls `listener(stage, event, detail)` for every event emitted in this context within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def emit(stage: str, event: str, detail: object = None) -> None:
    """Pass an event of `stage` (started, progress, hit, done, failed) to the listener, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(stage, event, detail)
