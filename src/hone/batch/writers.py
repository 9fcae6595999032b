"""The output as one file: Parquet, CSV or JSON lines, by its suffix."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.sources.ingest import value_as_text

if TYPE_CHECKING:
    import pyarrow as pa


def write_parquet(file: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """Write the tables with the metadata of `schema`."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd") as parquet:
        for table in tables:
            parquet.write_table(table)


def write_csv(file: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """Write the tables with a header.

    Null is an empty field, an empty text is \"\", a list or mapping is JSON, bytes are text.
    """
    import pyarrow as pa
    from pyarrow.csv import CSVWriter

    flat = pa.schema([(field.name, field.type if _is_plain(field.type) else pa.string()) for field in schema])
    with CSVWriter(file, flat) as csv:
        for table in tables:
            columns = [
                column if column.type == field.type else pa.array(map(_to_text, column.to_pylist()), field.type)
                for column, field in zip(table.columns, flat, strict=True)
            ]
            csv.write_table(pa.table(columns, schema=flat))


def write_jsonl(file: Path, tables: Iterator[pa.Table], _: pa.Schema) -> None:
    """Write a JSON object for each row; what JSON has no type for (dates, decimals, bytes) is text, NaN is null."""
    with file.open("w", encoding="utf8") as lines:
        for table in tables:
            lines.writelines(f"{_to_json(row)}\n" for row in table.to_pylist())


WRITERS: dict[str, Callable[[Path, Iterator[pa.Table], pa.Schema], None]] = {
    ".parquet": write_parquet,
    ".csv": write_csv,
    ".jsonl": write_jsonl,
}


def _is_plain(kind: pa.DataType) -> bool:
    """Whether pyarrow writes the type to CSV in a form that people read."""
    import pyarrow as pa

    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_dictionary(kind)) and not (
        pa.types.is_duration(kind)
    )


def _to_text(value: Any) -> str | None:
    return _to_json(value) if isinstance(value, (list, Mapping)) else value_as_text(value)


def _to_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=value_as_text)
    except ValueError:  # NaN and infinity are no JSON
        return json.dumps(_drop_nan(value), ensure_ascii=False, default=value_as_text)


def _drop_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _drop_nan(part) for name, part in value.items()}
    return [_drop_nan(part) for part in value] if isinstance(value, list) else value
