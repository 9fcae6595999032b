"""A function over many texts on all cores, where there are enough of them that it pays."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import IO, Any, TypeVar

from hone.errors import HoneError
from hone.progress import OnProgress, Progress

Outcome = TypeVar("Outcome")
Judge = Callable[[list[Any]], list[Outcome]]

CHUNK = 2_000  # rows that go to a worker at once
_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from hone.curation.parallel import serve; serve()"


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone: fewer than cpu_count where a container or taskset says so
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def over_texts(
    judge: Judge[Outcome], texts: Sequence[Sized], on_progress: OnProgress, *, worth: int, workers: int = 0
) -> list[Outcome]:
    """`judge`'s outcome for each of `texts`, in order and the same for any number of `workers` (0: one for each core).

    A text may be a list of words. `judge` can be pickled. With fewer characters (or words) than `worth` all is done
    here: a worker starts in half a second.
    """
    workers = workers or (cores() if sum(map(len, texts)) >= worth else 1)
    chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
    outcomes: list[Outcome] = []
    for outcome in _map(judge, chunks, min(workers, len(chunks))):
        outcomes.extend(outcome)
        on_progress(Progress(len(outcomes), len(texts)))
    return outcomes


def serve() -> None:
    """A worker's work: a judge from standard input, then chunk for chunk its outcomes to standard output.

    It ends with its input, so it does not outlive the process that started it, however that one dies.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    judge = pickle.load(sys.stdin.buffer)
    while (chunk := _receive(sys.stdin.buffer)) is not None:
        pickle.dump(judge(chunk), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _map(judge: Judge[Outcome], chunks: list[list[Any]], workers: int) -> Iterator[list[Outcome]]:
    """The outcomes of the chunks, in order.

    Workers are new processes and no forks, which are not safe while other threads of this process hold locks.
    """
    if workers <= 1:
        yield from map(judge, chunks)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ExitStack() as started:
        idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for _ in range(workers):
            idle.put(started.enter_context(_worker(judge)))

        def ask(chunk: list[Any]) -> list[Outcome]:
            worker = idle.get()
            try:
                return _ask(worker, chunk)
            finally:
                idle.put(worker)

        threads = started.enter_context(ThreadPoolExecutor(workers))
        yield from threads.map(ask, chunks)


@contextmanager
def _worker(judge: Judge[Outcome]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", _SERVE, *sys.path]
    # In a process group of its own: Ctrl-C is for this process, which then ends its workers.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as worker:
        try:
            _send(worker, judge)
            yield worker
        finally:
            worker.kill()


def _ask(worker: subprocess.Popen[bytes], chunk: list[Any]) -> list[Outcome]:
    assert worker.stdout is not None
    _send(worker, chunk)
    outcomes: list[Outcome] | None = _receive(worker.stdout)
    if outcomes is None:
        raise HoneError(
            f"a worker process ended with exit code {worker.wait()}",
            where="curation",
            fix="Its traceback is above. If there is none, it was killed, most likely because memory ran out.",
        )
    return outcomes


def _send(worker: subprocess.Popen[bytes], message: object) -> None:
    assert worker.stdin is not None
    try:
        pickle.dump(message, worker.stdin, pickle.HIGHEST_PROTOCOL)
        worker.stdin.flush()
    except BrokenPipeError:
        return  # the worker is dead, which its missing answer will tell


def _receive(stream: IO[bytes]) -> list[Any] | None:
    """The next message; None where there is no more."""
    try:
        message: list[Any] = pickle.load(stream)
    except (EOFError, pickle.UnpicklingError):
        return None
    return message
