from __future__ import annotations

import os

import pytest

from hone.curation.normalize import Normalize
from hone.curation.parallel import CHUNK, cores, over_texts
from hone.curation.redact import Redact
from hone.errors import HoneError
from hone.progress import Progress, ignore

TEXTS = [f"text  {i} cafÃ© a{i}@b.org" for i in range(2 * CHUNK + 7)]


@pytest.mark.parametrize("judge", [Normalize().normalize, Redact(label_words=("text",)).redact])
def test_the_number_of_workers_makes_no_difference(judge: object) -> None:
    alone = over_texts(judge, TEXTS, ignore, worth=0, workers=1)  # type: ignore[arg-type, var-annotated]
    assert over_texts(judge, TEXTS, ignore, worth=0, workers=3) == alone  # type: ignore[arg-type]
    assert len(alone) == len(TEXTS)


def test_cores_are_counted_where_the_system_keeps_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert cores() == os.cpu_count()


def test_progress_counts_rows() -> None:
    seen: list[Progress] = []
    over_texts(Redact().redact, TEXTS, seen.append, worth=0, workers=2)
    assert [progress.done for progress in seen] == [CHUNK, 2 * CHUNK, len(TEXTS)]


def test_small_tables_start_no_process() -> None:
    assert over_texts(_process_ids, ["a", "b"], ignore, worth=10) == [os.getpid()] * 2
    assert over_texts(_process_ids, [], ignore, worth=0, workers=4) == []


def _process_ids(texts: list[str]) -> list[int]:
    return [os.getpid() for _ in texts]


def test_a_worker_that_dies_is_an_error_and_not_a_wait(capfd: pytest.CaptureFixture[str]) -> None:
    judge = "".join  # takes a chunk, and cannot join what is no text
    texts = [*TEXTS[:-1], ["two", "words"]]
    with pytest.raises(HoneError, match="a worker process ended with exit code 1"):
        over_texts(judge, texts, ignore, worth=0, workers=2)  # type: ignore[arg-type]
    assert "Traceback" in capfd.readouterr().err
