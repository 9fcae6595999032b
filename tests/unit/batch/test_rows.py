"""Values of several types in one column, within a shard and between shards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from hone.batch.output import _cast_column, _unify_types
from hone.batch.request import Batch, Request, build_source
from hone.batch.rows import _build_array, read_rows
from hone.environment import Home
from hone.errors import DataError
from hone.sources.files import Files
from hone.sources.source import RawRow


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([date(2026, 1, 2), None], pa.date32()),
        ([[1], [2, 3], None], pa.list_(pa.int64())),
        ([None, None], pa.null()),
        ([1, "a", None], pa.string()),
        ([2**70, 1], pa.string()),
        (["\ud800", "a"], pa.string()),
        ([{"a": 1}, [1]], pa.string()),
    ],
)
def test_a_column_has_the_type_of_its_values_or_is_text(values: list[object], kind: pa.DataType) -> None:
    found = _build_array(values)
    assert found.type == kind
    assert [value is None for value in found.to_pylist()] == [value is None for value in values]


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        ([pa.int64(), pa.null(), pa.int64()], pa.int64()),
        ([pa.int64(), pa.float64()], pa.float64()),
        ([pa.int64(), pa.string()], pa.string()),
        ([pa.null()], pa.string()),
        ([pa.list_(pa.null()), pa.list_(pa.string())], pa.list_(pa.string())),
        ([pa.struct([("a", pa.int64())]), pa.struct([("b", pa.string())])], None),
        ([pa.bool_(), pa.int64()], pa.string()),
    ],
)
def test_shards_agree_on_a_type_that_holds_all_values(types: list[pa.DataType], kind: pa.DataType | None) -> None:
    found = _unify_types(types)
    assert found == kind or kind is None
    for each in types:  # every shard's column becomes it
        given = pa.table({"x": pa.nulls(3, each)})
        assert _cast_column(given, "x", found).type == found
    assert _cast_column(pa.table({"y": [1, 2]}), "x", found).null_count == 2


def test_text_of_a_number_is_what_a_person_would_write() -> None:
    given = pa.table({"x": [1.5, None, 2.0]})
    assert _cast_column(given, "x", pa.string()).to_pylist() == ["1.5", None, "2.0"]


def test_rows_that_change_while_they_are_read_are_not_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, home = tmp_path / "rows.csv", Home(tmp_path / "home")
    file.write_text("text\na\n")
    source = {"kind": "files", "paths": [str(file)]}
    request = Request(model="m", version="1", source=source, output=str(tmp_path / "out.parquet"))
    data = build_source(request).fingerprint(home.store.memo.digest)
    batch = Batch(request, "m", "1", "proof", ("text",), {"label": "string"}, data)
    read = Files.rows

    def changing(self: Files) -> Iterator[RawRow]:
        file.write_text("text\na\nb\n")
        yield from read(self)

    monkeypatch.setattr(Files, "rows", changing)
    with pytest.raises(DataError, match="input data changed while it was read"):
        read_rows(batch, home)
    assert not home.store.list_manifests("batch-rows")
