"""When rows came, and as of when a source is read."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hone.errors import DataError
from hone.parts.moments import fill_as_of, last_moment, parse_time
from hone.sources.files import Files
from hone.sources.ingest import ingest


@pytest.mark.parametrize(
    ("given", "iso"),
    [
        ("2026-03-01", "2026-03-01T00:00:00+00:00"),
        ("2026-03-01 12:30:00", "2026-03-01T12:30:00+00:00"),
        ("2026-03-01T12:30:00Z", "2026-03-01T12:30:00+00:00"),
        ("2026-03-01T12:30:00+02:00", "2026-03-01T12:30:00+02:00"),
        ("1772323200", "2026-03-01T00:00:00+00:00"),
        ("1772323200000", "2026-03-01T00:00:00+00:00"),
        (1772323200000000, "2026-03-01T00:00:00+00:00"),
        (1772323200000000000, "2026-03-01T00:00:00+00:00"),
        ("2026-03", "2026-03-01T00:00:00+00:00"),
        (20260301, "2026-03-01T00:00:00+00:00"),
        (1772323200.5, "2026-03-01T00:00:00.500000+00:00"),
        (date(2026, 3, 1), "2026-03-01T00:00:00+00:00"),
        (datetime(2026, 3, 1, 5, tzinfo=UTC), "2026-03-01T05:00:00+00:00"),
    ],
)
def test_times_are_read_in_the_forms_that_sources_have(given: object, iso: str) -> None:
    assert parse_time(given).isoformat() == iso


@pytest.mark.parametrize(
    "given", [None, True, "soon", "", "1e400", "nan", 202401, "2024", 0, -5, 202401011230, 20240101123000, "2024-13"]
)
def test_what_is_no_time_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(given)


def test_a_date_counts_to_its_end_and_a_moment_as_it_is() -> None:
    assert parse_time("2026-03-01T23:59:59") <= last_moment(date(2026, 3, 1)) < parse_time("2026-03-02")
    assert last_moment(datetime(2026, 3, 1, 12)) == parse_time("2026-03-01T12:00:00Z")


def test_paths_and_queries_are_read_as_of_the_date() -> None:
    options = {"paths": ["s3://b/{as_of}/*.csv"], "query": "select * from t where day <= '{as_of}'", "n": 3}
    assert fill_as_of(options, date(2026, 3, 1)) == {
        "paths": ["s3://b/2026-03-01/*.csv"],
        "query": "select * from t where day <= '2026-03-01'",
        "n": 3,
    }
    assert fill_as_of({"paths": ["{as_of}"]}, None)["paths"] == [datetime.now(UTC).date().isoformat()]


def test_rows_that_came_later_are_left_out_and_counted_and_those_without_a_time_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,came\na,2026-03-01\nb,2026-03-01T23:00:00\nc,2026-03-02\nd,soon\n")
    given = {"columns": ["text"], "rename": {}, "keep": [], "time": "came"}

    def read(until: date, max_refused: float = 0.5) -> dict[str, object]:
        return ingest(Files([str(file)]), tmp_path, max_refused=max_refused, until=last_moment(until), **given).facts

    facts = read(date(2026, 3, 1))
    assert (facts["read"], facts["rows"], facts["refused"], facts["later"]) == (3, 2, 1, 1)
    assert pq.read_table(tmp_path / "rows.parquet")["text"].to_pylist() == ["a", "b"]
    reason = pq.read_table(tmp_path / "refused.parquet")["reason"].to_pylist()[0]
    assert reason.startswith("came has no valid time: 'soon' is not a time")
    with pytest.raises(DataError, match="1 of 3 rows are refused"):
        read(date(2026, 3, 1), 0.0)
    file.write_text("text,came\nc,2026-03-02\n")
    with pytest.raises(DataError, match="all of its 1 rows are later"):
        read(date(2026, 3, 1))
    # Without a moment the column is not looked at.
    file.write_text("text,came\nc,soon\n")
    assert ingest(Files([str(file)]), tmp_path, max_refused=0.0, **given).rows == 1
    assert json.dumps(facts)
