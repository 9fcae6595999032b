"""Runs the trials of a sweep in order, some at a time, and keeps a record of each that ended.

Trial n is chosen by the results of the trials up to n - parallel, whatever else has ended by then: so the trials of a
sweep depend on its space and seed, not on which process was faster or killed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

from hone.store.digests import digest_of
from hone.store.files import sync
from hone.sweep.space import Values
from hone.sweep.study import STATES, Study, Trial

TRIALS = "trials.jsonl"
FIELDS = {field.name for field in dataclasses.fields(Trial)}

# (number, values, trials whose results may be used, whether to end) -> the trial
RunTrial = Callable[[int, Values, Sequence[Trial], threading.Event], Trial]


def search(
    study: Study,
    *,
    trials: int,
    parallel: int,
    record: Path,
    run: RunTrial,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> list[Trial]:
    """Run up to `trials` trials, fewer if the space has no more values, `parallel` at a time; returns them in order.

    Trials in the file `record` are not run again; a trial that ends is appended to it. `on_trial` is called for each,
    in order. What a trial raises ends the sweep: the next call with the same record continues it.
    """
    earlier = read_trials(record)
    _end_last_line(record)
    end = threading.Event()
    finished: list[Trial] = []
    started: list[tuple[Values, Future[Trial]]] = []
    with ThreadPoolExecutor(parallel, thread_name_prefix="trial") as pool:
        try:
            for number in range(trials):
                if number >= parallel:
                    finished.append(started[number - parallel][1].result())
                    on_trial(finished[-1])
                running = [values for values, _ in started[len(finished) :]]
                values = study.propose(number, finished, running)
                if values is None:
                    break
                past = earlier.get(number)
                if past and past.values == values:
                    future: Future[Trial] = Future()
                    future.set_result(past)
                else:
                    call = _Call(run, number, values, tuple(finished), end, record)
                    future = _run_here(call) if parallel == 1 else pool.submit(copy_context().run, call)
                started.append((values, future))
            for _, future in started[len(finished) :]:
                finished.append(future.result())
                on_trial(finished[-1])
        finally:  # after a fault the other trials of this moment end too
            end.set()
            pool.shutdown(cancel_futures=True)
    return finished


def _run_here(call: Callable[[], Trial]) -> Future[Trial]:
    """The result of a call in this thread, which an interruption reaches at once."""
    future: Future[Trial] = Future()
    future.set_result(call())
    return future


_writing = threading.Lock()


@dataclasses.dataclass(frozen=True)
class _Call:
    """Runs one trial and records it."""

    run: RunTrial
    number: int
    values: Values
    finished: Sequence[Trial]
    end: threading.Event
    record: Path

    def __call__(self) -> Trial:
        trial = self.run(self.number, self.values, self.finished, self.end)
        entry = dataclasses.asdict(trial)
        line = json.dumps({"trial": entry, "digest": digest_of(entry)}).encode() + b"\n"
        with _writing, self.record.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync(self.record.parent)
        return trial


def _end_last_line(record: Path) -> None:
    """After a power cut the last line may have no end: what is appended must not become part of it."""
    if record.is_file() and record.read_bytes()[-1:] not in (b"", b"\n"):
        with record.open("ab") as file:
            file.write(b"\n")


def read_trials(record: Path) -> dict[int, Trial]:
    """The recorded trials by number. A damaged line is left out: its trial is run again, or found in the store."""
    trials: dict[int, Trial] = {}
    lines = record.read_bytes().splitlines() if record.is_file() else []
    for line in lines:
        try:
            entry = json.loads(line)
            trial = parse_trial(entry["trial"])
            if entry["digest"] != digest_of(entry["trial"]):
                continue
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        trials[trial.number] = trial
    return trials


def parse_trial(entry: Any) -> Trial:
    """A trial from its record; raises ValueError if that is not one."""
    if not isinstance(entry, dict) or entry.keys() != FIELDS or entry["state"] not in STATES:
        raise ValueError("not a trial")
    evaluations = tuple(None if value is None else float(value) for value in entry["evaluations"])
    value = None if entry["value"] is None else float(entry["value"])
    if not isinstance(entry["number"], int) or (entry["state"] == "complete") != (value is not None):
        raise ValueError("not a trial")
    return Trial(**entry | {"evaluations": evaluations, "value": value})
