"""A function over many texts on all cores, where there are enough of them that it pays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hone.progress import OnProgress, Progress

Outcome = TypeVar("Outcome")

CHUNK = 2_000  # rows that go to a worker at once


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def over_texts(
    judge: Callable[[list[str]], list[Outcome]],
    texts: Sequence[str],
    on_progress: OnProgress,
    *,
    worth: int,
    workers: int = 0,
) -> list[Outcome]:
    """`judge`'s outcome for each of `texts`, in order and the same for any number of `workers` (0: one for each core).

    `judge` can be pickled. With fewer characters than `worth` all is done here: starting workers costs about half
    a second. They are started by a fork server, which is safe while other threads of this process hold locks.
    """
    workers = workers or (cores() if sum(map(len, texts)) >= worth else 1)
    chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
    outcomes: list[Outcome] = []
    for outcome in _map(judge, chunks, min(workers, len(chunks))):
        outcomes.extend(outcome)
        on_progress(Progress(len(outcomes), len(texts)))
    return outcomes


def _map(judge: Callable[[list[str]], list[Outcome]], chunks: list[list[str]], workers: int) -> Iterator[list[Outcome]]:
    if workers <= 1:
        yield from map(judge, chunks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(judge, chunks)
