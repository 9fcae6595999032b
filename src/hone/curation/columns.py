"""Reads texts from a table of rows and writes them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from hone.store.tables import build_text_column

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields

T = TypeVar("T")


def texts_of(rows: pa.Table, name: str) -> list[str]:
    """The values of a column, '' for null."""
    return [text or "" for text in rows.column(name).to_pylist()]


def with_texts(rows: pa.Table, name: str, texts: Sequence[str]) -> pa.Table:
    """`rows` with the column `name` replaced by `texts`."""
    return rows.set_column(rows.column_names.index(name), name, build_text_column(texts))


def rewrite_texts(
    rows: pa.Table,
    fields: Fields,
    change: Callable[[str, list[str]], list[tuple[str, T]]],
    change_words: Callable[[list[list[str]]], list[tuple[list[str], T]]] | None = None,
) -> tuple[pa.Table, list[str], list[T]]:
    """Apply `change` to all texts of the rows, given with the name of their column.

    `change_words`, if given, is applied to texts that are lists of words.

    Returns the changed rows, '' or a reason to drop each row, and the note that `change` returns for each text.
    """
    notes: list[T] = []
    original = rows
    for name in fields.text:
        values = texts_of(rows, name)
        pieces_by_row = [fields.extract_texts(name, value) for value in values]
        if change_words and name in fields.word_lists:
            rewritten = change_words(pieces_by_row)
            notes += [note for _, note in rewritten]
            pairs = zip(values, rewritten, strict=True)
            rows = with_texts(rows, name, [fields.replace_texts(name, value, words) for value, (words, _) in pairs])
            continue
        outcomes = iter(change(name, [piece for row_pieces in pieces_by_row for piece in row_pieces]))
        changed = []
        for value, row_pieces in zip(values, pieces_by_row, strict=True):
            rewritten_pieces = [next(outcomes) for _ in row_pieces]
            notes += [note for _, note in rewritten_pieces]
            pieces = [text for text, _ in rewritten_pieces]
            changed.append(fields.replace_texts(name, value, pieces))
        rows = with_texts(rows, name, changed)
    rows, reasons = fields.realign_annotations(original, rows)
    return rows, reasons, notes


def labels_of(rows: pa.Table, fields: Fields) -> list[str]:
    """The label of each row; all '' if the objective has no label."""
    return texts_of(rows, fields.label) if fields.label else [""] * rows.num_rows


def splits_of(rows: pa.Table) -> list[str]:
    """The split that each row came with, '' for none. Equal rows of two splits are contamination, not duplicates."""
    return texts_of(rows, "split") if "split" in rows.column_names else [""] * rows.num_rows
