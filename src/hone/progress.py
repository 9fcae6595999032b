"""Progress and events of a stage: what long-running functions report, and the listeners that receive it.

Listeners only inform, so no work waits for them or ends with them: each is called in a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial


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


RATE_SECONDS = 30.0  # the rate is that of the last half minute: loading and the pace of an earlier part do not count


@dataclass
class Pace:
    """The rate of a stage's work, from its latest progress reports."""

    progress: Progress | None = None
    samples: deque[tuple[float, int]] = field(default_factory=deque)  # (time, units done) since RATE_SECONDS ago

    def add(self, progress: Progress, now: float) -> None:
        """Add a report at time `now`, in seconds."""
        previous = self.progress
        if previous and (progress.done < previous.done or progress.total != previous.total):
            self.samples.clear()
        if progress.done:
            self.samples.append((now, progress.done))
        while len(self.samples) > 2 and self.samples[1][0] <= now - RATE_SECONDS:
            self.samples.popleft()
        self.progress = progress

    @property
    def rate(self) -> float:
        """Units per second since the oldest sample; 0 while there are fewer than two."""
        if len(self.samples) < 2:
            return 0.0
        (start, first), (end, last) = self.samples[0], self.samples[-1]
        return (last - first) / max(end - start, 1e-9)

    def describe(self) -> Iterator[str]:
        """Done and total units, rate, remaining time, figures and note; the widths stay the same while numbers grow."""
        progress, rate = self.progress, self.rate
        if progress is None:
            return
        total = f"{progress.total:,}"
        yield (
            f"{progress.done:>{len(total)},}/{total} {progress.unit}"
            if progress.total
            else (f"{progress.done:,} {progress.unit}")
        )
        if rate:
            yield f"{_format_rate(rate):>5}/s"
        if rate and progress.total:
            yield f"{_clock((progress.total - progress.done) / rate):>5} left"
        yield from (f"{name} {value:.3g}" for name, value in progress.figures.items())
        if progress.note:
            yield progress.note


def _format_rate(rate: float) -> str:
    """Five characters or fewer, with two digits of a step that takes many seconds: 1,234, 12.3, 0.047."""
    if rate >= 100:
        return f"{rate:,.0f}"
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


OUTBOX_CALLS = 1000  # waiting progress reports; a training of a tiny model sends some hundred a second
END_SECONDS = 5.0  # that the end of a block of `listening` waits for its listener

_log = logging.getLogger(__name__)


class Outbox:
    """Makes calls in a thread of its own, in order, so that the caller never waits for them."""

    def __init__(self, name: str) -> None:
        self.dropped = 0
        self._name = name
        self._waiting: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def send(self, call: Callable[[], object], *, may_drop: bool = False) -> None:
        """Make `call` soon, in the context of the caller; if it `may_drop`, not while OUTBOX_CALLS others wait."""
        with self._changed:
            if may_drop and len(self._waiting) >= OUTBOX_CALLS:
                self.dropped += 1
                return
            self._waiting.append(partial(copy_context().run, call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` for all calls that were sent; whether they have been made."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._waiting and self._thread and self._thread.is_alive() and time.monotonic() < deadline:
                self._changed.wait(0.1)  # not the whole time: a call that raises ends the thread without a word
            return not self._waiting

    def close(self, seconds: float) -> bool:
        """As `wait`; the thread ends after the last call."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return self.wait(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                call = self._waiting[0]
            call()
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()


Listener = Callable[[str, str, object], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("hone_listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls `listener(stage, event, detail)` for every event emitted in this context within the block.

    It is called in a thread of its own. Progress is dropped while it is far behind. At its end, the block waits up to
    END_SECONDS for it. A listener that raises gets no further events. Listeners of enclosing blocks are called too.
    """
    outbox = Outbox("listener")

    def pass_on(stage: str, event: str, detail: object) -> None:
        outbox.send(partial(listener, stage, event, detail), may_drop=event == "progress")

    token = _listeners.set((*_listeners.get(), pass_on))
    try:
        yield
    finally:
        _listeners.reset(token)
        if not outbox.close(END_SECONDS) or outbox.dropped:
            _log.warning("Some progress was not reported: %d reports were dropped", outbox.dropped)


@contextmanager
def silent() -> Iterator[None]:
    """Within the block no listener hears an event: what runs beside other work of the same name would mix with it."""
    token = _listeners.set(())
    try:
        yield
    finally:
        _listeners.reset(token)


def emit(stage: str, event: str, detail: object = None) -> None:
    """Pass an event of `stage` (started, waiting, progress, hit, done, failed) to the listeners."""
    for listener in _listeners.get():
        listener(stage, event, detail)
