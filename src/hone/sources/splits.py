"""The split of each row, from a column of the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from hone.errors import DataError
from hone.sources.source import RawRow
from hone.splits import NAMES_IN_DATA, get_split

DEFAULT_COLUMN = "split"


def read_splits(rows: Iterable[RawRow], column: str) -> Iterator[RawRow]:
    """The rows, each with the split that its column `column` names; unchanged if `column` is ''.

    The column `split`, the default, counts only if its first value is the name of a split: it may mean something else.
    A row is refused if it has no split where others have one, or another than its file. Raises DataError if a later
    value is not the name of a split.
    """
    reads_splits = column not in ("", DEFAULT_COLUMN)
    decided = reads_splits or not column
    for row in rows:
        if row.refused or not column or (column not in row.values and not reads_splits):
            yield row
            continue
        value = row.values.get(column)
        if not decided:
            reads_splits, decided = bool(get_split(value)), True
        yield _with_split(row, column, value) if reads_splits else row


def _with_split(row: RawRow, column: str, value: object) -> RawRow:
    if value is None or value == "":
        return replace(row, refused=f"{column}, the split, is empty")
    split = get_split(value)
    if not split:
        names = ", ".join(names[0] for names in NAMES_IN_DATA.values())
        raise DataError(
            f"its {column} is {str(value)[:60]!r}, which is not the name of a split ({names}, ...)",
            where=row.where,
            fix="Correct the value, or set ingest.source.split_column to the column with the splits ('' for none).",
        )
    if row.split and get_split(row.split) != split:
        return replace(row, refused=f"{column} says {split}, but its file is of {row.split}")
    return replace(row, split=split)
