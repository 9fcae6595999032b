"""Dates of a backfill, and what a moment does to the stages' keys."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.config.sections import RunConfig
from hone.drift.retraining import config_as_of, list_dates
from hone.environment import Home
from hone.errors import ConfigError
from hone.pipeline.run import build_recipe
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES


def config(folder: Path, **sections: Any) -> RunConfig:
    (folder / "rows.csv").write_text("text,label,came\na,b,2026-03-01\n")
    tree: dict[str, Any] = {
        "name": "small",
        "ingest": {"source": {"kind": "files", "paths": [str(folder / "rows.csv")]}, "time": "came"},
        "model": {"base": "somewhere"},
    }
    return parse_config(tree | sections)


def test_dates_go_from_the_first_to_the_last() -> None:
    days = list_dates(date(2026, 2, 27), date(2026, 3, 1), "day")
    assert [str(day) for day in days] == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert [str(day) for day in list_dates(date(2026, 2, 1), date(2026, 2, 20), "week")] == [
        "2026-02-01",
        "2026-02-08",
        "2026-02-15",
    ]
    assert list(list_dates(date(2026, 2, 1), None, "day")) == [date(2026, 2, 1)]
    assert list(list_dates(None, None, "day")) == [None]
    for first, last in (
        (date(2026, 2, 2), date(2026, 2, 1)),
        (date(1900, 1, 1), date(2026, 1, 1)),
        (date(2026, 1, 1), datetime(2026, 1, 2)),
        (None, date(2026, 1, 1)),
    ):
        with pytest.raises(ConfigError, match="as_of"):
            list_dates(first, last, "day")


def test_a_source_without_time_cannot_be_read_as_of_a_date(tmp_path: Path) -> None:
    given = config(tmp_path)
    assert config_as_of(given, date(2026, 3, 1)).ingest.as_of == date(2026, 3, 1)
    bare = given.model_copy(update={"ingest": given.ingest.model_copy(update={"time": ""})})
    with pytest.raises(ConfigError, match="as_of requires time"):
        config_as_of(bare, date(2026, 3, 1))


def test_keys_follow_the_moment_where_rows_say_when_they_came_and_never_the_monitoring(tmp_path: Path) -> None:
    def key(given: RunConfig) -> str:
        return build_recipe("ingest", Job(given, {}, Home(tmp_path / "home"))).key

    given = config(tmp_path)
    assert key(config_as_of(given, date(2026, 3, 1))) != key(config_as_of(given, date(2026, 3, 2))) != key(given)
    changed = config(tmp_path, monitoring={"level": 0.01, "sample": 50})
    assert key(changed) == key(given)
    assert all(stage.config(changed) == stage.config(given) for stage in STAGES.values())
