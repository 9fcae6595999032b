"""Listeners inform: whatever they do, the work goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hone import progress
from hone.progress import Outbox, Progress, emit, listening


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """An event that a listener waits for; it is set when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def test_every_event_arrives_in_order_before_the_block_ends() -> None:
    heard: list[Any] = []
    with listening(lambda stage, event, detail: heard.append((stage, event, detail))):
        for number in range(500):
            emit("train", "progress", number)
        emit("train", "done")
    assert heard == [*(("train", "progress", number) for number in range(500)), ("train", "done", None)]


def test_a_listener_that_never_returns_delays_no_work_and_no_other_listener(
    held: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "END_SECONDS", 0.01)
    monkeypatch.setattr(progress, "OUTBOX_CALLS", 10)
    heard: list[str] = []
    with caplog.at_level(logging.WARNING), listening(lambda *_: heard.append("a")), listening(lambda *_: held.wait()):  # type: ignore[arg-type,return-value]
        for done in range(100):
            emit("train", "progress", Progress(done, 100))
        emit("train", "done")
    assert "90 reports were dropped" in caplog.text
    assert heard.count("a") >= 11


def test_a_listener_that_raises_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    heard: list[str] = []

    def broken(*_: object) -> None:
        raise ValueError("a fault of the terminal")

    with listening(broken), listening(lambda _, event, __: heard.append(event)):
        emit("train", "started")
        emit("train", "done")
    assert heard == ["started", "done"]
    assert [fault.exc_type for fault in faults] == [ValueError]


def test_the_thread_of_a_closed_outbox_ends() -> None:
    before = threading.active_count()
    outbox, made = Outbox("test"), threading.Event()
    outbox.send(made.set)
    assert outbox.close(60)
    assert made.is_set()
    for thread in threading.enumerate():
        if thread.name == "test":
            thread.join(60)
    assert threading.active_count() == before
