"""The pipe between a training and its parent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from hone.training import wire


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing ends."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_training_does_not_wait_for_a_parent_that_reads_no_events(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    send = wire.make_sender(writing)
    sent = [{"type": "step", "step": number, "loss": 0.5} for number in range(5000)]
    for event in sent:  # more than a pipe holds
        send(event)
    events: list[dict[str, Any]] = []
    for event in wire.read_events(reading, lambda: not events):
        if not events:
            send({"type": "done"})
        events.append(event)
    *steps, done = events
    assert steps == sent[: len(steps)]
    assert done == {"type": "done", "unsent": 5000 - len(steps)}
    assert 100 < len(steps) < 5000


def test_an_error_waits_for_room(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    send = wire.make_sender(writing)
    long = {"type": "error", "what": "x" * 100_000}
    received: list[dict[str, Any]] = []
    import threading

    reader = threading.Thread(target=lambda: received.extend(wire.read_events(reading, lambda: not received)))
    reader.start()
    send(long)
    reader.join(60)
    assert received == [long]
