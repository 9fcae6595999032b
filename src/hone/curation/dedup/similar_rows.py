"""Rows that repeat each other, by what tells rows apart: not by what many of them share.

Compared are `Objective.identity_texts`. A context that rows may share (a system prompt, a passage, the prompt of a
preference) does not make them similar, but rows with different contexts are not (`Objective.context_texts`). Runs of
words that more than COMMON of the rows have, such as a footer, do not count.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.curation.dedup.near import clusters, near_pairs
from hone.store.tables import ROWS_PER_GROUP, cut_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields

COMMON = 0.05


def cluster_rows(
    rows: pa.Table,
    fields: Fields,
    threshold: float,
    *,
    apart: Sequence[Hashable] = (),
    common: float = COMMON,
    chained: bool = True,
    **options: Any,
) -> list[int]:
    """For each row the index of the first row of its cluster (`near.clusters`, which has the `options`)."""
    contexts = _number_contexts(fields.context_texts(rows), threshold)
    kinds = list(zip(contexts, apart or [""] * rows.num_rows, strict=True))
    return clusters(_IdentityTexts(rows, fields), threshold, apart=kinds, common=common, chained=chained, **options)


def cluster_contexts(rows: pa.Table, fields: Fields, threshold: float) -> list[int]:
    """For each row the index of the first row with a similar context; its own for a row without a context."""
    contexts = fields.context_texts(rows)
    first: dict[int, int] = {}
    return [
        first.setdefault(number, row) if context else row
        for row, (context, number) in enumerate(zip(contexts, _number_contexts(contexts, threshold), strict=True))
    ]


def find_repeats(rows: pa.Table, others: pa.Table, fields: Fields, threshold: float) -> list[tuple[int, int]]:
    """For each of `rows` that repeats any of `others`: its index, and the index of one such other row.

    Similar rows repeat each other; only the same ones do where an answer may be all that differs.
    """
    contexts = _number_contexts([*fields.context_texts(rows), *fields.context_texts(others)], threshold)
    texts, other_texts = _IdentityTexts(rows, fields), _IdentityTexts(others, fields)
    if not fields.near_repeats:
        return near_pairs(texts, other_texts, 1.0, apart=contexts)
    return near_pairs(texts, other_texts, threshold, apart=contexts, common=COMMON)


@dataclass(frozen=True)
class _IdentityTexts:
    """The rows' `Fields.identity_texts`, made for a piece of the rows at a time: all together need as much memory."""

    rows: pa.Table
    fields: Fields

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        for piece in cut_rows(self.rows, ROWS_PER_GROUP):
            yield from self.fields.identity_texts(piece)


def _number_contexts(contexts: Sequence[str], threshold: float) -> list[int]:
    """A number for each context, the same for similar ones."""
    if not any(contexts):
        return [0] * len(contexts)
    first = {context: index for index, context in reversed(list(enumerate(contexts)))}
    distinct = sorted(first, key=first.__getitem__)
    number_of = dict(zip(distinct, clusters(distinct, threshold), strict=True))
    return [number_of[context] for context in contexts]
