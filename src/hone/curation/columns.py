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


def rewritten(
    rows: pa.Table, fields: Fields, change: Callable[[list[str]], list[tuple[str, T]]]
) -> tuple[pa.Table, list[str], list[T]]:
    """The rows with their texts changed, '' or a reason to drop each, and what `change` says of the texts."""
    said: list[T] = []
    before = rows
    for name in fields.text:
        values = texts_of(rows, name)
        parts = [fields.extract_texts(name, value) for value in values]
        outcomes = iter(change([piece for part in parts for piece in part]))
        changed = []
        for value, part in zip(values, parts, strict=True):
            taken = [next(outcomes) for _ in part]
            said += [note for _, note in taken]
            pieces = [text for text, _ in taken]
            changed.append(fields.replace_texts(name, value, pieces))
        rows = with_texts(rows, name, changed)
    rows, reasons = fields.realign_annotations(before, rows)
    return rows, reasons, said


def labels_of(rows: pa.Table, fields: Fields) -> list[str]:
    """The label of each row; '' for all where the objective has none."""
    return texts_of(rows, fields.label) if fields.label else [""] * rows.num_rows


def splits_of(rows: pa.Table) -> list[str]:
    """The split that each row came with, '' for none. Rows of two splits are no duplicates: they are contamination."""
    return texts_of(rows, "split") if "split" in rows.column_names else [""] * rows.num_rows
