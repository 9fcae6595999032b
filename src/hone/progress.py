"""How far a stage has come: what long-running functions report, and who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage's work (rows, steps), and figures worth showing (`{"loss": 0.7}`).

    `total` is 0 where it is not known yet. `note` is a short word on what is being done.
    """

    done: int
    total: int
    unit: str = "rows"
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """The listener of someone who does not want to know."""


Listener = Callable[[str, str, object], None]
_listener: ContextVar[Listener | None] = ContextVar("hone_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, `listener(stage, event, detail)` hears all that `tell` says in this context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(stage: str, event: str, detail: object = None) -> None:
    """Tell whoever listens that `event` (started, progress, hit, done, failed) happened to `stage`."""
    listener = _listener.get()
    if listener is not None:
        listener(stage, event, detail)
