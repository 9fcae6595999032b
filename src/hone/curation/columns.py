"""Texts out of a table of rows, and back into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields


def texts_of(rows: pa.Table, name: str) -> list[str]:
    """A column as a list, '' for null."""
    return [text or "" for text in rows.column(name).to_pylist()]


def with_texts(rows: pa.Table, name: str, texts: Sequence[str]) -> pa.Table:
    """`rows` with other texts in the column `name`."""
    import pyarrow as pa

    index = rows.column_names.index(name)
    return rows.set_column(index, name, pa.array(texts, pa.string()))


def whole_texts(rows: pa.Table, fields: Fields) -> list[str]:
    """The text of each row: its text columns one below the other."""
    columns = [texts_of(rows, name) for name in fields.text]
    return columns[0] if len(columns) == 1 else ["\n".join(texts) for texts in zip(*columns, strict=True)]


def labels_of(rows: pa.Table, fields: Fields) -> list[str]:
    """The label of each row; '' for all where the objective has none."""
    return texts_of(rows, fields.label) if fields.label else [""] * rows.num_rows


def splits_of(rows: pa.Table) -> list[str]:
    """The split that each row came with, '' for none. Rows of two splits are no duplicates: they are contamination."""
    return texts_of(rows, "split") if "split" in rows.column_names else [""] * rows.num_rows
