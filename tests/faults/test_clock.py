"""The clock is set back by an hour while work goes on: what is ordered stays in order, and nothing waits an hour."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from hone.promotion import journal as journal_module
from hone.promotion.champion import get_standing, move_champion
from hone.promotion.journal import Journal, find_faults
from hone.store.artifact import Product
from hone.store.digests import DigestMemo, file_digest
from hone.store.recipe import Recipe
from hone.store.store import Store
from hone.tracking.aliases import list_aliases
from hone.tracking.client import connect
from hone.tracking.run_log import open_run

HOUR = 3600.0


class EarlierDatetime(datetime):
    """The datetime of a clock that is an hour behind."""

    @classmethod
    def now(cls, tz: Any = None) -> Self:
        return super().now(tz) - timedelta(seconds=HOUR)


def set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() - HOUR)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - int(HOUR * 1e9))
    monkeypatch.setattr(journal_module, "datetime", EarlierDatetime)


def move(journal: Journal, to: str) -> Any:
    start = get_standing(journal)
    moved = {"action": "promoted", "who": "ada", "why": "better", "figures": {}, "previous": start.champion}
    return move_champion(journal, start, to, **moved)


def test_moves_and_curves_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    client.create_registered_model("tiny")
    for _ in range(2):
        client.create_model_version("tiny", source="s3://nowhere/model")
    journal = Journal(client, "tiny")
    about: dict[str, Any] = {"experiment": "hone", "name": "tiny", "key": "k", "params": {}, "tags": {}}
    run = open_run(uri, **about)
    move(journal, "1")
    run.hear({"type": "step", "step": 1, "loss": 1.0})
    run.finish("KILLED")

    set_back(monkeypatch)
    move(journal, "2")
    resumed = open_run(uri, **about)
    resumed.hear({"type": "step", "step": 2, "loss": 0.5})
    resumed.finish("FINISHED")

    first, second = journal.records()
    assert first.entry.at > second.entry.at  # by the clock the second was earlier
    assert list_aliases(client, "tiny") == {"champion": "2", "previous": "1"} and not find_faults([first, second])
    assert (first.state, second.state) == ("moved", "moved")
    # One run for both attempts; its figure is that of the last step, not of the latest time.
    assert resumed.run_id == run.run_id
    assert client.get_run(run.run_id).data.metrics["train/loss"] == 0.5


def test_a_stored_result_is_found_and_a_changed_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, memo, file = Store(tmp_path / "store"), DigestMemo(tmp_path / "memo.sqlite"), tmp_path / "rows.csv"

    def make(out: Path) -> Product:
        (out / "rows").write_text("rows")
        return Product(1, ("rows",))

    recipe = Recipe("curate", {}, {}, {}, {})
    made, _ = store.obtain(recipe, make)
    file.write_text("before")
    memo.digest(file)
    set_back(monkeypatch)
    assert store.obtain(recipe, make) == (made, True)
    file.write_text("after!")  # of the same size
    assert memo.digest(file) == file_digest(file)
