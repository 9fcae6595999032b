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

    The column `split`, the default, counts only if the first value in it is the name of a split: it may mean something
    else. A row is refused if it has no split where others have one, or another than its file. Raises DataError if a
    later value is not the name of a split, or is one where the first was not, and if no row has a named column. Rows
    before the first value wait in memory: all of them if a column `split` is empty throughout.
    """
    if not column:
        yield from rows
        return
    is_named, has_column = column != DEFAULT_COLUMN, False
    reads_splits: bool | None = True if is_named else None  # None: no row has a value yet
    undecided: list[RawRow] = []
    for row in rows:
        has_column = has_column or column in row.values
        value = row.values.get(column)
        if reads_splits is None and value not in (None, "") and not row.refused:
            reads_splits = bool(get_split(value))
            yield from (_read_split(waiting, column) if reads_splits else waiting for waiting in undecided)
            undecided = []
        if reads_splits is None and (undecided or column in row.values):
            undecided.append(row)
            continue
        if reads_splits is False and get_split(value):
            raise _not_a_split(row, column, "is the name of a split, where earlier values are none")
        yield _read_split(row, column, is_named) if reads_splits else row
    yield from undecided
    if is_named and not has_column:
        raise DataError(f"no row has a column {column!r}", where="ingest.source.split_column", fix="Correct the name.")


def _not_a_split(row: RawRow, column: str, problem: str) -> DataError:
    return DataError(
        f"its {column} {str(row.values[column])[:60]!r} {problem}",
        where=row.where,
        fix="Correct the value, or set ingest.source.split_column to the column with the splits ('' for none).",
    )


def _read_split(row: RawRow, column: str, is_named: bool = False) -> RawRow:
    """The row with its split; a row without the column as it is unless the column is named.

    A refused row has its split too, to be counted there, if the column has the name of one.
    """
    if not (is_named or column in row.values):
        return row
    value = row.values.get(column)
    if row.refused:
        return replace(row, split=row.split or get_split(value))
    if value is None or value == "":
        return replace(row, refused=f"{column}, the split, is empty")
    split = get_split(value)
    if not split:
        names = ", ".join(names[0] for names in NAMES_IN_DATA.values())
        raise _not_a_split(row, column, f"is not the name of a split ({names}, ...)")
    if row.split and get_split(row.split) != split:
        return replace(row, refused=f"{column} says {split}, but its file is of {row.split}")
    return replace(row, split=split)
