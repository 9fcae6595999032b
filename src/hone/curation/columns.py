"""Texts out of a table of rows, and back into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields

T = TypeVar("T")


def texts_of(rows: pa.Table, name: str) -> list[str]:
    """A column as a list, '' for null."""
    return [text or "" for text in rows.column(name).to_pylist()]


def with_texts(rows: pa.Table, name: str, texts: Sequence[str]) -> pa.Table:
    """`rows` with other texts in the column `name`."""
    import pyarrow as pa

    index = rows.column_names.index(name)
    return rows.set_column(index, name, pa.array(texts, pa.string()))


def whole_texts(rows: pa.Table, fields: Fields) -> list[str]:
    """The text of each row: as the objective reads it, else its text columns one below the other."""
    if fields.reading:
        return fields.reading.texts(rows)
    columns = [texts_of(rows, name) for name in fields.text]
    return columns[0] if len(columns) == 1 else ["\n".join(texts) for texts in zip(*columns, strict=True)]


def rewritten(
    rows: pa.Table, fields: Fields, change: Callable[[list[str]], list[tuple[str, T]]]
) -> tuple[pa.Table, list[str], list[T]]:
    """The rows with their texts changed, '' or a reason to drop each, and what `change` says of the texts."""
    said: list[T] = []
    before, reasons = rows, [""] * rows.num_rows
    for name in fields.text:
        values = texts_of(rows, name)
        parts = [fields.reading.pieces(name, value) if fields.reading else [value] for value in values]
        outcomes = iter(change([piece for part in parts for piece in part]))
        changed = []
        for value, part in zip(values, parts, strict=True):
            taken = [next(outcomes) for _ in part]
            said += [note for _, note in taken]
            pieces = [text for text, _ in taken]
            changed.append(fields.reading.joined(name, value, pieces) if fields.reading else pieces[0])
        rows = with_texts(rows, name, changed)
    if fields.reading:
        rows, reasons = fields.reading.mend(before, rows)
    return rows, reasons, said


def labels_of(rows: pa.Table, fields: Fields) -> list[str]:
    """The label of each row; '' for all where the objective has none."""
    return texts_of(rows, fields.label) if fields.label else [""] * rows.num_rows


def strata_of(rows: pa.Table, fields: Fields) -> list[str]:
    """The kind of each row, of which every split is to have its share: the objective's, else its label."""
    return fields.reading.strata(rows) if fields.reading else labels_of(rows, fields)


def splits_of(rows: pa.Table) -> list[str]:
    """The split that each row came with, '' for none. Rows of two splits are no duplicates: they are contamination."""
    return texts_of(rows, "split") if "split" in rows.column_names else [""] * rows.num_rows
