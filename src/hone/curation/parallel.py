"""Applies a function to many texts on all cores, if there are enough texts to save time."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import IO, Any, TypeVar

from hone.errors import HoneError
from hone.progress import OnProgress, Progress

Outcome = TypeVar("Outcome")
Judge = Callable[[list[Any]], list[Outcome]]

# Rows, and characters (or words) of theirs, that go to a worker at once; a longer row goes alone.
CHUNK, CHUNK_LENGTH = 2_000, 8_000_000
_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from hone.curation.parallel import serve; serve()"


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux only: fewer than cpu_count in a container or under taskset
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def over_texts(
    judge: Judge[Outcome], texts: Sequence[Sized], on_progress: OnProgress, *, worth: int, workers: int = 0
) -> list[Outcome]:
    """The outcome of `judge` for each of `texts`, in order; the same for any number of `workers` (0: one per core).

    A text may be a list of words. `judge` must be picklable. Texts with fewer than `worth` characters (or words) in all
    are judged in this process, since a worker takes half a second to start.
    """
    workers = workers or (cores() if sum(map(len, texts)) >= worth else 1)
    chunks = list(cut_texts(texts, CHUNK, CHUNK_LENGTH))
    outcomes: list[Outcome] = []
    for outcome in _map_chunks(judge, chunks, min(workers, len(chunks))):
        outcomes.extend(outcome)
        on_progress(Progress(len(outcomes), len(texts)))
    return outcomes


def cut_texts(texts: Iterable[Any], max_texts: int, max_length: int) -> Iterator[list[Any]]:
    """The texts in lists of at most `max_texts` and of `max_length` characters, or a single longer text."""
    chunk: list[Any] = []
    length = 0
    for text in texts:
        if len(chunk) == max_texts or (chunk and length + len(text) > max_length):
            yield chunk
            chunk, length = [], 0
        chunk.append(text)
        length += len(text)
    if chunk:
        yield chunk


def serve() -> None:
    """Run a worker: read a judge and chunks from standard input, write each chunk's outcomes to standard output.

    It ends at the end of its input, so it does not outlive the process that started it, however that one ends.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not be mixed with the answers
    judge = pickle.load(sys.stdin.buffer)
    while (chunk := _receive(sys.stdin.buffer)) is not None:
        pickle.dump(judge(chunk), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _map_chunks(judge: Judge[Outcome], chunks: list[list[Any]], workers: int) -> Iterator[list[Outcome]]:
    """The outcomes of the chunks, in order.

    Workers are new processes, not forks: a fork is not safe while other threads of this process hold locks.
    """
    if workers <= 1:
        yield from map(judge, chunks)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ExitStack() as started:
        idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for _ in range(workers):
            idle.put(started.enter_context(_start_worker(judge)))

        def judge_chunk(chunk: list[Any]) -> list[Outcome]:
            worker = idle.get()
            try:
                return _judge_in_worker(worker, chunk)
            finally:
                idle.put(worker)

        threads = started.enter_context(ThreadPoolExecutor(workers))
        yield from threads.map(judge_chunk, chunks)


@contextmanager
def _start_worker(judge: Judge[Outcome]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", _SERVE, *sys.path]
    # In a process group of its own: Ctrl-C reaches only this process, which then ends its workers.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as worker:
        try:
            _send(worker, judge)
            yield worker
        finally:
            worker.kill()


def _judge_in_worker(worker: subprocess.Popen[bytes], chunk: list[Any]) -> list[Outcome]:
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
        return  # the worker is dead: its missing answer raises the error


def _receive(stream: IO[bytes]) -> list[Any] | None:
    """The next message; None at the end of the stream."""
    try:
        message: list[Any] = pickle.load(stream)
    except (EOFError, pickle.UnpicklingError):
        return None
    return message
